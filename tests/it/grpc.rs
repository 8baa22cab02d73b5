//! gRPC from end to end: HTTP/2 in, HTTP/2 out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::time::Duration;

use http::Method;

use crate::support::h2::H2Backend;
use crate::support::http2::{Both, Http2, request};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, now};

fn config(backend: &H2Backend, keys: &str) -> String {
    format!(
        "{LISTENER_KEYS}http2: true\npools: [{{name: shop, protocol: h2c, health_check: off, \
         backends: [\"{}\"], {keys}}}]\n",
        backend.url()
    )
}

fn start(keys: &str) -> (H2Backend, Weir, Http2) {
    let backend = H2Backend::start();
    let weir = Weir::start(&config(&backend, keys));
    let client = Http2::connect(weir.address());
    (backend, weir, client)
}

const FIELDS: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

fn call(path: &str) -> http::Request<()> {
    request(Method::POST, path, &FIELDS)
}

/// A call that has been answered with its first piece.
fn open(client: &mut Http2) -> Both {
    let mut stream = client.start(call("/echo"), true).unwrap();
    stream.send(b"first", false).unwrap();
    let mut both = stream.both().unwrap();
    assert_eq!(both.read(5).unwrap(), b"first");
    both
}

/// Says the last word, and hears it with the status.
fn finish(mut both: Both) {
    both.send(b"last", true).unwrap();
    assert_eq!(both.read(4).unwrap(), b"last");
    assert_eq!(both.read(1).unwrap(), b"");
    assert_eq!(both.trailers().unwrap().unwrap()["grpc-status"], "0");
}

#[test]
fn a_unary_call_comes_back_with_its_trailers() {
    let (backend, weir, mut client) = start("");
    let mut stream = client.start(call("/echo"), true).unwrap();
    stream.send(b"\0\0\0\0\x02hi", true).unwrap();
    let answer = stream.answer().unwrap();
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(answer.head.headers()["content-type"], "application/grpc");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    let seen = &backend.calls()[0];
    assert_eq!(
        (seen.authority.as_str(), seen.headers["te"].as_bytes()),
        ("weir.test", &b"trailers"[..])
    );
    let line = weir.until_logged("its line", |line| line["path"] == "/echo");
    assert_eq!(
        (line["grpc_status"].as_u64(), line["protocol"].as_str()),
        (Some(0), Some("HTTP/2"))
    );
}

#[test]
fn a_large_message_goes_through_every_window() {
    let (backend, _weir, mut client) = start("");
    let large: Vec<u8> = (0..4_194_304_u32).map(|number| number.to_le_bytes()[1]).collect();
    for path in ["/whole", "/echo"] {
        let mut stream = client.start(call(path), true).unwrap();
        stream.send(&large, true).unwrap();
        let answer = stream.answer().unwrap();
        assert!(answer.body == large, "{} bytes came back", answer.body.len());
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    assert!(backend.calls().iter().all(|call| call.body.len() == large.len()));
}

#[test]
fn both_sides_stream_at_their_own_pace() {
    let (_backend, _weir, mut client) = start("");
    let mut both = open(&mut client);
    for turn in 0..50_u8 {
        both.send(&[turn; 100], false).unwrap();
        assert_eq!(both.read(100).unwrap(), [turn; 100]);
    }
    finish(both);
}

#[test]
fn a_stream_without_a_deadline_outlives_those_of_requests() {
    let (_backend, _weir, mut client) = start("timeouts: {request: off, response: 30s}");
    let mut both = open(&mut client);
    let start = now();
    while now() - start < Duration::from_secs(3) {
        both.send(b"!", false).unwrap();
        assert_eq!(both.read(1).unwrap(), b"!");
    }
    finish(both);
}

#[test]
fn an_answer_that_is_all_head_stays_one() {
    let (_backend, _weir, mut client) = start("");
    let answer = client.start(call("/only-head"), false).unwrap().answer().unwrap();
    assert_eq!(answer.head.headers()["grpc-status"], "5");
    assert!(answer.body.is_empty());
    assert!(answer.trailers.is_none());
}

#[test]
fn a_refusal_is_one_head_with_a_status() {
    let backend = H2Backend::start();
    let weir = Weir::start(&format!(
        "{LISTENER_KEYS}http2: true\nroutes: [{{path: /shop, pool: shop}}]\n\
         pools: [{{name: shop, protocol: h2c, health_check: off, backends: [\"{}\"]}}]\n",
        backend.url()
    ));
    let mut client = Http2::connect(weir.address());
    let answer = client.start(call("/other.Service/Call"), false).unwrap().answer().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.headers()["grpc-status"], "12");
    assert_eq!(answer.head.headers()["content-type"], "application/grpc");
    assert!(answer.head.headers().contains_key("grpc-message"));
    assert!(answer.ended_with_its_head, "who looks for a status in trailers would find none");
    assert!(backend.calls().is_empty());
}

#[test]
fn a_callers_deadline_ends_the_call_on_both_sides() {
    let (backend, _weir, mut client) = start("timeouts: {request: off, response: 1h}");
    let fields = [FIELDS[0], FIELDS[1], ("grpc-timeout", "500m")];
    let asked = request(Method::POST, "/never", &fields);
    let answer = client.start(asked, false).unwrap().answer().unwrap();
    assert_eq!(answer.head.headers()["grpc-status"], "4");
    eventually(TIMEOUT, "the backend hears of it", || backend.resets() == 1);
}

#[test]
fn a_caller_that_gives_up_is_heard_by_the_backend() {
    let (backend, weir, mut client) = start("");
    let mut stream = client.start(call("/never"), true).unwrap();
    eventually(TIMEOUT, "the call is there", || backend.calls().len() == 1);
    stream.reset();
    eventually(TIMEOUT, "the backend hears of it", || backend.resets() == 1);
    let busy = || weir.metrics().sum("lb_backend_in_flight_requests", &[]);
    eventually(TIMEOUT, "the lease is back", || busy() == 0.0);
}

#[test]
fn a_stream_goes_on_over_a_reload() {
    let (backend, weir, mut client) = start("timeouts: {request: off}");
    let mut both = open(&mut client);
    weir.write_config(&config(&backend, "timeouts: {request: off, idle: 7s}"));
    weir.reload();
    both.send(b"still there", false).unwrap();
    assert_eq!(both.read(11).unwrap(), b"still there");
    finish(both);
    let answer = Http2::connect(weir.address()).start(call("/only-head"), false).unwrap().answer();
    assert_eq!(answer.unwrap().head.headers()["grpc-status"], "5");
}
