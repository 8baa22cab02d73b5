//! Tests of requests that are moved away from a backend that was taken out.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Wake, Waker};

use super::tests::{Recorder, SAFE, admitted, at, get, observer, snapshot};
use super::*;
use crate::policy::breaker::{AttemptFault, BreakerPhase, Moment};
use crate::runtime::ids::BackendId;
use crate::runtime::lease::Lease;
use crate::runtime::moving::{AttemptWatch, MoveCheck, MoveToken};
use ::http::Method;

const ONE_TOKEN: &str = "budget: {share: 0%, floor: 1, window: 1h}";
const NO_TOKEN: &str = "budget: {share: 0%, floor: 0}";

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Five backends that usually take 20 ms, with these keys. Slow is 100 ms.
fn five(retry: &str, breaker: &str) -> Arc<Snapshot> {
    five_with(retry, breaker, "")
}

fn five_with(retry: &str, breaker: &str, of_each: &str) -> Arc<Snapshot> {
    let backends: Vec<_> =
        (1..=5).map(|n| format!("{{url: 'http://10.1.0.{n}:80'{of_each}}}")).collect();
    let snapshot = snapshot(&format!(
        "
routes: [{{host: b.test, pool: web}}]
pools:
  - name: web
    health_check: off
    backends: [{}]
    breaker: {{{breaker}}}
    retry: {{{retry}}}
",
        backends.join(", ")
    ));
    // The latency is calculated every tenth of a second.
    for round in 0..100 {
        let (mut exchange, _) = admitted(&snapshot);
        exchange.pick(at(10 * round), Rolls::default()).unwrap();
        assert!(!exchange.response_head(200, SAFE, at(10 * round + 20)));
        exchange.finished(Outcome::Completed, None, at(10 * round + 20));
    }
    snapshot
}

/// A request that waits at the first backend since `now`.
fn caught(snapshot: &Arc<Snapshot>, now: Timestamp) -> Exchange {
    for _ in 0..10 {
        let (mut exchange, _) = admitted(snapshot);
        if exchange.pick(now, Rolls::default()).unwrap().id.position() == 0 {
            return exchange;
        }
        exchange.response_head(200, SAFE, now);
        exchange.finished(Outcome::Completed, None, now);
    }
    panic!("the first backend gets no request");
}

/// The first backend is taken out, for about 2 s.
fn take_out(snapshot: &Arc<Snapshot>, now: Timestamp) {
    let pool = &snapshot.pools[0];
    let id = BackendId::new(0);
    let circuit = &pool.backend(id).unwrap().circuit;
    for _ in 0..30 {
        let mut lease = Lease::new(Arc::clone(pool.backend(id).unwrap()));
        circuit.reacted(now);
        pool.record(id, &mut lease, Err(AttemptFault::Failed), Moment { now, roll: 0 });
    }
    assert_eq!(phase(snapshot, now), BreakerPhase::Open);
}

fn phase(snapshot: &Snapshot, now: Timestamp) -> BreakerPhase {
    snapshot.pools[0].members[0].backend.circuit.phase(now)
}

fn tokens(snapshot: &Snapshot) -> u64 {
    snapshot.pools[0].retry_budget.as_ref().unwrap().tokens(at(3000))
}

fn watch(exchange: &mut Exchange) -> AttemptWatch {
    exchange.watch(|| Waker::noop().clone()).unwrap()
}

#[track_caller]
fn moved(watch: &AttemptWatch, now: Timestamp) -> MoveToken {
    match watch.check(now) {
        MoveCheck::Move(token) => token,
        other @ (MoveCheck::Later(_) | MoveCheck::Wait) => panic!("{other:?}"),
    }
}

/// After how many milliseconds it is checked again.
#[track_caller]
fn later(watch: &AttemptWatch, now: Timestamp) -> u128 {
    match watch.check(now) {
        MoveCheck::Later(after) => after.as_millis(),
        other @ (MoveCheck::Move(_) | MoveCheck::Wait) => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_moved_once_its_backend_is_out_and_was_silent_for_longer_than_usual() {
    let snapshot = five("", "");
    let mut exchange = caught(&snapshot, at(3000));
    let watch = watch(&mut exchange);
    assert!(matches!(watch.check(at(3500)), MoveCheck::Wait), "the breaker is closed");
    assert_eq!(watch.first_check(at(3000)), None);
    take_out(&snapshot, at(3010));
    assert_eq!(watch.first_check(at(3010)), Some(at(3100)));
    assert_eq!(later(&watch, at(3099)), 1);
    exchange.set_moved(moved(&watch, at(3100)));
    assert!(exchange.attempt_failed(AttemptFailure::Moved, "moved", SAFE, at(3100)));
    let next = exchange.pick(at(3100), Rolls::default()).unwrap();
    assert_ne!(next.id.position(), 0);
    assert!(!exchange.is_moved(), "the next attempt is not");
}

#[test]
fn a_slow_request_stays_at_a_backend_that_was_responding_meanwhile() {
    let snapshot = five("", "");
    let mut exchange = caught(&snapshot, at(3000));
    let watch = watch(&mut exchange);
    take_out(&snapshot, at(3200));
    assert_eq!(later(&watch, at(3300)), 100);
}

#[test]
fn a_trial_is_moved_once_it_is_slow_and_that_fails_it() {
    let snapshot = five("", "");
    take_out(&snapshot, at(3000));
    let mut trial = caught(&snapshot, at(6000));
    let watch = watch(&mut trial);
    assert_eq!(watch.first_check(at(6001)), Some(at(6100)));
    trial.set_moved(moved(&watch, at(6100)));
    assert_eq!(phase(&snapshot, at(6100)), BreakerPhase::HalfOpen);
    assert!(trial.attempt_failed(AttemptFailure::Moved, "moved", SAFE, at(6100)));
    assert_eq!(phase(&snapshot, at(6100)), BreakerPhase::Open);
}

#[test]
fn a_trial_is_moved_whatever_is_retried_and_another_request_only_if_timeouts_are() {
    let snapshot = five("on: [connect]", "");
    assert!(caught(&snapshot, at(3000)).watch(|| Waker::noop().clone()).is_none());
    take_out(&snapshot, at(3000));
    let mut trial = caught(&snapshot, at(6000));
    let token = moved(&watch(&mut trial), at(6100));
    trial.set_moved(token);
    assert!(trial.attempt_failed(AttemptFailure::Moved, "moved", SAFE, at(6100)));
}

#[test]
fn a_request_that_cannot_be_retried_elsewhere_is_not_watched() {
    for (retry, breaker) in [
        ("attempts: 1", ""),
        ("on: [connect, reset]", ""),
        ("", "slower: off"),
        ("", "shadow: true"),
    ] {
        let snapshot = five(retry, breaker);
        let mut exchange = caught(&snapshot, at(3000));
        assert!(exchange.watch(|| unreachable!()).is_none(), "{retry} {breaker}");
    }
    let snapshot = five("", "");
    let mut post = get("b.test", "/");
    post.method = Method::POST;
    let recorder = Arc::new(Recorder::default());
    let mut exchange = Exchange::new(Arc::clone(&snapshot), observer(&recorder), at(0));
    post.admit(&mut exchange, at(0)).unwrap();
    exchange.pick(at(3000), Rolls::default()).unwrap();
    assert!(exchange.watch(|| unreachable!()).is_none(), "a POST");
    let mut last = caught(&five("attempts: 2", ""), at(3000));
    assert!(last.attempt_failed(AttemptFailure::Reset, "reset", SAFE, at(3000)));
    last.pick(at(3000), Rolls::default()).unwrap();
    assert!(last.watch(|| unreachable!()).is_none(), "the last attempt");
}

#[test]
fn a_request_is_not_moved_while_no_other_backend_responds() {
    let snapshot = five("", "");
    let mut first = caught(&snapshot, at(3000));
    let watch = watch(&mut first);
    take_out(&snapshot, at(3000));
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (mut exchange, _) = admitted(&snapshot);
            exchange.pick(at(3010), Rolls::default()).unwrap();
            exchange
        })
        .collect();
    assert_eq!(later(&watch, at(3200)), 50, "all of them are silent");
    drop(others);
    let _token = moved(&watch, at(3250));
}

#[test]
fn a_request_is_not_moved_while_no_other_backend_has_a_free_place() {
    let snapshot = five_with("", "", ", max_requests: 1");
    let mut first = caught(&snapshot, at(3000));
    let watch = watch(&mut first);
    let mut others: Vec<_> = (0..4)
        .map(|_| {
            let (mut exchange, _) = admitted(&snapshot);
            exchange.pick(at(3000), Rolls::default()).unwrap();
            exchange.response_head(200, SAFE, at(3020));
            exchange
        })
        .collect();
    take_out(&snapshot, at(3000));
    assert_eq!(later(&watch, at(3100)), 50, "it would have to wait in the queue");
    others.pop();
    let _token = moved(&watch, at(3150));
}

// ── tokens of the retry budget ──

#[test]
fn without_a_token_a_request_is_not_moved() {
    let snapshot = five(NO_TOKEN, "");
    let mut exchange = caught(&snapshot, at(3000));
    let watch = watch(&mut exchange);
    take_out(&snapshot, at(3000));
    assert_eq!(later(&watch, at(3200)), 50);
}

#[test]
fn of_two_requests_with_one_token_one_is_moved_and_its_response_returns_the_token() {
    let snapshot = five(ONE_TOKEN, "");
    let [mut first, mut second] = [caught(&snapshot, at(3000)), caught(&snapshot, at(3000))];
    let [one, two] = [watch(&mut first), watch(&mut second)];
    take_out(&snapshot, at(3000));
    first.set_moved(moved(&one, at(3100)));
    assert_eq!(later(&two, at(3100)), 50);
    assert!(first.attempt_failed(AttemptFailure::Moved, "moved", SAFE, at(3100)));
    first.pick(at(3100), Rolls::default()).unwrap();
    assert_eq!(tokens(&snapshot), 0);
    assert!(!first.response_head(200, SAFE, at(3120)));
    assert_eq!(tokens(&snapshot), 1);
    let _token = moved(&two, at(3150));
}

#[test]
fn a_token_is_returned_if_the_request_is_not_moved_in_the_end() {
    let ends: [fn(Exchange, MoveToken); 4] = [
        |_, token| drop(token), // the response headers have arrived, or the connection is closed
        |mut exchange, token| {
            exchange.set_moved(token);
            exchange.finished(Outcome::ClientAborted, None, at(3100));
        },
        |mut exchange, token| {
            exchange.set_moved(token);
            let half_closed = Replay { half_closed: true, ..SAFE };
            assert!(!exchange.attempt_failed(AttemptFailure::Moved, "", half_closed, at(3100)));
        },
        |mut exchange, token| {
            exchange.set_moved(token);
            assert!(exchange.attempt_failed(AttemptFailure::Moved, "", SAFE, at(3100)));
            drop(exchange); // the client leaves before the next attempt
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let snapshot = five(ONE_TOKEN, "");
        let mut exchange = caught(&snapshot, at(3000));
        let watch = watch(&mut exchange);
        take_out(&snapshot, at(3000));
        let token = moved(&watch, at(3100));
        assert_eq!(tokens(&snapshot), 0);
        end(exchange, token);
        assert_eq!(tokens(&snapshot), 1, "{number}");
    }
}

#[test]
fn a_request_with_a_reserved_token_is_moved_with_it() {
    let snapshot = five(&format!("{ONE_TOKEN}, try_timeout: 10s"), "");
    let mut exchange = caught(&snapshot, at(3000));
    let watch = watch(&mut exchange);
    assert_eq!(tokens(&snapshot), 0);
    take_out(&snapshot, at(3000));
    exchange.set_moved(moved(&watch, at(3100)));
    assert!(exchange.attempt_failed(AttemptFailure::Moved, "moved", SAFE, at(3100)));
    exchange.pick(at(3100), Rolls::default()).unwrap();
    exchange.response_head(200, SAFE, at(3120));
    drop(exchange);
    assert_eq!(tokens(&snapshot), 1, "once");
}

// ── who is woken ──

#[test]
fn a_request_is_woken_when_its_backend_is_taken_out_until_its_response_headers() {
    let snapshot = five("", "");
    let movable = || snapshot.pools[0].members[0].backend.circuit.has_movable();
    let ends: [fn(&mut Exchange); 4] = [
        |_| {},
        |exchange| assert!(!exchange.response_head(200, SAFE, at(3005))),
        |exchange| exchange.finished(Outcome::ClientAborted, None, at(3005)),
        |exchange| assert!(exchange.attempt_failed(AttemptFailure::Reset, "", SAFE, at(2900))),
    ];
    let mut waiting = Vec::new();
    for end in ends {
        let woken = Arc::new(Woken::default());
        let mut exchange = caught(&snapshot, at(2900));
        exchange.watch(|| Arc::clone(&woken).into()).unwrap();
        assert!(movable());
        end(&mut exchange);
        waiting.push((exchange, woken));
    }
    take_out(&snapshot, at(3010));
    let times: Vec<_> = waiting.iter().map(|(_, woken)| woken.0.load(Relaxed)).collect();
    assert_eq!(times, [1, 0, 0, 0]);
    drop(waiting);
    assert!(!movable(), "nothing is left behind");
}
