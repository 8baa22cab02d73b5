//! Clients that close their side of the connection while their request runs: `limits.half_closed`.

use std::time::Duration;

use crate::support::backend::{Answer, Backend, Behaviour, Deaf};
use crate::support::client::{Client, request_bytes};
use crate::support::h2::H2Backend;
use crate::support::tls::{Authority, TlsClient, TlsConfig};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

const ABORT: &str = "";
const SERVE: &str = "limits: {half_closed: serve}";

fn config(backends: &[&Backend], pool: &str, more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let urls = urls.join(", ");
    format!("pools: [{{name: web, health_check: off, backends: [{urls}]{pool}}}]\n{more}\n")
}

/// One backend that does not respond to `/hang` before it is released.
fn one(more: &str) -> (Backend, Weir) {
    let backend = Backend::start("one");
    backend.on("/hang", Behaviour::NeverAnswer);
    let weir = Weir::start(&config(&[&backend], "", more));
    (backend, weir)
}

fn get(path: &str) -> Vec<u8> {
    request_bytes("GET", path, &[], 0)
}

/// The log line of `path`.
fn logged(weir: &Weir, path: &str) -> serde_json::Value {
    weir.until_logged("the request has ended", |line| line["path"] == path)
}

fn until_idle(weir: &Weir) {
    eventually(TIMEOUT, "no request is in flight", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[]) == 0.0
    });
}

#[test]
fn abort_cancels_the_request_at_its_backend_at_once_and_logs_499() {
    let (backend, weir) = one(ABORT);
    let mut client = Client::connect(weir.address());
    client.send(get("/hang"));
    backend.until_count(1);
    client.half_close();
    assert!(client.is_closed_within(TIMEOUT), "there is no response");
    eventually(TIMEOUT, "the backend is rid of it", || backend.abandoned() == 1);
    assert_eq!(logged(&weir, "/hang")["status"], 499);
    until_idle(&weir);
    assert_eq!(backend.count(), 1);
}

#[test]
fn abort_ends_a_response_that_is_under_way() {
    let (backend, weir) = one(ABORT);
    let pieces = (0..1000).map(|_| b"piece".to_vec()).collect();
    backend.on("/long", Behaviour::Chunked { pieces, pause: Duration::from_millis(20) });
    let mut client = Client::connect(weir.address());
    client.send(get("/long"));
    client.read_some().unwrap();
    client.half_close();
    eventually(TIMEOUT, "the backend is rid of it", || backend.abandoned() == 1);
    logged(&weir, "/long");
}

#[test]
fn abort_ends_a_request_whose_backend_speaks_http2() {
    let backend = H2Backend::start();
    let url = backend.url();
    let pool = format!("{{name: web, health_check: off, protocol: h2c, backends: [{url}]}}");
    let weir = Weir::start(&format!("pools: [{pool}]\n"));
    let mut client = Client::connect(weir.address());
    client.send(get("/never"));
    eventually(TIMEOUT, "it is at the backend", || backend.calls().len() == 1);
    client.half_close();
    eventually(TIMEOUT, "its stream is reset", || backend.resets() == 1);
    assert_eq!(logged(&weir, "/never")["status"], 499);
}

#[test]
fn abort_tries_nothing_again_for_a_client_that_has_left() {
    let backends = Backend::start_many(3);
    for backend in &backends {
        backend.set(Behaviour::NeverAnswer);
    }
    let backends: Vec<&Backend> = backends.iter().collect();
    let pool = ", timeouts: {response: 2s}, retry: {attempts: 3, on: [connect, reset, timeout]}";
    let weir = Weir::start(&config(&backends, pool, ABORT));
    let count = || backends.iter().map(|backend| backend.count()).sum::<usize>();
    let mut client = Client::connect(weir.address());
    client.send(get("/"));
    eventually(TIMEOUT, "it is at a backend", || count() == 1);
    client.half_close();
    assert_eq!(logged(&weir, "/")["status"], 499);
    assert_eq!(count(), 1);
}

#[test]
fn abort_sends_nothing_for_a_client_that_left_while_a_connection_was_awaited() {
    let backends = Backend::start_many(2);
    backends[0].stop();
    let _deaf = Deaf::on(backends[0].address());
    let pool = ", algorithm: ip_hash, timeouts: {connect: 500ms}";
    let both: Vec<&Backend> = backends.iter().collect();
    let weir = Weir::start(&config(&both, pool, ABORT));
    // Some of the clients meet the backend that cannot be reached first.
    let mut aborted = 0;
    for turn in 0..20 {
        let mut client = Client::connect_from([127, 201, 7, turn].into(), weir.address());
        client.send(get("/"));
        client.half_close();
        aborted += usize::from(client.is_closed_within(TIMEOUT));
    }
    eventually(TIMEOUT, "all have ended", || weir.access_log().len() == 20);
    let attempts = |line: &serde_json::Value| line["attempts"].as_array().unwrap().len();
    let lines = weir.access_log();
    assert!(lines.iter().all(|line| attempts(line) == 1), "none is tried again: {lines:?}");
    assert!(lines.iter().filter(|line| line["status"] == 499).count() >= aborted);
    assert!(lines.iter().any(|line| line["attempts"][0]["failure"] == "connect"), "{lines:?}");
}

#[test]
fn abort_answers_the_requests_that_came_before_the_last_one() {
    let (backend, weir) = one(ABORT);
    let mut client = Client::connect(weir.address());
    client.send([get("/1"), get("/2"), get("/3"), get("/hang")].concat());
    client.half_close();
    for _ in 0..3 {
        assert_eq!(client.read_answer().status(), 200);
    }
    assert!(client.is_closed_within(TIMEOUT));
    assert_eq!(logged(&weir, "/hang")["status"], 499);
    eventually(TIMEOUT, "all that came are over", || backend.in_flight() == 0);
}

#[test]
fn what_weir_responds_by_itself_reaches_a_client_that_half_closed() {
    let backend = Backend::start("one");
    let routes = "routes: [{path: /own, respond: {status: 200, body: here}}, {pool: web}]";
    let weir = Weir::start(&config(&[&backend], "", routes));
    let mut client = Client::connect(weir.address());
    client.send(get("/own"));
    client.half_close();
    assert_eq!(client.read_answer().text(), "here");
}

#[test]
fn serve_responds_to_everything_that_came_before_the_close() {
    let (backend, weir) = one(SERVE);
    let mut client = Client::connect(weir.address());
    client.send([get("/1"), get("/2"), get("/hang"), get("/4")].concat());
    client.half_close();
    backend.until_count(3);
    backend.release();
    for _ in 0..4 {
        assert_eq!(client.read_answer().status(), 200);
    }
    assert!(client.is_closed_within(TIMEOUT));
    let paths: Vec<String> = backend.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(paths, ["/1", "/2", "/hang", "/4"]);
}

#[test]
fn serve_never_tries_again_for_a_client_that_half_closed() {
    let backends = Backend::start_many(3);
    let busy = Answer::status(503);
    let one_after_the_other = |paths: [&str; 3]| {
        for backend in &backends {
            backend.on(
                paths[0],
                Behaviour::AnswerSlowly(PAUSE, Box::new(Behaviour::Answer(busy.clone()))),
            );
            backend.on(
                paths[1],
                Behaviour::AnswerSlowly(PAUSE, Box::new(Behaviour::CloseBeforeAnswer)),
            );
            backend.on(paths[2], Behaviour::NeverAnswer);
        }
    };
    one_after_the_other(["/busy", "/reset", "/late"]);
    let all: Vec<&Backend> = backends.iter().collect();
    let pool = ", timeouts: {response: 1s}, retry: {attempts: 3, on: [reset, timeout, 503]}";
    let weir = Weir::start(&config(&all, pool, SERVE));
    for (path, status) in [("/busy", 503), ("/reset", 502), ("/late", 504)] {
        let mut client = Client::connect(weir.address());
        client.send(get(path));
        client.half_close();
        assert_eq!(client.read_answer().status(), status, "{path}");
        let count: usize = backends.iter().map(|backend| backend.count_of(path)).sum();
        assert_eq!(count, 1, "{path}");
    }
}

/// Longer than it takes to notice a close.
const PAUSE: Duration = Duration::from_millis(300);

/// A client over TLS whose request is at the backend, and which has said that it ends.
fn over_tls(more: &str) -> (Backend, Weir, TlsClient, Authority) {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    backend.on("/hang", Behaviour::NeverAnswer);
    let identity = authority.identity("site", &["weir.test"]);
    let tls = format!("tls: {{certificates: [{}]}}", identity.yaml());
    let weir = Weir::start(&format!("{LISTENER_KEYS}{tls}\n{}", config(&[&backend], "", more)));
    let mut client = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    client.send(&get("/hang"));
    backend.until_count(1);
    client.close_notify();
    (backend, weir, client, authority)
}

#[test]
fn over_tls_abort_takes_a_close_notify_for_a_close() {
    let (backend, weir, mut client, _authority) = over_tls(ABORT);
    eventually(TIMEOUT, "the backend is rid of it", || backend.abandoned() == 1);
    assert_eq!(logged(&weir, "/hang")["status"], 499);
    assert_eq!(client.rest(), b"");
}

#[test]
fn over_tls_serve_responds_after_a_close_notify() {
    let (backend, _weir, mut client, _authority) = over_tls(SERVE);
    backend.release();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("one"), "{rest}");
}
