use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::run;
use super::shared::{ServerPhase, ServerState};
use super::*;
use crate::current::CurrentSnapshot;
use crate::exchange::Rolls;
use crate::exchange::event::Observer;
use crate::exchange::refusal::Outcome;
use crate::fixture;
use crate::lifecycle::serving_state::{ServingState, SharedServingState};
use crate::metrics::SnapshotMetrics;

const TIMEOUT: Duration = Duration::from_secs(20);

fn admin() -> Arc<Admin> {
    admin_of(&Arc::default())
}

fn admin_of(serving: &Arc<SharedServingState>) -> Arc<Admin> {
    let snapshot =
        fixture::snapshot(vec![fixture::pool("web", &[fixture::address("10.0.0.1:3000")], None)]);
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry, &snapshot).unwrap());
    Arc::new(Admin {
        current: Arc::new(CurrentSnapshot::new(
            Arc::new(snapshot),
            Arc::new(SnapshotMetrics::new(&metrics)),
        )),
        metrics,
        registry,
        readiness: Readiness::new(Arc::clone(serving)),
        ready_when: ReadyWhen::AnyPool,
        clock: Clock::process(),
        loaded: Timestamp::ZERO,
        uptime_before_ns: AtomicU64::new(0),
        frozen: RwLock::default(),
    })
}

/// An admin port on the test's own runtime.
struct Port {
    address: SocketAddr,
    phase: watch::Sender<ServerPhase>,
    running: JoinHandle<()>,
}

impl Port {
    async fn start(admin: &Arc<Admin>, bounds: ServerLimits) -> Self {
        let pages = Pages::default();
        pages.begin(Arc::clone(admin));
        Self::of(pages, bounds).await
    }

    async fn of(pages: Pages, bounds: ServerLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (phase, phases) = watch::channel(ServerPhase::Open);
        let shared =
            Arc::new(ServerState::new(Arc::new(pages), ServerLimits { descriptors: 4, ..bounds }));
        let running = tokio::spawn(run(listener, shared, phases));
        Self { address, phase, running }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and returns everything until the port closes the connection.
    async fn send(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.write_all(request.as_ref()).await.unwrap();
        rest(&mut client).await
    }
}

async fn send(admin: &Arc<Admin>, request: &str) -> String {
    Port::start(admin, ServerLimits::default()).await.send(request).await
}

/// Reads until the connection is closed.
async fn rest(client: &mut TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(TIMEOUT, client.read_to_string(&mut text)).await;
    match read.expect("the connection stays open") {
        Ok(_) => text,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => text,
        Err(error) => panic!("{error}"),
    }
}

/// Sends a request on a keep-alive connection, and reads the response with this body.
async fn exchange(client: &mut TcpStream, request: &str, body: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(format!("\r\n\r\n{body}").as_bytes()) {
        let read = timeout(TIMEOUT, client.read_buf(&mut response)).await;
        assert_ne!(read.expect("no response").unwrap(), 0, "closed early");
    }
    String::from_utf8(response).unwrap().to_lowercase()
}

const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

/// The headers, in lower case, and the body of one response.
async fn get(admin: &Arc<Admin>, method: &str, path: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = send(admin, &request).await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn healthz_is_ok_while_the_process_lives() {
    let (head, body) = get(&admin(), "GET", "/healthz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, "ok\n");
}

#[tokio::test]
async fn every_response_has_a_length_and_must_not_be_stored() {
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/nowhere"] {
        let (head, body) = get(&admin(), "GET", path).await;
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
    }
}

#[tokio::test]
async fn readyz_follows_the_worker() {
    let serving = Arc::default();
    let admin = admin_of(&serving);
    let (head, body) = get(&admin, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: starting\n");
    serving.set(ServingState::Accepting);
    let (head, body) = get(&admin, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, "ready\n");
    serving.set(ServingState::PreStop);
    let (head, body) = get(&admin, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: draining\n");
}

#[tokio::test]
async fn metrics_are_in_the_text_format_and_fresh() {
    let admin = admin();
    let observer: Arc<dyn Observer> = Arc::new(SnapshotMetrics::new(&admin.metrics));
    let mut exchange = fixture::admitted(&admin.current.snapshot(), &observer);
    exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
    let active = r#"lb_backend_in_flight_requests{backend="10.0.0.1:3000",pool="web"} 1"#;
    let (head, body) = get(&admin, "GET", "/metrics").await;
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{head}");
    assert!(body.lines().any(|line| line == active), "{body}");
}

#[tokio::test]
async fn status_is_the_same_json_at_both_paths() {
    let admin = admin();
    let observer: Arc<dyn Observer> = Arc::new(SnapshotMetrics::new(&admin.metrics));
    let mut exchange = fixture::admitted(&admin.current.snapshot(), &observer);
    exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
    exchange.finished(Outcome::Completed, Some(&fixture::wire(200)), Timestamp::ZERO);
    for path in ["/status", "/lb-metrics?pretty"] {
        let (head, body) = get(&admin, "GET", path).await;
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status["success_requests"], 1);
        assert_eq!(status["backends"][0]["url"], "http://10.0.0.1:3000");
    }
}

#[tokio::test]
async fn an_unknown_path_gets_the_list_of_paths() {
    let (head, body) = get(&admin(), "GET", "/nowhere").await;
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/lb-metrics"] {
        assert!(body.contains(path), "{path} is not in: {body}");
    }
}

#[tokio::test]
async fn the_port_is_read_only() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (head, _) = get(&admin(), method, "/status").await;
        assert!(head.starts_with("http/1.1 405 "), "{method}: {head}");
        assert!(head.contains("\r\nallow: get, head\r\n"), "{method}: {head}");
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (head, body) = get(&admin(), "HEAD", "/healthz").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("\r\ncontent-length: 3\r\n"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let port = Port::start(&admin(), ServerLimits::default()).await;
    let mut client = port.connect().await;
    for _ in 0..2 {
        let response = exchange(&mut client, HEALTHZ, "ok\n").await;
        assert!(!response.contains("\r\nconnection:"), "{response}");
    }
    let http10 = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let response = exchange(&mut client, http10, "ok\n").await;
    assert!(response.contains("\r\nconnection: keep-alive\r\n"), "{response}");
    client.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let last = rest(&mut client).await.to_lowercase();
    assert!(last.contains("\r\nconnection: close\r\n") && last.ends_with("ok\n"), "{last}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let close = "GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let head = HEALTHZ.replace("GET", "HEAD");
    let response = send(&admin(), &format!("{HEALTHZ}{head}{HEALTHZ}{close}{HEALTHZ}")).await;
    let statuses: Vec<&str> =
        response.split("HTTP/1.1 ").skip(1).filter_map(|one| one.get(..3)).collect();
    assert_eq!(statuses, ["200", "200", "200", "404"], "{response}");
    assert_eq!(response.matches("\r\n\r\nok\n").count(), 2, "none behind HEAD: {response}");
}

#[tokio::test]
async fn before_the_worker_serves_the_port_reports_that_it_starts() {
    let port = Port::of(Pages::default(), ServerLimits::default()).await;
    for (path, status) in
        [("/healthz", 200), ("/readyz", 503), ("/metrics", 503), ("/status", 503), ("/no", 404)]
    {
        let response = port.send(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {response}");
        assert_eq!(
            response.ends_with("not ready: starting\n"),
            status == 503,
            "{path}: {response}"
        );
    }
}

// ── when another worker takes over ──

#[tokio::test]
async fn idle_connections_are_closed_and_a_request_in_progress_gets_its_response() {
    let port = Port::start(&admin(), ServerLimits::default()).await;
    let (mut idle, mut begun, mut new) =
        (port.connect().await, port.connect().await, port.connect().await);
    exchange(&mut idle, HEALTHZ, "ok\n").await;
    exchange(&mut begun, HEALTHZ, "ok\n").await;
    let (first, second) = HEALTHZ.split_at(10);
    begun.write_all(first.as_bytes()).await.unwrap();
    // Once a later connection has its response, the port has read these bytes.
    exchange(&mut port.connect().await, HEALTHZ, "ok\n").await;
    port.phase.send_replace(ServerPhase::Closing);
    assert_eq!(rest(&mut idle).await, "");
    for (client, bytes) in [(&mut begun, second), (&mut new, HEALTHZ)] {
        client.write_all(bytes.as_bytes()).await.unwrap();
        let response = rest(client).await.to_lowercase();
        assert!(
            response.contains("\r\nconnection: close\r\n") && response.ends_with("ok\n"),
            "{response}"
        );
    }
    port.phase.send_replace(ServerPhase::Open);
    exchange(&mut port.connect().await, HEALTHZ, "ok\n").await;
    port.phase.send_replace(ServerPhase::Retired);
    timeout(TIMEOUT, port.running).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(port.address).await.is_err(), "the socket is closed");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_the_grace_time() {
    let bounds = ServerLimits { grace: Duration::from_millis(50), ..ServerLimits::default() };
    let port = Port::start(&admin(), bounds).await;
    let (mut silent, mut half) = (port.connect().await, port.connect().await);
    half.write_all(b"GET /").await.unwrap();
    exchange(&mut port.connect().await, HEALTHZ, "ok\n").await;
    port.phase.send_replace(ServerPhase::Retired);
    assert_eq!(rest(&mut silent).await, "");
    let response = rest(&mut half).await;
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 408 "), "{response}");
    timeout(TIMEOUT, port.running).await.expect("it ends").unwrap();
}

// ── bounds ──

#[tokio::test]
async fn an_incomplete_request_gets_408_and_a_silent_connection_is_closed() {
    let short = Duration::from_millis(100);
    let port =
        Port::start(&admin(), ServerLimits { head: short, idle: short, ..ServerLimits::default() })
            .await;
    let response = port.send("GET / HTTP/1.1\r\nX: ").await;
    assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    assert_eq!(port.send("").await, "");
    let mut idle = port.connect().await;
    exchange(&mut idle, HEALTHZ, "ok\n").await;
    assert_eq!(rest(&mut idle).await, "");
}

#[tokio::test]
async fn an_invalid_request_gets_a_clear_response() {
    let port = Port::start(&admin(), ServerLimits::default()).await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8000));
    for (request, status, word) in [
        ("\x16\x03\x01\x02\0\x01\0", 400, "tls"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "no_host"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "http2_preface"),
        ("GET / HTTP/3.0\r\n\r\n", 505, "other_version"),
        (long.as_str(), 414, "target_bytes"),
        (large.as_str(), 431, "header_bytes"),
    ] {
        let response = port.send(request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{word}: {response}");
        assert!(response.contains("\r\nConnection: close\r\n"), "{word}: {response}");
        assert!(
            response.ends_with(&format!("not a valid request: {word}\n")),
            "{word}: {response}"
        );
    }
}

#[tokio::test]
async fn when_every_connection_has_a_response_in_progress_one_more_gets_503() {
    let admin = admin();
    let port =
        Port::start(&admin, ServerLimits { connections: 1, ..ServerLimits::default() }).await;
    // The page is larger than the socket buffers.
    let body = vec![b'x'; 32 * 1024 * 1024].into();
    let page = Page { status: 200, content_type: page::TEXT, body };
    *admin.frozen.write() = Some(FrozenPages { metrics: page.clone(), status: page });
    let mut slow = port.connect().await;
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    timeout(TIMEOUT, slow.read_exact(&mut [0])).await.expect("it begins").unwrap();
    let response = port.send("").await;
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("too many"), "{response}");
    drop(slow);
}

#[tokio::test]
async fn a_body_is_not_parsed_as_the_next_request() {
    let smuggled = "GET /status HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}\
         GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        smuggled.len()
    );
    let response = send(&admin(), &request).await;
    assert!(!response.contains("uptime_seconds"), "{response}");
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
}
