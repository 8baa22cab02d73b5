//! Nothing waits for ever: not for a backend, and not for a client.
//!
//! The deadlines are far apart (what should happen, after some hundred milliseconds; what must
//! not, after many seconds or never), so that a busy machine does not change the outcome.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::slice::from_ref;
use std::time::Duration;

use crate::support::backend::{Answer, Backend, Behaviour, Deaf};
use crate::support::client::{Client, Failure, request_bytes};
use crate::support::configs::pool;
use crate::support::http2::{Http2, frame};
use crate::support::origin::Origin;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, eventually_some, now};

fn one(pool_keys: &str, file_keys: &str) -> (Backend, Weir) {
    let backend = Backend::start("one");
    let weir = Weir::start(&format!("{}{file_keys}", pool(from_ref(&backend), pool_keys)));
    (backend, weir)
}

/// The reason in the log's only line.
fn reason(weir: &Weir) -> String {
    let line = weir.until_logged("the request", |_| true);
    line["reason"].as_str().unwrap_or_default().to_owned()
}

fn never_whole(failure: &Failure) -> bool {
    matches!(failure, Failure::TruncatedBody { .. } | Failure::Reset { .. })
}

// ── connecting ──

/// Counted just after the client has its answer: one error, of this kind, and none of a backend.
#[track_caller]
fn until_the_only_error_is(weir: &Weir, kind: &str) {
    let errors = |labels: &[(&str, &str)]| weir.metrics().sum("lb_errors_total", labels);
    eventually(TIMEOUT, "it is counted", || errors(&[("type", kind)]) == 1.0);
    assert_eq!(errors(&[]), 1.0, "and nothing else is");
}

#[test]
fn a_connection_that_does_not_come_about_ends_with_504() {
    let keys = "retry: {attempts: 1}\ntimeouts: {connect: 500ms}";
    let (backend, weir) = one(keys, "");
    backend.stop();
    let _deaf = Deaf::on(backend.address());
    assert_eq!(weir.get("/").status(), 504);
    assert_eq!(reason(&weir), "connect_timeout");
}

#[test]
fn a_connection_that_does_not_come_about_is_tried_elsewhere() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends, "timeouts: {connect: 500ms}"));
    backends[0].stop();
    let _deaf = Deaf::on(backends[0].address());
    for _ in 0..2 {
        let answer = Client::connect(weir.address()).request("POST", "/", &[], b"once").unwrap();
        assert_eq!(answer.text(), "b2");
    }
    assert_eq!(backends[1].count(), 2);
}

// ── waiting for an answer ──

#[test]
fn a_backend_that_does_not_answer_costs_its_own_request_alone() {
    let keys = "retry: {attempts: 1}\ntimeouts: {response: 1s}";
    let (backend, weir) = one(keys, "");
    backend.on("/never", Behaviour::NeverAnswer);
    let mut waiting = Client::connect(weir.address());
    waiting.send(request_bytes("GET", "/never", &[], 0));
    backend.until_count(1);
    assert_eq!(weir.get("/").status(), 200);
    assert_eq!(waiting.read_answer().status(), 504);
    assert_eq!(weir.get("/").status(), 200);
    weir.until_logged("the timeout", |line| line["reason"] == "response_timeout");
    eventually(TIMEOUT, "the backend is left alone", || backend.abandoned() == 1);
}

#[test]
fn an_answer_in_time_is_not_cut() {
    let (backend, weir) = one("timeouts: {response: 10s}", "limits: {header_timeout: 100ms}");
    backend.set(Behaviour::slow(Duration::from_millis(400)));
    assert_eq!(weir.get("/").status(), 200, "the timeout of a head is over once it has come");
}

#[test]
fn a_body_that_stops_is_cut_after_the_response_timeout() {
    let (backend, weir) = one("timeouts: {response: 1s}", "");
    let begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n".to_vec();
    backend.set(Behaviour::Raw(begun));
    let mut client = Client::connect(weir.address());
    let failure = client.request("GET", "/", &[], b"").expect_err("the body has no end");
    assert!(never_whole(&failure), "{failure:?}");
    assert_eq!((backend.count(), reason(&weir).as_str()), (1, "upstream_aborted"));
}

#[test]
fn headers_that_drip_end_at_the_response_timeout_with_504() {
    let keys = "retry: {attempts: 1}\ntimeouts: {response: 500ms, request: off}";
    let (backend, weir) = one(keys, &format!("{LISTENER_KEYS}http2: true\n"));
    backend.set(Behaviour::HalfHead { pause: Duration::from_millis(20) });
    assert_eq!(weir.get("/").status(), 504);
    let posted = Client::connect(weir.address()).request("POST", "/", &[], b"hello");
    assert_eq!(posted.map(|answer| answer.status()), Ok(504));
    let over_http2 = Http2::connect(weir.address()).get("/", &[]).unwrap();
    assert_eq!(over_http2.status(), 504);
    eventually(TIMEOUT, "all are logged so", || {
        let lines = weir.access_log();
        lines.iter().filter(|line| line["reason"] == "response_timeout").count() == 3
    });
    eventually(TIMEOUT, "the backend is left alone", || backend.connections_open() == 0);
}

#[test]
fn headers_that_drip_send_the_request_to_the_next_backend() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends, "timeouts: {response: 500ms, request: off}"));
    backends[0].set(Behaviour::HalfHead { pause: Duration::from_millis(20) });
    for _ in 0..2 {
        assert_eq!(weir.get("/").text(), "b2");
    }
    assert_eq!((backends[0].count(), backends[1].count()), (1, 2));
    let retried = weir.metrics().sum("lb_retries_total", &[("reason", "timeout")]);
    assert_eq!(retried, 1.0);
}

#[test]
fn a_response_whose_pieces_come_in_time_may_take_longer_than_the_response_timeout() {
    let (backend, weir) = one("timeouts: {response: 1s, request: off}", "");
    let pieces = vec![b"x".to_vec(); 20];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::from_millis(100) });
    assert_eq!(weir.get("/").body.len(), 20);
}

#[test]
fn a_request_body_that_goes_on_may_take_longer_than_the_response_timeout() {
    let (_backend, weir) = one("timeouts: {response: 1s, request: off}", "");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/", &[], 20));
    let answer = trickle(&mut client, "x", Duration::from_millis(100), 20);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
}

/// Speaks HTTP/2 as frames: the settings, these frames once there is a request, and then a frame that
/// goes on with the last fields, without any, again and again.
fn dripping(frames: Vec<u8>) -> Origin {
    Origin::start(move |conversation| {
        conversation.send(frame(0x4, 0, 0, b""))?;
        while !conversation.has_come(b"\0\0\0\x04\x01\0\0\0\0") {
            conversation.pause(Duration::from_millis(5))?;
        }
        conversation.send(frame(0x4, 1, 0, b""))?;
        conversation.send(&frames)?;
        loop {
            conversation.pause(Duration::from_millis(20))?;
            conversation.send(frame(0x9, 0, 1, b""))?;
        }
    })
}

#[test]
fn http2_headers_and_trailers_that_drip_end_at_the_response_timeout_too() {
    let keys = "protocol: h2c, retry: {attempts: 1}, timeouts: {response: 500ms, request: off}";
    let config = |origin: &Origin| {
        let url = origin.url();
        format!("pools: [{{name: web, health_check: off, backends: [{url}], {keys}}}]\n")
    };
    let status_200 = b"\x88";
    let headers = dripping(frame(0x1, 0, 1, status_200));
    let weir = Weir::start(&config(&headers));
    assert_eq!(weir.get("/").status(), 504);
    assert_eq!(reason(&weir), "response_timeout");
    let body = [frame(0x1, 4, 1, status_200), frame(0, 0, 1, b"hello"), frame(0x1, 1, 1, b"")];
    let trailers = dripping(body.concat());
    let weir = Weir::start(&config(&trailers));
    let failure = Client::connect(weir.address()).request("GET", "/", &[], b"");
    let failure = failure.expect_err("the end does not come");
    assert!(never_whole(&failure), "{failure:?}");
    assert_eq!(reason(&weir), "upstream_aborted");
}

// ── the deadline of a whole request ──

#[test]
fn a_head_that_drips_ends_at_the_requests_deadline_with_504() {
    let (backend, weir) = one("timeouts: {response: 30s, request: 1s}", "");
    backend.set(Behaviour::HalfHead { pause: Duration::from_millis(20) });
    assert_eq!(weir.get("/").status(), 504);
    assert_eq!(reason(&weir), "request_timeout");
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_body_that_trickles_for_ever_is_cut_at_the_requests_deadline() {
    let (backend, weir) = one("timeouts: {response: 30s, request: 1s}", "");
    let pieces = vec![b"x".to_vec(); 5000];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::from_millis(10) });
    let mut client = Client::connect(weir.address());
    let failure = client.request("GET", "/", &[], b"").expect_err("the body has no end");
    assert!(never_whole(&failure), "{failure:?}");
    eventually(TIMEOUT, "the backend is left alone", || backend.abandoned() == 1);
}

#[test]
fn every_attempt_is_within_the_one_deadline() {
    let keys = "retry: {attempts: 16, backoff: 1ms}\ntimeouts: {response: 300ms, request: 700ms}";
    let (backend, weir) = one(keys, "");
    backend.set(Behaviour::NeverAnswer);
    assert_eq!(weir.get("/").status(), 504);
    let count = backend.count();
    assert!((1..=8).contains(&count), "{count} attempts of 300 ms are in 700 ms");
}

#[test]
fn every_wait_between_attempts_is_within_the_one_deadline() {
    let keys = "retry: {attempts: 16, backoff: 10s}\ntimeouts: {request: 500ms}";
    let (backend, weir) = one(keys, "");
    backend.stop();
    assert_eq!(weir.get("/").status(), 504);
}

#[test]
fn a_client_that_does_not_read_is_cut_after_the_requests_deadline() {
    const BODY: usize = 32 << 20;
    let (backend, weir) = one("timeouts: {request: 1s}", "");
    backend.set(Behaviour::Answer(Answer::body(vec![b'x'; BODY])));
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", "/", &[], 0));
    let mut got = client.read_some().unwrap().len();
    eventually(TIMEOUT, "nothing is in flight", || {
        let metrics = weir.metrics();
        metrics.sum("lb_backend_in_flight_requests", &[]) == 0.0
            && metrics.sum("lb_downstream_connections", &[]) == 0.0
    });
    while let Ok(more) = client.read_some() {
        got += more.len();
    }
    assert!(got < BODY, "all {got} bytes came");
}

#[test]
fn a_client_that_does_not_read_our_own_answers_is_cut_too() {
    let backend = Backend::start("one");
    let body = "x".repeat(60_000);
    let routes =
        format!("routes: [{{pool: web}}, {{path: /r, respond: {{status: 200, body: {body}}}}}]\n");
    let limits = "limits: {header_timeout: 500ms}";
    let weir = Weir::start(&format!("{}{routes}{limits}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    // More than the sockets hold.
    client.send(request_bytes("GET", "/r", &[], 0).repeat(400));
    assert_eq!(client.read_answer().text().len(), body.len());
    eventually(TIMEOUT, "it is cut", || {
        weir.metrics().sum("lb_downstream_connections", &[]) == 0.0
    });
    assert_eq!(weir.get("/r").status(), 200);
}

// ── waiting for a client ──

const HEADER: &str = "limits: {header_timeout: 300ms}";

#[test]
fn half_a_head_ends_with_408_and_a_closed_connection() {
    let (backend, weir) = one("", HEADER);
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
    assert_eq!(client.read_answer().status(), 408);
    assert!(client.is_closed_within(TIMEOUT));
    assert_eq!(reason(&weir), "client_timeout");
    assert_eq!(backend.count(), 0);
}

#[test]
fn half_a_head_behind_a_whole_request_ends_with_408_too() {
    let (_backend, weir) = one("", "limits: {header_timeout: 500ms, keepalive: 30s}");
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHo");
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(client.read_answer().status(), 408);
    assert!(client.is_closed_within(TIMEOUT));
}

#[test]
fn half_a_head_on_a_reused_connection_ends_with_408_too() {
    let (backend, weir) = one("", HEADER);
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/").status(), 200);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n");
    assert_eq!(client.read_answer().status(), 408);
    assert!(client.is_closed_within(TIMEOUT));
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_byte_every_now_and_then_does_not_stretch_the_time_for_a_head() {
    let (_backend, weir) = one("", HEADER);
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: ");
    client.set_timeout(Duration::from_millis(30));
    let answer = eventually_some(TIMEOUT, "an answer to the slow head", || {
        // Once it is closed, a byte may no longer be sent; the response is there all the same.
        drop(client.try_send("x"));
        client.read_some().ok()
    });
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_new_connection_that_says_nothing_is_closed() {
    let (_backend, weir) = one("", HEADER);
    let start = now();
    assert!(Client::connect(weir.address()).is_closed_within(TIMEOUT));
    assert!(now() - start >= Duration::from_millis(290), "not before its time");
}

#[test]
fn a_connection_that_is_not_used_is_closed_after_its_keepalive() {
    let (_backend, weir) = one("", "limits: {keepalive: 300ms}");
    let mut client = Client::connect(weir.address());
    client.get("/");
    let start = now();
    assert!(client.is_closed_within(TIMEOUT));
    assert!(now() - start >= Duration::from_millis(200), "not before its time");
}

#[test]
fn a_connection_is_kept_longer_than_a_head_may_take() {
    let (backend, weir) = one("", "limits: {header_timeout: 100ms, keepalive: 30s}");
    let mut client = Client::connect(weir.address());
    client.get("/");
    assert!(!client.is_closed_within(Duration::from_millis(400)));
    client.get("/");
    assert_eq!(backend.count(), 2);
}

#[test]
fn a_request_body_that_stops_ends_with_408_at_the_requests_deadline() {
    let (backend, weir) = one("timeouts: {request: 1s}", "");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/", &[], 1000));
    client.send("only this");
    backend.until_count(1);
    assert_eq!(client.read_answer().status(), 408);
    assert!(client.is_closed_within(TIMEOUT));
    assert!(!backend.requests()[0].is_whole);
    until_the_only_error_is(&weir, "client_timeout");
    eventually(TIMEOUT, "nothing is in flight", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[]) == 0.0
    });
}

#[test]
fn a_request_body_that_trickles_ends_at_the_requests_deadline_too() {
    let (backend, weir) = one("timeouts: {request: 1s}", "");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/", &[], 1_000_000));
    backend.until_count(1);
    client.set_timeout(Duration::from_millis(20));
    let answer = eventually_some(TIMEOUT, "an answer to the slow body", || {
        drop(client.try_send("x"));
        client.read_some().ok()
    });
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_request_body_that_stops_is_not_the_backends_silence() {
    let (backend, weir) = one("timeouts: {response: 300ms, request: 30s}", "");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("PUT", "/", &[], 1000));
    client.send("only this");
    backend.until_count(1);
    assert_eq!(client.read_answer().status(), 408);
    assert_eq!(backend.count(), 1, "and it is not tried again");
    until_the_only_error_is(&weir, "client_timeout");
}

// ── clients that are slow, and not silent ──

const SLOW: &str = "limits: {body_rate: 1000B, body_grace: 500ms}";

/// Sends `piece` again and again, with a pause before each, until there is an answer.
fn trickle(client: &mut Client, piece: &str, pause: Duration, pieces: usize) -> Vec<u8> {
    client.set_timeout(pause);
    let mut left = pieces;
    eventually_some(TIMEOUT * 3, "an answer to the slow body", || {
        let answer = client.read_some().ok();
        if answer.is_none() && left > 0 {
            left -= 1;
            drop(client.try_send(piece));
        }
        answer
    })
}

#[test]
fn a_body_that_comes_too_slowly_is_answered_408() {
    let (backend, weir) = one("timeouts: {request: off}", SLOW);
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/", &[], 100_000));
    let answer = trickle(&mut client, "x", Duration::from_millis(20), usize::MAX);
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(!backend.requests()[0].is_whole);
    let line = weir.until_logged("its line", |line| line["status"] == 408);
    assert_eq!(line["reason"], "client_timeout");
    until_the_only_error_is(&weir, "client_timeout");
}

#[test]
fn a_slow_body_that_keeps_to_the_rate_is_taken() {
    let (backend, weir) = one("timeouts: {request: off}", SLOW);
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/", &[], 10_000));
    // Two seconds, and so four times the grace.
    let answer = trickle(&mut client, &"x".repeat(100), Duration::from_millis(20), 100);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(backend.requests()[0].is_whole);
}

#[test]
fn a_client_that_takes_its_answer_too_slowly_is_cut_off() {
    let limits = "limits: {body_rate: 10MiB, body_grace: 500ms}";
    let (backend, weir) = one("timeouts: {request: off}", limits);
    backend.set(Behaviour::Answer(Answer::body(vec![b'x'; 30_000_000])));
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", "/big", &[], 0));
    let line = eventually_some(TIMEOUT, "its line", || {
        // Far less than the socket's buffers hold, so it goes on for long.
        drop(client.read_piece(1000));
        weir.access_log().into_iter().find(|line| line["path"] == "/big")
    });
    assert_eq!(line["reason"], "client_write_timeout");
    until_the_only_error_is(&weir, "client_write_timeout");
}

#[test]
fn a_backend_that_pauses_makes_no_client_slow() {
    let (backend, weir) = one("timeouts: {request: off}", SLOW);
    let pieces = vec![b"one ".to_vec(), b"two ".to_vec(), b"three".to_vec()];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::from_secs(1) });
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/").text(), "one two three");
    let pause = Duration::from_secs(1);
    backend.set(Behaviour::slow(pause));
    assert_eq!(client.request("POST", "/", &[], b"whole").unwrap().status(), 200);
}

// ── connections to backends ──

#[test]
fn a_connection_to_a_backend_is_not_used_after_its_idle_timeout() {
    let (backend, weir) = one("timeouts: {idle: 200ms}", "");
    let mut client = Client::connect(weir.address());
    client.get("/");
    eventually(TIMEOUT, "the idle connection ends", || backend.connections_open() == 0);
    client.get("/");
    assert_eq!((backend.count(), backend.connections()), (2, 2));
}
