//! Signals: which mean something to whom, and that no other costs a request.

use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::weir::{Weir, kill};
use crate::support::{TIMEOUT, eventually, now};

/// Signals that mean nothing to Weir and would end a process that does not handle them.
const MEANINGLESS: [&str; 8] = ["USR1", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XFSZ"];

/// A balancer with a request in flight, and the client that waits for its response.
fn with_one_in_flight(backend: &Backend) -> (Weir, Client) {
    backend.on("/hang", Behaviour::NeverAnswer);
    let config = format!("{}\nshutdown: {{drain: 1h}}\n", pool(std::slice::from_ref(backend), ""));
    let weir = Weir::start(&config);
    let mut client = Client::connect(weir.address());
    client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "the request is in flight", || backend.in_flight() > 0);
    (weir, client)
}

fn count(weir: &Weir, words: &str) -> usize {
    weir.stderr().matches(words).count()
}

#[test]
fn signals_to_a_worker_cost_no_request() {
    let backend = Backend::start("one");
    let (weir, mut client) = with_one_in_flight(&backend);
    let worker = weir.worker_pid();
    for signal in ["HUP", "INT", "QUIT", "USR2"].iter().chain(&MEANINGLESS) {
        kill(signal, &[worker]).unwrap();
    }
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(weir.worker_pid(), worker);
    assert_eq!(count(&weir, "worker died"), 0, "{}", weir.stderr());
}

#[test]
fn a_hang_up_to_every_process_is_one_reload_and_costs_no_request() {
    let backend = Backend::start("one");
    let (weir, mut client) = with_one_in_flight(&backend);
    kill("HUP", &weir.process_tree()).unwrap();
    eventually(TIMEOUT, "it reloads", || count(&weir, "reloaded: ") == 1);
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(count(&weir, "worker died"), 0, "{}", weir.stderr());
}

#[test]
fn signals_without_a_meaning_are_ignored_by_the_supervisor_before_and_after_an_upgrade() {
    let backend = Backend::start("one");
    let (mut weir, mut client) = with_one_in_flight(&backend);
    for round in 1..=2 {
        for signal in MEANINGLESS {
            weir.signal(signal);
            let logged = format!("signal ignored: signal=SIG{signal} ");
            eventually(TIMEOUT, signal, || count(&weir, &logged) == round);
        }
        if round == 1 {
            weir.signal("USR2");
            eventually(TIMEOUT, "upgraded", || count(&weir, "supervisor replaced: ") == 1);
        }
    }
    assert!(weir.is_running());
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
}

#[test]
fn quit_is_a_graceful_stop() {
    let backend = Backend::start("one");
    let (mut weir, mut client) = with_one_in_flight(&backend);
    kill("QUIT", &weir.process_tree()).unwrap();
    eventually(TIMEOUT, "it drains", || count(&weir, "draining: connections=1") == 1);
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
}

#[test]
fn the_same_stop_twice_within_a_moment_is_one_stop() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "QUIT")] {
        let backend = Backend::start("one");
        let (mut weir, mut client) = with_one_in_flight(&backend);
        let start = now();
        weir.signal(first);
        eventually(TIMEOUT, "it stops", || count(&weir, "stopping") == 1);
        weir.signal(second);
        let ignored = || count(&weir, "the stop has just begun") == 1;
        let at_once = || count(&weir, "stopping at once") == 1;
        eventually(TIMEOUT, "the second is read", || ignored() || at_once());
        if at_once() && now() - start >= Duration::from_millis(500) {
            continue; // this machine was too slow for two signals within the moment
        }
        assert!(ignored(), "{}", weir.stderr());
        backend.release();
        assert_eq!(client.read_answer().status(), 200);
        assert_eq!(weir.wait(TIMEOUT).code(), Some(0), "{}", weir.stderr());
    }
}

#[test]
fn a_further_stop_later_on_ends_it_at_once() {
    let backend = Backend::start("one");
    let (mut weir, _client) = with_one_in_flight(&backend);
    let start = now();
    weir.signal("TERM");
    weir.signal_until_it_ends("TERM");
    assert_eq!(weir.wait(TIMEOUT).code(), Some(1), "{}", weir.stderr());
    assert!(now() - start >= Duration::from_millis(500), "after {:?}", now() - start);
    weir.until_said("stopping at once: signal=SIGTERM");
}
