//! Tests of what an exchange does with the retry budget, `try_timeout` and `Retry-After`.

use std::sync::Arc;
use std::time::Duration;

use super::tests::{SAFE, admitted, at, snapshot};
use super::*;

const RESET: AttemptFailure = AttemptFailure::Reset;

/// Three backends and this `retry`.
fn pool(retry: &str) -> Arc<Snapshot> {
    snapshot(&format!(
        "
pools:
  - name: web
    health_check: off
    backends: [http://10.1.0.1:80, http://10.1.0.2:80, http://10.1.0.3:80]
    breaker: off
    retry: {{{retry}}}
    timeouts: {{connect: 2s, response: 30s, request: 60s}}
"
    ))
}

fn tokens(snapshot: &Snapshot) -> u64 {
    snapshot.pools[0].retry_budget.as_ref().unwrap().tokens(at(0))
}

fn first_attempt(snapshot: &Arc<Snapshot>) -> Exchange {
    let (mut exchange, _) = admitted(snapshot);
    exchange.pick(at(0), Rolls::default()).unwrap();
    exchange
}

const ONE_TOKEN: &str = "on: [connect, reset, timeout, 503], budget: {share: 0%, floor: 1}";

#[test]
fn without_a_token_a_reset_is_not_retried() {
    let snapshot = pool(ONE_TOKEN);
    let mut exchange = first_attempt(&snapshot);
    assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert!(!exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    let exhausted: Vec<bool> = exchange.attempts().iter().map(|it| it.budget_exhausted).collect();
    assert_eq!(exhausted, [false, true]);
}

#[test]
fn without_a_token_the_client_gets_the_response_of_the_backend() {
    let snapshot = pool("on: [503], budget: {share: 0%, floor: 0}");
    let mut exchange = first_attempt(&snapshot);
    assert!(!exchange.response_head(503, SAFE, at(0)));
    assert!(exchange.has_response());
    assert!(exchange.attempts()[0].budget_exhausted);
    assert_eq!(exchange.attempts()[0].failure, None);
}

#[test]
fn a_failed_connection_costs_no_token() {
    let snapshot = pool(ONE_TOKEN);
    let mut exchange = first_attempt(&snapshot);
    for _ in 0..2 {
        assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", SAFE, at(0)));
        exchange.pick(at(0), Rolls::default()).unwrap();
    }
    assert_eq!(tokens(&snapshot), 1);
}

#[test]
fn a_retry_that_gets_a_response_returns_its_token() {
    let snapshot = pool(ONE_TOKEN);
    let mut exchange = first_attempt(&snapshot);
    assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    assert_eq!(tokens(&snapshot), 0);
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert!(!exchange.response_head(200, SAFE, at(0)));
    assert_eq!(tokens(&snapshot), 1);
    drop(exchange);
    assert_eq!(tokens(&snapshot), 1, "once");
}

#[test]
fn a_retry_that_gets_a_failure_does_not() {
    for status in [500, 503] {
        let snapshot = pool(ONE_TOKEN);
        let mut exchange = first_attempt(&snapshot);
        assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
        exchange.pick(at(0), Rolls::default()).unwrap();
        assert!(!exchange.response_head(status, SAFE, at(0)));
        drop(exchange);
        assert_eq!(tokens(&snapshot), 0, "{status}");
    }
}

#[test]
fn a_last_retry_that_fails_uses_up_its_token() {
    let snapshot = pool("attempts: 2, on: [reset], budget: {share: 0%, floor: 1}");
    let mut exchange = first_attempt(&snapshot);
    assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    exchange.pick(at(0), Rolls::default()).unwrap();
    assert!(!exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    drop(exchange);
    assert_eq!(tokens(&snapshot), 0);
}

#[test]
fn a_retry_without_a_result_returns_its_token() {
    // The client leaves, or this machine lacks a socket.
    let ends: [fn(&mut Exchange); 3] = [
        |exchange| exchange.finished(Outcome::ClientAborted, None, at(1)),
        |exchange| assert!(!exchange.not_connected(None, "no socket", SAFE, at(1))),
        |_| {},
    ];
    for end in ends {
        let snapshot = pool(ONE_TOKEN);
        let mut exchange = first_attempt(&snapshot);
        assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
        exchange.pick(at(0), Rolls::default()).unwrap();
        end(&mut exchange);
        drop(exchange);
        assert_eq!(tokens(&snapshot), 1);
    }
}

#[test]
fn responses_earn_retries_and_failures_do_not() {
    let snapshot = pool("on: [reset, 429], budget: {share: 50%, floor: 0}");
    for (status, expected) in [(200, 0), (500, 0), (429, 0), (404, 1)] {
        let mut exchange = first_attempt(&snapshot);
        let late = Replay { idempotent: false, ..SAFE };
        assert!(!exchange.response_head(status, late, at(0)));
        assert_eq!(tokens(&snapshot), expected, "{status}");
    }
}

#[test]
fn without_a_budget_every_retry_is_made() {
    let snapshot = pool("on: [reset], budget: off");
    for _ in 0..100 {
        let mut exchange = first_attempt(&snapshot);
        assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    }
}

#[test]
fn an_attempt_that_can_be_retried_has_the_time_of_a_try_and_the_last_one_has_more() {
    let snapshot = pool("attempts: 2, try_timeout: 500ms");
    let mut exchange = first_attempt(&snapshot);
    assert_eq!(exchange.head_by(at(100)), at(500));
    assert!(exchange.attempt_failed(AttemptFailure::Timeout, "late", SAFE, at(500)));
    let target = exchange.pick(at(500), Rolls::default()).unwrap();
    assert_eq!(target.response_timeout, Duration::from_secs(30));
    assert_eq!(exchange.head_by(at(600)), at(30_600));
}

#[test]
fn a_try_is_not_limited_without_a_token_for_its_retry() {
    let snapshot = pool("try_timeout: 500ms, budget: {share: 0%, floor: 0}");
    let exchange = first_attempt(&snapshot);
    assert_eq!(exchange.head_by(at(100)), at(30_100));
}

#[test]
fn a_response_that_asks_to_wait_is_retried_at_another_backend_at_once() {
    let snapshot = pool("on: [503]");
    let mut exchange = first_attempt(&snapshot);
    let head = ResponseHead { status: 503, retry_after: Some(Duration::from_secs(300)) };
    assert!(exchange.response_head(head, SAFE, at(0)));
    assert_eq!(exchange.pick(at(0), Rolls::default()).unwrap().backoff, Duration::ZERO);
}

#[test]
fn the_last_backend_is_asked_again_only_after_the_wait_that_it_asks_for() {
    let one = "
pools:
  - {name: web, health_check: off, backends: [http://10.1.0.1:80], retry: {on: [503]}}
";
    let head = |secs| ResponseHead { status: 503, retry_after: Some(Duration::from_secs(secs)) };
    let mut exchange = first_attempt(&snapshot(one));
    assert!(exchange.response_head(head(2), SAFE, at(0)));
    assert_eq!(exchange.pick(at(0), Rolls::default()).unwrap().backoff, Duration::from_secs(2));
    let mut exchange = first_attempt(&snapshot(one));
    assert!(!exchange.response_head(head(11), SAFE, at(0)), "the client may wait for so long");
}

#[test]
fn a_retry_after_of_one_backend_delays_no_later_attempt() {
    let snapshot = pool("on: [reset, 503], backoff: 0s, attempts: 5");
    let mut exchange = first_attempt(&snapshot);
    let head = ResponseHead { status: 503, retry_after: Some(Duration::from_secs(300)) };
    assert!(exchange.response_head(head, SAFE, at(0)));
    for _ in 0..3 {
        assert_eq!(exchange.pick(at(0), Rolls::default()).unwrap().backoff, Duration::ZERO);
        assert!(exchange.attempt_failed(RESET, "reset", SAFE, at(0)));
    }
}

#[test]
fn two_tries_with_one_token_are_not_both_limited() {
    let snapshot = pool("try_timeout: 500ms, budget: {share: 0%, floor: 1}");
    let (mut first, second) = (first_attempt(&snapshot), first_attempt(&snapshot));
    assert_eq!((first.head_by(at(0)), second.head_by(at(0))), (at(500), at(30_000)));
    assert!(first.attempt_failed(AttemptFailure::Timeout, "late", SAFE, at(500)));
    drop((first, second));
    assert_eq!(tokens(&snapshot), 1, "the retry that was not made returns it");
}

#[test]
fn a_try_that_succeeds_returns_the_token_of_its_retry() {
    let snapshot = pool("try_timeout: 500ms, budget: {share: 0%, floor: 1}");
    for status in [200, 500] {
        let mut exchange = first_attempt(&snapshot);
        assert_eq!(tokens(&snapshot), 0);
        exchange.response_head(status, SAFE, at(0));
        assert_eq!(tokens(&snapshot), 1, "{status}");
    }
}
