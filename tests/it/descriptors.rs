//! Out of file descriptors: a failure of our own, which no backend is blamed for.

use std::fs;
use std::process::Command;

use http::Method;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::http2::{Http2, request};
use crate::support::ports::own_address;
use crate::support::weir::{BINARY, Directory, LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, eventually_some};

/// The binary with so few descriptors.
fn limited(descriptors: u32) -> Command {
    let mut launcher = Command::new("sh");
    let script = format!("ulimit -n {descriptors} && exec \"$@\"");
    launcher.args(["-c", &script, "sh", BINARY]);
    launcher
}

fn config(backend: &Backend) -> String {
    backend.on("/hang", Behaviour::NeverAnswer);
    format!(
        "{LISTENER_KEYS}http2: true\nthreads: 1\npools: [{{name: web, backends: [{}], \
         health_check: {{path: /health, interval: 1s, timeout: 1s, unhealthy_after: 1}}}}]\n",
        backend.url()
    )
}

/// Nothing was held against the backend, and the operator sees all of it.
fn assert_backend_is_not_blamed(weir: &Weir) {
    let backend = weir.status().pointer("/backends/0").cloned().unwrap_or_default();
    let is = |key: &str| backend.get(key).cloned().unwrap_or_default();
    assert_eq!((is("state"), is("total_failures")), ("healthy".into(), 0.into()), "{backend}");
    assert_eq!(weir.metrics().sum("lb_backend_up", &[]), 1.0);
}

/// The levels at which it logs that the descriptors carry fewer connections than `limits` has.
fn level_of_too_few(limits: &str) -> String {
    let backend = Backend::start("one");
    let weir = Weir::start_by(limited(256), &format!("{limits}{}", config(&backend)));
    let line = eventually_some(TIMEOUT, "it says how many it takes", || {
        let log = weir.stderr();
        log.lines().find(|line| line.contains("too few file descriptors")).map(str::to_owned)
    });
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_number_of_connections_in_the_file_gets_a_warning_if_it_cannot_be_had() {
    assert_eq!(level_of_too_few(""), "INFO");
    assert_eq!(level_of_too_few("limits: {connections: 20000}\n"), "WARN");
    assert_eq!(level_of_too_few("limits: {connections: 19999}\n"), "WARN");
}

#[test]
fn a_limit_that_is_too_low_to_serve_at_all_fails_the_start_in_one_line() {
    let backend = Backend::start("one");
    let directory = Directory::new();
    let address = own_address();
    let file = directory.name("weir.yaml");
    let text = format!(
        "listeners: [\"{address}:8080\"]\nadmin: {{address: \"{address}:9090\"}}\n{}",
        config(&backend)
    );
    fs::write(&file, text).unwrap();
    for limit in [10, 40, 63] {
        let ended = limited(limit).args(["run", "-c", &file]).output().unwrap();
        let line = format!(
            "weir: too few file descriptors: limit={limit} minimum=64 (help: raise the limit to 1024 or \
             more, `ulimit -n` or LimitNOFILE=)\n"
        );
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((&*stderr, ended.status.code()), (line.as_str(), Some(1)));
    }
    let weir = Weir::start_by(limited(64), &config(&backend));
    assert_eq!(weir.get("/").status(), 200);
}

#[test]
fn there_are_no_more_client_connections_than_descriptors_carry() {
    let backend = Backend::start("one");
    let weir = Weir::start_by(limited(256), &config(&backend));
    eventually(TIMEOUT, "it says how many it takes", || {
        weir.stderr().contains("too few file descriptors: limit=256 limits.connections=20000")
    });
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(weir.address());
        client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        waiting.push(client);
    }
    eventually(TIMEOUT, "the rest is rejected", || {
        weir.metrics().sum("lb_connection_failures_total", &[("reason", "too_many_connections")])
            > 0.0
    });
    let before = backend.count_of("/health");
    eventually(TIMEOUT, "health checks go on", || backend.count_of("/health") >= before + 3);
    assert!(backend.in_flight() >= 40, "{} requests in flight", backend.in_flight());
    assert_backend_is_not_blamed(&weir);
}

#[test]
fn without_free_descriptors_a_request_gets_503_and_no_attempt_is_made() {
    let backend = Backend::start("one");
    let weir = Weir::start_by(limited(256), &config(&backend));
    // Each stream has a connection to the backend.
    let mut clients: Vec<Http2> = (0..3).map(|_| Http2::connect(weir.address())).collect();
    let begin = |client: &mut Http2| {
        let hang = || request(Method::GET, "/hang", &[]);
        (0..90).map(|_| client.start(hang(), false).unwrap()).collect::<Vec<_>>()
    };
    let streams: Vec<_> = clients.iter_mut().flat_map(begin).collect();
    let line = weir.until_logged("an overload", |line| line["reason"] == "overload");
    assert_eq!((line["status"].as_u64(), line["attempts"].as_array()), (Some(503), Some(&vec![])));
    // The log says what ran out, its limit, and what to do.
    let warning = format!(
        "request rejected, out of file descriptors of the process: reason=overload backend={} \
         suppressed=0 limit=256 (help: raise the limit, ",
        backend.address()
    );
    eventually(TIMEOUT, "a warning", || weir.stderr().contains(&warning));
    eventually(TIMEOUT, "more overloads", || {
        weir.metrics().sum("lb_errors_total", &[("type", "overload")]) > 10.0
    });
    let warnings = weir.stderr().matches("reason=overload").count();
    assert!(warnings <= 5, "{warnings} warnings, one for each request");
    let before = backend.count_of("/health");
    eventually(TIMEOUT, "health checks go on", || backend.count_of("/health") >= before + 3);
    assert_backend_is_not_blamed(&weir);
    assert!(weir.metrics().sum("lb_errors_total", &[("type", "overload")]) > 0.0);
    // Some of the requests may be on their way to the backend still.
    backend.on("/hang", Behaviour::Good);
    eventually(TIMEOUT, "those that wait are answered", || {
        backend.release();
        backend.in_flight() == 0
    });
    let statuses: Vec<u16> =
        streams.into_iter().map(|stream| stream.answer().unwrap().status()).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    drop(clients);
    eventually(TIMEOUT, "it serves again", || {
        client::try_get(weir.address(), "/").is_ok_and(|answer| answer.status() == 200)
    });
}
