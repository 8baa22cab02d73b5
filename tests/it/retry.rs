//! Retries: what is tried again, where, how often, and what never is. Counted at the backends.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::client::{Client, Failure, Response, try_get};
use crate::support::configs::{pool, world};
use crate::support::load_generator::Load;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

const RETRY: &str = "retry: {attempts: 3, backoff: 5ms}";

fn ask(weir: &Weir, method: &str, path: &str, body: &[u8]) -> Response {
    let answer = Client::connect(weir.address()).request(method, path, &[], body);
    answer.unwrap_or_else(|failure| panic!("{method} {path}: {failure:?}"))
}

/// Requests that have arrived at any of them.
fn count(backends: &[Backend]) -> usize {
    backends.iter().map(Backend::count).sum()
}

fn set_all(backends: &[Backend], behaviour: &Behaviour) {
    backends.iter().for_each(|backend| backend.set(behaviour.clone()));
}

/// Where each attempt of the only logged request went.
fn attempts(weir: &Weir) -> Vec<String> {
    let line = weir.until_logged("the request", |_| true);
    let backend = |attempt: &Value| attempt["backend"].as_str().unwrap_or_default().to_owned();
    line["attempts"].as_array().into_iter().flatten().map(backend).collect()
}

fn bytes(count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(11);
    std::iter::repeat_with(|| random.u8(..)).take(count).collect()
}

// ── before there is a connection ──

#[test]
fn a_post_goes_elsewhere_when_no_connection_can_be_made() {
    let (backends, weir) = world(2, RETRY);
    backends[0].stop();
    for number in 0..4 {
        let answer = ask(&weir, "POST", &format!("/{number}"), b"once");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "b2"));
    }
    assert_eq!(backends[1].count(), 4);
    let retried = weir.metrics().sum("lb_retries_total", &[("reason", "connect")]);
    assert_eq!(retried, 2.0, "every second request began at the dead one");
}

#[test]
fn a_body_of_any_size_goes_elsewhere_when_no_connection_can_be_made() {
    let (backends, weir) = world(2, RETRY);
    backends[0].stop();
    let body = bytes(300_000);
    for _ in 0..2 {
        assert_eq!(ask(&weir, "POST", "/", &body).status(), 200);
    }
    assert!(backends[1].requests().iter().all(|seen| seen.body == body));
}

#[test]
fn one_dead_backend_among_three_costs_no_client_an_answer() {
    let (backends, weir) = world(3, RETRY);
    backends[1].stop();
    let tally = Load { count: Some(300), ..Load::on(weir.address()) }.run();
    assert_eq!((tally.failed(), tally.with_status(200)), (0, 300), "{:?}", tally.errors);
    assert_eq!(count(&backends), 300);
}

#[test]
fn a_backend_that_crashes_under_load_costs_no_get_its_answer() {
    let (backends, weir) = world(3, RETRY);
    let load = Load::on(weir.address()).start();
    eventually(TIMEOUT, "a load under way", || load.done() > 100);
    backends[1].crash();
    let crashed_at = load.done();
    eventually(TIMEOUT, "a load that goes on", || load.done() > crashed_at + 100);
    let tally = load.stop();
    assert_eq!(tally.failed(), 0, "{:?} {:?}", tally.statuses, tally.errors);
}

#[test]
fn when_every_backend_refuses_the_answer_is_503_after_all_attempts() {
    let (backends, weir) = world(2, RETRY);
    backends.iter().for_each(Backend::stop);
    let answer = ask(&weir, "GET", "/", b"");
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.text(), "Service Unavailable: all backends are down\n");
    let tried = attempts(&weir);
    assert_eq!(tried.len(), 3);
    assert_ne!(tried[0], tried[1], "another one comes first");
    let logged = weir.access_log().remove(0);
    assert_eq!(logged["reason"], "no_backend");
    assert_eq!(weir.status()["retry_attempts"], 2);
}

#[test]
fn with_one_attempt_nothing_is_tried_again() {
    let (backends, weir) = world(2, "retry: {attempts: 1}");
    backends[0].stop();
    let mut statuses: Vec<u16> = (0..2).map(|_| ask(&weir, "GET", "/", b"").status()).collect();
    statuses.sort_unstable();
    // The other backend was not tried: nothing says that it is down.
    assert_eq!(statuses, [200, 502]);
    let refused = weir.until_logged("the refusal", |line| line["status"] == 502);
    assert_eq!(refused["reason"], "connect_failed");
    backends[1].stop();
    assert_eq!(ask(&weir, "GET", "/", b"").status(), 502);
    assert_eq!(weir.metrics().sum("lb_retries_total", &[]), 0.0);
}

// ── after the request was sent ──

#[test]
fn a_get_is_tried_elsewhere_when_its_connection_ends_without_an_answer() {
    for broken in [Behaviour::CloseBeforeAnswer, Behaviour::ResetBeforeAnswer] {
        let (backends, weir) = world(2, RETRY);
        backends[0].set(broken);
        for _ in 0..4 {
            assert_eq!(ask(&weir, "GET", "/", b"").text(), "b2");
        }
        assert_eq!((backends[0].count(), backends[1].count()), (2, 4));
    }
}

#[test]
fn a_post_that_was_sent_is_never_sent_again() {
    for broken in [Behaviour::CloseBeforeAnswer, Behaviour::ResetBeforeAnswer] {
        let (backends, weir) = world(2, RETRY);
        set_all(&backends, &broken);
        for _ in 0..2 {
            assert_eq!(ask(&weir, "POST", "/", b"pay").status(), 502);
        }
        assert_eq!((backends[0].count(), backends[1].count()), (1, 1));
    }
}

#[test]
fn every_attempt_of_a_request_has_its_one_id() {
    let (backends, weir) = world(2, RETRY);
    set_all(&backends, &Behaviour::CloseBeforeAnswer);
    assert_eq!(ask(&weir, "GET", "/", b"").status(), 502);
    let seen: Vec<_> = backends.iter().flat_map(Backend::requests).collect();
    assert_eq!(seen.len(), 3);
    let ids: Vec<_> = seen.iter().map(|seen| seen.header("x-request-id").unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(seen.iter().all(|seen| seen.header_values("via") == ["1.1 weir"]), "{seen:?}");
}

#[test]
fn a_small_body_is_replayed_intact() {
    let (backends, weir) = world(2, RETRY);
    backends[0].set(Behaviour::CloseBeforeAnswer);
    let body = bytes(32 * 1024);
    for _ in 0..2 {
        assert_eq!(ask(&weir, "PUT", "/", &body).text(), "b2");
    }
    let seen = backends[1].requests();
    assert_eq!((backends[0].count(), seen.len()), (1, 2));
    assert!(seen.iter().all(|seen| seen.is_whole && seen.body == body));
}

#[test]
fn a_small_chunked_body_is_replayed_intact() {
    let (backends, weir) = world(2, RETRY);
    set_all(&backends, &Behaviour::CloseBeforeAnswer);
    let mut client = Client::connect(weir.address());
    client.send("PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\none\r\n");
    eventually(TIMEOUT, "the first attempt", || count(&backends) == 1);
    client.send("4\r\n two\r\n0\r\n\r\n");
    assert_eq!(client.read_answer().status(), 502);
    let seen: Vec<_> = backends.iter().flat_map(Backend::requests).collect();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.is_whole && seen.body == b"one two"), "{seen:?}");
}

#[test]
fn a_body_too_large_to_be_remembered_is_not_sent_again() {
    let (backends, weir) = world(2, RETRY);
    set_all(&backends, &Behaviour::CloseBeforeAnswer);
    assert_eq!(ask(&weir, "PUT", "/", &bytes(200 * 1024)).status(), 502);
    assert_eq!(count(&backends), 1);
}

#[test]
fn what_the_file_does_not_name_is_not_tried_again() {
    let (backends, weir) = world(2, "retry: {attempts: 3, on: [connect]}");
    set_all(&backends, &Behaviour::CloseBeforeAnswer);
    assert_eq!(ask(&weir, "GET", "/", b"").status(), 502);
    assert_eq!(count(&backends), 1);
}

// ── after an answer began ──

#[test]
fn a_status_to_retry_sends_the_request_elsewhere() {
    let (backends, weir) = world(2, RETRY);
    backends[0].set(Behaviour::status(503));
    for _ in 0..4 {
        assert_eq!(ask(&weir, "GET", "/", b"").text(), "b2");
    }
    assert_eq!((backends[0].count(), backends[1].count()), (2, 4));
    let retried = weir.metrics().sum("lb_retries_total", &[("reason", "status")]);
    assert_eq!(retried, 2.0);
}

#[test]
fn the_answer_of_the_last_attempt_passes_whatever_it_is() {
    let (backends, weir) = world(2, RETRY);
    let body = Some(b"come back later".to_vec());
    let answer = Answer { body, ..Answer::status(503) }.header("Retry-After", "7");
    set_all(&backends, &Behaviour::Answer(answer));
    let answer = ask(&weir, "GET", "/", b"");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "come back later"));
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(count(&backends), 3);
}

#[test]
fn a_body_is_replayed_after_a_status_too() {
    let (backends, weir) = world(2, RETRY);
    backends[0].set(Behaviour::status(503));
    let body = bytes(32 * 1024);
    for _ in 0..2 {
        assert_eq!(ask(&weir, "PUT", "/", &body).text(), "b2");
    }
    assert!(backends[1].requests().iter().all(|seen| seen.is_whole && seen.body == body));
}

#[test]
fn a_posts_answer_passes_even_if_its_status_is_one_to_retry() {
    let (backends, weir) = world(2, RETRY);
    set_all(&backends, &Behaviour::status(503));
    assert_eq!(ask(&weir, "POST", "/", b"pay").status(), 503);
    assert_eq!(count(&backends), 1);
}

#[test]
fn an_answer_that_breaks_in_its_body_is_not_tried_again_and_ends_cut() {
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n".to_vec();
    for broken in [
        Behaviour::ResetMidBody,
        Behaviour::WrongLength { promised: 2000, sent: 1000 },
        Behaviour::Garbage(chunks),
    ] {
        let (backends, weir) = world(2, RETRY);
        set_all(&backends, &broken);
        let failure = try_get(weir.address(), "/").expect_err("the answer was cut");
        let cut = matches!(failure, Failure::TruncatedBody { .. } | Failure::Reset { .. });
        assert!(cut, "{failure:?}");
        assert_eq!(count(&backends), 1);
        let line = weir.until_logged("the request", |_| true);
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"upstream_aborted".into()));
    }
}

#[test]
fn an_http_1_0_client_of_a_broken_answer_does_not_see_a_clean_end() {
    let (backends, weir) = world(1, RETRY);
    backends[0].set(Behaviour::WrongLength { promised: 2000, sent: 1000 });
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let failure = client.try_read_answer("GET").expect_err("the answer was cut");
    let cut = matches!(failure, Failure::TruncatedBody { .. } | Failure::Reset { .. });
    assert!(cut, "{failure:?}");
}

// ── connections that were kept too long ──

#[test]
fn a_get_survives_a_kept_connection_that_the_backend_gives_up() {
    let (backends, weir) = world(1, RETRY);
    backends[0].set(Behaviour::CloseAfterRequests(1));
    let mut client = Client::connect(weir.address());
    for _ in 0..5 {
        assert_eq!(client.get("/").status(), 200);
    }
}

#[test]
fn a_post_on_a_kept_connection_that_the_backend_gives_up_is_not_doubled() {
    let (backends, weir) = world(1, RETRY);
    backends[0].set(Behaviour::CloseAfterRequests(1));
    // Which of them meets a kept connection depends on when the one before was put back.
    let mut statuses = Vec::new();
    for number in 0..20 {
        statuses.push(ask(&weir, "POST", &format!("/{number}"), b"pay").status());
        assert_eq!(backends[0].count_of(&format!("/{number}")), 1);
    }
    assert!(statuses.contains(&502), "none met a kept connection: {statuses:?}");
    assert!(statuses.iter().all(|status| [200, 502].contains(status)), "{statuses:?}");
}

#[test]
fn a_post_does_not_meet_a_kept_connection_that_is_known_to_be_closed() {
    let (backends, weir) = world(1, RETRY);
    let (backend, path) = (&backends[0], "/");
    for life in 1..=3 {
        assert_eq!(ask(&weir, "POST", path, b"pay").status(), 200);
        assert_eq!(backend.count(), life);
        backend.stop();
        backend.restart();
    }
}

#[test]
fn a_request_of_a_crashed_backend_does_not_wait_for_it() {
    let (backends, weir) = world(2, RETRY);
    set_all(&backends, &Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    eventually(TIMEOUT, "the first attempt", || count(&backends) == 1);
    let first = backends.iter().position(|backend| backend.count() == 1).unwrap();
    set_all(&backends, &Behaviour::Good);
    backends[first].crash();
    let other = backends[1 - first].name();
    assert_eq!(client.read_answer().text(), other);
}

#[test]
fn a_slow_upload_is_not_lost_when_its_first_backend_dies() {
    let backend = Backend::start("b1");
    let weir = Weir::start(&pool(from_ref(&backend), RETRY));
    backend.set(Behaviour::By(Arc::new(|seen| match seen.connection {
        1 => Behaviour::AnswerSlowly(
            Duration::from_millis(20),
            Box::new(Behaviour::ResetBeforeAnswer),
        ),
        _ => Behaviour::Answer(Answer::body(seen.body.clone())),
    })));
    let body = bytes(10_000);
    assert!(ask(&weir, "PUT", "/", &body).body == body);
}
