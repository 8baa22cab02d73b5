//! Every request has exactly one log line and one count, whatever ends it; and a backend is blamed
//! for what it did itself.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::slice::from_ref;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{Client, request_bytes};
use crate::support::configs::pool;
use crate::support::h2::H2Backend;
use crate::support::http2::{Http2, RawHttp2, frame, get_frame, request};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, now};

/// How many requests were counted: by status, and in the histogram.
fn counted(weir: &Weir) -> (f64, f64) {
    let metrics = weir.metrics();
    let count = metrics.sum("lb_request_duration_seconds_count", &[]);
    (metrics.sum("lb_requests_total", &[]), count)
}

/// The log line of the request for `path`, which says how it ended.
#[track_caller]
fn line_of(weir: &Weir, path: &str, reason: &str) -> Value {
    let line = weir.until_logged(path, |line| line["path"] == path);
    assert_eq!(line["reason"], reason, "{line}");
    assert_eq!(line["method"], "GET", "{line}");
    assert!(line["host"].is_string() && line["request_id"].is_string(), "{line}");
    line
}

fn duration(line: &Value) -> Duration {
    Duration::from_secs_f64(line["duration_ms"].as_f64().unwrap_or_default() / 1000.0)
}

/// Sends SIGTERM until the process ends; its exit code.
fn force_stop(weir: &mut Weir) -> Option<i32> {
    eventually(TIMEOUT, "it ends", || {
        weir.signal("TERM");
        !weir.is_running()
    });
    weir.wait(TIMEOUT).code()
}

/// A backend whose response is larger than all buffers between it and a client that does not read.
fn big() -> Backend {
    let backend = Backend::start("big");
    let pieces = vec![vec![b'x'; 128 << 10]; 128];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::ZERO });
    backend
}

/// With HTTP/2 for clients too.
fn start(config: &str) -> Weir {
    Weir::start(&format!("{LISTENER_KEYS}http2: true\n{config}"))
}

/// A client that asks for `path` and reads nothing.
fn deaf(weir: &Weir, path: &str) -> Client {
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", path, &[], 0));
    client
}

#[test]
fn a_response_that_is_read_too_slowly_is_logged_at_the_deadline_and_blames_no_backend() {
    let backend = big();
    let keys = "timeouts: {request: 2s, response: 30s}";
    let weir = start(&pool(from_ref(&backend), keys));
    let _reading_nothing: Vec<Client> =
        (0..3).map(|number| deaf(&weir, &format!("/h1/{number}"))).collect();
    let mut connection = Http2::connect(weir.address());
    let _streams: Vec<_> = (0..3)
        .map(|number| {
            let request = request(Method::GET, &format!("/h2/{number}"), &[]);
            connection.start(request, false).unwrap()
        })
        .collect();
    for number in 0..3 {
        for protocol in ["h1", "h2"] {
            let line = line_of(&weir, &format!("/{protocol}/{number}"), "deadline");
            assert_eq!(line["status"], 200, "{line}");
            assert!(duration(&line) >= Duration::from_secs(2), "{line}");
            // Of HTTP/2, one of the streams may have had all of the window.
            let is_read = line["bytes_out"].as_u64() > Some(0) || protocol == "h2";
            assert!(is_read, "{line}");
            assert_eq!(line["attempts"][0].get("failure"), None, "{line}");
        }
    }
    eventually(TIMEOUT, "each is counted", || counted(&weir) == (6.0, 6.0));
    let metrics = weir.metrics();
    assert_eq!(metrics.sum("lb_errors_total", &[("type", "deadline")]), 6.0);
    assert_eq!(metrics.sum("lb_errors_total", &[("type", "timeout")]), 0.0);
    assert_eq!(weir.status()["backends"][0]["total_failures"], 0);
}

#[test]
fn clients_that_read_nothing_are_not_the_backends_failure() {
    let backend = big();
    // As by default, both times are the same: whichever timer is first, the client is slow.
    let keys = "timeouts: {request: 2s, response: 2s}";
    let weir = start(&pool(from_ref(&backend), keys));
    let _reading_nothing: Vec<Client> =
        (0..6).map(|number| deaf(&weir, &format!("/{number}"))).collect();
    for number in 0..6 {
        let path = format!("/{number}");
        let line = weir.until_logged(&path, |line| line["path"] == path.as_str());
        let reason = line["reason"].as_str().unwrap_or_default();
        assert!(["client_write_timeout", "deadline"].contains(&reason), "{line}");
    }
    assert_eq!(weir.metrics().sum("lb_errors_total", &[("type", "timeout")]), 0.0);
    assert_eq!(weir.status()["backends"][0]["total_failures"], 0);
}

#[test]
fn a_backend_that_is_silent_until_the_deadline_is_blamed() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let weir = start(&pool(from_ref(&backend), "timeouts: {request: 500ms, response: 30s}"));
    assert_eq!(weir.get("/").status(), 504);
    let line = line_of(&weir, "/", "request_timeout");
    assert_eq!(line["attempts"][0]["failure"], "timeout", "{line}");
    assert_eq!(weir.status()["backends"][0]["total_failures"], 1);
}

/// A client of HTTP/1 and a stream of HTTP/2 whose requests are at a backend that does not respond.
fn waiting(weir: &Weir, backend: &Backend) -> (Client, Http2) {
    backend.set(Behaviour::NeverAnswer);
    let client = deaf(weir, "/h1");
    let mut connection = Http2::connect(weir.address());
    let stream = connection.start(request(Method::GET, "/h2", &[]), false).unwrap();
    std::mem::forget(stream); // dropping it would cancel the request
    backend.until_count(2);
    (client, connection)
}

#[test]
fn requests_that_a_drain_ends_are_logged_with_the_reason() {
    let backend = Backend::start("one");
    let config = format!("{}shutdown: {{drain: 500ms}}", pool(from_ref(&backend), ""));
    let mut weir = start(&config);
    let _clients = waiting(&weir, &backend);
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1), "{}", weir.stderr());
    for path in ["/h1", "/h2"] {
        let line = line_of(&weir, path, "drain_timeout");
        assert_eq!((&line["status"], weir.access_log().len()), (&0.into(), 2), "{line}");
        assert!(duration(&line) >= Duration::from_millis(500), "{line}");
        assert_eq!(line["attempts"][0].get("failure"), None, "{line}");
    }
}

#[test]
fn requests_that_a_second_signal_ends_are_logged_with_the_reason() {
    let (backend, big) = (Backend::start("one"), big());
    let urls = format!("routes: [{{pool: web}}, {{path: /big, pool: big}}]\n{}", {
        let big = format!("  - {{name: big, health_check: off, backends: [\"{}\"]}}\n", big.url());
        pool(from_ref(&backend), "") + &big
    });
    let mut weir = start(&format!("{urls}shutdown: {{drain: 1h}}"));
    let begun = now();
    let _clients = waiting(&weir, &backend);
    let mut reading = deaf(&weir, "/big");
    reading.read_piece(1).unwrap();
    let waited = now() - begun;
    assert_eq!(force_stop(&mut weir), Some(1), "{}", weir.stderr());
    for path in ["/h1", "/h2", "/big"] {
        let line = line_of(&weir, path, "forced_stop");
        let status = if path == "/big" { 200 } else { 0 };
        assert_eq!((&line["status"], weir.access_log().len()), (&status.into(), 3), "{line}");
        assert!(duration(&line) <= waited + TIMEOUT, "{line}");
    }
}

#[test]
fn a_request_that_a_drain_ends_after_a_reload_is_in_the_totals_of_the_new_worker() {
    let backend = Backend::start("one");
    let config = |drain| format!("{}shutdown: {{drain: {drain}}}", pool(from_ref(&backend), ""));
    let weir = start(&config("500ms"));
    let _clients = waiting(&weir, &backend);
    weir.write_config(&format!("{LISTENER_KEYS}http2: true\n{}", config("1h")));
    weir.reload();
    for path in ["/h1", "/h2"] {
        line_of(&weir, path, "drain_timeout");
    }
    eventually(TIMEOUT, "both are counted", || counted(&weir) == (2.0, 2.0));
}

#[test]
fn requests_of_a_connection_that_is_closed_for_a_flood_are_logged_with_the_reason() {
    let backend = H2Backend::start();
    let url = backend.url();
    let weir = start(&format!(
        "pools: [{{name: web, health_check: off, protocol: h2c, backends: [\"{url}\"]}}]"
    ));
    let mut raw = RawHttp2::connect(weir.address());
    raw.send(&get_frame(1, "/never")).unwrap();
    eventually(TIMEOUT, "the backend has it", || !backend.calls().is_empty());
    raw.flood(&frame(0x6, 0, 0, b"12345678"), 200_000);
    line_of(&weir, "/never", "http2_flood");
    eventually(TIMEOUT, "it is counted", || counted(&weir) == (1.0, 1.0));
}

#[test]
fn what_is_refused_before_it_is_a_request_has_a_date_and_true_bytes() {
    let backend = Backend::start("one");
    let weir = Weir::start(&format!(
        "{}limits: {{target_bytes: 100, headers: 5, header_timeout: 500ms}}",
        pool(from_ref(&backend), "")
    ));
    let long = "x".repeat(200);
    let many = "X: 1\r\n".repeat(9);
    let cases = [
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n".to_owned()),
        (408, "GET /half HTTP/1.1\r\nHost: a\r\n".to_owned()),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        (505, "GET / HTTP/1.9\r\nHost: a\r\n\r\n".to_owned()),
    ];
    for (status, head) in cases {
        for method in ["GET", "HEAD"] {
            let mut client = Client::connect(weir.address());
            client.send(head.replacen("GET", method, 1));
            let answer = client.try_read_answer(method).unwrap();
            assert_eq!(answer.status(), status, "{method} {head:?}");
            assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
            assert!(client.is_closed_within(TIMEOUT), "no body to {method} {head:?}");
            let line = weir.until_logged("its line", |line| {
                line["status"] == status && line["method"] == method
            });
            assert_eq!(line["bytes_out"], answer.body.len(), "{line}");
            assert_eq!(answer.body.is_empty(), method == "HEAD");
        }
    }
    eventually(TIMEOUT, "each is counted", || counted(&weir) == (10.0, 10.0));
    assert_eq!((weir.access_log().len(), backend.count()), (10, 0));
}
