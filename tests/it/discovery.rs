//! Backends that are looked up: by DNS and in files. What is found replaces the members of a pool while
//! requests arrive.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::fs;
use std::net::IpAddr;

use crate::support::backend::{Backend, Behaviour};
use crate::support::dns::{DnsServer, Mood, Service};
use crate::support::load_generator::Load;
use crate::support::names::Names;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// How many changes the ordinary test makes.
const CHANGES: usize = 20;

/// A pool whose backends are the addresses of `web.test`.
fn by_dns(more: &str) -> String {
    let dns = "{dns: \"http://web.test:3000\", refresh: {min: 50ms, max: 200ms}}";
    format!(
        "pools: [{{name: web, health_check: {{interval: 200ms, timeout: 200ms}}, {more} backends: [{dns}]}}]\n"
    )
}

fn ips<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Vec<IpAddr> {
    backends.into_iter().map(|backend| backend.address().ip()).collect()
}

/// The addresses of the members, sorted.
fn members(weir: &Weir) -> Vec<String> {
    let status = weir.status();
    let backends = status["backends"].as_array().cloned().unwrap_or_default();
    let mut urls: Vec<String> =
        backends.iter().map(|it| it["url"].as_str().unwrap_or_default().to_owned()).collect();
    urls.sort();
    urls
}

fn urls<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Vec<String> {
    let mut urls: Vec<String> = backends.into_iter().map(Backend::url).collect();
    urls.sort();
    urls
}

#[track_caller]
fn until_members<'a>(weir: &Weir, backends: impl IntoIterator<Item = &'a Backend>) {
    let wanted = urls(backends);
    eventually(TIMEOUT, "the members are those of the answer", || members(weir) == wanted);
}

/// Names, a name server for them, and `count` backends.
fn start(count: usize) -> Option<(Names, DnsServer, Vec<Backend>)> {
    let names = Names::new(&[])?;
    let server = DnsServer::start(names.name_server());
    let backends = (0..count).map(|number| Backend::start(&number.to_string())).collect();
    Some((names, server, backends))
}

/// Which of five backends are in the answer of a turn: never the same two turns in a row.
fn of_turn(backends: &[Backend], turn: usize) -> Vec<&Backend> {
    let count = 1 + turn % 3;
    (0..count).map(|index| &backends[(turn + index) % backends.len()]).collect()
}

fn changes_under_load(changes: usize) {
    let Some((names, dns, backends)) = start(5) else { return };
    dns.set("web.test", &ips(of_turn(&backends, 0)));
    let weir = Weir::start_by(names.launcher(), &by_dns(""));
    let load = Load::on(weir.address()).start();
    for turn in 1..=changes {
        let wanted = of_turn(&backends, turn);
        dns.set("web.test", &ips(wanted.iter().copied()));
        until_members(&weir, wanted);
    }
    let tally = load.stop();
    assert_eq!(tally.failed(), 0, "{:?} {:?}", tally.statuses, tally.errors);
    assert!(backends.iter().all(|backend| backend.count() > 0), "each has had requests");
}

#[test]
fn answers_that_change_under_load_lose_no_request() {
    changes_under_load(CHANGES);
}

#[test]
#[ignore = "long: run it with --ignored"]
fn hundreds_of_changes_under_load_lose_no_request() {
    changes_under_load(CHANGES * 25);
}

#[test]
fn a_backend_that_stays_keeps_its_state_and_one_that_goes_gets_nothing_more() {
    let Some((names, dns, backends)) = start(3) else { return };
    let [stays, goes, comes] = &backends[..] else { return };
    dns.set("web.test", &ips([stays, goes]));
    let config =
        by_dns("breaker: {failures: 2, open: 5m, open_max: 5m}, retry: {attempts: 2, on: [500]},");
    let weir = Weir::start_by(names.launcher(), &config);
    stays.on("/", Behaviour::status(500));
    eventually(TIMEOUT, "its circuit breaker is open", || {
        assert_eq!(weir.get("/").status(), 200);
        state_of(&weir, stays, "breaker") == "open"
    });
    let (seen, total) = (stays.count_of("/"), state_of(&weir, stays, "total_requests"));
    dns.set("web.test", &ips([stays, comes]));
    until_members(&weir, [stays, comes]);
    weir.until_said(&format!("backend removed: pool=web backend={}", goes.address()));
    eventually(TIMEOUT, "the new one gets requests", || {
        weir.get("/").status() == 200 && comes.count_of("/") > 0
    });
    let left = goes.count_of("/");
    for _ in 0..10 {
        assert_eq!(weir.get("/").status(), 200);
    }
    assert_eq!(state_of(&weir, stays, "breaker"), "open");
    assert_eq!(state_of(&weir, stays, "total_requests"), total);
    assert_eq!((stays.count_of("/"), goes.count_of("/")), (seen, left));
    let gone = goes.address().to_string();
    let up = weir.metrics().value("lb_backend_up", &[("pool", "web"), ("backend", &gone)]);
    assert_eq!(up, None, "the gauges of a backend that is gone are gone");
    let counted = weir.metrics().sum("lb_requests_total", &[("pool", "web"), ("backend", &gone)]);
    assert!(counted > 0.0, "its counters stay for a while");
}

fn state_of(weir: &Weir, backend: &Backend, key: &str) -> String {
    let status = weir.status();
    let backends = status["backends"].as_array().cloned().unwrap_or_default();
    let found = backends.iter().find(|it| it["url"] == backend.url());
    let value = found.map(|it| it[key].clone()).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[test]
fn a_name_server_that_fails_in_any_way_changes_no_member() {
    let Some((names, dns, backends)) = start(2) else { return };
    dns.set("web.test", &ips(&backends));
    let weir = Weir::start_by(names.launcher(), &by_dns(""));
    let failures =
        || weir.metrics().sum("lb_discovery_failures_total", &[("source", "dns web.test:3000")]);
    for mood in [Mood::Fails, Mood::IsSilent] {
        let before = failures();
        dns.be(mood);
        eventually(TIMEOUT, "a lookup has failed", || failures() > before);
        assert_eq!(members(&weir), urls(&backends), "{mood:?}");
        let state = weir.status()["discovery"][0].clone();
        assert!(state["last_error"].is_string(), "{state}");
        dns.be(Mood::Responds);
        eventually(TIMEOUT, "it responds again", || {
            weir.status()["discovery"][0]["last_error"].is_null()
        });
    }
    let before = failures();
    dns.set("web.test", &[]);
    eventually(TIMEOUT, "an empty answer is no reason yet", || failures() > before);
    assert_eq!(members(&weir), urls(&backends));
    assert_eq!(weir.get("/").status(), 200);
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let Some((names, dns, backends)) = start(5) else { return };
    dns.be(Mood::Truncates);
    dns.set("web.test", &ips(&backends));
    let weir = Weir::start_by(names.launcher(), &by_dns(""));
    assert_eq!(members(&weir), urls(&backends));
    assert!(dns.queries().1 > 0);
    let found = weir.metrics().sum("lb_backends_discovered", &[("source", "dns web.test:3000")]);
    assert!((found - 5.0).abs() < f64::EPSILON, "{found}");
}

#[test]
fn a_worker_that_dies_while_the_name_server_is_dead_is_replaced_by_one_that_knows_the_members() {
    let Some((names, dns, backends)) = start(3) else { return };
    dns.set("web.test", &ips(&backends));
    let weir = Weir::start_by(names.launcher(), &by_dns(""));
    dns.be(Mood::IsSilent);
    let load = Load { threads: 2, ..Load::on(weir.address()) }.start();
    weir.replace_by_kill();
    assert_eq!(members(&weir), urls(&backends));
    let before = load.done();
    eventually(TIMEOUT, "it serves", || load.done() > before + 20);
    let tally = load.stop();
    // Connections break with their worker; no request is rejected.
    assert_eq!(tally.total() - tally.with_status(200), tally.errors.values().sum::<u64>());
    assert!(tally.errors.values().sum::<u64>() <= 2, "{:?}", tally.errors);
}

#[test]
fn a_reload_and_an_upgrade_while_answers_change_lose_no_request() {
    let Some((names, dns, backends)) = start(5) else { return };
    dns.set("web.test", &ips(of_turn(&backends, 0)));
    let weir = Weir::start_by(names.launcher(), &by_dns(""));
    let load = Load { threads: 2, ..Load::on(weir.address()) }.start();
    for turn in 1..=6 {
        let wanted = of_turn(&backends, turn);
        dns.set("web.test", &ips(wanted.iter().copied()));
        if turn % 3 == 0 {
            weir.signal("USR2");
            eventually(TIMEOUT, "the supervisor is replaced", || {
                weir.stderr().matches("supervisor replaced: ").count() == turn / 3
            });
        } else {
            weir.reload();
        }
        until_members(&weir, wanted);
    }
    let tally = load.stop();
    assert_eq!(tally.failed(), 0, "{:?} {:?}", tally.statuses, tally.errors);
}

#[test]
fn a_backend_with_a_host_name_follows_it_without_a_reload() {
    let Some((names, dns, backends)) = start(2) else { return };
    dns.set("web.test", &ips(&backends[..1]));
    let config = "pools: [{name: web, health_check: {interval: 200ms, timeout: 200ms}, backends: [\"http://web.test:3000\"]}]\n";
    let weir = Weir::start_by(names.launcher(), config);
    let load = Load { threads: 2, ..Load::on(weir.address()) }.start();
    for turn in 1..=4 {
        let next = &backends[turn % 2];
        let before = next.count_of("/");
        dns.set("web.test", &ips([next]));
        eventually(TIMEOUT, "requests go to the new address", || next.count_of("/") > before);
        // It is kept as long as the name has it.
        dns.set("web.test", &ips(&backends));
    }
    let tally = load.stop();
    assert_eq!(tally.failed(), 0, "{:?} {:?}", tally.statuses, tally.errors);
}

#[test]
fn the_lines_of_a_file_are_backends_and_a_bad_line_changes_nothing() {
    let backends = Backend::start_many(3);
    let directory = std::env::temp_dir().join(format!("weir-discovery-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("backends.txt");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write(&format!("# backends\n{}\n{} 3 # heavier\n", backends[0].url(), backends[1].url()));
    let config = format!(
        "pools: [{{name: web, health_check: {{interval: 200ms, timeout: 200ms}}, backends: [{{file: \"{}\"}}]}}]\n",
        file.display()
    );
    let weir = Weir::start(&config);
    assert_eq!(members(&weir), urls(&backends[..2]));
    assert_eq!(state_of(&weir, &backends[1], "weight"), "3");
    write(&format!("{}\nnonsense\n", backends[2].url()));
    weir.until_said("line 2: ");
    assert_eq!(members(&weir), urls(&backends[..2]));
    write(&format!("{}\n{}\n", backends[2].url(), backends[1].url()));
    until_members(&weir, &backends[1..]);
    eventually(TIMEOUT, "it has the new weight", || state_of(&weir, &backends[1], "weight") == "1");
    assert_eq!(weir.get("/").status(), 200);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_records_of_a_service_are_backends_with_their_weights() {
    let Some((names, dns, backends)) = start(3) else { return };
    let record = |index: usize, priority: u16, weight: u16| {
        let target = format!("host{index}.test");
        dns.set(&target, &ips([&backends[index]]));
        Service { priority, weight, port: 3000, target }
    };
    let service = "_http._tcp.web.test";
    dns.set_service(service, &[record(0, 10, 5), record(1, 10, 0), record(2, 20, 1)]);
    let config = format!(
        "pools: [{{name: web, health_check: {{interval: 200ms, timeout: 200ms}}, backends: [{{srv: {service}, refresh: {{min: 50ms, max: 200ms}}}}]}}]\n"
    );
    let weir = Weir::start_by(names.launcher(), &config);
    assert_eq!(members(&weir), urls(&backends[..2]));
    assert_eq!(state_of(&weir, &backends[0], "weight"), "5");
    assert_eq!(state_of(&weir, &backends[1], "weight"), "1");
    dns.set_service(service, &[record(2, 20, 1)]);
    until_members(&weir, &backends[2..]);
    assert_eq!(weir.get("/").text(), "2");
}
