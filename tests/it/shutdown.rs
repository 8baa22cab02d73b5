//! How it stops: what is in flight is finished, what is new goes elsewhere, and then it is gone.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client, Failure};
use crate::support::weir::{Weir, kill};
use crate::support::{TIMEOUT, eventually, eventually_some, now};

/// A stop that takes this long waited for something: what it must not wait for may take an hour.
const PROMPT: Duration = Duration::from_secs(60);

/// A balancer in front of one backend, with further keys of the file.
fn start(backend: &Backend, more: &str) -> Weir {
    let url = backend.url();
    Weir::start(&format!("pools: [{{name: web, health_check: off, backends: [{url}]}}]\n{more}"))
}

fn start_with_drain(backend: &Backend) -> Weir {
    start(backend, "shutdown: {drain: 1h}")
}

/// A client that has had an answer and keeps its connection.
fn kept(weir: &Weir) -> Client {
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/").status(), 200);
    client
}

/// A client whose request is at the backend and not answered yet.
fn waiting(weir: &Weir, backend: &Backend) -> Client {
    backend.on("/slow", Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send("GET /slow HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "the request is in flight", || backend.in_flight() > 0);
    client
}

fn until_connected(weir: &Weir) {
    let open = || weir.metrics().value("lb_downstream_connections", &[]);
    eventually(TIMEOUT, "the connection is accepted", || open() == Some(1.0));
}

fn is_accepting(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

fn until_not_accepting(weir: &Weir) {
    eventually(TIMEOUT, "it no longer accepts", || !is_accepting(weir.address()));
}

/// Waits until it has ended.
fn ends_with(weir: &mut Weir, code: i32) {
    assert_eq!(weir.wait(PROMPT).code(), Some(code), "{}", weir.stderr());
}

#[test]
fn idle_it_exits_at_once_with_0() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    weir.signal("TERM");
    ends_with(&mut weir, 0);
}

#[test]
fn sigint_does_the_same() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut client = waiting(&weir, &backend);
    weir.signal("INT");
    until_not_accepting(&weir);
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    ends_with(&mut weir, 0);
}

#[test]
fn an_answer_in_flight_is_finished_and_nothing_is_waited_for_after_it() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut client = waiting(&weir, &backend);
    weir.signal("TERM");
    until_not_accepting(&weir);
    assert!(weir.is_running(), "a request is in flight");
    backend.release();
    let answer = client.read_answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "one"));
    assert!(answer.head.is_last(), "{:?}", answer.head);
    ends_with(&mut weir, 0);
}

#[test]
fn an_answer_whose_body_is_under_way_comes_to_its_end() {
    let backend = Backend::start("one");
    let pieces: Vec<Vec<u8>> = vec![b"first ".to_vec(), b"second ".to_vec(), b"third".to_vec()];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::from_millis(400) });
    let mut weir = start_with_drain(&backend);
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backend.until_count(1);
    weir.signal("TERM");
    assert_eq!(client.read_answer().text(), "first second third");
    ends_with(&mut weir, 0);
}

#[test]
fn a_head_that_is_half_sent_may_be_completed_and_is_answered() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: we");
    until_connected(&weir);
    weir.signal("TERM");
    until_not_accepting(&weir);
    client.send("ir.test\r\n\r\n");
    let answer = client.read_answer();
    assert_eq!(answer.status(), 200);
    assert!(answer.head.is_last(), "{:?}", answer.head);
    ends_with(&mut weir, 0);
}

#[test]
fn a_body_that_is_half_sent_may_be_completed_and_is_answered() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut client = Client::connect(weir.address());
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 10\r\n\r\nhalf ");
    backend.until_count(1);
    weir.signal("TERM");
    until_not_accepting(&weir);
    client.send("whole");
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(backend.requests()[0].body, b"half whole");
    ends_with(&mut weir, 0);
}

#[test]
fn a_half_sent_head_is_not_cut_before_its_deadline_and_not_kept_beyond_it() {
    let backend = Backend::start("one");
    let mut weir = start(&backend, "limits: {header_timeout: 2s}\nshutdown: {drain: 1h}");
    let mut client = Client::connect(weir.address());
    let start = now();
    client.send("GET / HTTP/1.1\r\nHost: we");
    until_connected(&weir);
    weir.signal("TERM");
    let answer = client.read_answer();
    assert_eq!(answer.status(), 408);
    assert!(now() - start >= Duration::from_secs(2), "cut after {:?}", now() - start);
    ends_with(&mut weir, 0);
}

#[test]
fn a_kept_clients_next_answer_says_that_it_is_the_last() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut client = kept(&weir);
    weir.signal("TERM");
    until_not_accepting(&weir);
    let answer = client.get("/");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed_within(TIMEOUT));
    ends_with(&mut weir, 0);
}

#[test]
fn an_idle_kept_connection_is_ended_without_a_reset() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let (mut used, mut silent) = (kept(&weir), Client::connect(weir.address()));
    eventually(TIMEOUT, "both are accepted", || {
        weir.metrics().value("lb_downstream_connections", &[]) == Some(2.0)
    });
    weir.signal("TERM");
    assert_eq!(used.read_some(), Err(Failure::NoAnswer), "a clean end");
    assert_eq!(silent.read_some(), Err(Failure::NoAnswer), "a clean end");
    ends_with(&mut weir, 0);
}

#[test]
fn what_is_still_in_flight_at_the_drains_deadline_is_cut_and_the_code_is_1() {
    let backend = Backend::start("one");
    let mut weir = start(&backend, "shutdown: {drain: 300ms}");
    let mut client = waiting(&weir, &backend);
    weir.signal("TERM");
    ends_with(&mut weir, 1);
    assert!(client.try_read_answer("GET").is_err(), "there was no answer to give");
    weir.until_said("weir: stopped before all was done: connections=1");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let _client = waiting(&weir, &backend);
    weir.signal("TERM");
    until_not_accepting(&weir);
    assert!(weir.is_running(), "a request is in flight");
    weir.signal_until_it_ends("TERM");
    ends_with(&mut weir, 1);
}

#[test]
fn a_second_signal_ends_the_wait_before_the_drain_too() {
    let backend = Backend::start("one");
    let mut weir = start(&backend, "shutdown: {pre_stop: 1h, drain: 1h}");
    let _client = waiting(&weir, &backend);
    weir.signal("TERM");
    weir.until_admin_says("/readyz", 503);
    weir.signal_until_it_ends("INT");
    ends_with(&mut weir, 1);
}

#[test]
fn a_signal_before_the_first_probes_are_done_ends_it_with_0() {
    let backend = Backend::start("one");
    backend.on("/health", Behaviour::NeverAnswer);
    let mut weir = Weir::spawn(&format!(
        "pools: [{{name: web, backends: [{}],\n  \
         health_check: {{path: /health, interval: 1h, timeout: 1h}}}}]",
        backend.url()
    ));
    eventually(TIMEOUT, "the probe hangs", || backend.count_of("/health") == 1);
    weir.signal("TERM");
    ends_with(&mut weir, 0);
}

#[test]
fn before_it_stops_accepting_it_says_so_and_serves_on() {
    let backend = Backend::start("one");
    let mut weir = start(&backend, "shutdown: {pre_stop: 1500ms, drain: 1h}");
    let start = now();
    weir.signal("TERM");
    weir.until_admin_says("/readyz", 503);
    assert_eq!(client::get(weir.admin(), "/readyz").text(), "not ready: draining\n");
    assert_eq!(client::get(weir.admin(), "/healthz").status(), 200);
    assert_eq!(weir.get("/").status(), 200, "new connections are served");
    until_not_accepting(&weir);
    assert!(now() - start >= Duration::from_millis(1500), "after {:?}", now() - start);
    ends_with(&mut weir, 0);
}

#[test]
fn what_a_former_worker_counts_meanwhile_is_told_until_the_end() {
    let backend = Backend::start("one");
    let mut weir = start(&backend, "shutdown: {pre_stop: 1h, drain: 1h}");
    let mut client = waiting(&weir, &backend);
    weir.reload();
    weir.signal("TERM");
    weir.until_admin_says("/readyz", 503);
    backend.release();
    assert_eq!(client.read_answer().status(), 200);
    let counted = || weir.metrics().sum("lb_requests_total", &[]);
    eventually(TIMEOUT, "it is counted", || counted() == 1.0);
    assert!(weir.is_running(), "it waits still");
    weir.signal_until_it_ends("TERM");
    ends_with(&mut weir, 1);
}

#[test]
fn a_worker_that_is_just_taking_over_is_stopped_in_order_as_well() {
    let backend = Backend::start("one");
    let mut weir = start(&backend, "shutdown: {pre_stop: 5s, drain: 1h}");
    let old = weir.worker_pid();
    // The old worker stands still and does not hand over until the new one stands still, too.
    kill("STOP", &[old]).unwrap();
    weir.signal("HUP");
    let until = |what: &str| {
        let find = || weir.workers().into_iter().find(|worker| worker.is(what));
        eventually_some(TIMEOUT, what, find).pid
    };
    let new = until("warm");
    kill("STOP", &[new]).unwrap();
    kill("CONT", &[old]).unwrap();
    assert_eq!(until("taking_over"), new);
    weir.signal("TERM");
    eventually(TIMEOUT, "it stops", || weir.stderr().contains("stopping"));
    kill("CONT", &[new]).unwrap();
    let ready = || weir.stderr().contains("worker ready: generation=2");
    eventually(TIMEOUT, "it was not killed", ready);
    assert_eq!(weir.get("/").status(), 200);
    ends_with(&mut weir, 0);
}

#[test]
fn the_admin_port_answers_while_it_drains() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut client = waiting(&weir, &backend);
    weir.signal("TERM");
    until_not_accepting(&weir);
    let ready = client::get(weir.admin(), "/readyz");
    assert_eq!((ready.status(), ready.text().as_str()), (503, "not ready: draining\n"));
    assert_eq!(client::get(weir.admin(), "/healthz").status(), 200);
    assert_eq!(weir.metrics().value("lb_downstream_connections", &[]), Some(1.0));
    assert_eq!(weir.status()["backends"][0]["in_flight_requests"], 1);
    backend.release();
    client.read_answer();
    ends_with(&mut weir, 0);
}

#[test]
fn a_connection_of_the_admin_port_does_not_hold_it_up() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut scraper = Client::connect(weir.admin());
    assert_eq!(scraper.get("/metrics").status(), 200);
    weir.signal("TERM");
    ends_with(&mut weir, 0);
}

#[test]
fn the_last_requests_are_in_the_access_log() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let mut clients: Vec<Client> = (0..60).map(|_| waiting(&weir, &backend)).collect();
    backend.until_count(60);
    weir.signal("TERM");
    until_not_accepting(&weir);
    backend.release();
    let answered = |client: &mut Client| client.read_answer().status() == 200;
    assert!(clients.iter_mut().all(answered));
    ends_with(&mut weir, 0);
    assert_eq!(weir.access_log().len(), 60);
}

/// The result of one client that sends requests until it can no longer connect.
#[derive(Debug, Default)]
struct Asked {
    answers: usize,
    /// New connections that ended before their first response started: the kernel had accepted them and
    /// Weir had not before the listening socket was closed.
    never_accepted: usize,
    failures: Vec<Failure>,
}

fn ask_until_refused(address: SocketAddr, warmed_up: &AtomicUsize) -> Asked {
    let mut asked = Asked::default();
    while let Ok(mut client) = Client::try_connect(address, None) {
        for turn in 0.. {
            match client.request("GET", "/", &[], b"") {
                Ok(answer) => {
                    asked.answers += 1;
                    warmed_up.fetch_add(1, Relaxed);
                    assert_eq!(answer.status(), 200);
                    if answer.head.is_last() {
                        break;
                    }
                }
                Err(Failure::Reset { got: 0 } | Failure::NoAnswer) if turn == 0 => {
                    asked.never_accepted += 1;
                    break;
                }
                Err(failure) => {
                    asked.failures.push(failure);
                    break;
                }
            }
        }
    }
    asked
}

#[test]
fn no_request_of_a_kept_connection_fails_over_a_stop() {
    let backend = Backend::start("one");
    let mut weir = start_with_drain(&backend);
    let (address, answers) = (weir.address(), Arc::new(AtomicUsize::new(0)));
    let ask = || {
        let answers = Arc::clone(&answers);
        std::thread::spawn(move || ask_until_refused(address, &answers))
    };
    let clients = [ask(), ask(), ask(), ask()];
    eventually(TIMEOUT, "the load is under way", || answers.load(Relaxed) > 200);
    weir.signal("TERM");
    ends_with(&mut weir, 0);
    let asked = clients.map(|client| client.join().expect("no client panics"));
    assert!(asked.iter().all(|asked| asked.failures.is_empty()), "{asked:?}");
    // A client whose connection is closed connects once more. It is refused, or is faster than the close.
    assert!(asked.iter().all(|asked| asked.never_accepted <= 1), "{asked:?}");
    let answered = asked.iter().map(|asked| asked.answers).sum::<usize>();
    assert_eq!(backend.count(), answered, "nothing was done for nothing");
    assert_eq!(weir.access_log().len(), answered, "and no request was aborted");
}
