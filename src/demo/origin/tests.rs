//! Raw HTTP over plain sockets: what is claimed is what a peer sees on the wire.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::JoinHandle;

use super::*;

/// One origin on its own thread, stopped when dropped.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn with(options: OriginOptions) -> Self {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread =
            std::thread::spawn(move || runtime.block_on(serve(listener, options, stopped)));
        Self { address, stop, thread: Some(thread) }
    }

    fn named(name: &str) -> Self {
        Self::with(OriginOptions { name: name.to_owned(), ..OriginOptions::default() })
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Sends `request`, which must ask for the connection to be closed, and gives back all.
    fn ask(&self, request: &str) -> String {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Reads until `end` has come, which must be the last thing sent.
fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 1024];
    while !seen.ends_with(end.as_bytes()) {
        let count = socket.read(&mut piece).unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(seen).unwrap()
}

#[test]
fn the_answer_repeats_the_request_as_it_was_received() {
    let origin = Running::named("one");
    let answer = origin.ask(
        "PUT /a%20b/../c?x=1&y HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nX-Two: 2\r\n\
         Connection: close\r\nContent-Length: 3\r\n\r\nabc",
    );
    let seen = body(&answer);
    assert_eq!(seen["server"], "one");
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/a%20b/../c?x=1&y");
    assert_eq!(seen["headers"]["host"], "h");
    assert_eq!(seen["headers"]["x-two"], serde_json::json!(["1", "2"]));
    assert_eq!(seen["body_bytes"], 3);
}

#[test]
fn the_answer_names_the_origin_in_a_header_field() {
    let answer =
        Running::named("two").ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nX-Origin: two\r\n"), "{answer}");
}

#[test]
fn a_chunked_body_is_read_to_its_end() {
    let answer = Running::named("one").ask(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    );
    assert_eq!(body(&answer)["body_bytes"], 7);
}

#[test]
fn a_client_that_asks_whether_to_continue_is_told_to() {
    let origin = Running::named("one");
    let mut socket = origin.connect();
    socket
        .write_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\n\
              Content-Length: 2\r\n\r\n",
        )
        .unwrap();
    assert_eq!(read_until(&mut socket, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"ab").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(body(&answer)["body_bytes"], 2);
}

#[test]
fn head_has_the_length_of_the_body_and_no_body() {
    let answer =
        Running::named("one").ask("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert!(length.parse::<usize>().unwrap() > 50, "{head}");
    assert_eq!(rest, "");
}

#[test]
fn one_connection_serves_many_requests() {
    let origin = Running::named("one");
    let mut socket = origin.connect();
    for path in ["/first", "/second", "/third"] {
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(body(&read_until(&mut socket, "}\n"))["path"], path);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let answer = Running::named("one").ask(
        "GET /first HTTP/1.1\r\nHost: h\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    let first = answer.find("/first").unwrap();
    let second = answer.find("/second").unwrap();
    assert!(first < second, "{answer}");
}

#[test]
fn an_http_1_0_client_is_answered_and_the_connection_closed() {
    let answer = Running::named("one").ask("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(body(&answer)["path"], "/old");
}

#[test]
fn what_is_not_http_is_refused() {
    let answer = Running::named("one").ask("nonsense\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn the_status_can_be_set() {
    let origin = Running::with(OriginOptions { status: 503, ..OriginOptions::default() });
    let answer = origin.ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn a_status_without_a_body_has_none() {
    let origin = Running::with(OriginOptions { status: 204, ..OriginOptions::default() });
    let answer = origin.ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(!answer.contains("Content-Length"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn an_interim_status_is_taken_for_200() {
    let options = OriginOptions { status: 103, ..OriginOptions::default() };
    assert_eq!(options.status(), StatusCode::OK);
}

#[test]
fn health_is_ok_whatever_the_status_of_the_rest() {
    let origin = Running::with(OriginOptions { status: 503, ..OriginOptions::default() });
    let answer = origin.ask("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body(&answer), serde_json::json!({"status": "ok"}));
}

#[test]
fn a_failing_origin_answers_500_to_requests() {
    let origin = Running::with(OriginOptions { fail: true, ..OriginOptions::default() });
    let answer = origin.ask("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
}

#[test]
fn a_failing_origin_answers_500_to_probes() {
    let origin = Running::with(OriginOptions { fail: true, ..OriginOptions::default() });
    let answer = origin.ask("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
}

#[test]
fn probes_are_answered_while_a_slow_answer_is_due() {
    let latency = Duration::from_millis(500);
    let origin = Running::with(OriginOptions { latency, ..OriginOptions::default() });
    let mut slow = origin.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let probe = origin.ask("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(probe.starts_with("HTTP/1.1 200 "), "{probe}");

    slow.set_nonblocking(true).unwrap();
    let early = slow.read(&mut [0; 1]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock, "the slow answer came before the probe's");
}

#[test]
fn an_answer_in_flight_is_finished_when_the_origin_stops() {
    let latency = Duration::from_millis(300);
    let origin = Running::with(OriginOptions { latency, ..OriginOptions::default() });
    let mut socket = origin.connect();
    // The origin must have taken the request up before it is stopped.
    socket
        .write_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        )
        .unwrap();
    read_until(&mut socket, "\r\n\r\n");
    socket.write_all(b"ab").unwrap();
    drop(origin);
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(body(&answer)["body_bytes"], 2);
}

#[test]
fn an_idle_connection_does_not_keep_a_stopped_origin() {
    let origin = Running::named("one");
    let mut socket = origin.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    read_until(&mut socket, "}\n");
    drop(origin);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "the connection is closed");
}
