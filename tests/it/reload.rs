//! Reloads that work: only the client that asked for one sees it.
//!
//! `WEIR_RELOADS=50` makes the tests under load reload so often instead of a few times.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::configs::pool;
use crate::support::load_generator::Load;
use crate::support::mixed_clients::{self, MixedClients};
use crate::support::ports::own_address;
use crate::support::weir::{Directory, Weir, copy_binary};
use crate::support::{TIMEOUT, eventually, within};

/// How often each test under load reloads.
fn reloads() -> usize {
    std::env::var("WEIR_RELOADS").map_or(6, |count| count.parse().unwrap())
}

fn paced(count: usize) -> Vec<Backend> {
    let backends = Backend::start_many(count);
    mixed_clients::pace(&backends);
    backends
}

fn refs(backends: &[Backend]) -> Vec<&Backend> {
    backends.iter().collect()
}

#[test]
fn no_request_of_a_mixed_load_is_lost_over_reloads() {
    let backends = paced(3);
    let weir = Weir::start(&pool(&backends, ""));
    let mix = MixedClients::start(weir.address());
    for turn in 1..=reloads() {
        weir.write_config(&pool(&backends, &format!("timeouts: {{idle: {turn}s}}")));
        let said = weir.reload();
        assert!(said.contains("web"), "it tells what changed: {said}");
        mix.go_on();
    }
    mix.stop().assert_flawless(&refs(&backends));
    let generation = weir.metrics().value("lb_worker_generation", &[]).unwrap();
    assert_eq!(generation, f64::from(u32::try_from(reloads()).unwrap()) + 1.0);
}

#[test]
fn no_request_is_lost_while_backends_come_and_go() {
    let backends = paced(4);
    let some = |turn: usize| {
        let chosen: Vec<String> = (0..2).map(|next| backends[(turn + next) % 4].url()).collect();
        let chosen = chosen.join(", ");
        format!("pools: [{{name: web, health_check: {{interval: 1s}}, backends: [{chosen}]}}]")
    };
    let weir = Weir::start(&some(0));
    let mix = MixedClients::start(weir.address());
    for turn in 1..=reloads() {
        weir.write_config(&some(turn));
        weir.reload();
        mix.go_on();
    }
    mix.stop().assert_flawless(&refs(&backends));
    assert!(backends.iter().all(|backend| backend.count() > 0), "each had its turn");
}

#[test]
fn no_request_is_lost_while_the_binary_on_disk_is_replaced() {
    let backends = paced(2);
    let directory = Directory::new();
    let binary = directory.path("weir");
    copy_binary(&binary, "");
    let weir = Weir::start_by(Command::new(&binary), &pool(&backends, ""));
    let mix = MixedClients::start(weir.address());
    let mut images = BTreeSet::new();
    for turn in 1..=reloads().min(10) {
        copy_binary(&binary, &"x".repeat(turn));
        weir.reload();
        // Links in /proc/<pid>/exe are of the image that runs, even where its file is gone.
        images.insert(fs::metadata(format!("/proc/{}/exe", weir.worker_pid())).unwrap().len());
        mix.go_on();
    }
    mix.stop().assert_flawless(&refs(&backends));
    assert_eq!(images.len(), reloads().min(10), "each worker was another binary");
}

#[test]
fn sighup_reloads_too() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends[..1], ""));
    assert_eq!(weir.get("/").text(), "b1");
    weir.write_config(&pool(&backends[1..], ""));
    weir.signal("HUP");
    eventually(TIMEOUT, "the other backend is asked", || weir.get("/").text() == "b2");
}

#[test]
fn a_reload_whose_change_a_flag_hides_names_the_flag() {
    let backends = Backend::start_many(2);
    let weir = Weir::start_flagged(&pool(&backends[..1], ""), &["--backend", &backends[0].url()]);
    let start = weir.stderr();
    let line = start.lines().find(|line| line.contains("starting: ")).unwrap();
    assert!(line.ends_with(" overridden_by=--backend"), "{line}");
    weir.write_config(&pool(&backends[1..], ""));
    let said = weir.reload();
    assert!(said.starts_with("reloaded, nothing changed (configuration "), "{said}");
    assert!(said.trim_end().ends_with(": overridden_by=--backend"), "{said}");
    assert_eq!(weir.get("/").text(), "b1");
}

#[test]
fn a_reload_without_a_waiting_client_logs_each_change() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let site = pool(&backends, "").replace("name: web", "name: site");
    weir.write_config(&site);
    weir.signal("HUP");
    for change in [
        "changed: route {path: /}: pool: web → site",
        "changed: pool site added: 1 backend",
        "changed: pool web removed",
    ] {
        eventually(TIMEOUT, change, || weir.stderr().contains(change));
    }
}

#[test]
fn reloads_that_are_asked_for_at_once_are_all_answered() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| weir.reload())).collect();
        for one in asked {
            let said = one.join().unwrap();
            assert!(said.starts_with("reloaded"), "{said}");
        }
    });
    assert_eq!(weir.get("/").status(), 200);
}

/// A file with exactly these listeners.
fn listening(weir: &Weir, backends: &[Backend], listeners: &[SocketAddr], admin: SocketAddr) {
    let listeners: Vec<String> = listeners.iter().map(|one| format!("\"{one}\"")).collect();
    let text = pool(backends, "");
    let listeners = listeners.join(", ");
    let text = format!("{text}listeners: [{listeners}]\nadmin: {{address: \"{admin}\"}}\n");
    fs::write(weir.config_path(), text).unwrap();
}

fn sockets(ports: std::ops::Range<u16>) -> Vec<SocketAddr> {
    let address = own_address();
    ports.map(|port| SocketAddr::from((address, port))).collect()
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn forty_listeners_are_served_and_survive_a_reload() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let forty = sockets(8000..8040);
    for _ in 0..2 {
        listening(&weir, &backends, &forty, weir.admin());
        weir.reload();
        assert!(forty.iter().all(|address| client::get(*address, "/").status() == 200));
    }
    assert_eq!(backends[0].count(), 80);
}

#[test]
fn a_listener_is_added_removed_and_bound_again_while_the_others_miss_nothing() {
    let backends = paced(1);
    let weir = Weir::start(&pool(&backends, ""));
    let kept = weir.address();
    let other = sockets(8000..8001)[0];
    let load = Load { reconnect: true, threads: 2, ..Load::on(kept) }.start();
    for _ in 0..3 {
        assert!(is_refused(other), "not served yet");
        listening(&weir, &backends, &[kept, other], weir.admin());
        weir.reload();
        assert_eq!(client::get(other, "/other").status(), 200);
        listening(&weir, &backends, &[kept], weir.admin());
        weir.reload();
        eventually(TIMEOUT, "the removed one refuses", || is_refused(other));
    }
    let tally = load.stop();
    assert_eq!((tally.failed(), tally.errors.clone()), (0, [].into()));
    assert_eq!(backends[0].count_of("/"), usize::try_from(tally.total()).unwrap());
}

#[test]
fn the_admin_port_is_moved_by_a_reload() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let (before, after) = (weir.admin(), sockets(9000..9001)[0]);
    listening(&weir, &backends, &[weir.address()], after);
    weir.reload();
    assert_eq!(client::get(after, "/readyz").status(), 200);
    eventually(TIMEOUT, "the former one refuses", || is_refused(before));
    listening(&weir, &backends, &[weir.address()], before);
    weir.reload();
    assert_eq!(client::get(before, "/readyz").status(), 200);
}

#[test]
fn no_more_workers_drain_at_once_than_are_allowed_and_the_oldest_is_ended_first() {
    let backend = Backend::start("one");
    backend.on("/hang", Behaviour::NeverAnswer);
    let backends = [backend];
    let weir = Weir::start(&format!("{}shutdown: {{draining_workers: 3}}\n", pool(&backends, "")));
    let mut clients = Vec::new();
    for turn in 1..=5 {
        let mut client = Client::connect(weir.address());
        client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        eventually(TIMEOUT, "it hangs", || backends[0].count_of("/hang") == turn);
        clients.push(client);
        weir.reload();
        // Until then the next client could be accepted by the former worker.
        let closed = format!("Shutting down {}", weir.address());
        eventually(TIMEOUT, "only the new one accepts", || {
            weir.stderr().matches(&closed).count() == turn
        });
        let draining = || weir.metrics().value("lb_draining_workers", &[]);
        eventually(TIMEOUT, "at most three drain", || draining() <= Some(3.0));
    }
    assert!(clients[0].is_closed_within(TIMEOUT), "the oldest was ended");
    assert!(clients[1].is_closed_within(TIMEOUT), "and the next");
    eventually(TIMEOUT, "three drain", || {
        weir.metrics().value("lb_draining_workers", &[]) == Some(3.0)
    });
    weir.until_said("worker ended, too many drain: generation=2 ");
    backends[0].release();
    let answered = clients.iter_mut().skip(2).map(|client| client.read_answer().status());
    assert_eq!(answered.collect::<Vec<_>>(), [200, 200, 200], "the others came to their end");
    eventually(TIMEOUT, "no worker drains", || {
        weir.metrics().value("lb_draining_workers", &[]) == Some(0.0)
    });
}

fn descriptors(weir: &Weir) -> usize {
    fs::read_dir(format!("/proc/{}/fd", weir.pid())).unwrap().count()
}

/// Resident memory of the supervisor in KiB.
fn memory(weir: &Weir) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", weir.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn the_supervisors_memory_and_descriptors_are_flat_over_reloads() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&pool(&backends, ""));
    let settled = || {
        eventually(TIMEOUT, "no worker drains", || weir.workers().len() == 1);
        weir.process_tree().len()
    };
    (0..5).for_each(|_| drop(weir.reload()));
    assert_eq!(settled(), 2, "a supervisor and a worker");
    let (descriptors_before, memory_before) = (descriptors(&weir), memory(&weir));
    (0..reloads().max(15)).for_each(|_| drop(weir.reload()));
    assert_eq!(settled(), 2, "a supervisor and a worker");
    eventually(TIMEOUT, "as many descriptors as before", || {
        descriptors(&weir) == descriptors_before
    });
    let grown = memory(&weir).saturating_sub(memory_before);
    assert!(grown < 4096, "grown by {grown} KiB from {memory_before} KiB");
}

/// `--watch` and a first configuration.
fn watched(backends: &[Backend]) -> Weir {
    Weir::start_flagged(&pool(backends, ""), &["--watch"])
}

fn reloads_done(weir: &Weir, outcome: &str) -> f64 {
    weir.metrics().sum("lb_config_reloads_total", &[("outcome", outcome)])
}

#[test]
fn with_watch_a_changed_file_is_served_and_a_bad_one_is_told_once() {
    let backends = Backend::start_many(2);
    let weir = watched(&backends[..1]);
    weir.write_config(&pool(&backends[1..], ""));
    eventually(TIMEOUT, "the new file is served", || weir.get("/").text() == "b2");
    weir.write_config("pools: 17");
    eventually(TIMEOUT, "it is refused", || reloads_done(&weir, "rejected") > 0.0);
    // Longer than three looks: it must not be logged again.
    within(Duration::from_millis(3500), || (reloads_done(&weir, "rejected") > 1.0).then_some(()));
    assert_eq!(weir.stderr().matches("reload rejected").count(), 1, "{}", weir.stderr());
    assert_eq!(weir.get("/").text(), "b2", "the old one is served on");
    weir.write_config(&pool(&backends[..1], ""));
    eventually(TIMEOUT, "a good one is served again", || weir.get("/").text() == "b1");
}

#[test]
fn with_watch_several_quick_writes_are_few_reloads() {
    let backends = Backend::start_many(2);
    let weir = watched(&backends[..1]);
    for turn in 1..=20 {
        weir.write_config(&pool(&backends[..1], &format!("timeouts: {{idle: {turn}s}}")));
    }
    weir.write_config(&pool(&backends[1..], ""));
    eventually(TIMEOUT, "the last is served", || weir.get("/").text() == "b2");
    assert!(reloads_done(&weir, "done") <= 3.0, "{}", reloads_done(&weir, "done"));
}

#[test]
fn with_watch_a_swap_of_links_as_kubernetes_does_it_is_noticed() {
    let backends = Backend::start_many(2);
    let weir = watched(&backends[..1]);
    let of_kubernetes = |name: &str, backends: &[Backend]| {
        fs::create_dir(weir.path(name)).unwrap();
        weir.write_config(&pool(backends, ""));
        fs::rename(weir.config_path(), weir.path(name).join("weir.yaml")).unwrap();
    };
    of_kubernetes("..one", &backends[..1]);
    of_kubernetes("..two", &backends[1..]);
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, weir.path(from)).unwrap();
    link("..one", "..data");
    link("..data/weir.yaml", "weir.yaml");
    assert_eq!(weir.get("/").text(), "b1");
    link("..two", "..next");
    fs::rename(weir.path("..next"), weir.path("..data")).unwrap();
    eventually(TIMEOUT, "the new file is served", || weir.get("/").text() == "b2");
}

#[test]
fn with_watch_a_file_that_a_command_has_read_is_not_read_again() {
    let backends = Backend::start_many(3);
    let weir = watched(&backends[..1]);
    weir.write_config(&pool(&backends[1..2], ""));
    weir.reload();
    // Two looks later a change would be noticed, as this next one is.
    within(Duration::from_millis(2500), || (reloads_done(&weir, "done") > 1.0).then_some(()));
    weir.write_config(&pool(&backends[2..], ""));
    eventually(TIMEOUT, "the next file is served", || weir.get("/").text() == "b3");
    // The new worker may serve before it gets the number of reloads.
    eventually(TIMEOUT, "both are counted", || reloads_done(&weir, "done") > 1.0);
    assert_eq!(reloads_done(&weir, "done"), 2.0, "{}", weir.stderr());
}

#[test]
fn with_watch_a_file_that_is_gone_is_logged_once_and_read_when_it_is_back() {
    let backends = Backend::start_many(2);
    let weir = watched(&backends[..1]);
    let logged = || weir.stderr().matches("configuration file cannot be read").count();
    fs::remove_file(weir.config_path()).unwrap();
    eventually(TIMEOUT, "it is logged", || logged() == 1);
    assert_eq!(weir.get("/").text(), "b1", "what was served is served on");
    weir.write_config(&pool(&backends[1..], ""));
    eventually(TIMEOUT, "the new file is served", || weir.get("/").text() == "b2");
    assert_eq!(logged(), 1);
}

#[test]
fn a_file_that_is_no_regular_file_is_refused_and_never_waited_for() {
    let backends = Backend::start_many(1);
    let weir = watched(&backends);
    let fifo = weir.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::rename(&fifo, weir.config_path()).unwrap();
    let said = weir.command(&["reload"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("no regular file"), "{said:?}");
    assert_eq!(weir.command(&["status"]).code, Some(0));
    let file = weir.config_path().display().to_string();
    for command in ["run", "check"] {
        let ended = weir.command(&[command, "-c", &file]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("no regular file"), "{ended:?}");
    }
    assert_eq!(weir.get("/").status(), 200);
}
