//! Tests with raw HTTP over sockets: they check the bytes that a peer receives.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::JoinHandle;

use super::*;

/// A server on its own thread. Dropping it stops it.
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

    /// Sends `request`, which must request `Connection: close`, and reads the whole response.
    fn send(&self, request: &str) -> String {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        response
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

fn body(response: &str) -> Value {
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Reads until `end`, which must be the last bytes sent.
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
fn the_response_repeats_the_request_as_received() {
    let origin = Running::named("one");
    let response = origin.send(
        "PUT /a%20b/../c?x=1&y HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nX-Two: 2\r\n\
         Connection: close\r\nContent-Length: 3\r\n\r\nabc",
    );
    let seen = body(&response);
    assert_eq!(seen["server"], "one");
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/a%20b/../c?x=1&y");
    assert_eq!(seen["headers"]["host"], "h");
    assert_eq!(seen["headers"]["x-two"], serde_json::json!(["1", "2"]));
    assert_eq!(seen["body_bytes"], 3);
}

#[test]
fn the_response_names_the_origin_in_a_header() {
    let response =
        Running::named("two").send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("\r\nX-Origin: two\r\n"), "{response}");
}

#[test]
fn a_chunked_body_is_read_to_its_end() {
    let response = Running::named("one").send(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    );
    assert_eq!(body(&response)["body_bytes"], 7);
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
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
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    assert_eq!(body(&response)["body_bytes"], 2);
}

#[test]
fn head_has_the_length_of_the_body_and_no_body() {
    let response =
        Running::named("one").send("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let (head, rest) = response.split_once("\r\n\r\n").unwrap();
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
    let response = Running::named("one").send(
        "GET /first HTTP/1.1\r\nHost: h\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    let first = response.find("/first").unwrap();
    let second = response.find("/second").unwrap();
    assert!(first < second, "{response}");
}

#[test]
fn an_http_1_0_client_is_answered_and_the_connection_closed() {
    let response = Running::named("one").send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(body(&response)["path"], "/old");
}

#[test]
fn invalid_http_gets_400() {
    let response = Running::named("one").send("nonsense\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

#[test]
fn the_status_can_be_set() {
    let origin = Running::with(OriginOptions { status: 503, ..OriginOptions::default() });
    let response = origin.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
}

#[test]
fn a_status_without_a_body_has_none() {
    let origin = Running::with(OriginOptions { status: 204, ..OriginOptions::default() });
    let response = origin.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(!response.contains("Content-Length"), "{response}");
    assert!(response.ends_with("\r\n\r\n"), "{response}");
}

#[test]
fn an_informational_status_counts_as_200() {
    let options = OriginOptions { status: 103, ..OriginOptions::default() };
    assert_eq!(options.status(), StatusCode::OK);
}

#[test]
fn health_is_200_for_any_configured_status() {
    let origin = Running::with(OriginOptions { status: 503, ..OriginOptions::default() });
    let response = origin.send("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert_eq!(body(&response), serde_json::json!({"status": "ok"}));
}

#[test]
fn a_failing_origin_responds_500_to_requests() {
    let origin = Running::with(OriginOptions { fail: true, ..OriginOptions::default() });
    let response = origin.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
}

#[test]
fn a_failing_origin_responds_500_to_health_checks() {
    let origin = Running::with(OriginOptions { fail: true, ..OriginOptions::default() });
    let response = origin.send("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
}

#[test]
fn health_checks_are_answered_during_a_slow_response() {
    let latency = Duration::from_millis(500);
    let origin = Running::with(OriginOptions { latency, ..OriginOptions::default() });
    let mut slow = origin.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let probe = origin.send("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(probe.starts_with("HTTP/1.1 200 "), "{probe}");

    slow.set_nonblocking(true).unwrap();
    let early = slow.read(&mut [0; 1]).unwrap_err();
    assert_eq!(
        early.kind(),
        io::ErrorKind::WouldBlock,
        "the slow response came before the probe's"
    );
}

#[test]
fn a_response_in_progress_is_completed_at_a_stop() {
    let latency = Duration::from_millis(300);
    let origin = Running::with(OriginOptions { latency, ..OriginOptions::default() });
    let mut socket = origin.connect();
    // The request must have started before the server is stopped.
    socket
        .write_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        )
        .unwrap();
    read_until(&mut socket, "\r\n\r\n");
    socket.write_all(b"ab").unwrap();
    drop(origin);
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    assert_eq!(body(&response)["body_bytes"], 2);
}

#[test]
fn an_idle_connection_does_not_delay_a_stop() {
    let origin = Running::named("one");
    let mut socket = origin.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    read_until(&mut socket, "}\n");
    drop(origin);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "the connection is closed");
}
