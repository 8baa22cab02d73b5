//! Workers that hang: they are noticed, counted and replaced, and those that only wait are not.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::fs;
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::configs::pool;
use crate::support::metrics::Metrics;
use crate::support::weir::{Weir, kill, run_to_end};
use crate::support::{TIMEOUT, eventually, now};

fn start(backend: &Backend, more: &str, env: &[(&str, &str)]) -> Weir {
    let config = format!("{}\n{more}\n", pool(std::slice::from_ref(backend), ""));
    Weir::start_with(&config, env)
}

/// What a worker that is ready says of hangs. One that serves may not be ready yet.
fn hangs(weir: &Weir) -> Option<f64> {
    let said = client::try_get(weir.admin(), "/metrics").ok()?;
    let total = || Metrics::parse(&said.text()).sum("lb_worker_hangs_total", &[]);
    (said.status() == 200).then(total)
}

/// Stops processes, and returns when every thread of them stands still.
#[track_caller]
fn stop(pids: &[u32]) {
    kill("STOP", pids).unwrap();
    let stands_still = |pid: &u32| {
        let mut threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.all(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    };
    eventually(TIMEOUT, "they stand still", || pids.iter().all(stands_still));
}

/// Waits until another worker than this one serves; every status meanwhile that shows the hung one
/// as suspect, or no worker, must have failed.
#[track_caller]
fn until_replaced(weir: &Weir, hung: u32) {
    let mut failed = 0;
    eventually(TIMEOUT, "another worker serves", || {
        let said = weir.command(&["status"]);
        let is_hung = said.stderr.contains("not_responding=") || said.stderr.contains("no worker");
        failed += u32::from(said.code == Some(1));
        assert!(!is_hung || said.code == Some(1), "{said:?}");
        said.code == Some(0) && weir.serving().is_some_and(|worker| worker.pid != hung)
    });
    assert!(failed > 0, "the status failed meanwhile");
}

#[test]
fn a_stopped_worker_is_killed_counted_and_replaced() {
    let backend = Backend::start("one");
    let weir = start(&backend, "", &[("WEIR_HANG_TIMEOUT", "1s")]);
    let hung = weir.worker_pid();
    stop(&[hung]);
    // Connects while no process accepts connections, and waits.
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    until_replaced(&weir, hung);
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(client::get(weir.address(), "/").status(), 200);
    eventually(TIMEOUT, "it is counted", || hangs(&weir) == Some(1.0));
    let said = weir.command(&["status"]).stdout;
    assert!(said.contains("restarts: 1\nhangs: 1\n"), "{said}");
    weir.until_said("worker killed, it hangs: generation=1 ");
    eventually(TIMEOUT, "nothing of it is left", || !weir.process_tree().contains(&hung));
}

#[test]
fn a_worker_with_a_blocked_data_thread_is_replaced() {
    for threads in [1, 2] {
        let backend = Backend::start("one");
        let env = [("WEIR_HANG_TIMEOUT", "1s"), ("WEIR_FAULT", "block")];
        let weir = start(&backend, &format!("threads: {threads}"), &env);
        let hung = weir.worker_pid();
        let mut client = Client::connect(weir.address());
        client.send("GET /block/request_filter HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        let replaced = || weir.serving().is_some_and(|worker| worker.pid != hung);
        eventually(TIMEOUT, "another worker serves", replaced);
        assert_eq!(client::get(weir.address(), "/").status(), 200);
        eventually(TIMEOUT, "it is counted", || hangs(&weir) == Some(1.0));
        weir.until_said("worker killed, data threads hang: generation=1 ");
        weir.until_said(" threads=1 ");
    }
}

#[test]
fn a_draining_worker_that_hangs_is_killed_and_the_serving_one_is_kept() {
    let backend = Backend::start("one");
    backend.on("/hang", Behaviour::NeverAnswer);
    let weir = start(&backend, "shutdown: {drain: 1h}", &[("WEIR_HANG_TIMEOUT", "1s")]);
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backend.until_count(1);
    let old = weir.worker_pid();
    weir.reload();
    let new = weir.worker_pid();
    stop(&[old]);
    eventually(TIMEOUT, "the hung one is gone", || weir.workers().len() == 1);
    assert_eq!(weir.worker_pid(), new);
    eventually(TIMEOUT, "it is counted", || hangs(&weir) == Some(1.0));
    assert_eq!(weir.metrics().sum("lb_worker_restarts_total", &[]), 0.0);
}

/// Waits until a worker of `other`, which was stopped just now, has been replaced: by then this
/// machine has had the time in which a hang is found.
fn until_a_hang_is_found(other: &Weir) {
    let hung = other.worker_pid();
    stop(&[hung]);
    let replaced = || other.serving().is_some_and(|worker| worker.pid != hung);
    eventually(TIMEOUT, "the other one is replaced", replaced);
}

#[test]
fn a_supervisor_that_was_stopped_itself_blames_no_worker() {
    let backend = Backend::start("one");
    let env = [("WEIR_HANG_TIMEOUT", "1s")];
    let (weir, other) = (start(&backend, "", &env), start(&backend, "", &env));
    let worker = weir.worker_pid();
    stop(&[weir.pid()]);
    until_a_hang_is_found(&other);
    kill("CONT", &[weir.pid()]).unwrap();
    // All of it, as a machine that is suspended.
    stop(&[weir.pid(), worker]);
    until_a_hang_is_found(&other);
    kill("CONT", &[worker, weir.pid()]).unwrap();
    assert_eq!(weir.worker_pid(), worker);
    until_a_hang_is_found(&other);
    assert_eq!((weir.worker_pid(), hangs(&weir)), (worker, Some(0.0)), "{}", weir.stderr());
}

#[test]
fn with_off_a_worker_may_be_silent_for_ever() {
    let backend = Backend::start("one");
    let config = pool(std::slice::from_ref(&backend), "");
    let weir = Weir::start_flagged(&config, &["--hang-timeout", "off"]);
    let other = start(&backend, "", &[("WEIR_HANG_TIMEOUT", "1s")]);
    let worker = weir.worker_pid();
    stop(&[worker]);
    until_a_hang_is_found(&other);
    assert_eq!(weir.worker_pid(), worker);
    kill("CONT", &[worker]).unwrap();
    assert_eq!(weir.get("/").status(), 200);
}

#[test]
fn a_hang_is_found_after_an_upgrade_as_well() {
    let backend = Backend::start("one");
    let weir = start(&backend, "", &[("WEIR_HANG_TIMEOUT", "1s")]);
    weir.signal("USR2");
    let replaced = || weir.stderr().contains("supervisor replaced: ");
    eventually(TIMEOUT, "the supervisor is replaced", replaced);
    let hung = weir.worker_pid();
    stop(&[hung]);
    until_replaced(&weir, hung);
    eventually(TIMEOUT, "it is counted", || hangs(&weir) == Some(1.0));
}

#[test]
fn a_busy_worker_is_not_taken_for_a_hung_one() {
    let backend = Backend::start("one");
    let weir = start(&backend, "threads: 1", &[("WEIR_HANG_TIMEOUT", "1s")]);
    let worker = weir.worker_pid();
    let (start, address) = (now(), weir.address());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                while now() - start < Duration::from_secs(4) {
                    assert_eq!(client.get("/").status(), 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request is answered");
    }
    assert_eq!((weir.worker_pid(), hangs(&weir)), (worker, Some(0.0)), "{}", weir.stderr());
}

#[test]
fn a_value_that_is_no_timeout_is_refused_with_its_reason() {
    for (value, why) in
        [("soon", "WEIR_HANG_TIMEOUT: `soon` "), ("10ms", "`10ms` is shorter than 1s ")]
    {
        let env = [("WEIR_HANG_TIMEOUT", value)];
        let args = ["run", "--backend", "http://127.0.0.1:1"];
        let ended = run_to_end(&args, &env, TIMEOUT);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
}
