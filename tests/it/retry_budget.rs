//! The retry budget, `try_timeout`, further methods and `Retry-After`. Counted at the backends.

use std::time::Duration;

use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::world;
use crate::support::weir::Weir;

/// No more than three tokens in the time of a test.
const THREE: &str =
    "breaker: off\nretry: {attempts: 2, backoff: 0s, budget: {share: 0%, floor: 3, window: 1h}}";

/// Requests that have arrived at any of them since the last call.
fn arrived(backends: &[Backend]) -> usize {
    let count = backends.iter().map(Backend::count).sum();
    backends.iter().for_each(Backend::forget);
    count
}

fn set_all(backends: &[Backend], behaviour: &Behaviour) {
    backends.iter().for_each(|backend| backend.set(behaviour.clone()));
}

fn exhausted(weir: &Weir) -> f64 {
    weir.metrics().value("lb_retry_budget_exhausted_total", &[("pool", "web")]).unwrap_or(-1.0)
}

// ── budget ──

#[test]
fn when_every_backend_fails_retries_stop_and_the_client_gets_the_backends_response() {
    let (backends, weir) = world(2, THREE);
    assert_eq!(exhausted(&weir), 0.0, "the series exists from the start");
    set_all(&backends, &Behaviour::status(503));
    assert_eq!(weir.statuses("GET", 10), [503; 10]);
    assert_eq!(arrived(&backends), 13, "ten requests, and three retries");
    assert_eq!(exhausted(&weir), 7.0);
    let line = weir.until_logged("a request without a retry", |line| {
        line["attempts"][0]["not_retried"] == "budget_exhausted"
    });
    assert_eq!(line["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(line["attempts"][0]["failure"], serde_json::Value::Null, "it is the response");
}

#[test]
fn a_reset_without_a_token_is_502() {
    let (backends, weir) = world(2, THREE);
    set_all(&backends, &Behaviour::ResetBeforeAnswer);
    assert_eq!(weir.statuses("GET", 5), [502; 5]);
    assert_eq!(arrived(&backends), 8);
}

#[test]
fn retries_that_help_are_not_limited() {
    let (backends, weir) = world(2, THREE);
    backends[0].set(Behaviour::status(503));
    assert_eq!(weir.statuses("GET", 40), [200; 40]);
    assert!(arrived(&backends) >= 60, "every second request was retried");
    assert_eq!(exhausted(&weir), 0.0);
}

#[test]
fn a_retry_after_a_failed_connection_costs_nothing() {
    let (backends, weir) = world(2, THREE);
    backends[0].stop();
    assert_eq!(weir.statuses("POST", 40), [200; 40]);
    set_all(&backends[1..], &Behaviour::status(503));
    weir.statuses("GET", 1);
    assert_eq!(exhausted(&weir), 0.0);
}

#[test]
fn responses_earn_retries() {
    let more = "breaker: off\nretry: {attempts: 2, backoff: 0s, budget: {share: 50%, floor: 0, window: 1h}}";
    let (backends, weir) = world(2, more);
    weir.statuses("GET", 20);
    set_all(&backends, &Behaviour::status(503));
    arrived(&backends);
    weir.statuses("GET", 30);
    assert_eq!(arrived(&backends), 40, "thirty requests, and ten retries");
}

#[test]
fn the_next_worker_goes_on_with_what_is_left() {
    let (backends, weir) = world(2, THREE);
    set_all(&backends, &Behaviour::status(503));
    weir.statuses("GET", 3);
    assert_eq!(arrived(&backends), 6);
    weir.reload();
    weir.statuses("GET", 3);
    assert_eq!(arrived(&backends), 3, "a reload refills nothing");
    weir.replace_by_kill_after_a_checkpoint();
    arrived(&backends);
    weir.statuses("GET", 3);
    assert_eq!(arrived(&backends), 3, "nor does a crash");
}

// ── try_timeout, methods, Retry-After ──

#[test]
fn a_try_that_takes_too_long_goes_elsewhere_and_the_last_one_may_take_longer() {
    let (backends, weir) =
        world(2, "breaker: off\nretry: {attempts: 2, try_timeout: 200ms, budget: off}");
    backends[0].set(Behaviour::NeverAnswer);
    assert_eq!(weir.statuses("GET", 4), [200; 4]);
    assert_eq!(backends[1].count(), 4);
    let timeouts = weir.metrics().sum("lb_retries_total", &[("reason", "timeout")]);
    assert_eq!(timeouts, 2.0, "every second request began at the silent one");
    backends[0].release();
    // Both are slower than a try.
    set_all(&backends, &Behaviour::slow(Duration::from_millis(600)));
    assert_eq!(weir.statuses("GET", 2), [200; 2]);
    assert_eq!(weir.statuses("POST", 2), [200; 2], "a POST has one try, which is the last");
}

#[test]
fn a_post_runs_twice_only_if_it_is_listed() {
    let retry = |more: &str| format!("breaker: off\nretry: {{attempts: 2, budget: off{more}}}");
    let (backends, weir) = world(2, &retry(""));
    backends[0].set(Behaviour::status(503));
    let statuses = weir.statuses("POST", 4);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 2);
    assert_eq!(arrived(&backends), 4);
    let (backends, weir) = world(2, &retry(", methods: [POST]"));
    backends[0].set(Behaviour::status(503));
    assert_eq!(weir.statuses("POST", 4), [200; 4]);
    assert_eq!(arrived(&backends), 6);
}

#[test]
fn the_only_backend_is_not_asked_again_if_it_wants_to_be_left_alone_for_long() {
    let (backends, weir) = world(1, "breaker: off\nretry: {attempts: 2, backoff: 0s}");
    let later = Answer::status(503).header("Retry-After", "120");
    backends[0].set(Behaviour::Answer(later));
    let answer = Client::connect(weir.address()).request("GET", "/", &[], b"").unwrap();
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("120")));
    assert_eq!(arrived(&backends), 1);
    backends[0].set(Behaviour::status(503));
    weir.statuses("GET", 1);
    assert_eq!(arrived(&backends), 2, "without the header it is");
}

#[test]
fn a_response_in_time_is_not_cut_off_by_the_time_limit_of_a_try() {
    let (backends, weir) =
        world(2, "breaker: off\nretry: {attempts: 2, try_timeout: 200ms, budget: off}");
    let pieces = vec![b"first ".to_vec(), b"second".to_vec()];
    set_all(&backends, &Behaviour::Chunked { pieces, pause: Duration::from_millis(600) });
    let answer = Client::connect(weir.address()).request("GET", "/", &[], b"");
    assert_eq!(answer.map(|answer| answer.text()).ok().as_deref(), Some("first second"));
}
