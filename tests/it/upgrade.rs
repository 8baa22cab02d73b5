//! SIGUSR2: the supervisor replaces itself, and nothing else changes.

use std::fs;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::mix::{self, Mix};
use crate::support::weir::{Weir, kill};
use crate::support::{PATIENCE, eventually};

/// Replaces it, for the `turn`th time.
fn upgrade(weir: &Weir, turn: usize) {
    weir.signal("USR2");
    eventually(PATIENCE, "it is replaced", || {
        weir.stderr().matches("supervisor replaced: ").count() == turn
    });
    eventually(PATIENCE, "it can be asked", || weir.command(&["status"]).code == Some(0));
}

#[test]
fn no_request_of_a_mixed_load_is_lost_over_upgrades_and_reloads() {
    let backends = Backend::start_many(2);
    mix::pace(&backends);
    let mut weir = Weir::start(&pool(&backends, ""));
    let (supervisor, mut worker) = (weir.pid(), weir.worker_pid());
    let mix = Mix::start(weir.address());
    for turn in 1..=3 {
        upgrade(&weir, turn);
        assert_eq!(weir.worker_pid(), worker, "the worker is kept");
        mix.go_on();
        weir.reload();
        assert_ne!(weir.worker_pid(), worker, "a reload works afterwards");
        worker = weir.worker_pid();
        mix.go_on();
    }
    mix.stop().assert_flawless(&backends.iter().collect::<Vec<_>>());
    assert!(weir.is_running() && weir.pid() == supervisor, "it is the same process");
}

#[test]
fn a_worker_that_drains_goes_on_draining_over_an_upgrade() {
    let backends = Backend::start_many(1);
    backends.iter().for_each(|backend| backend.on("/hang", Behaviour::NeverAnswer));
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backends.iter().for_each(|backend| backend.until_count(1));
    weir.reload();
    upgrade(&weir, 1);
    let draining = || weir.workers().iter().filter(|worker| worker.is("draining")).count();
    assert_eq!(draining(), 1);
    backends.iter().for_each(Backend::release);
    assert_eq!(client.read_answer().status(), 200);
    eventually(PATIENCE, "it has drained", || draining() == 0);
    eventually(PATIENCE, "and is counted", || weir.metrics().sum("lb_requests_total", &[]) >= 1.0);
}

#[test]
fn upgrades_leave_no_descriptor_behind() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    upgrade(&weir, 1);
    let open = || fs::read_dir(format!("/proc/{}/fd", weir.pid())).map_or(0, Iterator::count);
    let before = open();
    (2..=5).for_each(|turn| upgrade(&weir, turn));
    eventually(PATIENCE, "as many descriptors as before", || open() == before);
}

#[test]
fn a_stop_after_an_upgrade_ends_it_with_0() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&pool(&backends, ""));
    upgrade(&weir, 1);
    weir.signal("TERM");
    assert_eq!(weir.wait(PATIENCE).code(), Some(0), "{}", weir.stderr());
}

#[test]
fn a_worker_that_dies_in_the_middle_of_an_upgrade_is_replaced() {
    let backends = Backend::start_many(1);
    let weir = Weir::start(&pool(&backends, ""));
    let worker = weir.worker_pid();
    weir.signal("USR2");
    kill("KILL", &[worker]).unwrap();
    eventually(PATIENCE, "another one serves", || {
        weir.command(&["status"]).code == Some(0) && weir.worker_pid() != worker
    });
    assert_eq!(Client::connect(weir.address()).get("/").status(), 200);
}

#[test]
fn a_worker_that_hangs_does_not_outlive_a_stop() {
    let backends = Backend::start_many(1);
    let mut weir = Weir::start(&format!("{}shutdown: {{drain: 0s}}\n", pool(&backends, "")));
    let worker = weir.worker_pid();
    kill("STOP", &[worker]).unwrap();
    weir.signal("TERM");
    assert_eq!(weir.wait(PATIENCE).code(), Some(1), "{}", weir.stderr());
}
