//! HTTP/2 to backends, and gRPC through us.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{Client, Response};
use crate::support::h2::H2Backend;
use crate::support::message::Framing;
use crate::support::ports;
use crate::support::tls::Authority;
use crate::support::tls_front::TlsFront;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

fn pool(url: &str, keys: &str) -> String {
    format!("pools: [{{name: web, health_check: off, backends: [\"{url}\"], {keys}}}]\n")
}

/// A backend of HTTP/2 without TLS, and a balancer before it.
fn h2c(keys: &str) -> (H2Backend, Weir) {
    let backend = H2Backend::start();
    let weir = Weir::start(&pool(&backend.url(), &format!("protocol: h2c, {keys}")));
    (backend, weir)
}

fn post(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut client = Client::connect(weir.address());
    client.request("POST", path, headers, body).unwrap_or_else(|why| panic!("{path}: {why:?}"))
}

const GRPC: (&str, &str) = ("Content-Type", "application/grpc+proto");

// ── HTTP/2 ──

#[test]
fn a_request_of_http_1_goes_out_as_http_2() {
    let (backend, weir) = h2c("");
    let headers = [("Host", "shop.test:8080"), ("Connection", "X-Mine"), ("X-Mine", "1")];
    let mut client = Client::connect(weir.address());
    let answer = client.request("PUT", "/a?b=c", &headers, b"body").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "h2"));
    let call = &backend.calls()[0];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("PUT", "/a"));
    assert_eq!((call.scheme.as_str(), call.authority.as_str()), ("http", "shop.test:8080"));
    assert_eq!(call.body, b"body");
    assert_eq!(call.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(call.headers["via"], "1.1 weir");
    for name in ["host", "connection", "x-mine", "transfer-encoding", "te"] {
        assert!(!call.headers.contains_key(name), "{name} went out");
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks_from_a_backend_of_http_2() {
    let (_backend, weir) = h2c("");
    for keep in ["", "Connection: keep-alive\r\n"] {
        let mut client = Client::connect(weir.address());
        client.send(format!("GET / HTTP/1.0\r\nHost: weir.test\r\n{keep}\r\n"));
        let answer = client.read_answer();
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!((answer.framing, answer.text().as_str()), (Framing::Close, "h2"));
        assert!(answer.head.is_last(), "{:?}", answer.head);
    }
}

#[test]
fn many_requests_share_a_connection() {
    let (backend, weir) = h2c("");
    let mut first = Client::connect(weir.address());
    assert_eq!(first.get("/").text(), "h2");
    let mut waiting: Vec<Client> = Vec::new();
    for count in 2..=21 {
        let mut client = Client::connect(weir.address());
        client.send("GET /never HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        waiting.push(client);
        // Of two in the same moment, the one would not see the other's connection.
        eventually(TIMEOUT, "it is there", || backend.calls().len() == count);
    }
    assert_eq!(first.get("/").text(), "h2");
    assert_eq!(backend.connections(), 1, "{} at once", waiting.len());
}

#[test]
fn a_connection_has_as_many_requests_as_it_may_and_no_more() {
    let (backend, weir) = h2c("http2: {streams: 2}");
    let mut clients: Vec<Client> = Vec::new();
    for count in 1..=5 {
        let mut client = Client::connect(weir.address());
        client.send("GET /never HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        clients.push(client);
        eventually(TIMEOUT, "it is there", || backend.calls().len() == count);
    }
    assert_eq!(backend.connections(), 3);
    let most = |number| backend.calls().iter().filter(|call| call.connection == number).count();
    assert!((1..=3).all(|number| most(number) <= 2));
}

#[test]
fn a_client_that_leaves_gives_its_stream_up_and_nothing_else() {
    let (backend, weir) = h2c("");
    let mut client = Client::connect(weir.address());
    client.send("GET /never HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "it is there", || backend.calls().len() == 1);
    client.reset();
    eventually(TIMEOUT, "the stream is given up", || backend.resets() == 1);
    assert_eq!(weir.get("/").text(), "h2");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_refused_stream_is_sent_again_whatever_its_method() {
    let (backend, weir) = h2c("");
    assert_eq!(post(&weir, "/refuse-once", &[], b"once").text(), "h2");
    let calls = backend.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].body, b"once");
    let line = weir.until_logged("its line", |line| line["status"] == 200);
    assert_eq!(line["attempts"][0]["failure"], "refused");
}

#[test]
fn a_connection_that_goes_away_costs_no_request() {
    let (backend, weir) = h2c("");
    for _ in 0..20 {
        assert_eq!(post(&weir, "/last", &[], b"once").text(), "h2");
        assert_eq!(post(&weir, "/", &[], b"once").text(), "h2");
    }
    assert_eq!(backend.calls().len(), 40, "nothing was sent twice");
    assert!(backend.connections() > 10, "they did go away: {}", backend.connections());
}

#[test]
fn a_silent_stream_is_504_and_the_others_go_on() {
    let (backend, weir) = h2c("retry: {attempts: 1}, timeouts: {response: 500ms}");
    assert_eq!(weir.get("/never").status(), 504);
    eventually(TIMEOUT, "the stream is given up", || backend.resets() == 1);
    assert_eq!(weir.get("/").text(), "h2");
}

#[test]
fn a_backend_of_http_1_behind_h2c_is_502() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(&backend.url(), "protocol: h2c, retry: {attempts: 1}"));
    // What arrives is no HTTP/1, and the backend of the tests would complain of that.
    backend.stop();
    let address = backend.address();
    let listener = TcpListener::bind(address).unwrap();
    let serving = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut socket, _) = listener.accept().unwrap();
        let mut preface = [0; 14];
        socket.read_exact(&mut preface).unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0");
        // To close with bytes unread would be a reset, which may overtake the answer.
        let _until_it_is_given_up = socket.read_to_end(&mut Vec::new());
    });
    assert_eq!(weir.get("/").status(), 502);
    serving.join().unwrap();
    let line = weir.until_logged("its line", |line| line["status"] == 502);
    assert_eq!(line["reason"], "invalid_response");
    let error = weir.status()["backends"][0]["last_error"].clone();
    assert_eq!(error, "the backend does not speak HTTP/2");
}

#[test]
fn a_backend_of_http_2_alone_is_named_where_http_1_is_spoken() {
    let backend = H2Backend::start();
    let weir = Weir::start(&pool(&backend.url(), "retry: {attempts: 1}"));
    assert_eq!(weir.get("/").status(), 502);
    let line = weir.until_logged("its line", |line| line["status"] == 502);
    let error = weir.status()["backends"][0]["last_error"].clone();
    assert_eq!(
        (&line["reason"], &error),
        (&"invalid_response".into(), &"the response is not valid HTTP/1".into())
    );
}

// ── over TLS ──

/// A backend behind TLS that offers `protocols`, and a balancer before it.
fn over_tls(behind: SocketAddr, protocols: &[&str], keys: &str) -> (TlsFront, Weir) {
    let authority = Authority::new();
    let identity = authority.identity("site", &["web.internal"]);
    let front = TlsFront::with(ports::own_socket(3443), behind, &identity, None, protocols);
    let tls = format!("tls: {{ca: {}, server_name: web.internal}}", authority.ca().display());
    let weir = Weir::start(&pool(&front.url(), &format!("{keys}, {tls}")));
    (front, weir)
}

#[test]
fn auto_takes_what_a_backend_prefers() {
    let backend = H2Backend::start();
    let (front, weir) = over_tls(backend.address(), &["h2", "http/1.1"], "protocol: auto");
    for _ in 0..3 {
        assert_eq!(weir.get("/").text(), "h2");
    }
    assert_eq!(front.shakes().len(), 1);
    assert_eq!(front.shakes()[0].protocol.as_deref(), Some("h2"));
    assert_eq!(backend.calls()[0].scheme, "https");
    drop(weir);

    let old = Backend::start("old");
    let (front, weir) = over_tls(old.address(), &["http/1.1"], "protocol: auto");
    assert_eq!(weir.get("/").text(), "old");
    assert_eq!(front.shakes()[0].protocol.as_deref(), Some("http/1.1"));
}

/// Whatever begins like HTTP/2 goes to the one, and all else to the other.
fn both_of(http2: SocketAddr, http1: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(ports::own_socket(4443)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let mut start = [0; 3];
            socket.peek(&mut start).unwrap();
            let behind = if &start == b"PRI" { http2 } else { http1 };
            let behind = TcpStream::connect(behind).unwrap();
            for (mut from, mut to) in
                [(socket.try_clone().unwrap(), behind.try_clone().unwrap()), (behind, socket)]
            {
                std::thread::spawn(move || {
                    let _copied = std::io::copy(&mut from, &mut to);
                    to.shutdown(Shutdown::Both)
                });
            }
        }
    });
    address
}

#[test]
fn auto_goes_on_with_http_1_where_a_backend_asks_for_it() {
    let (backend, old) = (H2Backend::start(), Backend::start("old"));
    let behind = both_of(backend.address(), old.address());
    let (front, weir) = over_tls(behind, &["h2", "http/1.1"], "protocol: auto");
    assert_eq!(weir.get("/").text(), "h2");
    assert_eq!(post(&weir, "/http1", &[], b"body").text(), "old");
    assert_eq!(old.requests()[0].body, b"body");
    assert_eq!(weir.get("/").text(), "old", "it is remembered");
    let shakes = front.shakes();
    assert!(shakes[1..].iter().all(|shake| shake.protocol.as_deref() == Some("http/1.1")));
}

#[test]
fn http1_asks_for_http_1_even_where_http_2_is_offered() {
    let backend = Backend::start("one");
    let (front, weir) = over_tls(backend.address(), &["h2", "http/1.1"], "protocol: http1");
    assert_eq!(weir.get("/").text(), "one");
    assert_eq!(front.shakes()[0].protocol.as_deref(), Some("http/1.1"));
}

#[test]
fn h2_goes_on_with_nothing_else() {
    let backend = Backend::start("one");
    // A server without ALPN: Pingora would go on with HTTP/1.1.
    let (_front, weir) = over_tls(backend.address(), &[], "protocol: h2, retry: {attempts: 1}");
    assert_eq!(weir.get("/").status(), 502);
    assert_eq!(backend.count(), 0);
    assert_eq!(weir.status()["backends"][0]["last_error"], "the backend does not speak HTTP/2");
    drop(weir);
    // One that knows ALPN says so itself.
    let (_front, weir) = over_tls(backend.address(), &["http/1.1"], "protocol: h2");
    assert_eq!(weir.get("/").status(), 502);
    let error = weir.status()["backends"][0]["last_error"].clone();
    assert_eq!(error, "it offers no HTTP/2 (ALPN); write `protocol: auto` or `http1`");
}

#[test]
fn a_websocket_in_an_auto_pool_asks_for_http_1() {
    let backend = Backend::start("one");
    backend.on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let (front, weir) = over_tls(backend.address(), &["h2", "http/1.1"], "protocol: auto");
    let mut client = Client::connect(weir.address());
    client.send(
        "GET /chat HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let head = client.read_head(crate::support::now() + TIMEOUT).unwrap();
    assert_eq!(head.status, 101);
    assert_eq!(front.shakes()[0].protocol.as_deref(), Some("http/1.1"));
}

// ── gRPC ──

#[test]
fn a_call_has_its_status_in_the_log() {
    let (backend, weir) = h2c("");
    let answer = post(&weir, "/echo", &[GRPC, ("TE", "trailers")], b"\0\0\0\0\x02hi");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(backend.calls()[0].headers["te"], "trailers");
    let line = weir.until_logged("its line", |line| line["path"] == "/echo");
    assert_eq!(line["grpc_status"], 0);
    post(&weir, "/only-head", &[GRPC], b"");
    let line = weir.until_logged("its line", |line| line["path"] == "/only-head");
    assert_eq!(line["grpc_status"], 5);
}

#[track_caller]
fn assert_grpc(answer: &Response, status: &str) {
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert_eq!(answer.header("grpc-status"), Some(status), "{:?}", answer.head);
    assert!(answer.body.is_empty());
}

#[test]
fn a_caller_is_refused_in_its_own_words() {
    let backend = H2Backend::start();
    let url = backend.url();
    let weir = Weir::start(&format!(
        "routes: [{{path: /web, pool: web}}]\n\
         rate_limit: {{requests_per_second: 0.001, burst: 3}}\n\
         pools: [{{name: web, protocol: h2c, backends: [\"{url}\"], health_check: {{type: tcp}}}}]"
    ));
    assert_grpc(&post(&weir, "/nowhere", &[GRPC], b""), "12");
    assert_eq!(post(&weir, "/nowhere", &[], b"").status(), 404);
    assert_eq!(post(&weir, "/web", &[GRPC], b"").status(), 200);
    assert_grpc(&post(&weir, "/web", &[GRPC], b""), "8");
    let line = weir.until_logged("the last", |line| line["reason"] == "rate_limited");
    assert_eq!((line["status"].as_u64(), line["grpc_status"].as_u64()), (Some(200), Some(8)));
}

#[test]
fn a_caller_hears_of_a_backend_that_is_gone() {
    let gone = ports::own_socket(50051);
    let weir = Weir::start(&pool(&format!("http://{gone}"), "protocol: h2c"));
    assert_grpc(&post(&weir, "/call", &[GRPC], b""), "14");
}

#[test]
fn a_callers_own_deadline_is_kept() {
    let (backend, weir) = h2c("timeouts: {request: off, response: 1h}");
    let headers = [GRPC, ("grpc-timeout", "500m")];
    assert_grpc(&post(&weir, "/never", &headers, b""), "4");
    eventually(TIMEOUT, "the stream is given up", || backend.resets() == 1);
    let line = weir.until_logged("its line", |line| line["path"] == "/never");
    assert_eq!(line["reason"], "request_timeout");
}

// ── probes ──

#[test]
fn a_grpc_probe_asks_whether_a_service_serves() {
    let backend = H2Backend::start();
    backend.health(2);
    let mut weir = Weir::spawn(&format!(
        "pools: [{{name: web, protocol: h2c, backends: [\"{}\"], health_check: \
         {{type: grpc, service: shop.Cart, interval: 200ms, healthy_after: 1, unhealthy_after: 1}}}}]",
        backend.url()
    ));
    weir.until_alive();
    let state = || weir.status()["backends"][0].clone();
    eventually(TIMEOUT, "it does not serve", || state()["state"] == "unhealthy");
    assert_eq!(state()["last_error"], "it says NOT_SERVING, expected SERVING");
    backend.health(1);
    eventually(TIMEOUT, "it serves", || state()["state"] == "healthy");
    let check = &backend.checks()[0];
    assert_eq!((check.method.as_str(), check.headers["te"].as_bytes()), ("POST", &b"trailers"[..]));
    assert_eq!(check.headers["content-type"], "application/grpc");
    assert_eq!(check.body, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
}

#[test]
fn an_http_probe_of_an_h2_pool_speaks_http_2() {
    let backend = H2Backend::start();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, protocol: h2c, backends: [\"{}\"], health_check: \
         {{path: \"/health?x=1\", host: shop.test, body: h2}}}}]",
        backend.url()
    ));
    assert_eq!(weir.status()["backends"][0]["state"], "healthy");
    let check = &backend.calls()[0];
    assert_eq!((check.path.as_str(), check.authority.as_str()), ("/health", "shop.test"));
    assert_eq!(check.scheme, "http");
}

/// A backend that accepts no new connection is unhealthy, though those that there are still work.
fn falls_when_it_accepts_no_more(check: &str) {
    let backend = H2Backend::start();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, protocol: h2c, backends: [\"{}\"], health_check: \
         {{{check}, interval: 100ms, unhealthy_after: 1}}}}]",
        backend.url()
    ));
    let state = || weir.status().pointer("/backends/0/state").cloned();
    eventually(TIMEOUT, "some health checks", || backend.connections() >= 3);
    eventually(TIMEOUT, "none of them stays open", || backend.connections_open() <= 1);
    backend.stop_accepting();
    eventually(TIMEOUT, "it is unhealthy", || state() == Some("unhealthy".into()));
}

#[test]
fn each_health_check_over_http2_has_a_new_connection() {
    falls_when_it_accepts_no_more("path: /health");
}

#[test]
fn each_grpc_health_check_has_a_new_connection() {
    falls_when_it_accepts_no_more("type: grpc");
}
