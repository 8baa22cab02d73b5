use std::sync::Arc;

use parking_lot::RwLock;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::l4::stream::Stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::exchange::event::Observer;
use crate::exchange::refusal::Ending;
use crate::fixture;

fn admin() -> Arc<Admin> {
    let snapshot =
        fixture::snapshot(vec![fixture::pool("web", &[fixture::address("10.0.0.1:3000")], None)]);
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry, &snapshot).unwrap());
    Arc::new(Admin {
        live: Arc::new(Live::new(snapshot)),
        metrics,
        registry,
        readiness: Arc::new(Readiness::new()),
        clock: Clock::process(),
        loaded: Timestamp::ZERO,
        last_word: RwLock::default(),
    })
}

/// Everything that the admin port says to these bytes, until it closes the connection.
async fn converse(admin: &Arc<Admin>, request: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Arc::clone(admin);
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let (_stop, shutdown) = watch::channel(false);
        app.process_new(Box::new(Stream::from(socket)), &shutdown).await;
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = async { client.read_to_string(&mut answer).await.unwrap() };
    timeout(Duration::from_secs(20), read).await.expect("the connection stays open");
    server.await.unwrap();
    answer
}

/// The head, in lower case, and the body of one answer.
async fn ask(admin: &Arc<Admin>, method: &str, path: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = converse(admin, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn healthz_is_ok_while_the_process_lives() {
    let (head, body) = ask(&admin(), "GET", "/healthz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, "ok\n");
}

#[tokio::test]
async fn every_answer_has_its_length_and_is_not_to_be_stored() {
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/nowhere"] {
        let (head, body) = ask(&admin(), "GET", path).await;
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    }
}

#[tokio::test]
async fn readyz_follows_the_worker() {
    let admin = admin();
    let (head, body) = ask(&admin, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: starting\n");
    admin.readiness.accept();
    let (head, body) = ask(&admin, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, "ready\n");
    admin.readiness.drain();
    let (head, body) = ask(&admin, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: draining\n");
}

#[tokio::test]
async fn metrics_are_in_the_text_format_and_fresh() {
    let admin = admin();
    let observer: Arc<dyn Observer> = admin.metrics.clone();
    let mut exchange = fixture::admitted(&admin.live.load(), &observer);
    exchange.pick(Timestamp::ZERO, (0, 0)).unwrap();
    let active = r#"lb_active_connections{backend="10.0.0.1:3000",pool="web"} 1"#;
    let (head, body) = ask(&admin, "GET", "/metrics").await;
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{head}");
    assert!(body.lines().any(|line| line == active), "{body}");
}

#[tokio::test]
async fn status_is_the_same_json_at_both_paths() {
    let admin = admin();
    let observer: Arc<dyn Observer> = admin.metrics.clone();
    let mut exchange = fixture::admitted(&admin.live.load(), &observer);
    exchange.pick(Timestamp::ZERO, (0, 0)).unwrap();
    exchange.finished(Ending::Answered, Some(&fixture::wire(200)), Timestamp::ZERO);
    for path in ["/status", "/lb-metrics?pretty"] {
        let (head, body) = ask(&admin, "GET", path).await;
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status["success_requests"], 1);
        assert_eq!(status["backends"][0]["url"], "http://10.0.0.1:3000");
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_says_which_are() {
    let (head, body) = ask(&admin(), "GET", "/nowhere").await;
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/lb-metrics"] {
        assert!(body.contains(path), "{path} is not in: {body}");
    }
}

#[tokio::test]
async fn nothing_can_be_changed() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (head, _) = ask(&admin(), method, "/status").await;
        assert!(head.starts_with("http/1.1 405 "), "{method}: {head}");
        assert!(head.contains("\r\nallow: get, head\r\n"), "{method}: {head}");
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (head, body) = ask(&admin(), "HEAD", "/healthz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("\r\ncontent-length: 3\r\n"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let admin = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let (_stop, shutdown) = watch::channel(false);
    let app = Arc::clone(&admin);
    let server = tokio::spawn(async move {
        app.process_new(Box::new(Stream::from(socket)), &shutdown).await;
    });
    for _ in 0..2 {
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let read = timeout(Duration::from_secs(20), client.read_buf(&mut answer)).await;
            assert_ne!(read.expect("no answer").unwrap(), 0, "closed early");
        }
    }
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn a_body_is_not_taken_for_the_next_request() {
    let smuggled = "GET /status HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}\
         GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        smuggled.len()
    );
    let answer = converse(&admin(), &request).await;
    assert!(!answer.contains("uptime_seconds"), "{answer}");
}

#[tokio::test]
async fn what_is_not_http_gets_no_answer_and_does_no_harm() {
    let admin = admin();
    assert_eq!(converse(&admin, "\x16\x03\x01\x02\0\x01\0\r\n\r\n").await, "");
    assert_eq!(ask(&admin, "GET", "/healthz").await.1, "ok\n");
}
