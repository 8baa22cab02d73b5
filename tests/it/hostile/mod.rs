//! Invalid input of clients and backends, and the reactions to it.

mod answers;
mod bytes;
#[expect(clippy::expect_used, clippy::panic, reason = "a table that cannot be read fails the test")]
#[path = "../../http/frames.rs"]
mod frames;
mod http2;
mod http2_answers;
mod origin;
mod requests;
#[expect(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    reason = "one reader for two tests; a table that cannot be read fails them"
)]
#[path = "../../http/table.rs"]
mod table;

use std::slice::from_ref;
use std::time::Duration;

use crate::support::TIMEOUT;
use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::ports::own_socket;
use crate::support::weir::Weir;
use crate::support::{eventually, eventually_some};

fn one(pool_keys: &str) -> (Backend, Weir) {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), pool_keys));
    (backend, weir)
}

fn ask(weir: &Weir, request: &str) -> u16 {
    let mut client = Client::connect(weir.address());
    client.send(request);
    client.read_answer().status()
}

#[test]
fn a_host_longer_than_any_name_is_refused_before_anything_looks_at_it() {
    let (backend, weir) = one("");
    let host = "a.".repeat(1000);
    assert_eq!(ask(&weir, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400);
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_repeated_length_is_rejected_and_the_connection_is_closed() {
    let (backend, weir) = one("");
    for lengths in ["Content-Length: 2\r\nContent-Length: 2\r\n", "Content-Length: 2, 2\r\n"] {
        let mut client = Client::connect(weir.address());
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lengths}\r\nhi"));
        assert_eq!(client.read_answer().status(), 400, "{lengths}");
        assert!(client.is_closed_within(TIMEOUT));
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_length_that_a_backend_tells_twice_reaches_the_client_once() {
    let (backend, weir) = one("");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi";
    backend.set(Behaviour::Raw(answer.into()));
    let answer = Client::connect(weir.address()).get("/");
    assert_eq!(answer.head.header_values("content-length"), ["2"]);
    assert_eq!(answer.text(), "hi");
}

#[test]
fn an_unrequested_101_is_an_invalid_response() {
    let (backend, weir) = one("retry: {attempts: 1}");
    backend.set(Behaviour::Raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec()));
    let mut client = Client::connect(weir.address());
    let answer = client.get("/");
    assert_eq!(answer.status(), 502);
    assert!(answer.interim.is_empty(), "{:?}", answer.interim);
}

#[test]
fn a_client_of_http_1_0_without_a_host_is_passed_on_with_the_backends() {
    let (backend, weir) = one("");
    assert_eq!(ask(&weir, "GET / HTTP/1.0\r\n\r\n"), 200);
    let host = backend.url().trim_start_matches("http://").to_owned();
    assert_eq!(backend.requests()[0].header("host"), Some(host.as_str()));
}

#[test]
fn a_claim_is_a_claim_with_underscores_too() {
    let (backend, weir) = one("");
    let claims = "X_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nMy_Own: kept\r\n";
    assert_eq!(ask(&weir, &format!("GET / HTTP/1.1\r\nHost: a.test\r\n{claims}\r\n")), 200);
    let seen = &backend.requests()[0];
    assert_eq!(seen.header("x_forwarded_for"), None);
    assert_eq!(seen.header("x_real_ip"), None);
    assert_eq!(seen.header("my_own"), Some("kept"));
}

#[test]
fn a_request_that_keeps_coming_back_is_stopped() {
    let address = own_socket(8080);
    let weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [http://{address}], health_check: off}}]\n"
    ));
    let passes = "1.1 weir, ".repeat(9);
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nVia: {passes}1.1 x\r\n\r\n");
    assert_eq!(ask(&weir, &request), 508);
}

#[test]
fn a_client_that_reads_nothing_is_disconnected_and_logged_completely() {
    // The backend has to put its 30 MB together before this is over.
    let (backend, weir) = one("timeouts: {response: 2s, request: off}");
    backend.set(Behaviour::Answer(Answer::body(vec![b'x'; 30_000_000])));
    let mut client = Client::connect(weir.address());
    client.send("GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let line = weir.until_logged("its line", |line| line["path"] == "/big");
    assert_eq!(
        (line["reason"].as_str(), line["status"].as_u64()),
        (Some("client_write_timeout"), Some(200))
    );
    eventually(TIMEOUT, "nothing is in flight", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[]) == 0.0
    });
}

#[test]
fn a_backend_that_takes_nothing_is_let_go() {
    let (backend, weir) =
        one("timeouts: {response: 500ms, request: off}\n    retry: {attempts: 1}");
    backend.set(Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send("POST /big HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50000000\r\n\r\n");
    let line = eventually_some(TIMEOUT, "its line", || {
        let _refused_at_some_point = client.try_send(vec![b'x'; 65_536]);
        weir.access_log().into_iter().find(|line| line["path"] == "/big")
    });
    assert!(line["reason"].is_string(), "{line}");
    eventually(TIMEOUT, "nothing is in flight", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[]) == 0.0
    });
}

#[test]
fn an_empty_line_behind_a_request_is_not_half_a_head() {
    let backend = Backend::start("one");
    let limits = "limits: {header_timeout: 300ms, keepalive: 30s}";
    let weir = Weir::start(&format!("{}{limits}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    assert!(!client.is_closed_within(Duration::from_millis(900)));
}

#[test]
fn what_was_asked_for_is_in_the_log_though_it_was_refused_unread() {
    let (_backend, weir) = one("");
    let cookies = "x".repeat(70_000);
    let head = format!("GET /login?a=b HTTP/1.1\r\nHost: a.test\r\nCookie: {cookies}\r\n\r\n");
    assert_eq!(ask(&weir, &head), 431);
    let line = weir.until_logged("its line", |line| line["status"] == 431);
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("GET"), Some("/login")));
    assert_eq!(
        (line["reason"].as_str(), line["detail"].as_str()),
        (Some("headers_too_large"), Some("header_bytes"))
    );
    assert_eq!(ask(&weir, &format!("GET /{} HTTP/1.1\r\n", "y".repeat(9000))), 414);
    let line = weir.until_logged("its line", |line| line["status"] == 414);
    assert!(line["path"].as_str().is_some_and(|path| path.starts_with("/yyy") && path.len() < 600));
}

#[test]
fn a_client_that_is_still_sending_gets_its_413() {
    let backend = Backend::start("one");
    let weir = Weir::start(&format!("limits: {{body: 1MiB}}\n{}", pool(from_ref(&backend), "")));
    for _ in 0..10 {
        let mut client = Client::connect(weir.address());
        // More than the sockets hold, so it goes on being sent after the answer.
        let answer = client.request("POST", "/", &[], &vec![b'x'; 20_000_000]);
        assert_eq!(answer.map(|answer| answer.status()), Ok(413));
    }
    assert_eq!(backend.count(), 0);
}

/// A backend that answers `401` to each head at once, and reads no body.
#[expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]
fn hasty() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind(own_socket(3000)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut socket, _)) = listener.accept() {
            let mut head = [0; 4096];
            let _read = std::io::Read::read(&mut socket, &mut head);
            let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
            let _written = std::io::Write::write_all(&mut socket, answer);
            kept.push(socket);
        }
    });
    address
}

#[test]
fn a_client_that_is_still_sending_gets_a_backends_early_answer_and_nothing_more_is_read_from_it() {
    let address = hasty();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [http://{address}], health_check: off, \
         timeouts: {{response: 500ms}}}}]\n"
    ));
    for _ in 0..3 {
        let mut client = Client::connect(weir.address());
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000000\r\n\r\n");
        let mut smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n".repeat(1000);
        smuggled.resize(10_000_000, b'x');
        let _taken = client.try_send(&smuggled);
        let answer = client.read_answer();
        assert_eq!((answer.status(), answer.text().as_str()), (401, "no"));
        assert!(client.is_closed_within(TIMEOUT), "the rest of the body is no request");
    }
    eventually(TIMEOUT, "each is logged", || weir.access_log().len() == 3);
    assert!(weir.access_log().iter().all(|line| line["path"] == "/"));
}
