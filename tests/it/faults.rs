//! After any failure nothing leaks, and other requests are not affected.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::slice::from_ref;
use std::thread;
use std::time::Duration;

use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::client::{Client, request_bytes, try_get};
use crate::support::configs::pool;
use crate::support::http2::Http2;
use crate::support::load_generator::Load;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

/// Fails the test unless every gauge of what is under way comes down to 0.
#[track_caller]
fn until_nothing_is_left(weir: &Weir) {
    for gauge in ["lb_backend_in_flight_requests", "lb_downstream_connections"] {
        let what = format!("{gauge} is 0 again");
        eventually(TIMEOUT, &what, || weir.metrics().sum(gauge, &[]) == 0.0);
    }
    let status = weir.status();
    let backends = status["backends"].as_array().into_iter().flatten();
    let active: u64 = backends.filter_map(|one| one["in_flight_requests"].as_u64()).sum();
    assert_eq!((active, &status["downstream_connections"]), (0, &0.into()), "{status}");
}

// ── clients and backends that fail ──

/// How a client can be gone before it has its answer.
const STAGES: usize = 7;

/// A client that leaves at this stage; gives back what must not be dropped before the end.
fn leave_at(stage: usize, weir: &Weir) -> Option<Client> {
    let mut client = Client::connect(weir.address());
    match stage {
        0 => client.reset(),
        1 => {
            client.send("GET / HTTP/1.1\r\nHost: a");
            client.reset();
        }
        2 => {
            client.send(request_bytes("POST", "/", &[], 100_000));
            client.send(vec![b'x'; 5000]);
            client.reset();
        }
        3 => {
            client.send(request_bytes("GET", "/slow", &[], 0));
            client.reset();
        }
        4 => {
            client.send(request_bytes("GET", "/big", &[], 0));
            drop(client.read_some());
            client.reset();
        }
        5 => {
            client.send(request_bytes("GET", "/slow", &[], 0));
            client.half_close();
            drop(client.read_some());
        }
        _ => {
            client.send(request_bytes("GET", "/big", &[], 0));
            return Some(client);
        }
    }
    None
}

#[test]
fn after_clients_and_backends_that_die_at_every_stage_nothing_is_left_and_others_were_served() {
    let backends = Backend::start_many(2);
    for backend in &backends {
        backend.on("/big", Behaviour::Answer(Answer::body(vec![b'x'; 16 << 20])));
        backend.on("/slow", Behaviour::slow(Duration::from_millis(100)));
        backend.on("/cut", Behaviour::ResetMidBody);
        backend.on("/close", Behaviour::CloseBeforeAnswer);
        backend.on("/reset", Behaviour::ResetBeforeAnswer);
        backend.on("/short", Behaviour::WrongLength { promised: 100, sent: 10 });
        backend.on("/garbage", Behaviour::Garbage(b"hello\r\n\r\n".to_vec()));
    }
    let keys = "retry: {attempts: 2, backoff: 1ms}\ntimeouts: {request: 3s}";
    let weir = Weir::start(&pool(&backends, keys));
    let good = Load::on(weir.address()).start();
    let slow_readers: Vec<Client> = thread::scope(|scope| {
        let dying = scope.spawn(|| {
            for path in ["/cut", "/close", "/reset", "/short", "/garbage"].repeat(3) {
                let status = try_get(weir.address(), path).map(|answer| answer.status());
                assert_ne!(status, Ok(200), "{path}");
            }
        });
        let leaving = (0..STAGES).map(|stage| {
            let weir = &weir;
            scope.spawn(move || (0..10).filter_map(|_| leave_at(stage, weir)).collect::<Vec<_>>())
        });
        let leaving: Vec<_> = leaving.collect();
        dying.join().unwrap();
        leaving.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let tally = good.stop();
    assert_eq!(tally.failed(), 0, "{:?} {:?}", tally.statuses, tally.errors);
    until_nothing_is_left(&weir);
    drop(slow_readers);
}

#[test]
fn a_client_that_resets_while_it_waits_lets_go_of_its_backend() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), ""));
    backend.set(Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", "/", &[], 0));
    backend.until_count(1);
    client.reset();
    eventually(TIMEOUT, "the backend is left alone", || backend.abandoned() == 1);
    until_nothing_is_left(&weir);
    let line = weir.until_logged("the request", |_| true);
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_aborted".into()));
}

#[test]
fn a_client_that_leaves_is_no_failure_of_a_backend() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), ""));
    backend.set(Behaviour::Answer(Answer::body(vec![b'x'; 16 << 20])));
    for stage in [2, 4] {
        leave_at(stage, &weir);
    }
    let gone = |line: &serde_json::Value| line["reason"] == "client_aborted";
    eventually(TIMEOUT, "both are logged", || {
        weir.access_log().iter().filter(|l| gone(l)).count() == 2
    });
    assert_eq!(weir.status()["backends"][0]["total_failures"], 0);
    assert_eq!(weir.metrics().sum("lb_errors_total", &[]), 0.0);
}

// ── hooks that panic ──

/// Every hook that a request passes, or can pass when its backend fails.
const HOOKS: [&str; 12] = [
    "early_request_filter",
    "request_filter",
    "upstream_peer",
    "fail_to_connect",
    "connected_to_upstream",
    "upstream_request_filter",
    "upstream_response_filter",
    "response_filter",
    "response_body_filter",
    "error_while_proxy",
    "fail_to_proxy",
    "logging",
];

#[cfg(debug_assertions)]
#[test]
fn a_panic_in_any_hook_costs_its_own_request_alone_and_leaves_nothing_behind() {
    let backend = Backend::start("one");
    backend.on("/panic/error_while_proxy", Behaviour::CloseBeforeAnswer);
    backend.on("/panic/fail_to_proxy", Behaviour::CloseBeforeAnswer);
    let refused = crate::support::ports::own_socket(3000);
    let routes = "routes: [{pool: web}, {path: /panic/fail_to_connect, pool: dead}]\n";
    let dead = format!("  - {{name: dead, health_check: off, backends: [\"http://{refused}\"]}}\n");
    let config = format!("{routes}{}{dead}", pool(from_ref(&backend), "retry: {attempts: 1}"));
    let config = format!("{LISTENER_KEYS}http2: true\n{config}");
    let weir = Weir::start_with(&config, &[("WEIR_FAULT", "panic")]);
    let good = Load::on(weir.address()).start();
    // What the last hook sees has been sent before.
    let expected = |hook| if hook == "logging" { 200 } else { 500 };
    for hook in HOOKS {
        let path = format!("/panic/{hook}");
        let status = try_get(weir.address(), &path).map(|answer| answer.status());
        assert_eq!(status, Ok(expected(hook)), "{hook}");
        let status = Http2::connect(weir.address()).get(&path, &[]).map(|answer| answer.status());
        assert_eq!(status.unwrap(), expected(hook), "{hook} over HTTP/2");
    }
    let tally = good.stop();
    assert_eq!(tally.failed(), 0, "{:?} {:?}", tally.statuses, tally.errors);
    until_nothing_is_left(&weir);
    let panics = f64::from(u32::try_from(HOOKS.len() * 2).unwrap());
    assert_eq!(weir.metrics().sum("lb_panics_total", &[]), panics);
    assert_eq!(weir.metrics().sum("lb_errors_total", &[("type", "panic")]), panics);
    for hook in HOOKS {
        let path = format!("/panic/{hook}");
        for protocol in ["HTTP/1.1", "HTTP/2"] {
            let line = weir.until_logged("its line", |line| {
                line["path"] == path.as_str() && line["protocol"] == protocol
            });
            assert_eq!((&line["reason"], &line["method"]), (&"panic".into(), &"GET".into()));
            assert_eq!(line["status"], expected(hook), "{line}");
            assert!(line["bytes_out"].as_u64() > Some(0), "{line}");
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_is_500_after_an_interim_response_and_without_a_body_to_head() {
    let backend = Backend::start("one");
    let weir = Weir::start_with(&pool(from_ref(&backend), ""), &[("WEIR_FAULT", "panic")]);
    let mut client = Client::connect(weir.address());
    let answer = client.request("HEAD", "/panic/upstream_peer", &[], b"").unwrap();
    assert_eq!((answer.status(), answer.header("content-length")), (500, Some("22")));
    assert!(client.is_closed_within(TIMEOUT), "nothing follows");
    let line = weir.until_logged("its line", |line| line["method"] == "HEAD");
    assert_eq!((&line["status"], &line["bytes_out"]), (&500.into(), &0.into()));
    assert_eq!(answer.header("x-request-id"), line["request_id"].as_str());
    let continues = "HTTP/1.1 100 Continue\r\n\r\n".to_owned();
    backend.set(Behaviour::Interim(continues, Box::new(Behaviour::Good)));
    let mut client = Client::connect(weir.address());
    let fields = [("Expect", "100-continue")];
    let answer = client.request("POST", "/panic/response_body_filter", &fields, b"x").unwrap();
    assert_eq!(answer.status(), 500);
}

#[test]
fn a_path_alone_makes_nothing_panic() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), ""));
    for hook in HOOKS {
        assert_eq!(weir.get(&format!("/panic/{hook}")).status(), 200);
    }
    assert_eq!(weir.metrics().sum("lb_panics_total", &[]), 0.0);
}

// ── what is no HTTP ──

/// Request headers that are invalid by RFC 9112.
const GARBAGE: [&[u8]; 40] = [
    // The request line (§3).
    b"hello\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.11\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1\r\nHost: a\r\n\r\n",
    b"GET / http/1.1\r\nHost: a\r\n\r\n",
    b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    // The target (§3.2).
    b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    b"GET ?a=b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    // The host (§3.2; RFC 9110 §7.2).
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    // Fields (§5; RFC 9110 §5.5).
    b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n",
    // The length of the body (§6).
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

#[test]
fn what_is_no_http_is_answered_400_and_counted_and_reaches_no_backend() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), ""));
    for bytes in GARBAGE {
        let text = String::from_utf8_lossy(bytes);
        let mut client = Client::connect(weir.address());
        client.send(bytes);
        let status = client.try_read_answer("GET").map(|answer| answer.status());
        assert_eq!((status, backend.count()), (Ok(400), 0), "{text:?}");
    }
    eventually(TIMEOUT, "each is logged", || weir.access_log().len() == GARBAGE.len());
    assert!(weir.access_log().iter().all(|line| line["reason"] == "bad_request"));
    assert!(weir.access_log().iter().any(|line| line["detail"] == "bare_cr"));
    let all = f64::from(u32::try_from(GARBAGE.len()).unwrap());
    let is_counted = |metric, labels| weir.metrics().sum(metric, labels) == all;
    // The last is counted just after it is logged.
    eventually(TIMEOUT, "each is counted", || {
        is_counted("lb_errors_total", &[("type", "bad_request")])
            && is_counted("lb_requests_total", &[("status", "400")])
    });
    until_nothing_is_left(&weir);
}

#[test]
fn chunks_that_are_none_end_the_connection_with_400() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), ""));
    for body in ["xyz\r\n", "1\r\nabc\r\n0\r\n\r\n", "-1\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = Client::connect(weir.address());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(body);
        assert_eq!(client.read_answer().status(), 400, "{body:?}");
        assert!(client.is_closed_within(TIMEOUT), "{body:?}");
    }
    assert!(backend.requests().iter().all(|seen| !seen.is_whole), "{:?}", backend.requests());
    until_nothing_is_left(&weir);
}
