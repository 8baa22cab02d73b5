//! What the circuit breakers learn from an exchange, with production types.

use std::time::Duration;

use super::tests::{Recorder, SAFE, admitted, at, get, observer, snapshot};
use ::http::Method;

use super::*;
use crate::policy::breaker::BreakerPhase;
use crate::runtime::snapshot::Snapshot;

const FIVE: &str = "
routes: [{host: b.test, pool: web}]
pools:
  - name: web
    health_check: off
    backends: [http://10.1.0.1:80, http://10.1.0.2:80, http://10.1.0.3:80, http://10.1.0.4:80, http://10.1.0.5:80]
    retry: {attempts: 3, backoff: 100ms, on: [connect, reset, timeout, 503]}
    timeouts: {request: off}
";
const POST: Replay = Replay { idempotent: false, ..SAFE };

/// How an exchange ends.
type End = fn(&mut Exchange);

/// One that has picked a backend.
fn picked(snapshot: &Arc<Snapshot>, now: Timestamp) -> (Exchange, usize) {
    let (mut exchange, _) = admitted(snapshot);
    let id = exchange.pick(now, Rolls { pick: 7, backoff: u64::MAX / 2 }).unwrap().id;
    (exchange, id.position())
}

/// Requests whose attempts at the first backend end like this, until its breaker opens.
fn until_open(snapshot: &Arc<Snapshot>, end: impl Fn(&mut Exchange)) -> usize {
    for failures in 0..50 {
        if phase(snapshot, at(0)) == BreakerPhase::Open {
            return failures;
        }
        loop {
            let (mut exchange, backend) = picked(snapshot, at(0));
            if backend == 0 {
                end(&mut exchange);
                break;
            }
            well(&mut exchange, at(0));
        }
    }
    50
}

fn well(exchange: &mut Exchange, now: Timestamp) {
    assert!(!exchange.response_head(200, SAFE, now));
    exchange.finished(Outcome::Completed, None, now);
}

fn phase(snapshot: &Snapshot, now: Timestamp) -> BreakerPhase {
    snapshot.pools[0].members[0].backend.circuit.phase(now)
}

/// A snapshot in which the first backend's breaker has opened.
fn opened() -> Arc<Snapshot> {
    let snapshot = snapshot(FIVE);
    assert_eq!(
        until_open(&snapshot, |exchange| {
            exchange.attempt_failed(AttemptFailure::Reset, "reset", SAFE, at(0));
        }),
        3
    );
    snapshot
}

#[test]
fn every_kind_of_failure_counts_once_for_each_attempt() {
    let failures: [(&str, End, usize); 6] = [
        ("refused", |it| assert!(it.attempt_failed(AttemptFailure::Connect, "", SAFE, at(0))), 1),
        (
            "not in time",
            |it| assert!(it.attempt_failed(AttemptFailure::ConnectTimeout, "", SAFE, at(0))),
            3,
        ),
        ("retried status", |it| assert!(it.response_head(503, SAFE, at(0))), 3),
        (
            "status",
            |it| {
                assert!(!it.response_head(500, SAFE, at(0)));
                it.finished(Outcome::Completed, None, at(0));
            },
            3,
        ),
        (
            "aborted response",
            |it| {
                it.response_head(200, SAFE, at(0));
                it.finished(Outcome::UpstreamAborted, None, at(0));
            },
            3,
        ),
        (
            "aborted response, reported before",
            |it| {
                it.response_head(200, SAFE, at(0));
                it.attempt_failed(AttemptFailure::Reset, "", SAFE, at(0));
                it.finished(Outcome::UpstreamAborted, None, at(0));
            },
            3,
        ),
    ];
    for (name, end, after) in failures {
        assert_eq!(until_open(&snapshot(FIVE), end), after, "{name}");
    }
}

#[test]
fn rejections_clients_and_unprocessed_requests_do_not_count() {
    let ends: [(&str, End); 5] = [
        ("the client left", |it| it.finished(Outcome::ClientAborted, None, at(0))),
        ("it left after the headers", |it| {
            it.response_head(200, SAFE, at(0));
            it.finished(Outcome::ClientAborted, None, at(0));
        }),
        ("rejected", |it| it.finished(Outcome::Refused(Refusal::BodyTooLarge), None, at(0))),
        ("not processed", |it| {
            assert!(it.attempt_failed(AttemptFailure::Refused, "", SAFE, at(0)))
        }),
        ("the client stalled", |it| it.finished(Outcome::ClientWriteTimeout, None, at(0))),
    ];
    for (name, end) in ends {
        assert_eq!(until_open(&snapshot(FIVE), end), 50, "{name}");
    }
}

#[test]
fn an_open_backend_gets_nothing_and_comes_back_by_three_trials() {
    let snapshot = opened();
    for _ in 0..20 {
        assert_ne!(picked(&snapshot, at(0)).1, 0);
    }
    for _ in 0..3 {
        let (mut trial, backend) = picked(&snapshot, at(1300));
        assert_eq!(backend, 0, "the trial goes first");
        assert_ne!(picked(&snapshot, at(1300)).1, 0, "one at a time");
        well(&mut trial, at(1300));
    }
    assert_eq!(phase(&snapshot, at(1300)), BreakerPhase::Closed);
}

#[test]
fn a_post_is_no_trial_and_neither_is_a_last_attempt() {
    let snapshot = opened();
    let mut post = get("b.test", "/");
    post.method = Method::POST;
    for _ in 0..20 {
        let recorder = Arc::new(Recorder::default());
        let mut exchange = Exchange::new(Arc::clone(&snapshot), observer(&recorder), at(0));
        post.admit(&mut exchange, at(0)).unwrap();
        assert_ne!(exchange.pick(at(2000), Rolls::default()).unwrap().id.position(), 0);
    }
    let retries = "{attempts: 3, backoff: 100ms, on: [connect, reset, timeout, 503]}";
    let once = tests::snapshot(&FIVE.replace(retries, "{attempts: 1}"));
    until_open(&once, |exchange| {
        exchange.attempt_failed(AttemptFailure::Reset, "reset", POST, at(0));
    });
    for _ in 0..20 {
        assert_ne!(picked(&once, at(2000)).1, 0, "a trial that fails could not be retried");
    }
}

#[test]
fn a_trial_is_given_back_whatever_becomes_of_it() {
    let snapshot = opened();
    for _ in 0..5 {
        let (mut left, backend) = picked(&snapshot, at(2000));
        assert_eq!(backend, 0);
        left.finished(Outcome::ClientAborted, None, at(2000));
        let (dropped, backend) = picked(&snapshot, at(2000));
        assert_eq!(backend, 0);
        drop(dropped);
        let (mut rejected, backend) = picked(&snapshot, at(2000));
        assert_eq!(backend, 0);
        assert!(!rejected.not_connected(None, "no descriptor", SAFE, at(2000)));
    }
    assert_eq!(phase(&snapshot, at(2000)), BreakerPhase::HalfOpen);
}

#[test]
fn a_failed_trial_is_retried_elsewhere_even_if_its_status_is_not() {
    let snapshot = opened();
    let (mut trial, backend) = picked(&snapshot, at(2000));
    assert_eq!(backend, 0);
    assert!(trial.response_head(500, SAFE, at(2000)), "500 is not in `retry.on`");
    assert_ne!(trial.pick(at(2000), Rolls::default()).unwrap().id.position(), 0);
    assert!(!trial.response_head(500, SAFE, at(2000)), "this one was no trial");
    assert_eq!(phase(&snapshot, at(2000)), BreakerPhase::Open);
}

#[test]
fn a_retry_prefers_an_untried_open_backend_to_one_that_failed_unless_it_refuses() {
    let two = FIVE.replace(", http://10.1.0.3:80, http://10.1.0.4:80, http://10.1.0.5:80", "");
    for (failure, next) in [(AttemptFailure::Reset, 0), (AttemptFailure::Connect, 1)] {
        let snapshot = snapshot(&two);
        until_open(&snapshot, |exchange| {
            exchange.attempt_failed(failure, "", POST, at(0));
        });
        let (mut exchange, backend) = picked(&snapshot, at(0));
        assert_eq!(backend, 1);
        assert!(exchange.attempt_failed(AttemptFailure::Reset, "reset", SAFE, at(0)));
        let again = exchange.pick(at(0), Rolls::default()).unwrap();
        assert_eq!(again.id.position(), next, "{failure:?}");
    }
}

#[test]
fn refused_connections_use_up_no_attempt_while_a_backend_is_untried() {
    let snapshot = snapshot(FIVE);
    let (mut exchange, _) = admitted(&snapshot);
    for _ in 0..4 {
        exchange.pick(at(0), Rolls::default()).unwrap();
        assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", POST, at(0)));
    }
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert!(
        !exchange.attempt_failed(AttemptFailure::Connect, "refused", POST, at(0)),
        "all were tried"
    );
}

#[test]
fn a_backend_that_is_silent_for_far_too_long_opens_before_it_responds() {
    let snapshot = snapshot(FIVE);
    for _ in 0..100 {
        let (mut exchange, _) = picked(&snapshot, at(1000));
        let later = at(1020);
        assert!(!exchange.response_head(200, SAFE, later));
        exchange.finished(Outcome::Completed, None, later);
    }
    // The latency is calculated every tenth of a second.
    let (mut exchange, _) = picked(&snapshot, at(2000));
    exchange.response_head(200, SAFE, at(2020));
    let mut hung = Vec::new();
    for tick in 0..400 {
        let now = at(3000 + tick);
        let (mut exchange, backend) = picked(&snapshot, now);
        if backend == 0 {
            hung.push(exchange);
        } else {
            exchange.response_head(200, SAFE, now + Duration::from_millis(20));
            exchange.finished(Outcome::Completed, None, now);
        }
    }
    assert!((3..=12).contains(&hung.len()), "{} requests hang", hung.len());
    assert_eq!(phase(&snapshot, at(3400)), BreakerPhase::Open);
}

#[test]
fn three_trials_whose_clients_leave_after_the_headers_bring_a_backend_back() {
    let snapshot = opened();
    for _ in 0..3 {
        let (mut trial, backend) = picked(&snapshot, at(2000));
        assert_eq!(backend, 0);
        assert!(!trial.response_head(200, SAFE, at(2000)));
        trial.finished(Outcome::ClientAborted, None, at(2000));
    }
    assert_eq!(phase(&snapshot, at(2000)), BreakerPhase::Closed);
}

#[test]
fn there_is_no_trial_without_a_token_for_its_retry() {
    let empty = "503], budget: {share: 0%, floor: 0}}";
    let snapshot = snapshot(&FIVE.replace("503]}", empty));
    until_open(&snapshot, |exchange| {
        exchange.attempt_failed(AttemptFailure::Reset, "reset", POST, at(0));
    });
    for _ in 0..20 {
        assert_ne!(picked(&snapshot, at(2000)).1, 0);
    }
}

#[test]
fn a_backend_that_refused_is_tried_if_no_other_one_accepts_connections() {
    let two = FIVE.replace(", http://10.1.0.3:80, http://10.1.0.4:80, http://10.1.0.5:80", "");
    let snapshot = snapshot(&two);
    until_open(&snapshot, |exchange| {
        exchange.attempt_failed(AttemptFailure::Connect, "refused", POST, at(0));
    });
    let (mut exchange, backend) = picked(&snapshot, at(0));
    assert_eq!(backend, 1);
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(0)));
    assert_eq!(exchange.pick(at(0), Rolls::default()).unwrap().id.position(), 0);
}
