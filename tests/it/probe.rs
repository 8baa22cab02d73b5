//! Health: what is probed, what follows from it, and what a probe must not do to others.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::backend::{Answer, Backend, Behaviour, Seen};
use crate::support::client::{self, Client};
use crate::support::load_generator::Load;
use crate::support::weir::{Directory, Weir, run_to_end};
use crate::support::{TIMEOUT, eventually, now};

/// One pool of these backends with this health check.
fn pool(backends: &[Backend], check: &str) -> String {
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let urls = urls.join(", ");
    format!("pools: [{{name: web, backends: [{urls}], health_check: {{{check}}}}}]")
}

/// Passes and fails (`.` and `x`) one probe after the other; all further ones as the last.
fn script(results: &'static str) -> (Arc<AtomicUsize>, Behaviour) {
    let probes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&probes);
    let decide = move |_: &Seen| {
        let results = results.as_bytes();
        let result = results.get(counted.fetch_add(1, Relaxed)).or(results.last());
        let fails = result == Some(&b'x');
        Behaviour::status(if fails { 500 } else { 200 })
    };
    (probes, Behaviour::By(Arc::new(decide)))
}

/// How the health of a backend changed, as the log tells it: `+` and `-`.
fn changes(weir: &Weir, backend: &Backend) -> String {
    let (log, name) = (weir.stderr(), format!(" backend={}", backend.address()));
    let change = |line: &str| match line {
        _ if !line.contains(&name) => None,
        _ if line.contains("backend unhealthy: ") => Some('-'),
        _ if line.contains("backend healthy: ") => Some('+'),
        _ => None,
    };
    log.lines().filter_map(change).collect()
}

fn until_healthy(weir: &Weir, count: usize) {
    let what = format!("{count} backends are healthy");
    eventually(TIMEOUT, &what, || weir.status()["healthy_backends"] == count);
}

/// What `changes` are of two backends whose probes have these results.
fn changes_after(check: &str, results: [&'static str; 2]) -> [String; 2] {
    let backends = Backend::start_many(2);
    // A probe that takes longer than the interval fails, which the script does not know of. On a busy
    // machine one may wait for its turn for some time.
    let check = format!("path: /health, interval: 500ms, {check}");
    let scripts = results.map(script);
    for (backend, (_, behaviour)) in backends.iter().zip(&scripts) {
        backend.on("/health", behaviour.clone());
    }
    let mut weir = Weir::spawn(&pool(&backends, &check));
    weir.until_alive();
    // When the next probe has come, the last one was taken in.
    let is_through = |(probes, results): (&Arc<AtomicUsize>, &str)| {
        let is_over = || probes.load(Relaxed) > results.len();
        eventually(TIMEOUT * 2, "the script is through", is_over);
    };
    scripts.iter().map(|(probes, _)| probes).zip(results).for_each(is_through);
    // The log is written by a thread of its own, which has written all of it by the end.
    weir.signal("TERM");
    weir.wait(TIMEOUT);
    [changes(&weir, &backends[0]), changes(&weir, &backends[1])]
}

#[test]
fn it_falls_with_exactly_as_many_failures_in_a_row_as_configured() {
    let check = "unhealthy_after: 3, healthy_after: 1";
    assert_eq!(changes_after(check, [".xx.xx.", ".xx.xxx."]), ["+", "+-+"]);
}

#[test]
fn it_rises_with_exactly_as_many_passes_in_a_row_as_configured() {
    let check = "unhealthy_after: 1, healthy_after: 3";
    assert_eq!(changes_after(check, [".x..x..x", ".x..x...x"]), ["+-", "+-+-"]);
}

#[test]
fn the_first_result_decides_whatever_the_numbers_say() {
    let check = "unhealthy_after: 9, healthy_after: 9";
    assert_eq!(changes_after(check, [".", "x"]), ["+", "-"]);
}

#[test]
fn an_unhealthy_backend_gets_no_request_until_it_is_back() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends, "path: /health, interval: 500ms"));
    // A first check may have been late.
    until_healthy(&weir, 2);
    backends[0].on("/health", Behaviour::status(500));
    until_healthy(&weir, 1);
    backends.iter().for_each(Backend::forget);
    let tally = Load { count: Some(50), ..Load::on(weir.address()) }.run();
    assert_eq!(tally.with_status(200), 50);
    assert_eq!((backends[0].count(), backends[1].count()), (0, 50));
    backends[0].on("/health", Behaviour::Good);
    until_healthy(&weir, 2);
    Load { count: Some(50), ..Load::on(weir.address()) }.run();
    assert_eq!(backends[0].count(), 25, "it has its turns again");
}

#[test]
fn an_http_probe_asks_for_its_path_with_its_host_on_a_connection_of_its_own() {
    let backend = Backend::start("one");
    let check = "path: \"/live?full=1\", host: web.internal, interval: 100ms";
    let _weir = Weir::start(&pool(std::slice::from_ref(&backend), check));
    eventually(TIMEOUT, "three probes", || backend.count_of("/live") >= 3);
    let probes = backend.seen();
    let probes = &probes[..3];
    assert!(probes.iter().all(|probe| probe.method == "GET" && probe.target == "/live?full=1"));
    assert!(probes.iter().all(|probe| probe.header("host") == Some("web.internal")));
    let connections: BTreeSet<u64> = probes.iter().map(|probe| probe.connection).collect();
    assert_eq!(connections.len(), 3);
}

#[test]
fn an_http_probe_names_the_backends_own_address_by_default() {
    let backend = Backend::start("one");
    let _weir = Weir::start(&pool(std::slice::from_ref(&backend), "path: /health"));
    let host = backend.address().to_string();
    assert_eq!(backend.seen()[0].header("host"), Some(host.as_str()));
}

#[test]
fn a_500_is_not_healthy_and_neither_is_a_redirect() {
    let backends = Backend::start_many(3);
    backends[0].on("/health", Behaviour::status(500));
    backends[1].on("/health", Behaviour::status(302));
    let weir = Weir::start(&pool(&backends, "path: /health"));
    let status = weir.status();
    let states: Vec<_> = (0..3).map(|index| &status["backends"][index]["state"]).collect();
    assert_eq!(states, ["unhealthy", "unhealthy", "healthy"]);
    assert_eq!(status["backends"][0]["last_error"], "status 500, expected 200-299");
}

#[test]
fn the_status_set_decides_which_answer_passes() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::status(404));
    let weir = Weir::start(&pool(&backends, "path: /health, status: [404, 500-599]"));
    let status = weir.status();
    assert_eq!(status["backends"][0]["state"], "healthy");
    assert_eq!(status["backends"][1]["state"], "unhealthy", "200 is not in the set");
}

#[test]
fn a_body_without_the_expected_text_does_not_pass() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::Answer(Answer::body("db: ready\n")));
    backends[1].on("/health", Behaviour::Answer(Answer::body("db: starting\n")));
    let weir = Weir::start(&pool(&backends, "path: /health, body: \"db: ready\""));
    let status = weir.status();
    assert_eq!(status["backends"][0]["state"], "healthy");
    assert_eq!(status["backends"][1]["state"], "unhealthy");
}

#[test]
fn a_tcp_probe_connects_again_and_again_and_sends_nothing() {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(std::slice::from_ref(&backend), "type: tcp, interval: 100ms"));
    eventually(TIMEOUT, "three connections", || backend.connections() >= 3);
    assert_eq!(backend.seen(), []);
    backend.stop();
    eventually(TIMEOUT, "it is noticed", || weir.status()["healthy_backends"] == 0);
    assert_eq!(weir.status()["backends"][0]["last_error"], "connection refused");
    backend.restart();
    until_healthy(&weir, 1);
}

/// The first bytes of a health check at a port where nothing else listens for the backend `url`.
fn first_bytes_at_health_port(url: &str, check: &str, pool: &str) -> Vec<u8> {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut weir = Weir::spawn(&format!(
        "pools: [{{name: web, backends: [\"{url}\"], {pool}health_check: {{{check}, port: {port}}}}}]"
    ));
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually(TIMEOUT, "a health check arrives", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (mut connection, _) = accepted.unwrap();
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut first = [0; 12];
    let length = connection.read(&mut first).unwrap();
    weir.signal("TERM");
    weir.wait(TIMEOUT);
    first[..length].to_vec()
}

#[test]
fn health_checks_of_every_type_connect_to_the_configured_port() {
    const PROXY_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const CLIENT_HELLO: &[u8] = b"\x16\x03\x01";
    let plaintext: [(&str, &[u8]); 3] =
        [("type: tcp", b""), ("type: http", b"GET / HTTP/1"), ("type: grpc", b"PRI * HTTP/2")];
    for (check, start) in plaintext {
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let url = format!("http://{host}:1");
            assert_eq!(first_bytes_at_health_port(&url, check, ""), start, "{check} {host}");
        }
        let first = first_bytes_at_health_port("http://127.0.0.1:1", check, "proxy_protocol: v2, ");
        assert_eq!(first, PROXY_HEADER, "{check}");
        let first = first_bytes_at_health_port("https://127.0.0.1:1", check, "");
        assert!(first.starts_with(CLIENT_HELLO), "{check}: {first:?}");
    }
}

#[test]
fn health_checks_go_to_the_configured_port_and_requests_to_the_backends_own() {
    let backend = Backend::start("one");
    let at = |port| SocketAddr::new(backend.address().ip(), port);
    let checks = [3001, 3002].map(|port| Backend::start_at(&format!("health at {port}"), at(port)));
    let config = |port| {
        let check = format!(
            "path: /health, port: {port}, interval: 100ms, unhealthy_after: 1, healthy_after: 1"
        );
        pool(std::slice::from_ref(&backend), &check)
    };
    let weir = Weir::start(&config(3001));
    assert_eq!(weir.get("/").text(), "one");
    checks[0].on("/health", Behaviour::status(500));
    until_healthy(&weir, 0);
    assert_eq!(weir.get("/").status(), 503);
    assert!(weir.stderr().contains("reason=\"port 3001: status 500, "), "{}", weir.stderr());
    assert_eq!(checks[1].count_of("/health"), 0);

    weir.write_config(&config(3002));
    let reloaded = weir.reload();
    assert!(reloaded.contains("pool web: health_check.port: 3001 → 3002\n"), "{reloaded}");
    until_healthy(&weir, 1);
    assert_eq!(weir.get("/").text(), "one");
    assert!(checks[0].count_of("/health") >= 2 && checks[1].count_of("/health") >= 1);
    assert_eq!((checks[0].count(), checks[1].count()), (0, 0), "requests at a health port");
    assert_eq!((backend.count(), backend.count_of("/health")), (2, 0));
}

#[test]
fn a_port_of_health_checks_is_from_1_to_65535() {
    let directory = Directory::new();
    for (port, why) in [
        (
            "0",
            "a whole number from 1 to 65535; without it, health checks go to the port of the backend",
        ),
        ("65536", "a whole number from 1 to 65535"),
    ] {
        let file = directory.name("weir.yaml");
        let config = format!(
            "pools: [{{name: web, backends: [http://10.0.0.1:80], health_check: {{port: {port}}}}}]"
        );
        fs::write(&file, config).unwrap();
        let ended = run_to_end(&["check", &file], &[], TIMEOUT);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let message = format!("1:74: `port` cannot be {port} (help: {why})\n");
        assert!(ended.stderr.contains(&message), "{}", ended.stderr);
    }
}

#[test]
fn without_a_health_check_nothing_is_probed_and_everybody_counts_as_healthy() {
    let backend = Backend::start("one");
    let config =
        format!("pools: [{{name: web, health_check: off, backends: [{}]}}]", backend.url());
    let weir = Weir::start(&config);
    assert_eq!(weir.get("/").status(), 200);
    assert_eq!((backend.seen().len(), backend.connections()), (1, 1));
}

#[test]
fn a_backend_that_is_down_at_the_start_never_gets_a_request() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::status(503));
    let weir = Weir::start(&pool(&backends, "path: /health"));
    let tally = Load { count: Some(50), ..Load::on(weir.address()) }.run();
    assert_eq!(tally.with_status(200), 50);
    assert_eq!((backends[0].count(), backends[1].count()), (0, 50));
}

#[test]
fn who_connects_before_the_first_probes_are_done_waits_and_is_served() {
    let backend = Backend::start("one");
    backend.on("/health", Behaviour::slow(Duration::from_millis(300)));
    let mut weir = Weir::spawn(&pool(std::slice::from_ref(&backend), "path: /health"));
    let mut client = None;
    eventually(TIMEOUT, "the listener is bound", || {
        client = Client::try_connect(weir.address(), None).ok();
        client.is_some()
    });
    let answer = client.expect("connected").get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "one"));
    assert_eq!(backend.seen()[0].target, "/health", "the probe came first");
    weir.until_ready();
}

#[test]
fn a_probe_that_hangs_does_not_hold_up_the_start_beyond_its_timeout() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::NeverAnswer);
    let weir = Weir::start(&pool(&backends, "path: /health, timeout: 300ms"));
    let status = weir.status();
    assert_eq!(status["backends"][0]["state"], "unhealthy");
    assert_eq!(status["backends"][0]["last_error"], "timed out after 300ms");
    for _ in 0..10 {
        assert_eq!(weir.get("/").text(), "b2");
    }
}

#[test]
fn a_stuck_probe_delays_no_other() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::NeverAnswer);
    let _weir = Weir::start(&format!(
        "routes: [{{path: /a, pool: a}}, {{path: /b, pool: b}}]\npools:\n  \
         - {{name: a, backends: [{}, {}], health_check: {{path: /health, interval: 1s, timeout: 1s}}}}\n  \
         - {{name: b, backends: [{}], health_check: {{path: /quick, interval: 50ms}}}}",
        backends[0].url(),
        backends[1].url(),
        backends[1].url()
    ));
    let stuck = |count| {
        eventually(TIMEOUT, "a probe hangs", || backends[0].count_of("/health") >= count);
    };
    stuck(2);
    let before = backends[1].count_of("/quick");
    stuck(3);
    let during = backends[1].count_of("/quick") - before;
    assert!(during >= 5, "{during} probes in the second that another one hung");
}

#[test]
fn probes_of_several_backends_are_not_at_the_same_instant() {
    let backends = Backend::start_many(8);
    let second_probes: Arc<Mutex<Vec<Instant>>> = Arc::default();
    for backend in &backends {
        let (count, times) = (AtomicUsize::new(0), Arc::clone(&second_probes));
        let decide = move |_: &Seen| {
            if count.fetch_add(1, Relaxed) == 1 {
                times.lock().expect("no thread panics here").push(now());
            }
            Behaviour::Good
        };
        backend.on("/health", Behaviour::By(Arc::new(decide)));
    }
    let _weir = Weir::start(&pool(&backends, "path: /health, interval: 500ms"));
    let times = || second_probes.lock().expect("no thread panics here").clone();
    eventually(TIMEOUT, "everybody is probed twice", || times().len() == 8);
    let (first, last) = (times().into_iter().min(), times().into_iter().max());
    let spread = last.zip(first).map(|(last, first)| last - first);
    // That eight random moments of half a second all fall into a tenth of it: one in a million.
    assert!(spread > Some(Duration::from_millis(50)), "{spread:?}");
}

#[test]
fn while_all_are_down_it_is_503_at_once_and_the_connection_is_kept() {
    let backends = Backend::start_many(2);
    backends.iter().for_each(|backend| backend.on("/health", Behaviour::status(500)));
    let mut weir = Weir::spawn(&pool(&backends, "path: /health"));
    weir.until_admin_says("/readyz", 503);
    let mut client = Client::connect(weir.address());
    for _ in 0..2 {
        let start = now();
        let answer = client.get("/");
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.text(), "Service Unavailable: all backends are down\n");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(!answer.head.is_last(), "{:?}", answer.head);
        assert!(now() - start < Duration::from_secs(1), "nothing is waited for");
    }
    assert_eq!(backends[0].count() + backends[1].count(), 0);
}

#[test]
fn a_pool_that_is_back_serves_on_the_connection_that_was_told_503() {
    let backend = Backend::start("one");
    backend.on("/health", Behaviour::status(500));
    let check = "path: /health, interval: 200ms, healthy_after: 1";
    let mut weir = Weir::spawn(&pool(std::slice::from_ref(&backend), check));
    weir.until_alive();
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/").status(), 503);
    backend.on("/health", Behaviour::Good);
    until_healthy(&weir, 1);
    assert_eq!(client.get("/").text(), "one");
    assert_eq!(client::get(weir.admin(), "/readyz").status(), 200);
}

#[test]
fn with_one_pool_down_the_other_serves_and_readyz_says_which() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::status(500));
    let mut weir = Weir::spawn(&format!(
        "routes: [{{path: /a, pool: alpha}}, {{path: /b, pool: beta}}]\npools:\n  \
         - {{name: alpha, backends: [{}], health_check: {{path: /health}}}}\n  \
         - {{name: beta, backends: [{}], health_check: {{path: /health}}}}",
        backends[0].url(),
        backends[1].url()
    ));
    weir.until_alive();
    eventually(TIMEOUT, "it says which", || {
        let answer = client::get(weir.admin(), "/readyz");
        answer.status() == 200 && answer.text() == "ready\nno healthy backend in pool alpha\n"
    });
    assert_eq!(weir.get("/a").status(), 503);
    assert_eq!(weir.get("/b").text(), "b2");
}

#[test]
fn a_worker_that_drains_checks_no_backend() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let check = "path: /health, interval: 100ms";
    let weir = Weir::start(&pool(std::slice::from_ref(&old), check));
    eventually(TIMEOUT, "it is checked", || old.count_of("/health") >= 3);
    old.on("/hang", Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    old.until_count(1);
    weir.write_config(&pool(std::slice::from_ref(&new), check));
    weir.reload();
    eventually(TIMEOUT, "the old worker drains", || {
        weir.stderr().contains("draining: connections=1")
    });
    // One check may have been under way.
    let (before, checks_of_new) = (old.count_of("/health"), new.count_of("/health"));
    eventually(TIMEOUT, "the new worker goes on checking", || {
        new.count_of("/health") >= checks_of_new + 20
    });
    assert!(weir.workers().iter().any(|worker| worker.is("draining")), "{}", weir.stderr());
    assert!(old.count_of("/health") <= before + 1, "checked by a worker that drains");
    old.release();
    assert_eq!(client.read_answer().status(), 200);
}

#[test]
fn a_check_that_hangs_longer_than_a_worker_may_take_delays_no_reload_for_ever() {
    let backends = [Backend::start("good"), Backend::start("hung")];
    let weir =
        Weir::start_flagged(&pool(&backends[..1], "path: /health"), &["--ready-timeout", "4s"]);
    backends[1].on("/health", Behaviour::NeverAnswer);
    weir.write_config(&pool(&backends, "path: /health, interval: 60s, timeout: 60s"));
    weir.reload();
    assert_eq!(weir.get("/").text(), "good");
    weir.until_said("not all backends have been checked");
}
