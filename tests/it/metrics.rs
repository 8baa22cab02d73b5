//! What the operator sees: metrics, `/status` and the access log, each against known traffic.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::load_generator::Load;
use crate::support::metrics::Metrics;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// One pool of these backends, all of them counted as healthy. `more` is further keys of the pool.
fn pool(backends: &[Backend], more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let urls = urls.join(", ");
    format!("pools: [{{name: web, health_check: off, backends: [{urls}]{more}}}]\n")
}

/// As labels and the log call it.
fn label(backend: &Backend) -> String {
    backend.address().to_string()
}

fn requests(metrics: &Metrics, backend: &str, method: &str, status: &str) -> f64 {
    let labels = [("backend", backend), ("method", method), ("status", status)];
    metrics.sum("lb_requests_total", &labels)
}

/// An exchange is counted when it is over, which may be after its answer has arrived.
fn until_counted(weir: &Weir, count: usize) -> Metrics {
    let what = format!("{count} requests are counted");
    eventually(TIMEOUT, &what, || weir.status()["total_requests"] == count);
    weir.metrics()
}

#[test]
fn requests_are_counted_by_pool_backend_method_and_status() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    let mut ask = |method: &str, body: &[u8]| client.request(method, "/", &[], body).unwrap();
    for _ in 0..3 {
        ask("GET", b"");
        ask("POST", b"body");
    }
    backends.iter().for_each(|backend| backend.set(Behaviour::status(404)));
    ask("GET", b"");
    let metrics = until_counted(&weir, 7);
    let (first, second) = (label(&backends[0]), label(&backends[1]));
    let of = |backend: &str, status| {
        ["GET", "POST"].map(|method| requests(&metrics, backend, method, status))
    };
    assert_eq!([of(&first, "200"), of(&second, "200")], [[3.0, 0.0], [0.0, 3.0]]);
    assert_eq!([of(&first, "404"), of(&second, "404")], [[1.0, 0.0], [0.0, 0.0]]);
    assert_eq!(metrics.sum("lb_requests_total", &[("pool", "web")]), 7.0);
}

#[test]
fn the_first_burst_of_requests_and_of_errors_is_seen_by_rate() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends, ""));
    let values = |metrics: &Metrics| {
        let backend = label(&backends[0]);
        let of = [("pool", "web"), ("backend", backend.as_str())];
        let requests = |status| {
            let labels = [&of[..], &[("method", "GET"), ("status", status)]].concat();
            metrics.value("lb_requests_total", &labels)
        };
        let errors = [&of[..], &[("type", "connect")]].concat();
        let retries = [("pool", "web"), ("reason", "connect")];
        [
            requests("200"),
            requests("502"),
            metrics.value("lb_errors_total", &errors),
            metrics.value("lb_retries_total", &retries),
        ]
    };
    assert_eq!(values(&weir.metrics()), [Some(0.0); 4], "before anything has happened");
    weir.get("/");
    weir.get("/");
    assert_eq!(values(&until_counted(&weir, 2)), [Some(1.0), Some(0.0), Some(0.0), Some(0.0)]);
    weir.reload();
    let after = values(&weir.metrics());
    assert_eq!(after, [Some(1.0), Some(0.0), Some(0.0), Some(0.0)], "and over a reload");
}

#[test]
fn our_own_answers_are_counted_without_a_backend() {
    let backends = Backend::start_many(1);
    backends[0].on("/health", Behaviour::status(500));
    let mut weir = Weir::spawn(&format!(
        "routes: [{{path: /web, pool: web}}]\npools: [{{name: web, backends: [{}], \
         health_check: {{path: /health}}}}]",
        backends[0].url()
    ));
    weir.until_alive();
    assert_eq!((weir.get("/web").status(), weir.get("/nowhere").status()), (503, 404));
    let metrics = until_counted(&weir, 2);
    let of = |pool, status| {
        let labels = [("pool", pool), ("backend", ""), ("status", status)];
        metrics.sum("lb_requests_total", &labels)
    };
    assert_eq!((of("web", "503"), of("", "404")), (1.0, 1.0));
    let labels = [("pool", "web"), ("type", "no_backend")];
    assert_eq!(metrics.value("lb_errors_total", &labels), Some(1.0));
}

/// What two backends, the first of which treats the first request like this, make of one request.
fn after_a_retry(behaviour: Option<Behaviour>, reason: &str) {
    let backends = Backend::start_many(2);
    match behaviour {
        Some(behaviour) => backends[0].next([behaviour]),
        None => backends[0].stop(),
    }
    let weir = Weir::start(&pool(&backends, ", timeouts: {response: 300ms}"));
    assert_eq!(weir.get("/").text(), "b2");
    let metrics = until_counted(&weir, 1);
    let retries = metrics.value("lb_retries_total", &[("pool", "web"), ("reason", reason)]);
    assert_eq!(retries, Some(1.0), "retries by {reason}");
    assert_eq!(metrics.sum("lb_retries_total", &[]), 1.0, "and by nothing else");
    let failed = label(&backends[0]);
    let labels = [("pool", "web"), ("backend", failed.as_str()), ("type", reason)];
    assert_eq!(metrics.value("lb_errors_total", &labels), Some(1.0), "errors by {reason}");
    assert_eq!(metrics.sum("lb_errors_total", &[]), 1.0, "and by nothing else");
    assert_eq!(weir.status()["retry_attempts"], 1);
    let line = weir.until_logged("its line", |line| line["status"] == 200);
    let failure = line["attempts"][0]["failure"].as_str().unwrap_or_default();
    assert!(failure.starts_with(reason), "{line}");
    assert_eq!(line["attempts"][0]["backend"], failed);
    assert_eq!(line["attempts"][1], json!({"backend": label(&backends[1])}));
    assert_eq!((&line["backend"], line.get("reason")), (&json!(label(&backends[1])), None));
}

#[test]
fn a_retry_after_a_refused_connection_has_the_reason_connect() {
    after_a_retry(None, "connect");
}

#[test]
fn a_retry_after_a_broken_connection_has_the_reason_reset() {
    after_a_retry(Some(Behaviour::ResetBeforeAnswer), "reset");
}

#[test]
fn a_retry_after_no_response_has_the_reason_timeout() {
    after_a_retry(Some(Behaviour::NeverAnswer), "timeout");
}

#[test]
fn a_retry_after_a_503_has_the_reason_status() {
    after_a_retry(Some(Behaviour::status(503)), "status");
}

#[test]
fn the_duration_histogram_counts_each_request_where_it_was_answered() {
    let backends = Backend::start_many(2);
    backends[1].set(Behaviour::slow(Duration::from_millis(120)));
    let weir = Weir::start(&pool(&backends, ""));
    for _ in 0..4 {
        weir.get("/");
    }
    let metrics = until_counted(&weir, 4);
    let slow = label(&backends[1]);
    let value = |name: &str, more: &[(&str, &str)]| {
        let labels = [&[("pool", "web"), ("backend", slow.as_str())], more].concat();
        metrics.value(&format!("lb_request_duration_seconds_{name}"), &labels)
    };
    assert_eq!(value("count", &[]), Some(2.0));
    assert!(value("sum", &[]) >= Some(0.24), "{:?}", value("sum", &[]));
    assert_eq!(value("bucket", &[("le", "0.1")]), Some(0.0));
    assert_eq!(value("bucket", &[("le", "+Inf")]), Some(2.0));
}

#[test]
fn the_connect_histogram_counts_new_connections_and_no_kept_ones() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    for _ in 0..10 {
        client.get("/");
    }
    let metrics = until_counted(&weir, 10);
    assert_eq!(backends[0].connections(), 1, "the connection was kept");
    assert_eq!(metrics.value("lb_upstream_connect_seconds_count", &[]), Some(1.0));
}

#[test]
fn backend_up_and_healthy_backends_tell_the_health() {
    let backends = Backend::start_many(2);
    backends[0].on("/health", Behaviour::status(500));
    let weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [{}, {}], health_check: {{path: /health}}}}]",
        backends[0].url(),
        backends[1].url()
    ));
    let metrics = weir.metrics();
    let up = |backend| metrics.value("lb_backend_up", &[("backend", &label(backend))]);
    assert_eq!((up(&backends[0]), up(&backends[1])), (Some(0.0), Some(1.0)));
    assert_eq!(metrics.value("lb_healthy_backends", &[("pool", "web")]), Some(1.0));
}

#[test]
fn downstream_connections_are_those_that_are_open() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let open = || weir.metrics().value("lb_downstream_connections", &[]);
    assert_eq!(open(), Some(0.0));
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(weir.address())).collect();
    clients[0].get("/");
    eventually(TIMEOUT, "five are open", || open() == Some(5.0));
    clients.truncate(2);
    eventually(TIMEOUT, "two are open", || open() == Some(2.0));
    assert_eq!(weir.status()["downstream_connections"], 2);
}

#[test]
fn active_connections_are_the_requests_in_flight() {
    let backends = Backend::start_many(1);
    backends[0].set(Behaviour::NeverAnswer);
    let weir = Weir::start(&pool(&backends, ""));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(weir.address())).collect();
    let request = "GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n";
    clients.iter_mut().for_each(|client| client.send(request));
    backends[0].until_count(3);
    let active = || weir.metrics().value("lb_backend_in_flight_requests", &[("pool", "web")]);
    assert_eq!(active(), Some(3.0));
    backends[0].release();
    clients.iter_mut().for_each(|client| assert_eq!(client.read_answer().status(), 200));
    eventually(TIMEOUT, "none is in flight", || active() == Some(0.0));
}

#[test]
fn a_method_that_is_not_known_is_other() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    for method in ["BREW", "PROPFIND", "get"] {
        Client::connect(weir.address()).request(method, "/", &[], b"").unwrap();
    }
    let metrics = until_counted(&weir, 3);
    assert_eq!(metrics.sum("lb_requests_total", &[("method", "OTHER")]), 3.0);
    assert_eq!(metrics.sum("lb_requests_total", &[]), 3.0);
}

#[test]
fn an_unregistered_status_is_counted_as_its_class() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    for status in [298, 299, 599] {
        backends[0].set(Behaviour::status(status));
        assert_eq!(weir.get("/").status(), status);
    }
    let metrics = until_counted(&weir, 3);
    let backend = label(&backends[0]);
    assert_eq!(requests(&metrics, &backend, "GET", "2xx"), 2.0);
    assert_eq!(requests(&metrics, &backend, "GET", "5xx"), 1.0);
}

#[test]
fn no_client_can_invent_a_series() {
    let backends = Backend::start_many(1);
    let routes = "routes: [{path: /known, pool: web}]\n";
    let weir = Weir::start(&format!("{}{routes}", pool(&backends, "")));
    let ask = |method: &str, path: &str, host: &str| {
        let mut client = Client::connect(weir.address());
        let headers = [("Host", host), ("User-Agent", path), ("X-Request-Id", host)];
        drop(client.request(method, path, &headers, b""));
    };
    for method in ["GET", "ODD"] {
        ask(method, "/known", "a");
        ask(method, "/unknown", "a");
        ask(method, "/known", "a b");
    }
    let before = until_counted(&weir, 6).series();
    for number in 0..40 {
        let (method, path) = (format!("M{number}"), format!("/known/{number}?q={number}"));
        ask(&method, &path, &format!("h{number}"));
        ask("GET", &path, &format!("h{number}"));
        ask("GET", &format!("/{number}"), "a");
        ask(&method, "/known", &format!("no host {number}"));
    }
    let after = until_counted(&weir, 166).series();
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&_>::new());
}

#[test]
fn the_configuration_the_build_and_the_process_have_metrics() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let metrics = weir.metrics();
    assert_eq!(metrics.value("lb_config_reload_success", &[]), Some(1.0));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(metrics.value("lb_build_info", &version), Some(1.0));
    assert!(metrics.value("process_resident_memory_bytes", &[]) > Some(1e6));
    assert!(metrics.value("process_open_fds", &[]) > Some(3.0));
    let loaded = metrics.value("lb_config_last_reload_timestamp_seconds", &[]).unwrap();
    let written = fs::metadata(weir.config_path()).unwrap().modified().unwrap();
    let written = written.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((written - 1.0..written + 60.0).contains(&loaded), "{loaded}, written {written}");
}

/// Something of every kind: answers, retries, refusals, limits.
fn everything(backends: &[Backend]) -> Weir {
    let limit = ", rate_limit: {requests_per_second: 0.001, burst: 12}";
    let weir =
        Weir::start(&format!("{}routes: [{{path: /web, pool: web}}]", pool(backends, limit)));
    backends[0].next([Behaviour::ResetBeforeAnswer, Behaviour::status(500)]);
    let mut client = Client::connect(weir.address());
    (0..15).for_each(|_| drop(client.get("/web")));
    client.get("/nowhere");
    weir
}

#[test]
fn status_agrees_with_the_metrics() {
    let backends = Backend::start_many(2);
    let weir = everything(&backends);
    let metrics = until_counted(&weir, 16);
    let status = weir.status();
    let all = metrics.sum("lb_requests_total", &[]);
    let with = |status| metrics.sum("lb_requests_total", &[("status", status)]);
    let agree = |key: &str, number: f64| assert_eq!(status[key].as_f64(), Some(number), "{key}");
    assert_eq!((with("200"), with("500"), with("429"), with("404")), (11.0, 1.0, 3.0, 1.0));
    agree("total_requests", all);
    agree("success_requests", with("200"));
    agree("failed_requests", with("500"));
    agree("rate_limited_requests", metrics.sum("lb_rate_limited_requests_total", &[]));
    agree("rate_limited_requests", with("429"));
    agree("retry_attempts", metrics.sum("lb_retries_total", &[]));
    agree("healthy_backends", metrics.sum("lb_healthy_backends", &[]));
    agree("total_backends", 2.0);
    assert_eq!(metrics.sum("lb_request_duration_seconds_count", &[]), all);
    let attempts: u64 =
        (0..2).filter_map(|index| status["backends"][index]["total_requests"].as_u64()).sum();
    let arrived = backends[0].count() + backends[1].count();
    assert_eq!((attempts, arrived), (13, 13), "twelve requests, one of them twice");
    assert_eq!(status["backends"][0]["total_failures"], 1);
    assert_eq!(client::get(weir.admin(), "/lb-metrics").json()["total_requests"], 16);
}

#[test]
fn promtool_has_nothing_to_say() {
    let is_there = Command::new("promtool").arg("--version").stderr(Stdio::null()).output();
    if is_there.is_err() {
        eprintln!("promtool is not installed: scripts/setup.sh e2e does that");
        return;
    }
    let backends = Backend::start_many(2);
    let weir = everything(&backends);
    until_counted(&weir, 16);
    let text = client::get(weir.admin(), "/metrics").text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!((text(&said.stdout), text(&said.stderr)), (String::new(), String::new()));
    assert!(said.status.success(), "{}", said.status);
}

#[test]
fn every_metric_of_this_version_is_there() {
    let backends = Backend::start_many(2);
    let weir = everything(&backends);
    let metrics = until_counted(&weir, 16);
    let names: BTreeSet<&str> = metrics.samples.iter().map(|sample| sample.name.as_str()).collect();
    for name in [
        "lb_requests_total",
        "lb_request_duration_seconds_bucket",
        "lb_request_duration_seconds_sum",
        "lb_request_duration_seconds_count",
        "lb_backend_up",
        "lb_backend_in_flight_requests",
        "lb_active_connections",
        "lb_tunnels",
        "lb_tunnels_total",
        "lb_rate_limited_requests_total",
        "lb_retries_total",
        "lb_errors_total",
        "lb_healthy_backends",
        "lb_upstream_connect_seconds_bucket",
        "lb_downstream_connections",
        "lb_config_reload_success",
        "lb_config_last_reload_timestamp_seconds",
        "lb_build_info",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

#[test]
fn the_access_log_tells_a_request_from_end_to_end() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    let headers = [("Host", "example.test:81"), ("User-Agent", "test/1 \"quoted\"")];
    let answer = client.request("POST", "/a/b?c=d", &headers, b"four").unwrap();
    let line = weir.until_logged("its line", |line| line["path"] == "/a/b");
    let from = client.local_addr().ip().to_string();
    let seen = &backends[0].requests()[0];
    let expected = json!({
        "client": from, "peer": from, "method": "POST", "scheme": "http",
        "host": "example.test:81", "path": "/a/b", "query": "c=d", "protocol": "HTTP/1.1",
        "status": 200, "bytes_in": 4, "bytes_out": 2, "user_agent": "test/1 \"quoted\"",
        "request_id": answer.header("x-request-id"), "pool": "web",
        "backend": label(&backends[0]), "attempts": [{"backend": label(&backends[0])}],
    });
    let mut rest = line.clone();
    let fields = rest.as_object_mut().unwrap();
    let [time, duration, first_byte] =
        ["time", "duration_ms", "ttfb_ms"].map(|key| fields.remove(key).unwrap_or_default());
    assert_eq!(rest, expected);
    assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"));
    assert!(first_byte.as_f64() > Some(0.0) && first_byte.as_f64() <= duration.as_f64(), "{line}");
    let time = time.as_str().unwrap_or_default();
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
}

#[test]
fn the_access_log_has_exactly_one_line_for_each_request() {
    let backends = Backend::start_many(2);
    let mut weir = everything(&backends);
    let load = Load { count: Some(100), path: "/nowhere".to_owned(), ..Load::on(weir.address()) };
    assert_eq!(load.run().with_status(404), 100);
    weir.signal("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0));
    let log = weir.access_log();
    assert_eq!((log.len(), weir.stdout().lines().count()), (116, 116));
    let ids: BTreeSet<&str> = log.iter().filter_map(|line| line["request_id"].as_str()).collect();
    assert_eq!(ids.len(), 116, "each with an id of its own");
    let because = |reason: &str| log.iter().filter(|line| line["reason"] == reason).count();
    assert_eq!((because("rate_limited"), because("no_route")), (3, 101));
}

#[test]
fn the_log_tells_the_client_by_the_trust_rules_and_the_peer_as_it_is() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&format!("{}trusted_proxies: [127.0.0.0/8]", pool(&backends, "")));
    let mut client = Client::connect(weir.address());
    client.request("GET", "/", &[("X-Forwarded-For", "192.0.2.9, 127.0.0.9")], b"").unwrap();
    let line = weir.until_logged("its line", |line| line["status"] == 200);
    assert_eq!(line["client"], "192.0.2.9");
    assert_eq!(line["peer"], client.local_addr().ip().to_string());
}

/// The log's line for a request of these bytes, by its status.
fn logged(weir: &Weir, bytes: &str, status: u16) -> Value {
    let mut client = Client::connect(weir.address());
    client.send(bytes);
    assert_eq!(client.read_answer().status(), status, "{bytes:?}");
    weir.until_logged("its line", |line| line["status"] == status)
}

#[test]
fn refusals_have_their_line_with_the_reason() {
    let backends = Backend::start_many(1);
    backends[0].stop();
    let weir = Weir::start(&format!(
        "{}routes: [{{path: /web, pool: web}}]\nlimits: {{header_timeout: 1s}}",
        pool(&backends, ", retry: {attempts: 1}")
    ));
    let line = logged(&weir, "GET /no HTTP/1.1\r\nHost: a\r\n\r\n", 404);
    assert_eq!((&line["reason"], &line["path"]), (&json!("no_route"), &json!("/no")));
    assert_eq!(line.get("pool"), None);
    let line = logged(&weir, "GET /web HTTP/1.1\r\nHost: a\r\n\r\n", 503);
    assert_eq!(line["reason"], "no_backend");
    assert_eq!(line["attempts"], json!([{"backend": label(&backends[0]), "failure": "connect"}]));
    let line = logged(&weir, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405);
    assert_eq!(line["reason"], "method_not_allowed");
    let line = logged(&weir, "GET / HTTP/1.1\r\n\r\n", 400);
    assert_eq!(line["reason"], "bad_request");
    let line = logged(&weir, "GET / HTTP/1.1\r\nHost: a\r\n", 408);
    assert_eq!(line["reason"], "client_timeout");
}

#[test]
fn what_is_no_http_has_its_line_too() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let line = logged(&weir, "nonsense\r\n\r\n", 400);
    assert_eq!(line["reason"], "bad_request");
    assert_eq!(backends[0].count(), 0);
}

#[test]
fn a_connection_too_many_is_no_request_and_is_counted_as_a_connection() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&format!("{}limits: {{connections: 1}}", pool(&backends, "")));
    let mut inside = Client::connect(weir.address());
    inside.get("/");
    assert_eq!(weir.get("/").status(), 503);
    let labels = [("reason", "too_many_connections")];
    eventually(TIMEOUT, "the log says so", || {
        weir.stderr().contains("reason=too_many_connections")
    });
    weir.until_logged("the request of the one inside", |_| true);
    let metrics = weir.metrics();
    assert_eq!(metrics.sum("lb_connection_failures_total", &labels), 1.0);
    assert_eq!(metrics.sum("lb_requests_total", &[]), 1.0, "of the one inside");
    assert_eq!(weir.access_log().len(), 1);
}

#[test]
fn a_silent_backend_is_504_with_its_reason() {
    let backends = Backend::start_many(1);
    backends[0].set(Behaviour::NeverAnswer);
    let more = ", retry: {attempts: 1}, timeouts: {response: 200ms}";
    let weir = Weir::start(&pool(&backends, more));
    assert_eq!(weir.get("/").status(), 504);
    let line = weir.until_logged("its line", |line| line["status"] == 504);
    assert_eq!(line["reason"], "response_timeout");
    assert_eq!(line["attempts"][0]["failure"], "timeout");
}

#[test]
fn an_answer_that_was_cut_says_so_whatever_its_status() {
    let backends = Backend::start_many(1);
    backends[0].set(Behaviour::ResetMidBody);
    let weir = Weir::start(&pool(&backends, ""));
    assert!(client::try_get(weir.address(), "/").is_err(), "a cut answer must not look whole");
    let line = weir.until_logged("its line", |line| line["status"] == 200);
    assert_eq!(line["reason"], "upstream_aborted");
    let metrics = until_counted(&weir, 1);
    assert_eq!(metrics.sum("lb_errors_total", &[("type", "upstream_aborted")]), 1.0);
    assert_eq!(weir.status()["failed_requests"], 1);
}

#[test]
fn a_client_that_disconnects_is_logged_as_499_client_aborted_and_blames_no_backend() {
    let backends = Backend::start_many(1);
    backends[0].set(Behaviour::NeverAnswer);
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    client.send("GET /left HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backends[0].until_count(1);
    client.reset();
    let line = weir.until_logged("its line", |line| line["path"] == "/left");
    assert_eq!((&line["status"], &line["reason"]), (&json!(499), &json!("client_aborted")));
    eventually(TIMEOUT, "the backend is let go", || backends[0].abandoned() == 1);
    let metrics = until_counted(&weir, 1);
    assert_eq!(requests(&metrics, &label(&backends[0]), "GET", "499"), 1.0);
    assert_eq!(metrics.sum("lb_errors_total", &[]), 0.0);
    let status = weir.status();
    assert_eq!(status["backends"][0]["total_failures"], 0);
    assert_eq!((&status["failed_requests"], &status["success_requests"]), (&json!(0), &json!(0)));
}

#[test]
fn a_line_of_text_cannot_be_forged() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&format!("{}access_log: {{format: text}}", pool(&backends, "")));
    let mut client = Client::connect(weir.address());
    client.send(
        b"GET /a HTTP/1.1\r\nHost: weir.test\r\nX-Request-Id: \" status=200\r\n\
          User-Agent: x\" reason=-\t\xc3\xa9\xff agent=\"y\r\n\r\n",
    );
    assert_eq!(client.read_answer().status(), 200);
    weir.get("/end");
    eventually(TIMEOUT, "both lines", || weir.stdout().contains("/end"));
    let log = weir.stdout();
    assert_eq!(log.lines().count(), 2, "{log}");
    let line = log.lines().next().unwrap_or_default();
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    let agent = r#" agent="x\" reason=-\u0009\u00e9\ufffd agent=\"y""#;
    assert!(line.ends_with(agent), "{line}");
    let outside: String = unquoted(line);
    assert_eq!(outside.matches(" reason=").count(), 1, "{line}");
    assert_eq!(outside.matches(" agent=").count(), 1, "{line}");
}

/// The line without what stands in quotes.
fn unquoted(line: &str) -> String {
    let mut is_inside = false;
    let mut is_escaped = false;
    let mut outside = String::new();
    for character in line.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_inside => is_escaped = true,
            '"' => is_inside = !is_inside,
            _ if is_inside => {}
            plain => outside.push(plain),
        }
    }
    outside
}

#[test]
fn a_line_of_text_has_its_words_in_their_places() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&format!("{}access_log: {{format: text}}", pool(&backends, "")));
    let mut client = Client::connect(weir.address());
    let answer = client.request("GET", "/a?b", &[("User-Agent", "test/1")], b"").unwrap();
    eventually(TIMEOUT, "its line", || weir.stdout().ends_with('\n'));
    let (line, from, backend) = (weir.stdout(), client.local_addr().ip(), label(&backends[0]));
    let request = format!("Z {from} \"GET http://weir.test /a?b HTTP/1.1\" 200 in=0 out=2 ms=");
    assert!(line.contains(&request), "{line}");
    let id = answer.header("x-request-id").unwrap_or_default();
    let rest = format!(
        " peer={from} pool=web backend={backend} attempts={backend} reason=- id=\"{id}\" \
         agent=\"test/1\"\n"
    );
    assert!(line.ends_with(&rest), "{line}");
}
