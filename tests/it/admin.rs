//! The admin port: what it says over a reload, at a stop, at a start, and to clients that misbehave.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::collections::BTreeSet;
use std::process::Command;
use std::slice::from_ref;
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client, Failure};
use crate::support::configs::pool;
use crate::support::metrics::Metrics;
use crate::support::weir::{BINARY, Weir, kill};
use crate::support::{TIMEOUT, eventually, eventually_some, now, within};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: weir.test\r\n\r\n";

/// A backend with a health check that is repeated quickly, and a balancer before it.
fn checked() -> (Backend, Weir) {
    let backend = Backend::start("one");
    backend.on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let weir = Weir::start(&config(&backend, ""));
    (backend, weir)
}

fn config(backend: &Backend, more: &str) -> String {
    let check = "{type: tcp, interval: 1s, timeout: 500ms, unhealthy_after: 1}";
    let url = backend.url();
    format!("pools:\n- {{name: web, health_check: {check}, backends: [{url}]}}\n{more}")
}

/// An open WebSocket, which keeps the worker that serves it draining after a reload.
#[track_caller]
fn websocket(weir: &Weir) -> Client {
    let mut client = Client::connect(weir.address());
    client.send(UPGRADE);
    let head = client.read_head(now() + TIMEOUT).expect("an answer");
    assert_eq!(head.status, 101, "{head:?}");
    client
}

/// A client of the admin port that has had a response and keeps its connection.
#[track_caller]
fn kept(weir: &Weir) -> Client {
    let mut client = Client::connect(weir.admin());
    let response = client.get("/healthz");
    assert!(!response.head.is_last(), "{:?}", response.head);
    client
}

/// A scraper like Prometheus: it keeps its connection as long as the other side does.
struct Scraper<'a> {
    weir: &'a Weir,
    connection: Option<Client>,
}

impl Scraper<'_> {
    fn scrape(&mut self) -> Option<Metrics> {
        let mut connection =
            self.connection.take().unwrap_or_else(|| Client::connect(self.weir.admin()));
        let response = connection.request("GET", "/metrics", &[], b"").ok()?;
        if !response.head.is_last() {
            self.connection = Some(connection);
        }
        Some(Metrics::parse(&response.text()))
    }
}

// ── over a reload ──

#[test]
fn a_scraper_that_keeps_its_connection_sees_the_new_worker_after_a_reload() {
    let (backend, chat) = (Backend::start("one"), Backend::start("chat"));
    chat.on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let more = format!(
        "- {{name: chat, health_check: off, backends: [{}]}}\n\
         routes: [{{path: /chat, pool: chat}}, {{pool: web}}]\n",
        chat.url()
    );
    let weir = Weir::start(&config(&backend, &more));
    let mut scraper = Scraper { weir: &weir, connection: None };
    let generation = |metrics: &Metrics| metrics.value("lb_worker_generation", &[]);
    assert_eq!(scraper.scrape().as_ref().and_then(generation), Some(1.0));
    let _open = websocket(&weir);
    weir.reload();
    // What its old connection still brings was the truth when it was sent; then it is closed.
    let mut stale = 0;
    eventually(TIMEOUT, "the new worker is scraped", || {
        let scraped = scraper.scrape();
        let is_new = scraped.as_ref().and_then(generation) == Some(2.0);
        stale += usize::from(scraped.is_some() && !is_new);
        is_new
    });
    assert!(stale <= 1, "{stale} pages of a worker that is not the current one");
    backend.stop();
    eventually(TIMEOUT, "the dead backend is seen", || {
        let healthy = |metrics: Metrics| metrics.value("lb_healthy_backends", &[("pool", "web")]);
        scraper.scrape().and_then(healthy) == Some(0.0)
    });
    assert!(weir.workers().iter().any(|worker| worker.is("draining")), "it drains all the while");
}

#[test]
fn an_idle_admin_connection_is_closed_by_a_reload() {
    let (_backend, weir) = checked();
    let (mut client, _open) = (kept(&weir), websocket(&weir));
    weir.reload();
    assert!(client.is_closed_within(TIMEOUT), "the draining worker still waits for requests");
}

#[test]
fn a_request_that_has_begun_before_a_reload_gets_a_last_response_or_none() {
    let (_backend, weir) = checked();
    let (mut client, _open) = (kept(&weir), websocket(&weir));
    let (begin, end) = HEALTHZ.split_at(20);
    client.send(begin);
    weir.reload();
    let response = match client.try_send(end) {
        Ok(()) => client.try_read_answer("GET"),
        Err(_) => return,
    };
    match response {
        Ok(response) => {
            assert_eq!(response.head.header("connection"), Some("close"));
            assert!(client.is_closed_within(TIMEOUT));
        }
        Err(failure) => {
            assert!(matches!(failure, Failure::NoAnswer | Failure::Reset { .. }), "{failure:?}");
        }
    }
}

#[test]
fn when_a_reload_fails_at_the_end_the_admin_port_keeps_connections_again() {
    let (_backend, weir) = checked();
    let old = weir.worker_pid();
    kill("STOP", &[old]).unwrap();
    weir.signal("HUP");
    let warm = || weir.workers().into_iter().find(|worker| worker.is("warm"));
    let new = eventually_some(TIMEOUT, "a new worker is warm", warm).pid;
    kill("KILL", &[new]).unwrap();
    kill("CONT", &[old]).unwrap();
    eventually(TIMEOUT, "the reload is refused", || weir.stderr().contains("reload rejected"));
    let again = || {
        let mut client = Client::connect(weir.admin());
        let first = client.request("GET", "/healthz", &[], b"").ok()?;
        let second = client.request("GET", "/metrics", &[], b"").ok()?;
        (!first.head.is_last() && second.status() == 200).then_some(())
    };
    assert!(within(TIMEOUT, again).is_some(), "two requests over one connection");
}

// ── at a stop ──

#[test]
fn a_kept_admin_connection_hears_the_truth_during_a_stop() {
    let backend = Backend::start("one");
    backend.on("/slow", Behaviour::NeverAnswer);
    let mut weir = Weir::start(&config(&backend, "shutdown: {drain: 1h}"));
    let mut waiting = Client::connect(weir.address());
    waiting.send("GET /slow HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "the request is in flight", || backend.in_flight() > 0);
    let mut client = kept(&weir);
    assert_eq!(client.get("/readyz").status(), 200);
    weir.signal("TERM");
    eventually(TIMEOUT, "it is not ready", || client.get("/readyz").status() == 503);
    assert_eq!(client.get("/readyz").text(), "not ready: draining\n");
    assert_eq!(client.get("/metrics").status(), 200);
    backend.release();
    assert_eq!(waiting.read_answer().status(), 200);
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
}

#[test]
fn during_a_stop_the_admin_port_answers_until_the_last_worker_has_drained() {
    let backend = Backend::start("one");
    backend.on("/chat", Behaviour::Upgrade("websocket".to_owned()));
    let mut weir = Weir::start(&config(&backend, "shutdown: {drain: 1h}"));
    let open = websocket(&weir);
    weir.reload();
    weir.signal("TERM");
    let until = |what: &str, status| {
        eventually(TIMEOUT, what, || {
            client::try_get(weir.admin(), "/readyz").is_ok_and(|said| said.status() == status)
        });
    };
    until("it is not ready", 503);
    // The worker that serves has no requests left; the one before has its WebSocket.
    let closed = || {
        within(Duration::from_secs(2), || {
            client::try_get(weir.admin(), "/readyz").is_err().then_some(())
        })
    };
    assert!(closed().is_none(), "the admin port is closed while a worker drains");
    assert_eq!(client::get(weir.admin(), "/readyz").text(), "not ready: draining\n");
    drop(open);
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
}

// ── at a start ──

#[test]
fn while_it_starts_it_says_so_on_the_admin_port() {
    let backend = Backend::start("one");
    backend.on("/health", Behaviour::NeverAnswer);
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s}";
    let url = backend.url();
    let mut weir =
        Weir::spawn(&format!("pools: [{{name: web, health_check: {check}, backends: [{url}]}}]"));
    eventually(TIMEOUT, "the health check waits", || backend.count_of("/health") == 1);
    let said = client::get(weir.admin(), "/readyz");
    assert_eq!((said.status(), said.text()), (503, "not ready: starting\n".to_owned()));
    assert_eq!(client::get(weir.admin(), "/healthz").status(), 200);
    for path in ["/metrics", "/status"] {
        assert_eq!(client::get(weir.admin(), path).status(), 503, "{path}");
    }
    let mut kept = Client::connect(weir.admin());
    assert_eq!(kept.get("/readyz").status(), 503);
    backend.release();
    weir.until_ready();
    assert_eq!(kept.get("/metrics").status(), 200, "the same connection hears of it");
}

#[test]
fn a_worker_that_starts_beside_another_is_silent_on_the_admin_port() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s}";
    let file = |backend: &Backend| {
        let url = backend.url();
        format!("pools: [{{name: web, health_check: {check}, backends: [{url}]}}]")
    };
    let weir = Weir::start(&file(&one));
    two.on("/health", Behaviour::NeverAnswer);
    weir.write_config(&file(&two));
    weir.signal("HUP");
    eventually(TIMEOUT, "the new worker checks", || two.count_of("/health") == 1);
    let generation = || weir.metrics().value("lb_worker_generation", &[]);
    for _ in 0..20 {
        assert_eq!(client::get(weir.admin(), "/readyz").status(), 200);
        assert_eq!(generation(), Some(1.0));
    }
    two.release();
    eventually(TIMEOUT, "the reload is done", || generation() == Some(2.0));
}

#[test]
fn a_worker_that_replaces_a_dead_one_says_that_it_starts() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s}";
    let file =
        |urls: &str| format!("pools: [{{name: web, health_check: {check}, backends: [{urls}]}}]");
    let weir = Weir::start(&file(&one.url()));
    let requests = || weir.metrics().sum("lb_requests_total", &[]);
    assert_eq!(weir.get("/").status(), 200);
    eventually(TIMEOUT, "the request is counted", || requests() == 1.0);
    two.on("/health", Behaviour::NeverAnswer);
    // A reload whose worker warms up while the one that serves dies: the replacement serves what
    // was served, and its health is known.
    weir.write_config(&file(&two.url()));
    weir.signal("HUP");
    eventually(TIMEOUT, "the new worker checks", || two.count_of("/health") == 1);
    kill("KILL", &[weir.worker_pid()]).unwrap();
    let said: Vec<u16> = within(TIMEOUT, || {
        let said = client::try_get(weir.admin(), "/readyz").ok()?;
        (said.status() == 200).then(|| vec![said.status()])
    })
    .expect("the replacement is ready");
    assert_eq!(said, [200]);
    for _ in 0..20 {
        assert_eq!(client::get(weir.admin(), "/readyz").status(), 200, "one worker answers");
    }
    two.release();
    let generation = || weir.metrics().value("lb_worker_generation", &[]);
    eventually(TIMEOUT, "the reload is done", || generation() == Some(2.0));
}

// ── readiness ──

/// Three pools: one alive, one dead, one that no check looks at.
fn three_pools(alive: &Backend, dead: &Backend, ready_when: &str) -> String {
    let check = "{type: http, path: /health, interval: 1s, unhealthy_after: 1}";
    format!(
        "admin: {{address: \"{}:9090\"{ready_when}}}\n\
         routes: [{{path: /dead, pool: dead}}, {{path: /other, pool: other}}, {{pool: web}}]\n\
         pools:\n\
         - {{name: web, health_check: {check}, backends: [{}]}}\n\
         - {{name: dead, health_check: {check}, backends: [{}]}}\n\
         - {{name: other, health_check: off, backends: [{}]}}\n",
        crate::support::weir::HERE,
        alive.url(),
        dead.url(),
        alive.url(),
    )
}

#[test]
fn one_dead_pool_does_not_make_the_balancer_unready_unless_the_file_says_so() {
    let (alive, dead) = (Backend::start("alive"), Backend::start("dead"));
    dead.on("/health", Behaviour::status(500));
    let mut weir = Weir::spawn(&three_pools(&alive, &dead, ""));
    weir.until_ready();
    let readyz = |weir: &Weir| {
        let said = client::get(weir.admin(), "/readyz");
        (said.status(), said.text())
    };
    let (status, text) = readyz(&weir);
    assert_eq!((status, text.as_str()), (200, "ready\nno healthy backend in pool dead\n"));
    for (ready_when, status, text) in [
        (", ready_when: all_pools", 503, "not ready: no healthy backend in pool dead\n"),
        (", ready_when: [dead]", 503, "not ready: no healthy backend in pool dead\n"),
        (", ready_when: [web, other]", 200, "ready\nno healthy backend in pool dead\n"),
        (", ready_when: any_pool", 200, "ready\nno healthy backend in pool dead\n"),
    ] {
        weir.write_config(&three_pools(&alive, &dead, ready_when));
        let said = weir.reload();
        assert!(said.contains("admin.ready_when: "), "{said}");
        assert_eq!(readyz(&weir), (status, text.to_owned()), "{ready_when}");
    }
}

#[test]
fn with_every_pool_dead_it_is_not_ready() {
    let dead = Backend::start("dead");
    dead.on("/health", Behaviour::status(500));
    let check = "{type: http, path: /health, interval: 1s, unhealthy_after: 1}";
    let url = dead.url();
    let mut weir = Weir::spawn(&format!(
        "routes: [{{path: /a, pool: a}}, {{pool: b}}]\npools:\n\
         - {{name: a, health_check: {check}, backends: [{url}]}}\n\
         - {{name: b, health_check: {check}, backends: [{url}]}}\n"
    ));
    weir.until_alive();
    let said = client::get(weir.admin(), "/readyz");
    let text = "not ready: no healthy backend in pool a b\n";
    assert_eq!((said.status(), said.text().as_str()), (503, text));
}

// ── clients that misbehave ──

#[test]
fn half_requests_do_not_keep_others_from_the_admin_port() {
    let (_backend, weir) = checked();
    let mut half: Vec<Client> = (0..300)
        .map(|_| {
            let mut client = Client::connect(weir.admin());
            client.send("GET /metrics HTTP/1.1\r\nHost: weir.test\r\nX-Half: ");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(client::get(weir.admin(), "/healthz").status(), 200);
    }
    let closed = |half: &mut Vec<Client>| {
        half.iter_mut()
            .filter_map(|one| one.is_closed_within(Duration::from_millis(1)).then_some(()))
            .count()
    };
    eventually(TIMEOUT, "all but 64 are closed", || closed(&mut half) >= 300 - 64);
}

#[test]
fn the_oldest_idle_connection_makes_room_for_a_new_one() {
    let (_backend, weir) = checked();
    let mut oldest = kept(&weir);
    let mut others: Vec<Client> = (0..63).map(|_| kept(&weir)).collect();
    let mut newest = kept(&weir);
    assert!(oldest.is_closed_within(TIMEOUT), "it was idle for the longest time");
    assert_eq!(newest.get("/healthz").status(), 200);
    for client in &mut others {
        assert_eq!(client.get("/healthz").status(), 200);
    }
}

#[test]
fn the_admin_port_answers_while_clients_have_all_descriptors() {
    let backend = Backend::start("one");
    let mut launcher = Command::new("sh");
    launcher.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", BINARY]);
    let file = format!("{}limits: {{connections: 100000}}\n", pool(from_ref(&backend), ""));
    let weir = Weir::start_by(launcher, &file);
    let worker = weir.worker_pid();
    let open = || std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap().count();
    // Idle clients until the worker has no descriptor left, or accepts no more of them.
    let mut clients = Vec::new();
    let mut before = 0;
    while clients.len() < 1000 && (clients.len() < 256 || open() > before) {
        before = open();
        let mut client = Client::connect(weir.address());
        drop(client.try_send("GET / HTTP/1.1\r\n"));
        clients.push(client);
    }
    let sources: BTreeSet<_> = clients.iter().map(Client::local_addr).collect();
    assert_eq!(sources.len(), clients.len());
    for _ in 0..100 {
        let mut client = Client::connect(weir.admin());
        client.set_timeout(TIMEOUT);
        for path in ["/healthz", "/readyz", "/metrics", "/status"] {
            let said = client.request("GET", path, &[], b"").expect("a response");
            assert!([200, 503].contains(&said.status()), "{path}");
        }
    }
    let kept: Vec<Client> = (0..20).map(|_| kept(&weir)).collect();
    assert_eq!(kept.len(), 20);
    assert_eq!(weir.worker_pid(), worker, "it is the same worker all the while");
}
