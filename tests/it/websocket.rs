//! WebSockets: open once the backend agrees, and then as long as somebody has something to say.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::slice::from_ref;
use std::time::Duration;

use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::client::{Client, Failure};
use crate::support::configs::pool;
use crate::support::message::Head;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually, now};

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: weir.test\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A backend that echoes in its WebSockets, and a balancer before it.
fn one(pool_keys: &str, file_keys: &str) -> (Backend, Weir) {
    let backend = Backend::start("one");
    backend.on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let weir = Weir::start(&format!("{}{file_keys}", pool(from_ref(&backend), pool_keys)));
    (backend, weir)
}

#[track_caller]
fn ask(weir: &Weir) -> (Client, Head) {
    let mut client = Client::connect(weir.address());
    client.send(ASK);
    let head = client.read_head(now() + TIMEOUT).expect("an answer");
    (client, head)
}

#[track_caller]
fn open(weir: &Weir) -> Client {
    let (client, head) = ask(weir);
    assert_eq!(head.status, 101, "{head:?}");
    client
}

/// Sends bytes and waits until as many have come back.
#[track_caller]
fn echo(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
    let mut back = Vec::new();
    while back.len() < bytes.len() {
        back.extend(client.read_some().expect("the echo"));
    }
    assert!(back == bytes, "{} bytes came back changed", bytes.len());
}

fn tunnels(weir: &Weir) -> f64 {
    weir.metrics().value("lb_tunnels", &[("pool", "web")]).unwrap_or_default()
}

#[track_caller]
fn reason(weir: &Weir) -> Option<String> {
    let line = weir.until_logged("the tunnel", |line| line["status"] == 101);
    line["reason"].as_str().map(str::to_owned)
}

// ── opening ──

#[test]
fn a_websocket_carries_every_byte_both_ways() {
    let (backend, weir) = one("", "");
    let (mut client, head) = ask(&weir);
    assert_eq!(head.status, 101);
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert_eq!(head.header("connection"), Some("Upgrade"));
    // A masked text frame with `Hello`, of RFC 6455 §5.7, and a large one of whatever.
    echo(&mut client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    let large: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    echo(&mut client, &large);

    let seen = &backend.requests()[0];
    assert_eq!(seen.target, "/chat?room=1");
    assert_eq!(seen.header("connection"), Some("Upgrade"));
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn what_a_client_says_before_the_101_is_no_part_of_a_tunnel() {
    let (backend, weir) = one("", "");
    let request = "GET /second HTTP/1.1\r\nHost: weir.test\r\n\r\n";
    for early in [request.as_bytes(), b"early", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"] {
        let mut client = Client::connect(weir.address());
        client.send([ASK.as_bytes(), early].concat());
        let head = client.read_head(now() + TIMEOUT).expect("an answer");
        assert_eq!(head.status, 400, "{early:?}");
        assert!(head.is_last(), "{head:?}");
    }
    assert!(backend.requests().iter().all(|seen| seen.target == "/chat?room=1"));
    assert_eq!(weir.metrics().value("lb_tunnels_total", &[("pool", "web")]), Some(0.0));
    let line = weir.until_logged("a refusal", |line| line["status"] == 400);
    assert_eq!(line["detail"], "before_101");
    assert_eq!(line["attempts"][0]["failure"], serde_json::Value::Null, "no backend is blamed");
    echo(&mut open(&weir), b"hello");
}

#[test]
fn a_request_that_comes_while_the_101_is_awaited_is_no_part_of_the_tunnel_either() {
    let (backend, weir) = one("", "");
    let wait = Duration::from_secs(1);
    let agrees = Behaviour::Upgrade("websocket".to_owned());
    backend.on("/chat", Behaviour::AnswerSlowly(wait, Box::new(agrees)));
    let mut client = Client::connect(weir.address());
    client.send(ASK);
    eventually(TIMEOUT, "the backend has it", || backend.in_flight() == 1);
    client.send("GET /second HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert_eq!(client.read_head(now() + TIMEOUT).expect("an answer").status, 400);
}

#[test]
fn without_a_101_what_follows_is_a_request_like_any_other() {
    let (backend, weir) = one("", "");
    backend.on("/chat", Behaviour::Answer(Answer::status(403)));
    let mut client = Client::connect(weir.address());
    client.send(format!(
        "{ASK}GET /second HTTP/1.1\r\nHost: weir.test\r\nX-Real-IP: 6.6.6.6\r\n\r\n"
    ));
    assert_eq!(client.read_answer().status(), 403);
    assert_eq!(client.read_answer().status(), 200);
    let second = backend.requests()[1].clone();
    assert_eq!(second.target, "/second");
    assert_eq!(second.header("x-real-ip"), Some("127.0.0.1"), "it came through us as a request");
    assert_eq!(tunnels(&weir), 0.0);
}

#[test]
fn a_backend_may_not_switch_to_something_else() {
    let (backend, weir) = one("retry: {attempts: 1}", "");
    backend.on("/chat", Behaviour::Upgrade("h2c".to_owned()));
    assert_eq!(ask(&weir).1.status, 502);
    let bare = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    backend.on("/chat", Behaviour::Raw(bare.into()));
    assert_eq!(ask(&weir).1.status, 502);
}

#[test]
fn a_request_with_a_body_is_no_upgrade() {
    let (backend, weir) = one("", "");
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let answer = Client::connect(weir.address()).request("GET", "/", &headers, b"body").unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(backend.requests()[0].header("upgrade"), None);
}

#[test]
fn a_backend_that_does_not_agree_in_time_is_504() {
    let (backend, weir) = one("timeouts: {response: 500ms, tunnel: 1h}", "");
    backend.on("/chat", Behaviour::NeverAnswer);
    assert_eq!(ask(&weir).1.status, 504, "a tunnel's patience is not for its opening");
}

#[test]
fn a_backend_that_does_not_agree_in_time_is_passed_over() {
    let backends = Backend::start_many(2);
    backends[0].on("/chat", Behaviour::NeverAnswer);
    backends[1].on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let weir = Weir::start(&pool(&backends, "timeouts: {response: 500ms}"));
    for _ in 0..2 {
        echo(&mut open(&weir), b"hello"); // one of the two was at the silent one first
    }
    assert_eq!(backends[0].count(), 1);
    let failed = |of: &Backend| {
        let address = of.address().to_string();
        weir.metrics().sum("lb_errors_total", &[("backend", &address)])
    };
    assert_eq!((failed(&backends[0]), failed(&backends[1])), (1.0, 0.0));
}

#[test]
fn an_answer_that_is_no_tunnel_has_no_tunnels_patience() {
    let (backend, weir) = one("timeouts: {response: 500ms, request: off, tunnel: 1h}", "");
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    backend.on("/chat", Behaviour::Raw(half.into()));
    let (mut client, head) = ask(&weir);
    assert_eq!(head.status, 200);
    assert_eq!(client.read_some().unwrap(), b"half");
    assert!(client.is_closed_within(TIMEOUT), "the other half is awaited still");
}

#[test]
fn an_answer_that_is_no_tunnel_may_take_as_long_as_its_pieces_come() {
    let (backend, weir) = one("timeouts: {response: 500ms, request: off}", "");
    let (pieces, pause) = (vec![b"x".to_vec(); 12], Duration::from_millis(200));
    backend.on("/chat", Behaviour::Chunked { pieces, pause });
    let mut client = Client::connect(weir.address());
    client.send(ASK);
    assert_eq!(client.read_answer().text(), "xxxxxxxxxxxx");
}

#[test]
fn a_backend_that_is_down_is_passed_over() {
    let backends = Backend::start_many(2);
    backends[1].on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let weir = Weir::start(&pool(&backends, ""));
    backends[0].stop();
    for _ in 0..2 {
        echo(&mut open(&weir), b"hello");
    }
}

#[test]
fn a_backend_that_answers_at_once_does_not_end_the_tunnel_that_it_opens() {
    let (_backend, weir) = one("", "");
    // Once in a hundred times, with a thread that is busy between the head and its answer.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..60).for_each(|_| echo(&mut open(&weir), b"hello")));
        }
    });
    let lines = weir.access_log();
    assert!(lines.iter().all(|line| line["reason"].is_null()), "{lines:?}");
}

// ── lasting ──

#[test]
fn no_deadline_of_a_request_ends_a_silent_websocket() {
    let (_backend, weir) = one(
        "timeouts: {response: 500ms, request: 1s}",
        "limits: {header_timeout: 500ms, keepalive: 500ms}",
    );
    let mut client = open(&weir);
    assert!(!client.is_closed_within(Duration::from_secs(3)), "it was cut");
    echo(&mut client, b"still there");
}

#[test]
fn a_websocket_that_is_silent_for_too_long_is_closed() {
    let (backend, weir) = one("timeouts: {tunnel: 1s}", "");
    let mut client = open(&weir);
    assert!(client.is_closed_within(TIMEOUT), "it is open still");
    assert_eq!(reason(&weir).as_deref(), Some("tunnel_idle"));
    eventually(TIMEOUT, "the backend is left", || backend.connections_open() == 0);
    let errors = weir.metrics().sum("lb_errors_total", &[]);
    assert_eq!(errors, 0.0, "no error is counted");
}

#[test]
fn a_word_now_and_then_keeps_a_websocket_open() {
    let (_backend, weir) = one("timeouts: {tunnel: 4s}", "");
    let mut client = open(&weir);
    let start = now();
    while now() - start < Duration::from_secs(6) {
        assert!(!client.is_closed_within(Duration::from_millis(500)), "it was cut");
        echo(&mut client, b"!");
    }
}

// ── counting ──

#[test]
fn a_websocket_is_counted_while_it_is_open_and_logged_at_its_end() {
    let (_backend, weir) = one("", "");
    let mut client = open(&weir);
    echo(&mut client, b"0123456789");
    assert_eq!(tunnels(&weir), 1.0);
    let busy = weir.metrics().sum("lb_backend_in_flight_requests", &[("pool", "web")]);
    assert_eq!(busy, 1.0, "it holds its lease");
    assert!(weir.access_log().is_empty(), "it is logged when it is over");
    drop(client);

    let line = weir.until_logged("the tunnel", |line| line["status"] == 101);
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(10), Some(10)));
    assert!(line["tunnel_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert_eq!(line["backend"], line["attempts"][0]["backend"]);
    let metrics = weir.metrics();
    assert_eq!(metrics.value("lb_tunnels", &[("pool", "web")]), Some(0.0));
    assert_eq!(metrics.value("lb_tunnels_total", &[("pool", "web")]), Some(1.0));
    assert_eq!(metrics.sum("lb_backend_in_flight_requests", &[("pool", "web")]), 0.0);
}

#[test]
fn a_backend_that_dies_ends_its_websockets() {
    let (backend, weir) = one("", "");
    let mut client = open(&weir);
    backend.crash();
    assert!(client.is_closed_within(TIMEOUT));
    weir.until_logged("the tunnel", |line| line["status"] == 101);
    assert_eq!(tunnels(&weir), 0.0);
}

#[test]
fn a_client_that_leaves_ends_its_websocket_at_the_backend() {
    let (backend, weir) = one("", "");
    let client = open(&weir);
    eventually(TIMEOUT, "the backend has it", || backend.connections_open() == 1);
    client.reset();
    eventually(TIMEOUT, "the backend is left", || backend.connections_open() == 0);
    weir.until_logged("the tunnel", |line| line["status"] == 101);
    assert_eq!(tunnels(&weir), 0.0);
}

// ── draining ──

#[test]
fn a_websocket_goes_on_over_reloads() {
    let (backend, weir) = one("", "shutdown: {drain: 1h}");
    let mut old = open(&weir);
    let worker = weir.worker_pid();
    for turn in 1..=2 {
        weir.write_config(&pool(from_ref(&backend), &format!("timeouts: {{idle: {turn}s}}")));
        weir.reload();
        echo(&mut old, b"still there");
        echo(&mut open(&weir), b"a new one");
    }
    assert!(weir.workers().iter().any(|one| one.pid == worker && one.is("draining")));
    drop(old);
    eventually(TIMEOUT, "the old worker ends with its last tunnel", || {
        !weir.workers().iter().any(|one| one.pid == worker)
    });
    let total = || weir.metrics().value("lb_tunnels_total", &[("pool", "web")]);
    eventually(TIMEOUT, "none was forgotten", || total() == Some(3.0));
}

#[test]
fn a_stop_waits_for_websockets_exactly_as_long_as_configured() {
    let (_backend, mut weir) = one("", "shutdown: {drain: 1h, tunnels: 1s}");
    let mut client = open(&weir);
    weir.signal("TERM");
    assert!(client.is_closed_within(TIMEOUT));
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "it waited for the drain: {}", weir.stderr());
    assert_eq!(reason(&weir).as_deref(), Some("tunnel_drained"));
}

#[test]
fn a_websocket_may_outlive_the_drain_of_requests() {
    let (backend, mut weir) = one("", "shutdown: {drain: 500ms, tunnels: 30s}");
    backend.on("/slow", Behaviour::NeverAnswer);
    let mut tunnel = open(&weir);
    let mut slow = Client::connect(weir.address());
    slow.send("GET /slow HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "the request is in flight", || backend.in_flight() == 2);
    weir.signal("TERM");
    let cut = slow.try_read_answer("GET");
    assert!(!matches!(cut, Err(Failure::TimedOut)), "the request outlived its drain: {cut:?}");
    echo(&mut tunnel, b"still there");
    assert!(weir.is_running());
    drop(tunnel);
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1), "a request was cut: {}", weir.stderr());
}
