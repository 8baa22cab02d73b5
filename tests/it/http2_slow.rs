//! Clients of HTTP/2 that are slow, and not silent: `limits.body_rate`, stream by stream.

use std::time::Duration;

use http::Method;

use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::h2::H2Backend;
use crate::support::http2::{Http2, request};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, eventually_some, now};

const SLOW: &str = "limits: {body_rate: 1000B, body_grace: 500ms}";

fn config(url: &str, pool: &str, more: &str) -> String {
    format!(
        "{LISTENER_KEYS}http2: true\npools: [{{name: web, health_check: off, backends: [{url}], \
         timeouts: {{request: off}}{pool}}}]\n{more}"
    )
}

fn one(more: &str) -> (Backend, Weir, Http2) {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend.url(), "", more));
    let client = Http2::connect(weir.address());
    (backend, weir, client)
}

#[test]
fn a_body_that_comes_too_slowly_is_answered_408_and_its_stream_alone() {
    let (backend, weir, mut client) = one(SLOW);
    backend.set(Behaviour::NeverAnswer);
    let beside = client.start(request(Method::GET, "/beside", &[]), false).unwrap();
    let stream = client.start(request(Method::POST, "/slow", &[]), true).unwrap();
    // A byte now and then only puts the end off.
    let answer = stream.trickle(b"x", Duration::from_millis(20), usize::MAX).unwrap();
    assert_eq!(answer.status(), 408);
    let line = weir.until_logged("its line", |line| line["status"] == 408);
    assert_eq!((&line["reason"], &line["path"]), (&"client_timeout".into(), &"/slow".into()));
    let received = backend.requests();
    assert!(!received.iter().any(|request| request.target == "/slow" && request.is_whole));
    backend.release();
    assert_eq!(beside.answer().unwrap().status(), 200);
}

#[test]
fn a_slow_body_that_keeps_to_the_rate_is_taken() {
    let (backend, _weir, mut client) = one(SLOW);
    let stream = client.start(request(Method::POST, "/", &[]), true).unwrap();
    // Two seconds, and so four times the grace.
    let answer = stream.trickle(&[b'x'; 100], Duration::from_millis(20), 100).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(backend.requests()[0].body.len(), 10_000);
}

#[test]
fn a_client_that_takes_its_answer_too_slowly_is_cut_off_and_its_stream_alone() {
    let (backend, weir, mut client) = one("limits: {body_rate: 10MiB, body_grace: 500ms}");
    backend.set(Behaviour::Answer(Answer::body(vec![b'x'; 30_000_000])));
    let stream = client.start(request(Method::GET, "/big", &[]), false).unwrap();
    let mut both = stream.both().unwrap();
    let line = eventually_some(TIMEOUT, "its line", || {
        // Far less than there is, so it goes on for long.
        drop(both.read(1000));
        weir.access_log().into_iter().find(|line| line["path"] == "/big")
    });
    assert_eq!((&line["reason"], &line["status"]), (&"client_write_timeout".into(), &200.into()));
    assert!(both.read(usize::MAX).is_err(), "the stream is reset, for the answer is not whole");
    backend.set(Behaviour::default());
    assert_eq!(client.get("/", &[]).unwrap().status(), 200, "the connection goes on");
}

#[test]
fn a_backend_that_pauses_makes_no_client_slow() {
    let (backend, _weir, mut client) = one(SLOW);
    let pieces = vec![b"one ".to_vec(), b"two ".to_vec(), b"three".to_vec()];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::from_secs(1) });
    assert_eq!(client.get("/", &[]).unwrap().body, b"one two three");
    backend.set(Behaviour::slow(Duration::from_secs(1)));
    let mut stream = client.start(request(Method::POST, "/", &[]), true).unwrap();
    stream.send(b"whole", true).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 200);
}

#[test]
fn a_backend_that_takes_no_body_makes_no_client_slow() {
    let backend = H2Backend::start();
    let weir = Weir::start(&config(&backend.url(), ", protocol: h2c", SLOW));
    let mut client = Http2::connect(weir.address());
    let mut stream = client.start(request(Method::POST, "/late", &[]), true).unwrap();
    // More than fits on the way, and the backend looks at nothing of it for two seconds.
    stream.send(&vec![b'x'; 2_000_000], true).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 200);
    assert_eq!(weir.metrics().sum("lb_errors_total", &[]), 0.0);
}

#[test]
fn a_call_may_be_silent() {
    let backend = H2Backend::start();
    let weir = Weir::start(&config(&backend.url(), ", protocol: h2c", SLOW));
    let mut client = Http2::connect(weir.address());
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut stream = client.start(request(Method::POST, "/echo", &fields), true).unwrap();
    stream.send(b"first", false).unwrap();
    let mut both = stream.both().unwrap();
    assert_eq!(both.read(5).unwrap(), b"first");
    let start = now();
    eventually(TIMEOUT, "four times the grace", || now() - start > Duration::from_secs(2));
    both.send(b"last", true).unwrap();
    assert_eq!(both.read(4).unwrap(), b"last");
}

#[test]
fn a_client_is_not_waited_for_while_it_is_to_take_its_answer() {
    let backend = H2Backend::start();
    let weir = Weir::start(&config(&backend.url(), ", protocol: h2c", SLOW));
    let mut client = Http2::connect(weir.address());
    let mut stream = client.start(request(Method::POST, "/flood", &[]), true).unwrap();
    stream.send(&[b'x'; 300], false).unwrap();
    backend.signal();
    backend.signal();
    let mut both = stream.both().unwrap();
    // Six times the grace: more than is asked for goes each way, and seldom.
    for _ in 0..15 {
        let start = now();
        eventually(TIMEOUT, "a pause", || now() - start > Duration::from_millis(200));
        both.send(&[b'x'; 400], false).unwrap();
        assert_eq!(both.read(8_000).unwrap().len().min(8_000), 8_000);
    }
    assert_eq!(weir.metrics().sum("lb_errors_total", &[]), 0.0);
}
