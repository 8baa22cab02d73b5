//! Workers that die: the sockets stay open, and a successor goes on from the last checkpoint.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client, Failure};
use crate::support::configs::pool;
use crate::support::load_generator::Load;
use crate::support::metrics::Metrics;
use crate::support::mixed_clients::{self, MixedClients};
use crate::support::weir::{Directory, Weir, copy_binary, kill, put_script};
use crate::support::{TIMEOUT, eventually, eventually_some, now};

/// A new connection must be answered by then. (Within a second on a machine that is not busy.)
const SOON: Duration = Duration::from_secs(3);

/// What a worker that is ready says of restarts. One that serves may not be ready yet.
fn restarts(weir: &Weir) -> Option<f64> {
    let said = client::try_get(weir.admin(), "/metrics").ok()?;
    let total = || Metrics::parse(&said.text()).sum("lb_worker_restarts_total", &[]);
    (said.status() == 200).then(total)
}

#[test]
fn a_killed_worker_costs_only_the_requests_in_flight_and_no_connection_is_refused() {
    let backends = Backend::start_many(2);
    mixed_clients::pace(&backends);
    let weir = Weir::start(&pool(&backends, ""));
    let mix = MixedClients::start(weir.address());
    kill("KILL", &[weir.worker_pid()]).unwrap();
    let (killed, answer) = (now(), client::get(weir.address(), "/new"));
    assert_eq!(answer.status(), 200);
    assert!(now() - killed < SOON, "answered after {:?}", now() - killed);
    mix.go_on();
    let account = mix.stop();
    // Twelve clients; a connection that had not been accepted yet is not lost but waits.
    assert!(account.failures.len() <= 12, "{:?}", account.failures);
    let is_cut = |failure: &Failure| {
        matches!(failure, Failure::NoAnswer | Failure::Reset { .. } | Failure::TruncatedBody { .. })
    };
    assert!(account.failures.iter().all(|(_, failure)| is_cut(failure)), "{account:?}");
    eventually(TIMEOUT, "it is counted", || restarts(&weir) == Some(1.0));
}

#[test]
fn a_worker_that_keeps_dying_is_replaced_ever_more_slowly_and_status_says_so() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    for turn in 1..=6 {
        kill("KILL", &[weir.worker_pid()]).unwrap();
        eventually(TIMEOUT, "it is noticed", || {
            weir.stderr().matches("worker died: ").count() == turn
        });
    }
    let said = weir.command(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let said = said.stderr;
    assert!(said.contains("no worker: the last one died, the next starts in "), "{said}");
    let asked = now();
    assert_eq!(weir.get("/").status(), 200, "who connects meanwhile waits and is answered");
    // 3.2 s by now: 0.1 s, doubled with each death after the first. The command before has its time.
    assert!(now() - asked > Duration::from_millis(300), "after {:?}", now() - asked);
    eventually(TIMEOUT, "they are counted", || restarts(&weir) == Some(6.0));
    assert_eq!(weir.command(&["status"]).code, Some(0));
}

/// A reload that hangs in its first probe: the new worker warms up until `hung` is released.
fn warming(weir: &Weir, hung: &Backend) {
    hung.on("/health", Behaviour::NeverAnswer);
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s, healthy_after: 1}";
    weir.write_config(&format!(
        "pools: [{{name: web, health_check: {check}, backends: [{}]}}]",
        hung.url()
    ));
    weir.signal("HUP");
    eventually(TIMEOUT, "the new worker probes", || hung.count_of("/health") == 1);
}

#[test]
fn when_the_worker_dies_while_its_successor_warms_up_what_is_served_is_served_on_meanwhile() {
    let (backends, hung) = ([Backend::start("one")], Backend::start("hung"));
    let weir = Weir::start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    warming(&weir, &hung);
    kill("KILL", &[worker]).unwrap();
    assert_eq!(weir.get("/").text(), "one", "a client that waited is served");
    let generation = || weir.serving().map(|worker| worker.generation);
    eventually(TIMEOUT, "the supervisor knows that it serves", || generation() == Some(3));
    assert!(weir.workers().iter().any(|worker| worker.is("warming") && worker.generation == 2));
    hung.release();
    eventually(TIMEOUT, "the reload is done", || weir.get("/").text() == "hung");
    eventually(TIMEOUT, "no other process is left", || weir.workers().len() == 1);
    assert_eq!(weir.serving().map(|worker| worker.generation), Some(2));
}

#[test]
fn when_the_replacement_is_not_ready_before_the_successor_it_is_not_waited_for() {
    let (backends, hung) = ([Backend::start("one")], Backend::start("hung"));
    let directory = Directory::new();
    let binary = directory.path("weir");
    copy_binary(&binary, "");
    let weir = Weir::start_by(Command::new(&binary), &pool(&backends, ""));
    let worker = weir.worker_pid();
    warming(&weir, &hung);
    // What served cannot be started again, and what is on disk, which comes last, hangs.
    fs::set_permissions(&binary, Permissions::from_mode(0o0)).unwrap();
    put_script(&binary, "exec sleep 60");
    kill("KILL", &[worker]).unwrap();
    eventually(TIMEOUT, "a replacement starts", || weir.workers().len() == 2);
    hung.release();
    eventually(TIMEOUT, "the reload is done", || weir.get("/").text() == "hung");
    eventually(TIMEOUT, "no other process is left", || weir.process_tree().len() == 2);
    assert_eq!(weir.serving().map(|worker| worker.generation), Some(2));
}

#[test]
fn when_a_new_worker_dies_while_it_warms_up_the_reload_is_refused() {
    let (backends, hung) = ([Backend::start("one")], Backend::start("hung"));
    let weir = Weir::start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    let load = Load { threads: 2, count: None, ..Load::on(weir.address()) }.start();
    warming(&weir, &hung);
    let new = weir.workers().into_iter().find(|worker| worker.is("warming")).unwrap();
    kill("KILL", &[new.pid]).unwrap();
    eventually(TIMEOUT, "it is said", || {
        weir.stderr().contains("reload rejected: the new worker ended: ")
    });
    assert_eq!((weir.worker_pid(), weir.get("/").text()), (worker, "one".to_owned()));
    let tally = load.stop();
    assert_eq!((tally.failed(), tally.errors.clone()), (0, [].into()));
}

/// How many threads of a process have a name that begins so.
fn threads(pid: u32, start: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    tasks.filter_map(|task| name(task).ok()).filter(|name| name.starts_with(start)).count()
}

#[test]
fn when_a_new_worker_dies_while_it_takes_over_the_old_one_serves_on_with_its_admin_port() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let old = weir.worker_pid();
    // The old worker stands still and does not hand over, so the new one is caught just there.
    kill("STOP", &[old]).unwrap();
    weir.signal("HUP");
    let warm = || weir.workers().into_iter().find(|worker| worker.is("warm"));
    let new = eventually_some(TIMEOUT, "a new worker is warm", warm).pid;
    kill("KILL", &[new]).unwrap();
    kill("CONT", &[old]).unwrap();
    eventually(TIMEOUT, "the reload is refused", || weir.stderr().contains("reload rejected"));
    assert_eq!(weir.get("/").status(), 200);
    eventually(TIMEOUT, "the admin port answers", || {
        client::try_get(weir.admin(), "/metrics").is_ok_and(|answer| answer.status() == 200)
    });
    assert_eq!(weir.worker_pid(), old);
    eventually(TIMEOUT, "one admin service is left", || threads(old, "weir-admin") == 1);
    weir.reload();
    assert_ne!(weir.worker_pid(), old);
}

#[test]
fn when_the_supervisor_is_gone_its_worker_drains_and_ends() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    let mut client = Client::connect(weir.address());
    backends.iter().for_each(|backend| backend.on("/slow", Behaviour::NeverAnswer));
    client.send("GET /slow HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backends.iter().for_each(|backend| backend.until_count(1));
    weir.signal("KILL");
    weir.wait(TIMEOUT);
    backends.iter().for_each(Backend::release);
    assert_eq!(client.read_answer().status(), 200, "what was in flight is finished");
    let is_there = || fs::metadata(format!("/proc/{worker}/exe")).is_ok();
    eventually(TIMEOUT, "the worker ends", || !is_there());
}

/// The file that a process runs: its inode, also if its name was removed.
fn image_of(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

/// Kills the worker that serves, and waits for a request that its replacement answers.
#[track_caller]
fn replaced(weir: &Weir) -> u32 {
    let worker = weir.worker_pid();
    kill("KILL", &[worker]).unwrap();
    assert_eq!(weir.get("/").status(), 200);
    eventually(TIMEOUT, "it is replaced", || {
        weir.serving().is_some_and(|serving| serving.pid != worker)
    });
    weir.worker_pid()
}

#[test]
fn with_the_binary_gone_a_crash_and_a_reload_use_the_running_one() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    let (binary, elsewhere) = (directory.path("weir"), directory.path("elsewhere"));
    copy_binary(&binary, "");
    let weir = Weir::start_by(Command::new(&binary), &pool(&backends, ""));
    fs::rename(&binary, &elsewhere).unwrap();
    let name = fs::read_to_string(format!("/proc/{}/comm", replaced(&weir))).unwrap();
    assert_eq!(name.trim(), "weir");
    fs::remove_file(&elsewhere).unwrap();
    replaced(&weir);
    weir.reload();
    weir.until_said("binary cannot be started, the running one is: path=");
    assert_eq!(weir.get("/").status(), 200);
    eventually(TIMEOUT, "one worker is left", || weir.workers().len() == 1);
}

#[test]
fn what_is_on_disk_has_no_part_in_the_replacement_of_a_worker_that_died() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    let binary = directory.path("weir");
    copy_binary(&binary, "");
    let weir = Weir::start_by(Command::new(&binary), &pool(&backends, ""));
    // It fails, as one does that refuses the configuration, or hangs for longer than a test may take.
    for script in ["echo no >&2; exit 1", "exec sleep 60"] {
        put_script(&binary, script);
        replaced(&weir);
    }
    fs::write(directory.path("text"), "no binary").unwrap();
    fs::rename(directory.path("text"), &binary).unwrap();
    replaced(&weir);
    let log = weir.stderr();
    let bad = ["worker not ready", "worker not started", "cannot be started"];
    assert!(!bad.iter().any(|bad| log.contains(bad)), "{log}");
}

#[test]
fn a_worker_that_died_is_replaced_by_the_binary_that_it_ran() {
    let backends = Backend::start_many(1);
    let directory = Directory::new();
    let binary = directory.path("weir");
    copy_binary(&binary, "");
    let weir = Weir::start_by(Command::new(&binary), &pool(&backends, ""));
    let first = image_of(weir.worker_pid());
    copy_binary(&binary, "second");
    weir.reload();
    let second = image_of(weir.worker_pid());
    assert_ne!(second, first, "a reload takes what is on disk");
    copy_binary(&binary, "third");
    assert_eq!(image_of(replaced(&weir)), second);
    assert_eq!(image_of(replaced(&weir)), second);
    weir.reload();
    let third = image_of(weir.worker_pid());
    assert_ne!(third, second);
    // The file can no longer be executed: the supervisor's own binary is left.
    fs::set_permissions(&binary, Permissions::from_mode(0o0)).unwrap();
    assert_eq!(image_of(replaced(&weir)), first);
    let log = weir.stderr();
    assert!(
        log.contains("binary of the last worker cannot be started, the running one is"),
        "{log}"
    );
}

/// A balancer, a client whose request is in flight, and one with an open WebSocket.
fn with_a_request_and_a_websocket(shutdown: &str) -> (Weir, Backend, Client, Client) {
    let backend = Backend::start("one");
    backend.on("/hang", Behaviour::NeverAnswer);
    backend.on("/ws", Behaviour::Upgrade("websocket".to_owned()));
    let config = format!("{}\nshutdown: {shutdown}\n", pool(std::slice::from_ref(&backend), ""));
    let weir = Weir::start(&config);
    let mut socket = Client::connect(weir.address());
    socket.send(
        "GET /ws HTTP/1.1\r\nHost: weir.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(socket.read_head(now() + TIMEOUT).unwrap().status, 101);
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "it is in flight", || backend.count_of("/hang") == 1);
    (weir, backend, client, socket)
}

#[test]
fn an_orphan_gives_up_its_ports_at_once_and_finishes_what_it_has() {
    let (mut weir, backend, mut client, _socket) =
        with_a_request_and_a_websocket("{drain: 1h, tunnels: 1h, pre_stop: 1h}");
    let orphan = weir.worker_pid();
    weir.signal("KILL");
    weir.wait(TIMEOUT);
    let file = weir.config_path().display().to_string();
    let mut second = weir.begin(&["run", "-c", &file]);
    eventually(TIMEOUT, "another Weir serves there", || {
        assert!(second.try_wait().unwrap().is_none(), "{:?}", second.stderr.take());
        weir.command(&["status"]).code == Some(0)
    });
    assert_eq!(client::get(weir.address(), "/").status(), 200);
    assert_eq!(client::get(weir.admin(), "/healthz").status(), 200);
    assert!(fs::metadata(format!("/proc/{orphan}/exe")).is_ok(), "the orphan drains");
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    let last = weir.worker_pid();
    kill("KILL", &[second.id()]).unwrap();
    second.wait().unwrap();
    kill("KILL", &[orphan, last]).unwrap();
}

#[test]
fn an_orphan_gives_websockets_no_longer_than_requests() {
    let (mut weir, _backend, _client, mut socket) =
        with_a_request_and_a_websocket("{drain: 1s, tunnels: 1h}");
    let orphan = weir.worker_pid();
    weir.signal("KILL");
    weir.wait(TIMEOUT);
    assert!(socket.is_closed_within(TIMEOUT));
    let is_there = || fs::metadata(format!("/proc/{orphan}/exe")).is_ok();
    eventually(TIMEOUT, "the worker ends", || !is_there());
}
