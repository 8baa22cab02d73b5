//! `max_requests` of a backend, and the queue of a pool. Counted at the backends.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{Client, get, request_bytes};
use crate::support::load_generator::Load;
use crate::support::message::Response;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// One pool of these backends, each with at most `max` requests. `more` is further keys of the pool.
fn config(backends: &[Backend], max: usize, more: &str) -> String {
    let backends: Vec<_> = backends
        .iter()
        .map(|backend| format!("{{url: {}, max_requests: {max}}}", backend.url()))
        .collect();
    format!(
        "pools:\n  - name: web\n    health_check: off\n    breaker: off\n    backends: [{}]\n    {more}\n",
        backends.join(", ")
    )
}

/// One backend with one place, that is taken by a request to `/0`.
fn full(queue: &str) -> (Backend, Weir, Client) {
    let backend = Backend::start("b1");
    backend.set(Behaviour::NeverAnswer);
    let weir = Weir::start(&config(std::slice::from_ref(&backend), 1, queue));
    let first = send(&weir, "/0");
    backend.until_count(1);
    (backend, weir, first)
}

fn send(weir: &Weir, path: &str) -> Client {
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", path, &[], 0));
    client
}

fn waiting(weir: &Weir) -> f64 {
    let status = &weir.status()["queues"][0]["waiting_requests"];
    assert!(status.is_u64(), "{status}");
    weir.metrics().value("lb_queue_requests", &[("pool", "web")]).unwrap_or(-1.0)
}

fn until_waiting(weir: &Weir, count: f64) {
    eventually(TIMEOUT, &format!("{count} requests wait"), || waiting(weir) == count);
}

/// Sends requests to `/1` and so on, each after the one before it waits.
fn line_up(weir: &Weir, count: usize) -> Vec<Client> {
    (1..=count)
        .map(|number| {
            let before = waiting(weir);
            let client = send(weir, &format!("/{number}"));
            until_waiting(weir, before + 1.0);
            client
        })
        .collect()
}

/// The backend responds from now on, also to what it has.
fn recover(backend: &Backend) {
    backend.set(Behaviour::Good);
    backend.release();
}

fn until_free(weir: &Weir) {
    eventually(TIMEOUT, "the place is free again", || {
        weir.status()["backends"][0]["in_flight_requests"] == 0
    });
}

fn order(backend: &Backend) -> Vec<String> {
    backend.requests().into_iter().map(|seen| seen.target).collect()
}

fn refused(weir: &Weir, reason: &str) -> f64 {
    let labels = [("pool", "web"), ("reason", reason)];
    weir.metrics().value("lb_queue_refused_total", &labels).unwrap_or(-1.0)
}

fn assert_refused(response: &Response) {
    assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")));
}

// ── max_requests ──

#[test]
fn without_a_queue_one_request_too_many_gets_503_at_once() {
    let (backend, weir, mut first) = full("");
    assert_eq!(refused(&weir, "no_queue"), 0.0, "the series exists from the start");
    assert_refused(&weir.get("/1"));
    assert_eq!(refused(&weir, "no_queue"), 1.0);
    let line = weir.until_logged("the refusal", |line| line["status"] == 503);
    assert_eq!((&line["reason"], &line["detail"]), (&"queue_full".into(), &"no_queue".into()));
    assert_eq!(weir.status()["backends"][0]["max_requests"], 1);
    recover(&backend);
    assert_eq!(first.read_answer().status(), 200);
    until_free(&weir);
    assert_eq!(weir.get("/2").status(), 200);
    assert_eq!(order(&backend), ["/0", "/2"]);
}

#[test]
fn a_full_backend_is_healthy_and_the_others_get_its_requests() {
    let backends = Backend::start_many(2);
    // A place becomes free a moment after the client has its response: the next request may wait for it.
    let more = "queue: {length: 5, timeout: 1m}\n    \
                health_check: {path: /health, interval: 50ms, timeout: 50ms}";
    let text = config(&backends, 1, more).replace("    health_check: off\n", "");
    let weir = Weir::start(&text);
    backends[0].set(Behaviour::NeverAnswer);
    let clients = [send(&weir, "/0"), send(&weir, "/0")];
    backends[0].until_count(1);
    backends[1].until_count(1);
    assert_eq!(weir.statuses("GET", 4), [200; 4]);
    assert_eq!(backends[0].count(), 1);
    let checks = backends[0].count_of("/health");
    eventually(TIMEOUT, "health checks go on", || backends[0].count_of("/health") > checks + 2);
    assert_eq!(weir.metrics().sum("lb_backend_up", &[]), 2.0);
    recover(&backends[0]);
    drop(clients);
}

#[test]
fn a_retry_needs_a_place_too() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&config(&backends, 1, "retry: {attempts: 2, backoff: 0s}"));
    backends[1].set(Behaviour::NeverAnswer);
    // Both backends get one; that of the first is over.
    let waits = [send(&weir, "/0"), send(&weir, "/0")];
    backends[1].until_count(1);
    backends[0].set(Behaviour::status(503));
    let response = weir.get("/retried");
    assert_refused(&response);
    assert_eq!(backends[1].count_of("/retried"), 0, "it has no place");
    recover(&backends[1]);
    drop(waits);
}

#[test]
fn a_client_that_leaves_cancels_the_request_at_the_backend_and_frees_its_place() {
    let (backend, weir, first) = full("queue: {length: 5, timeout: 1m}");
    let mut second = line_up(&weir, 1).remove(0);
    drop(first);
    backend.until_count(2);
    eventually(TIMEOUT, "the backend notices", || backend.abandoned() == 1);
    recover(&backend);
    assert_eq!(second.read_answer().status(), 200);
}

// ── queue ──

#[test]
fn lifo_serves_the_newest_first() {
    let (backend, weir, _first) = full("queue: {length: 5, timeout: 1m}");
    let mut clients = line_up(&weir, 3);
    recover(&backend);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_answer().status(), 200));
    assert_eq!(order(&backend), ["/0", "/3", "/2", "/1"]);
    assert_eq!((waiting(&weir), backend.in_flight_peak()), (0.0, 1));
    assert_eq!(weir.metrics().sum("lb_queue_seconds_count", &[]), 3.0);
    let line = weir.until_logged("one that has waited", |line| line["path"] == "/1");
    assert!(line["queue_ms"].as_f64() > Some(0.0), "{line}");
}

#[test]
fn fifo_serves_the_oldest_first_and_a_newcomer_does_not_overtake() {
    let (backend, weir, _first) = full("queue: {length: 3, timeout: 1m, order: fifo}");
    let mut clients = line_up(&weir, 3);
    let response = weir.get("/late");
    assert_refused(&response);
    assert_eq!(refused(&weir, "full"), 1.0);
    recover(&backend);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_answer().status(), 200));
    assert_eq!(order(&backend), ["/0", "/1", "/2", "/3"]);
}

#[test]
fn in_a_full_queue_the_newest_takes_the_position_of_the_oldest() {
    let (backend, weir, _first) = full("queue: {length: 2, timeout: 1m}");
    let mut clients = line_up(&weir, 2);
    let mut third = send(&weir, "/3");
    assert_refused(&clients.remove(0).read_answer());
    assert_eq!(refused(&weir, "evicted"), 1.0);
    recover(&backend);
    assert_eq!((third.read_answer().status(), clients[0].read_answer().status()), (200, 200));
    assert_eq!(order(&backend), ["/0", "/3", "/2"]);
}

#[test]
fn a_request_waits_no_longer_than_the_timeout() {
    for order in ["lifo", "fifo", "codel"] {
        let queue = format!("queue: {{length: 5, timeout: 50ms, order: {order}}}");
        let (backend, weir, _first) = full(&queue);
        assert_refused(&weir.get("/1"));
        assert_eq!((refused(&weir, "timeout"), waiting(&weir)), (1.0, 0.0));
        let line = weir.until_logged("the refusal", |line| line["path"] == "/1");
        assert_eq!(line["reason"], "queue_timeout");
        recover(&backend);
        until_free(&weir);
        assert_eq!(weir.get("/2").status(), 200, "{order}");
        assert_eq!(backend.count_of("/1"), 0);
    }
}

#[test]
fn a_request_waits_no_longer_than_its_own_deadline() {
    let (backend, weir, _first) = full("queue: {length: 5, timeout: 1m}");
    // Only this request has a short deadline, so the place does not become free before it.
    let headers = [("content-type", "application/grpc"), ("grpc-timeout", "300m")];
    let response = Client::connect(weir.address()).request("GET", "/1", &headers, b"").unwrap();
    assert_eq!(response.header("grpc-status"), Some("4"), "DEADLINE_EXCEEDED");
    let line = weir.until_logged("the refusal", |line| line["path"] == "/1");
    assert_eq!(line["reason"], "request_timeout");
    assert_eq!((backend.count_of("/1"), waiting(&weir)), (0, 0.0));
    recover(&backend);
}

#[test]
fn a_client_that_leaves_leaves_the_queue() {
    for order in ["lifo", "fifo"] {
        let (backend, weir, _first) =
            full(&format!("queue: {{length: 5, timeout: 1m, order: {order}}}"));
        let mut clients = line_up(&weir, 3);
        drop(clients.remove(1));
        until_waiting(&weir, 2.0);
        let line = weir.until_logged("the one that has left", |line| line["path"] == "/2");
        assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_aborted".into()));
        recover(&backend);
        clients.iter_mut().for_each(|client| assert_eq!(client.read_answer().status(), 200));
        assert_eq!(backend.count_of("/2"), 0, "{order}");
        assert_eq!(weir.status()["backends"][0]["total_failures"], 0);
    }
}

#[test]
fn a_backend_that_recovers_serves_those_that_wait() {
    let backends = Backend::start_many(2);
    backends[1].stop();
    let more = "queue: {length: 5, timeout: 1m}\n    \
                health_check: {interval: 50ms, healthy_after: 1, unhealthy_after: 1}";
    let text = config(&backends, 1, more).replace("    health_check: off\n", "");
    let weir = Weir::start(&text);
    backends[0].set(Behaviour::NeverAnswer);
    let _first = send(&weir, "/0");
    backends[0].until_count(1);
    let mut second = line_up(&weir, 1).remove(0);
    backends[1].restart();
    assert_eq!(second.read_answer().status(), 200);
    assert_eq!((backends[0].count(), backends[1].count()), (1, 1));
    recover(&backends[0]);
}

#[test]
fn under_overload_every_place_is_used_and_never_more() {
    for order in ["lifo", "fifo", "codel"] {
        let backends = Backend::start_many(2);
        for backend in &backends {
            backend.set(Behaviour::slow(Duration::from_millis(5)));
        }
        let queue = format!("queue: {{length: 8, timeout: 100ms, order: {order}}}");
        let weir = Weir::start(&config(&backends, 2, &queue));
        let tally = Load { count: Some(600), threads: 24, ..Load::on(weir.address()) }.run();
        assert_eq!(tally.total(), 600, "each has a response");
        assert!(tally.with_status(200) > 0 && tally.with_status(503) > 0, "{order}");
        assert_eq!(tally.with_status(200) + tally.with_status(503), 600);
        let served: usize = backends.iter().map(Backend::count).sum();
        assert_eq!(u64::try_from(served).ok(), Some(tally.with_status(200)));
        for backend in &backends {
            assert_eq!(backend.in_flight_peak(), 2, "{order}: all places, and no more");
        }
        assert_eq!(weir.statuses("GET", 10), [200; 10], "well at once");
        assert_eq!(waiting(&weir), 0.0);
    }
}

// ── reload, upgrade, crash ──

#[test]
fn requests_that_wait_survive_a_reload() {
    let (backend, weir, _first) = full("queue: {length: 5, timeout: 1m, order: fifo}");
    let mut clients = line_up(&weir, 3);
    let before = weir.worker_pid();
    weir.reload();
    assert_ne!(weir.worker_pid(), before);
    // The old worker reports what it has in flight, so there is no place for the new one.
    let mut newcomer = send(&weir, "/new");
    until_waiting(&weir, 1.0);
    assert_eq!(backend.in_flight_peak(), 1);
    recover(&backend);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_answer().status(), 200));
    assert_eq!(newcomer.read_answer().status(), 200);
    assert_eq!(backend.count(), 5);
}

#[test]
fn requests_that_wait_survive_an_upgrade() {
    let (backend, weir, _first) = full("queue: {length: 5, timeout: 1m, order: fifo}");
    let mut clients = line_up(&weir, 3);
    weir.signal("USR2");
    weir.until_said("supervisor replaced: ");
    until_waiting(&weir, 3.0);
    recover(&backend);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_answer().status(), 200));
    assert_eq!(order(&backend), ["/0", "/1", "/2", "/3"]);
}

#[test]
fn after_a_crash_places_are_free() {
    let (backend, weir, first) = full("queue: {length: 5, timeout: 1m}");
    let clients = line_up(&weir, 2);
    weir.replace_by_kill();
    backend.set(Behaviour::Good);
    assert_eq!(get(weir.address(), "/again").status(), 200);
    drop((first, clients));
}
