use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::limits::PROBE_BODY_BYTES_MAX;
use crate::config::{Probe as Question, StatusSet};
use crate::current::Serving;
use crate::exchange::event::{ExchangeEvent, Observer};
use crate::fixture;
use crate::runtime::ids::BackendId;
use crate::runtime::snapshot::Snapshot;
use crate::tls::upstream::Trust;

/// Longer than any of these tests should take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A backend that sends the same response to every request.
struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    response: Arc<Mutex<Option<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Origin {
    /// `None` reads the request and never responds.
    async fn new(response: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let response = Arc::new(Mutex::new(response.map(|text| text.as_bytes().to_vec())));
        let (counted, seen, said) =
            (Arc::clone(&connections), Arc::clone(&requests), Arc::clone(&response));
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                let (seen, said) = (Arc::clone(&seen), Arc::clone(&said));
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let Ok(length) = socket.read(&mut request).await else { return };
                    if length == 0 {
                        return;
                    }
                    seen.lock().push(String::from_utf8_lossy(&request[..length]).into());
                    let response = said.lock().clone();
                    match response {
                        Some(bytes) => drop(socket.write_all(&bytes).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, connections, requests, response, task }
    }

    fn set_response(&self, text: &str) {
        *self.response.lock() = Some(text.as_bytes().to_vec());
    }

    fn probes(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready";
const BROKEN: &str = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n";

fn http(body: Option<&str>) -> Question {
    Question::Http {
        path: "/health?full=1".to_owned(),
        host: None,
        status: StatusSet(vec![(200, 299), (304, 304)]),
        body: body.map(str::to_owned),
    }
}

fn world(pools: Vec<config::Pool>) -> (Arc<Snapshot>, Arc<UpstreamPeers>) {
    let snapshot = fixture::snapshot(pools.clone());
    let upstreams = UpstreamPeers::new(&pools, Trust::default()).unwrap();
    (Arc::new(snapshot), Arc::new(upstreams))
}

struct Ignored;

impl Observer for Ignored {
    fn observe(&self, _: &ExchangeEvent<'_>) {}
}

fn current(snapshot: &Arc<Snapshot>) -> Arc<CurrentSnapshot> {
    Arc::new(CurrentSnapshot::new(Arc::clone(snapshot), Arc::new(Ignored)))
}

/// No host name is resolved in these tests.
fn no_names() -> watch::Receiver<()> {
    watch::Sender::new(()).subscribe()
}

/// A running prober of one pool.
struct Running {
    prober: Arc<Prober>,
    snapshot: Arc<Snapshot>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn new(origins: &[SocketAddr], check: HealthCheck) -> Self {
        let (snapshot, upstreams) = world(vec![fixture::pool("web", origins, Some(check))]);
        let prober =
            Arc::new(Prober::new(current(&snapshot), upstreams, Clock::process(), no_names()));
        let (stop, shutdown) = watch::channel(false);
        let service = Arc::clone(&prober);
        let task = tokio::spawn(async move { service.start(shutdown).await });
        Self { prober, snapshot, stop, task }
    }

    fn backend(&self, index: usize) -> Arc<Backend> {
        Arc::clone(self.snapshot.pools[0].backend(BackendId::new(index)).unwrap())
    }

    async fn initial_probes_done(&self) {
        timeout(TIMEOUT, self.prober.initial_probes_done()).await.expect("no first pass");
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        timeout(TIMEOUT, self.task).await.expect("it did not stop").unwrap();
    }
}

/// A frequent check with a long timeout.
fn check(probe: Question) -> HealthCheck {
    HealthCheck { timeout: TIMEOUT, ..fixture::health_check(probe) }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// The error of the first probe of an origin with this response.
async fn first_error(question: Question, response: &str) -> Option<String> {
    let origin = Origin::new(Some(response)).await;
    let running = Running::new(&[origin.address], check(question));
    running.initial_probes_done().await;
    running.backend(0).health().last_error
}

#[tokio::test]
async fn a_backend_is_healthy_after_its_first_pass_and_not_before() {
    let origin = Origin::new(Some(OK)).await;
    let running = Running::new(&[origin.address], check(http(None)));
    assert!(!running.backend(0).is_healthy());
    running.initial_probes_done().await;
    assert!(running.backend(0).is_healthy());
    assert_eq!(running.backend(0).health().last_error, None);
    running.end().await;
}

#[tokio::test]
async fn a_backends_health_follows_its_responses() {
    let origin = Origin::new(Some(OK)).await;
    let running = Running::new(&[origin.address], check(http(None)));
    running.initial_probes_done().await;
    let backend = running.backend(0);
    origin.set_response(BROKEN);
    eventually("it falls", || !backend.is_healthy()).await;
    assert_eq!(backend.health().last_error.as_deref(), Some("status 500, expected 200-299, 304"));
    origin.set_response(OK);
    eventually("it rises", || backend.is_healthy()).await;
}

#[tokio::test]
async fn each_probe_uses_a_new_connection() {
    let origin = Origin::new(Some(OK)).await;
    let _running = Running::new(&[origin.address], check(http(None)));
    eventually("five probes", || origin.probes() >= 5).await;
    let requests = origin.requests.lock().len();
    assert!(requests >= 4, "{requests} requests on {} connections", origin.probes());
}

#[tokio::test]
async fn a_probe_sends_its_user_agent_and_the_host() {
    let origin = Origin::new(Some(OK)).await;
    let running = Running::new(&[origin.address], check(http(None)));
    running.initial_probes_done().await;
    let request = origin.requests.lock()[0].to_lowercase();
    assert!(request.starts_with("get /health?full=1 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", origin.address)), "{request}");
    assert!(request.contains("\r\nuser-agent: weir-probe/"), "{request}");
}

#[tokio::test]
async fn a_configured_host_is_sent_instead_of_the_address() {
    let origin = Origin::new(Some(OK)).await;
    let question = Question::Http {
        path: "/".to_owned(),
        host: Some("web.internal".to_owned()),
        status: StatusSet(vec![(200, 299)]),
        body: None,
    };
    let running = Running::new(&[origin.address], check(question));
    running.initial_probes_done().await;
    let request = origin.requests.lock()[0].to_lowercase();
    assert_eq!(request.matches("\r\nhost: ").count(), 1, "{request}");
    assert!(request.contains("\r\nhost: web.internal\r\n"), "{request}");
}

#[tokio::test]
async fn a_hung_backend_delays_no_other() {
    let hung = Origin::new(None).await;
    let other = Origin::new(Some(OK)).await;
    let running = Running::new(&[hung.address, other.address], check(http(None)));
    eventually("the other is probed", || other.probes() >= 5).await;
    assert_eq!(hung.probes(), 1, "the hung probe is still under way");
    assert!(running.backend(1).is_healthy());
    assert!(!running.backend(0).is_healthy());
}

#[tokio::test]
async fn a_probe_without_a_response_times_out() {
    let hung = Origin::new(None).await;
    let running = Running::new(&[hung.address], fixture::health_check(http(None)));
    running.initial_probes_done().await;
    let error = running.backend(0).health().last_error;
    assert_eq!(error.as_deref(), Some("timed out after 20ms"));
    eventually("it is asked again", || hung.probes() >= 2).await;
}

#[tokio::test]
async fn a_redirect_is_judged_by_its_own_status() {
    let redirect = "HTTP/1.1 301 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let error = first_error(http(None), redirect).await;
    assert_eq!(error.as_deref(), Some("status 301, expected 200-299, 304"));
}

#[tokio::test]
async fn an_interim_response_is_not_the_response() {
    let interim = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}");
    assert_eq!(first_error(http(None), &interim).await, None);
}

#[tokio::test]
async fn the_expected_text_has_to_be_in_the_body() {
    assert_eq!(first_error(http(Some("ead")), OK).await, None);
    let error = first_error(http(Some("steady")), OK).await;
    assert_eq!(error.as_deref(), Some("the body does not have the expected text"));
}

#[tokio::test]
async fn a_text_beyond_the_limit_is_not_searched() {
    let padding = "x".repeat(PROBE_BODY_BYTES_MAX);
    let response = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{padding}ready");
    let error = first_error(http(Some("ready")), &response).await;
    assert_eq!(error.as_deref(), Some("the body does not have the expected text"));
}

#[tokio::test]
async fn a_truncated_response_fails() {
    let error = first_error(http(None), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nrea").await;
    assert_eq!(error.as_deref(), Some("the backend closed the connection"));
}

#[tokio::test]
async fn a_response_that_is_not_http_fails() {
    let error = first_error(http(None), "SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    assert_eq!(error.as_deref(), Some("the response is not valid HTTP"));
}

#[tokio::test]
async fn a_port_without_a_listener_refuses_the_connection() {
    let origin = Origin::new(Some(OK)).await;
    let address = origin.address;
    drop(origin);
    eventually("the listener is gone", || std::net::TcpStream::connect(address).is_err()).await;
    for question in [Question::Tcp, http(None)] {
        let running = Running::new(&[address], check(question));
        running.initial_probes_done().await;
        let error = running.backend(0).health().last_error;
        assert_eq!(error.as_deref(), Some("connection refused"));
    }
}

#[tokio::test]
async fn a_tcp_probe_only_needs_a_connection() {
    let silent = Origin::new(None).await;
    let running = Running::new(&[silent.address], check(Question::Tcp));
    running.initial_probes_done().await;
    assert!(running.backend(0).is_healthy());
    eventually("it is asked again", || silent.probes() >= 3).await;
    assert!(silent.requests.lock().is_empty(), "a TCP probe sent something");
}

#[tokio::test]
async fn without_backends_the_initial_probes_are_done() {
    let (snapshot, upstreams) = world(vec![fixture::pool("web", &[], None)]);
    let prober = Prober::new(current(&snapshot), upstreams, Clock::process(), no_names());
    timeout(TIMEOUT, prober.initial_probes_done()).await.expect("it waits for no backend");
}

#[tokio::test]
async fn probes_follow_the_members_of_the_pool() {
    let (gone, stays, comes) =
        (Origin::new(Some(OK)).await, Origin::new(Some(OK)).await, Origin::new(Some(OK)).await);
    let running = Running::new(&[gone.address, stays.address], check(http(None)));
    running.initial_probes_done().await;
    let (later, _) = world(vec![fixture::pool("web", &[comes.address], Some(check(http(None))))]);
    let members =
        vec![running.snapshot.pools[0].members[1].clone(), later.pools[0].members[0].clone()];
    let replaced = running.snapshot.with_members(|_, _| Some(members.clone()));
    let current = &running.prober.current;
    let serving = Serving { snapshot: Arc::new(replaced), ..current.serving() };
    current.replace(serving);
    eventually("the new one is probed", || members[1].backend.is_healthy()).await;
    let (left, before) = (gone.probes(), stays.probes());
    eventually("the others are probed", || stays.probes() > before + 3 && comes.probes() > 3).await;
    // One may have been under way.
    assert!(gone.probes() <= left + 1, "{} {left}", gone.probes());
    running.end().await;
}

#[tokio::test]
async fn the_prober_stops_at_once_even_while_a_probe_hangs() {
    let hung = Origin::new(None).await;
    let patient = HealthCheck { timeout: Duration::from_secs(3600), ..check(http(None)) };
    let running = Running::new(&[hung.address], patient);
    eventually("the probe begins", || hung.probes() == 1).await;
    running.end().await;
}

struct Panics;

#[async_trait]
impl health_check::HealthCheck for Panics {
    async fn check(&self, _backend: &pingora_load_balancing::Backend) -> pingora_error::Result<()> {
        panic!("a probe that goes wrong");
    }

    fn health_threshold(&self, _success: bool) -> usize {
        EACH_RESULT
    }
}

#[tokio::test]
async fn a_probe_that_panics_has_failed() {
    let nowhere = [fixture::address("127.0.0.1:1")];
    let (snapshot, upstreams) =
        world(vec![fixture::pool("web", &nowhere, Some(check(Question::Tcp)))]);
    let pool = &snapshot.pools[0];
    let probe_loop = ProbeLoop {
        waiters: None,
        pool: pool.name.clone(),
        backend: Arc::clone(pool.backend(BackendId::new(0)).unwrap()),
        upstreams,
        pool_id: PoolId::new(0),
        check: check(Question::Tcp),
        probe: Arc::new(Panics),
        clock: Clock::process(),
        missing: None,
        resolved: no_names(),
        reserve: Arc::new(Reserve::new(0)),
    };
    probe_loop.round().await;
    assert_eq!(probe_loop.backend.health().last_error.as_deref(), Some("the probe itself failed"));
}

#[test]
fn a_connection_that_the_system_refuses_is_a_failed_check() {
    let to = "127.0.0.1:1".parse().unwrap();
    let explained = |code| {
        let cause = std::io::Error::from_raw_os_error(code);
        explain(&Error::because(ErrorType::InternalError, "a socket", cause), &to)
    };
    for error in [Errno::AFNOSUPPORT, Errno::ACCESS, Errno::PERM] {
        let failure = explained(error.raw_os_error());
        assert!(matches!(failure, ProbeFailure::Backend(_)), "{error:?}: {failure:?}");
    }
    for error in [Errno::MFILE, Errno::ADDRNOTAVAIL, Errno::NOMEM] {
        let failure = explained(error.raw_os_error());
        assert!(matches!(failure, ProbeFailure::Local(_)), "{error:?}: {failure:?}");
    }
    let bug = explain(&Error::explain(ErrorType::InternalError, "a target of somebody else"), &to);
    assert!(matches!(bug, ProbeFailure::Local(_)), "{bug:?}");
}

#[test]
fn the_jitter_is_a_tenth_either_way() {
    let second = Duration::from_secs(1);
    assert_eq!(jittered(second, 0.0), Duration::from_millis(900));
    assert_eq!(jittered(second, 0.5), second);
    assert_eq!(jittered(second, 1.0), Duration::from_millis(1100));
}
