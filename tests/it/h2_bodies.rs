//! Bodies on their way to backends of HTTP/2, and answers that come before them.

use std::time::Duration;

use http::Method;

use crate::support::client::{Client, request_bytes};
use crate::support::h2::H2Backend;
use crate::support::http2::{Http2, request};
use crate::support::tls::Authority;
use crate::support::tls_front::TlsFront;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, now, ports};

/// More than a backend's window and what may be on its way before it.
const MUCH: usize = 300_000;

fn config(url: &str, pool: &str) -> String {
    format!(
        "{LISTENER_KEYS}http2: true\npools: [{{name: web, health_check: off, backends: [{url}], \
         {pool}}}]\n"
    )
}

fn h2c(pool: &str) -> (H2Backend, Weir) {
    let backend = H2Backend::start();
    let weir = Weir::start(&config(&backend.url(), &format!("protocol: h2c, {pool}")));
    (backend, weir)
}

#[test]
fn a_backend_that_reads_on_when_its_answer_is_taken_does_not_stand_still() {
    let (backend, weir) = h2c("timeouts: {request: off, response: 5s}");
    let body = vec![b'x'; MUCH];
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/expand", &[]), true).unwrap();
    stream.send(&body, false).unwrap();
    // The end comes by itself, as gRPC has it, when there is no room in the backend's window.
    stream.send(b"", true).unwrap();
    assert_eq!(stream.answer().unwrap().body.len(), 64 * MUCH);
    let mut client = Client::connect(weir.address());
    let answer = client.request("POST", "/expand", &[], &body).unwrap();
    assert_eq!(answer.body.len(), 64 * MUCH);
    let received: Vec<usize> = backend.calls().iter().map(|call| call.body.len()).collect();
    assert_eq!(received, [MUCH, MUCH]);
}

#[test]
fn over_tls_it_does_not_either() {
    let (backend, authority) = (H2Backend::start(), Authority::new());
    let identity = authority.identity("site", &["web.internal"]);
    let address = ports::own_socket(3443);
    let front = TlsFront::with(address, backend.address(), &identity, None, &["h2"]);
    let tls = format!("tls: {{ca: {}, server_name: web.internal}}", authority.ca().display());
    for protocol in ["h2", "auto"] {
        let pool = format!("protocol: {protocol}, timeouts: {{request: off, response: 5s}}, {tls}");
        let weir = Weir::start(&config(&front.url(), &pool));
        let before = backend.calls().len();
        let mut stream = Http2::connect(weir.address())
            .start(request(Method::POST, "/expand", &[]), true)
            .unwrap();
        stream.send(&vec![b'x'; MUCH], true).unwrap();
        assert_eq!(stream.answer().unwrap().body.len(), 64 * MUCH, "{protocol}");
        assert_eq!(backend.calls()[before].body.len(), MUCH);
    }
}

#[test]
fn no_more_is_read_of_a_client_than_the_backend_takes() {
    let (backend, weir) = h2c("");
    let many = 50_000_000;
    let mut client = Client::connect(weir.address());
    client.send(format!("POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: {many}\r\n\r\n"));
    eventually(TIMEOUT, "it is there", || backend.calls().len() == 1);
    let line_before = weir.metrics().sum("process_resident_memory_bytes", &[]);
    client.set_timeout(Duration::from_millis(500));
    let piece = vec![b'x'; 64 * 1024];
    // Until no more is accepted: the sockets on the way buffer some.
    let sent = (0..many / piece.len()).take_while(|_| client.try_send(&piece).is_ok()).count();
    assert!(sent * piece.len() < 20_000_000, "{sent} pieces were taken");
    let grown = weir.metrics().sum("process_resident_memory_bytes", &[]) - line_before;
    assert!(grown < 10e6, "{grown} bytes more in memory");
}

#[test]
fn a_backend_that_takes_no_body_is_the_late_one() {
    let (_backend, weir) = h2c("timeouts: {request: 500ms}");
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/never", &[]), true).unwrap();
    stream.send(&vec![b'x'; 2 * MUCH], false).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 504);
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/never", &[], 2 * MUCH));
    client.send(vec![b'x'; MUCH]);
    assert_eq!(client.read_answer().status(), 504);
    eventually(TIMEOUT, "both are logged", || {
        let lines = weir.access_log();
        lines.iter().filter(|line| line["reason"] == "request_timeout").count() == 2
    });
}

#[test]
fn a_client_that_leaves_while_its_body_is_held_back_gives_its_stream_up() {
    let (backend, weir) = h2c("timeouts: {request: off}");
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/never", &[]), true).unwrap();
    stream.send(&vec![b'x'; 2 * MUCH], false).unwrap();
    eventually(TIMEOUT, "it is there", || backend.calls().len() == 1);
    stream.reset();
    eventually(TIMEOUT, "the stream is given up", || backend.resets() == 1);
    let line = weir.until_logged("its line", |line| line["path"] == "/never");
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_aborted".into()));
}

#[test]
fn an_answer_that_comes_early_costs_nothing_of_the_request() {
    let (backend, weir) = h2c("");
    let body = vec![b'x'; 10 * MUCH];
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/early", &[]), true).unwrap();
    stream.send(&body, true).unwrap();
    let mut both = stream.both().unwrap();
    assert_eq!(both.read(5).unwrap(), b"early");
    let mut client = Client::connect(weir.address());
    assert_eq!(client.request("POST", "/early", &[], &body).unwrap().text(), "early");
    eventually(TIMEOUT, "both are whole", || {
        backend.calls().iter().filter(|call| call.body.len() == body.len()).count() == 2
    });
}

#[test]
fn a_backend_that_has_heard_enough_is_answered_for_as_it_says() {
    let (_backend, weir) = h2c("");
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/enough", &[]), true).unwrap();
    stream.send(&vec![b'x'; 10 * MUCH], false).unwrap();
    let mut both = stream.both().unwrap();
    assert_eq!(both.read(6).unwrap(), b"enough");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/enough", &[], 10 * MUCH));
    let _cut_off = client.try_send(vec![b'x'; 5 * MUCH]);
    assert_eq!(client.read_answer().text(), "enough");
    eventually(TIMEOUT, "both are logged", || {
        let lines = weir.access_log();
        lines.iter().filter(|line| line["status"] == 200 && line["reason"].is_null()).count() == 2
    });
}

#[test]
fn an_answer_of_its_length_is_whole_though_its_stream_goes_on() {
    let (backend, weir) = h2c("timeouts: {response: 30s}");
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/unended").text(), "whole");
    eventually(TIMEOUT, "the stream is given up", || backend.resets() == 1);
    assert_eq!(client.get("/").text(), "h2", "the connection is kept");
}

#[test]
fn an_upload_may_take_longer_than_the_answer_as_long_as_it_goes_on() {
    let (backend, weir) = h2c("timeouts: {request: off, response: 500ms}");
    let body = |client: &mut Client| {
        client.send(request_bytes("POST", "/", &[], 40));
        let start = now();
        for piece in 1..=40_u32 {
            eventually(TIMEOUT, "its turn", || now() - start > Duration::from_millis(50) * piece);
            client.send("x");
        }
    };
    let mut client = Client::connect(weir.address());
    body(&mut client);
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(backend.calls()[0].body.len(), 40);
}

#[test]
fn a_request_goes_on_though_its_answer_is_not_taken() {
    // More than the backend's window of 65,535, and as much behind it as Weir takes of a client.
    let body = vec![b'x'; 105_000];
    // Of that, Weir has taken this much for certain before the response begins. While the response
    // waits for the client, nothing more is read of the request.
    let taken = 83_000;
    for over_http1 in [false, true] {
        let (backend, weir) = h2c("timeouts: {request: off, response: 30s}");
        let mut client = Client::connect(weir.address());
        let mut stream = None;
        if over_http1 {
            client.send(request_bytes("POST", "/flood", &[], body.len()));
            client.send(&body);
            eventually(TIMEOUT, "the request is read", || client.is_all_read());
        } else {
            let mut connection = Http2::connect(weir.address());
            let call = stream
                .insert(connection.start(request(Method::POST, "/flood", &[]), true).unwrap());
            call.send(&body, false).unwrap();
            // Weir opens its window of 65,536 again when half of what is left of it was read. So
            // this comes for certain, and then at most 22,000 bytes were not read.
            eventually(TIMEOUT, "most of the request is read", || call.window() >= 43_600);
        }
        let length = || backend.calls().first().map_or(0, |call| call.body.len());
        eventually(TIMEOUT, "a window of it is there", || length() == 65_535);
        backend.signal();
        let mut before = None;
        eventually(TIMEOUT, "nothing more is taken of the answer", || {
            weir.get("/");
            let flooded = backend.flooded();
            before.replace(flooded) == Some(flooded) && flooded > 300_000
        });
        backend.signal();
        eventually(TIMEOUT, "what was taken is there", || length() >= taken);
    }
}

#[test]
fn a_backend_that_has_responded_and_reads_no_more_delays_no_client_for_ever() {
    let (backend, weir) = h2c("timeouts: {request: off, response: 500ms}");
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/deaf", &[]), true).unwrap();
    stream.send(&vec![b'x'; MUCH], false).unwrap();
    let mut both = stream.both().unwrap();
    assert_eq!(both.read(4).unwrap(), b"deaf");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/deaf", &[], 2 * MUCH));
    client.send(vec![b'x'; MUCH]);
    assert_eq!(client.read_answer().text(), "deaf");
    eventually(TIMEOUT, "both streams are given up", || backend.resets() == 2);
    eventually(TIMEOUT, "both are logged", || {
        let lines = weir.access_log();
        lines.iter().filter(|line| line["status"] == 200 && line["reason"].is_null()).count() == 2
    });
}

#[test]
fn a_body_that_turns_out_too_large_is_refused_before_any_timeout() {
    let backend = H2Backend::start();
    let pool = "protocol: h2c, timeouts: {request: off, response: 1h}";
    let weir = Weir::start(&(config(&backend.url(), pool) + "limits: {body: 1000B}\n"));
    let mut client = Client::connect(weir.address());
    client.send("POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n");
    client.send([b'x'; 0x800]);
    assert_eq!(client.read_answer().status(), 413);
    let mut stream =
        Http2::connect(weir.address()).start(request(Method::POST, "/never", &[]), true).unwrap();
    stream.send(&[b'x'; 2000], false).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 413);
    eventually(TIMEOUT, "both streams are given up", || backend.resets() == 2);
    assert_eq!(weir.status()["backends"][0]["total_failures"], 0, "it is not the backend's fault");
}

#[test]
fn a_client_that_sends_no_body_costs_no_other_client_a_connection() {
    let (backend, weir) = h2c("timeouts: {response: 300ms}");
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/never", &[], 5));
    assert_eq!(client.read_answer().status(), 408);
    assert_eq!(weir.get("/").text(), "h2");
    assert_eq!(backend.connections(), 1);
}
