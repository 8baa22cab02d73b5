//! Circuit breakers: which backend gets no requests, and how it comes back. Counted at the backends.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Method;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::{pool, world};
use crate::support::h2::H2Backend;
use crate::support::http2::{Http2, request};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

/// Opened once, it stays open for the rest of the test.
const LONG: &str = "breaker: {open: 1m}";
/// It comes back at once.
const SHORT: &str = "breaker: {open: 50ms}";
/// It comes back soon, and stays half-open for ten times as long also on a busy machine. A trial may
/// take any time.
const PATIENT: &str = "breaker: {open: 2s, slower: off}";

fn failed(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status != 200).count()
}

/// The state of the breaker of a backend.
fn state(weir: &Weir, backend: usize) -> String {
    let status = weir.status();
    status["backends"][backend]["breaker"].as_str().unwrap_or_default().to_owned()
}

fn opened(weir: &Weir, cause: &str) -> f64 {
    weir.metrics().sum("lb_breaker_opened_total", &[("cause", cause)])
}

/// Every second request fails.
fn every_second(broken: Behaviour) -> Behaviour {
    let count = AtomicUsize::new(0);
    Behaviour::By(Arc::new(move |_| match count.fetch_add(1, Relaxed) % 2 {
        0 => broken.clone(),
        _ => Behaviour::Good,
    }))
}

/// The first of three backends fails like this, until its breaker opens for this cause.
fn opens_by(broken: Behaviour, cause: &str) {
    let (backends, weir) = world(3, LONG);
    backends[0].set(broken);
    eventually(TIMEOUT, "it is out", || {
        weir.statuses("GET", 3);
        state(&weir, 0) == "open"
    });
    assert!(opened(&weir, cause) == 1.0, "{cause}: {}", weir.stderr());
    weir.until_said(&format!(
        "breaker opened: pool=web backend={} cause={cause}",
        backends[0].address()
    ));
    backends[0].forget();
    assert_eq!(failed(&weir.statuses("GET", 12)), 0, "{cause}");
    assert_eq!(backends[0].count(), 0, "{cause}: it gets nothing");
}

// ── it opens ──

#[test]
fn a_backend_that_fails_in_a_row_gets_no_requests() {
    opens_by(Behaviour::status(500), "failures");
    opens_by(Behaviour::ResetBeforeAnswer, "failures");
}

#[test]
fn a_backend_that_aborts_its_responses_gets_no_requests() {
    opens_by(Behaviour::ResetMidBody, "failures");
}

#[test]
fn a_backend_that_fails_every_second_request_gets_no_requests() {
    opens_by(every_second(Behaviour::status(500)), "share");
}

#[test]
fn a_refused_connection_takes_a_backend_out_at_once_and_uses_up_no_attempt() {
    let (backends, weir) = world(5, "breaker: {open: 1m}\nretry: {attempts: 2}");
    backends[..3].iter().for_each(Backend::stop);
    assert_eq!(failed(&weir.statuses("POST", 20)), 0, "three refuse, and two attempts are allowed");
    assert_eq!(opened(&weir, "refused"), 3.0);
    assert_eq!(weir.metrics().sum("lb_retries_total", &[]), 3.0, "each was tried once");
}

#[test]
fn a_backend_that_hangs_gets_no_requests() {
    let more = "breaker: {open: 1m}\ntimeouts: {response: 300ms}\nretry: {attempts: 2}";
    let (backends, weir) = world(3, more);
    backends[0].set(Behaviour::NeverAnswer);
    eventually(TIMEOUT, "it is out", || {
        assert_eq!(failed(&weir.statuses("GET", 3)), 0);
        state(&weir, 0) == "open"
    });
    backends[0].forget();
    weir.statuses("GET", 12);
    assert_eq!(backends[0].count(), 0);
    backends[0].release();
}

#[test]
fn a_backend_far_slower_than_the_others_gets_no_requests() {
    let (backends, weir) = world(3, LONG);
    // What is typical has to be known first.
    weir.statuses("GET", 60);
    backends[0].set(Behaviour::slow(Duration::from_millis(400)));
    eventually(TIMEOUT, "it is out", || {
        weir.statuses("GET", 3);
        state(&weir, 0) == "open"
    });
    assert_eq!(opened(&weir, "slow"), 1.0);
    backends[0].forget();
    weir.statuses("GET", 12);
    assert_eq!(backends[0].count(), 0);
}

// ── it does not open ──

#[test]
fn if_all_backends_fail_alike_none_is_taken_out() {
    let (backends, weir) = world(3, LONG);
    backends.iter().for_each(|backend| backend.set(Behaviour::status(500)));
    weir.statuses("GET", 60);
    assert_eq!(weir.metrics().sum("lb_breaker_opened_total", &[]), 0.0, "{}", weir.stderr());
    assert!(backends.iter().all(|backend| backend.count() == 20));
}

#[test]
fn the_last_backend_stays_whatever_it_does() {
    let (backends, weir) = world(2, LONG);
    backends[0].stop();
    backends[1].set(Behaviour::status(500));
    weir.statuses("GET", 20);
    assert_eq!((state(&weir, 0).as_str(), state(&weir, 1).as_str()), ("open", "closed"));
    backends[1].set(Behaviour::Good);
    assert_eq!(failed(&weir.statuses("GET", 6)), 0);
}

#[test]
fn own_rejections_and_clients_that_leave_are_not_the_backends_failures() {
    let (backends, weir) = world(2, LONG);
    backends.iter().for_each(|backend| backend.set(Behaviour::NeverAnswer));
    for count in 1..=8 {
        let mut client = Client::connect(weir.address());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        eventually(TIMEOUT, "it is at a backend", || {
            backends.iter().map(Backend::count).sum::<usize>() == count
        });
        drop(client);
    }
    eventually(TIMEOUT, "all are given up", || {
        backends.iter().all(|backend| backend.in_flight() == 0) || weir.access_log().len() == 8
    });
    assert_eq!(weir.metrics().sum("lb_breaker_opened_total", &[]), 0.0);
    backends.iter().for_each(Backend::release);
}

#[test]
fn in_shadow_mode_it_is_logged_and_counted_and_nothing_is_taken_out() {
    let (backends, weir) = world(3, "breaker: {open: 1m, shadow: true}");
    backends[0].set(Behaviour::status(500));
    let statuses = weir.statuses("POST", 30);
    assert_eq!(failed(&statuses), 10, "its share of them");
    weir.until_said("breaker would open (shadow): pool=web ");
    let counted = weir.metrics().sum("lb_shadow_total", &[("protection", "breaker")]);
    assert_eq!(counted, 1.0);
    assert_eq!(backends[0].count(), 10);
}

#[test]
fn without_a_breaker_there_are_no_series_of_one() {
    let (backends, weir) = world(2, "breaker: off");
    backends[0].set(Behaviour::status(500));
    assert_eq!(failed(&weir.statuses("POST", 20)), 10);
    assert!(!weir.metrics().series().iter().any(|(name, _)| name.starts_with("lb_breaker")));
    assert!(weir.status()["backends"][0]["breaker"].is_null());
}

// ── it comes back ──

#[test]
fn a_repaired_backend_comes_back_by_three_requests_that_can_be_retried() {
    let (backends, weir) = world(3, PATIENT);
    backends[0].set(Behaviour::status(500));
    weir.statuses("GET", 12);
    assert_eq!(opened(&weir, "failures"), 1.0);
    backends[0].set(Behaviour::Good);
    backends[0].forget();
    eventually(TIMEOUT, "its open time is over", || state(&weir, 0) == "half_open");
    assert_eq!(failed(&weir.statuses("POST", 12)), 0);
    assert_eq!(backends[0].count(), 0, "a POST is no trial");
    assert_eq!(failed(&weir.statuses("GET", 3)), 0);
    assert_eq!(backends[0].count(), 3, "each was a trial");
    eventually(TIMEOUT, "it is closed", || state(&weir, 0) == "closed");
    weir.until_said("breaker half-open, trying a request: pool=web ");
    weir.until_said("breaker closed: pool=web ");
    let is_closed = weir.metrics().sum("lb_breaker_state", &[("state", "closed")]);
    assert_eq!(is_closed, 3.0);
}

#[test]
fn a_trial_that_fails_is_retried_elsewhere_and_opens_the_breaker_again() {
    let (backends, weir) = world(3, SHORT);
    backends[0].set(Behaviour::status(500));
    weir.statuses("GET", 12);
    eventually(TIMEOUT, "a trial fails", || {
        assert_eq!(failed(&weir.statuses("GET", 1)), 0);
        opened(&weir, "trial") >= 1.0
    });
}

#[test]
fn a_health_check_that_passes_does_not_bring_a_backend_back() {
    let backends = Backend::start_many(2);
    backends.iter().for_each(|backend| backend.on("/health", Behaviour::Good));
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, breaker: {{open: 1m}}, backends: [{}], \
         health_check: {{path: /health, interval: 20ms}}}}]",
        urls.join(", ")
    ));
    backends[0].set(Behaviour::status(500));
    weir.statuses("GET", 12);
    assert_eq!(state(&weir, 0), "open");
    let checks = backends[0].count_of("/health");
    eventually(TIMEOUT, "ten health checks", || backends[0].count_of("/health") > checks + 10);
    assert_eq!(weir.status()["backends"][0]["state"], "healthy");
    assert_eq!(state(&weir, 0), "open");
    let before = backends[0].count_of("/");
    assert_eq!(failed(&weir.statuses("GET", 6)), 0);
    assert_eq!(backends[0].count_of("/"), before);
}

#[test]
fn a_trial_whose_client_leaves_makes_room_for_the_next() {
    let (backends, weir) = world(3, PATIENT);
    backends[0].set(Behaviour::status(500));
    weir.statuses("GET", 12);
    backends[0].set(Behaviour::NeverAnswer);
    backends[0].forget();
    eventually(TIMEOUT, "its open time is over", || state(&weir, 0) == "half_open");
    for trial in 1..=4 {
        let mut client = Client::connect(weir.address());
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        backends[0].until_count(trial);
        drop(client);
        eventually(TIMEOUT, "the trial is given up", || weir.access_log().len() == 12 + trial);
    }
    backends[0].set(Behaviour::Good);
    backends[0].release();
    assert_eq!(failed(&weir.statuses("GET", 3)), 0);
    eventually(TIMEOUT, "it is back", || {
        weir.statuses("GET", 1);
        state(&weir, 0) == "closed"
    });
}

// ── requests that wait for a silent backend ──

/// A client that has sent a request and not read its response yet.
fn sent(weir: &Weir, method: &str, path: &str) -> Client {
    let mut client = Client::connect(weir.address());
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"));
    client
}

/// What is usual in these tests: long enough that a few requests are sent before a backend counts as
/// silent, also on a busy machine. A backend is silent after twice, a request slow after five times.
const USUAL: Duration = Duration::from_millis(100);

/// Backends whose usual latency is known.
fn with_known_latency(backends: usize, more: &str) -> (Vec<Backend>, Weir) {
    let (backends, weir) = world(backends, more);
    learn_latency(&backends, &weir);
    (backends, weir)
}

fn learn_latency(backends: &[Backend], weir: &Weir) {
    backends.iter().for_each(|backend| backend.set(Behaviour::slow(USUAL)));
    for _ in 0..2 {
        let clients = (0..10 * backends.len()).map(|_| sent(weir, "GET", "/")).collect();
        assert_eq!(failed(&statuses_of(clients)), 0);
    }
    backends.iter().for_each(Backend::forget);
}

/// Five such backends, of which the first falls silent.
fn one_of_five_falls_silent(more: &str) -> (Vec<Backend>, Weir) {
    let (backends, weir) = with_known_latency(5, more);
    backends[0].set(Behaviour::NeverAnswer);
    (backends, weir)
}

/// Sends GETs until the breaker of the first backend has opened. Their responses are not read yet.
fn sent_until_open(weir: &Weir) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..20).map(|_| sent(weir, "GET", "/")).collect();
    eventually(TIMEOUT, "it is out", || {
        clients.push(sent(weir, "GET", "/"));
        state(weir, 0) == "open"
    });
    clients
}

fn statuses_of(clients: Vec<Client>) -> Vec<u16> {
    let read = |mut client: Client| client.read_answer().status();
    clients.into_iter().map(read).collect()
}

#[test]
fn requests_that_wait_for_a_silent_backend_are_served_by_others() {
    let (backends, weir) = one_of_five_falls_silent(LONG);
    let clients = sent_until_open(&weir);
    let caught = backends[0].count();
    assert!(caught >= 3, "{caught}");
    // It never responds, and the response timeout is 30 s.
    assert_eq!(failed(&statuses_of(clients)), 0);
    assert_eq!(backends[0].count(), caught);
    let moved = weir.metrics().sum("lb_retries_total", &[("reason", "moved")]);
    assert_eq!(Ok(caught), format!("{moved}").parse(), "each was moved once");
    weir.until_logged("a request that was moved", |line| {
        line["attempts"][0]["failure"] == "moved" && line["status"] == 200
    });
    assert_eq!(opened(&weir, "slow"), 1.0);
    backends[0].release();
}

#[test]
fn a_post_waits_for_the_silent_backend_that_has_it() {
    let (backends, weir) = one_of_five_falls_silent(LONG);
    let mut posts: Vec<Client> = (0..5).map(|_| sent(&weir, "POST", "/post")).collect();
    let arrived = || backends.iter().map(|backend| backend.count_of("/post")).sum::<usize>();
    eventually(TIMEOUT, "each has one", || arrived() == 5);
    assert_eq!(backends[0].count_of("/post"), 1);
    assert_eq!(failed(&statuses_of(sent_until_open(&weir))), 0);
    eventually(TIMEOUT, "only the POST is left", || backends[0].in_flight() == 1);
    assert_eq!(arrived(), 5, "none was sent twice");
    backends[0].release();
    posts.iter_mut().for_each(|post| assert_eq!(post.read_answer().status(), 200));
    assert_eq!(arrived(), 5);
}

#[test]
fn requests_of_http2_clients_are_moved_too() {
    let backends = Backend::start_many(5);
    let weir = Weir::start(&format!("{LISTENER_KEYS}http2: true\n{}", pool(&backends, LONG)));
    learn_latency(&backends, &weir);
    backends[0].set(Behaviour::NeverAnswer);
    let mut client = Http2::connect(weir.address());
    let mut start = || client.start(request(Method::GET, "/", &[]), false).ok();
    let mut streams: Vec<_> = (0..20).map(|_| start()).collect();
    eventually(TIMEOUT, "it is out", || {
        streams.push(start());
        state(&weir, 0) == "open"
    });
    let caught = backends[0].count();
    for stream in streams {
        let answer = stream.and_then(|stream| stream.answer().ok());
        assert_eq!(answer.map(|answer| answer.status()), Some(200));
    }
    assert!(caught >= 3 && backends[0].count() == caught, "{caught}");
    backends[0].release();
}

#[test]
fn requests_that_wait_for_a_silent_backend_of_http2_are_moved_too() {
    let backends = [H2Backend::start(), H2Backend::start(), H2Backend::start()];
    let urls = backends.each_ref().map(H2Backend::url).join(", ");
    let weir = Weir::start(&format!(
        "pools: [{{name: web, health_check: off, protocol: h2c, {LONG}, backends: [{urls}]}}]"
    ));
    for _ in 0..2 {
        let clients = (0..30).map(|_| sent(&weir, "GET", "/usual")).collect();
        assert_eq!(failed(&statuses_of(clients)), 0);
    }
    let before = backends[0].calls().len();
    backends[0].fall_silent();
    let mut clients: Vec<Client> = (0..20).map(|_| sent(&weir, "GET", "/usual")).collect();
    eventually(TIMEOUT, "it is out", || {
        clients.push(sent(&weir, "GET", "/usual"));
        state(&weir, 0) == "open"
    });
    assert_eq!(failed(&statuses_of(clients)), 0);
    let caught = backends[0].calls().len() - before;
    assert!(caught >= 3, "{caught}");
    eventually(TIMEOUT, "its streams are given up", || backends[0].resets() == caught);
}

#[test]
fn a_trial_of_a_silent_backend_is_moved() {
    let (backends, weir) = with_known_latency(3, SHORT);
    backends[0].set(Behaviour::status(500));
    weir.statuses("GET", 12);
    assert_ne!(state(&weir, 0), "closed");
    backends[0].set(Behaviour::NeverAnswer);
    backends[0].forget();
    eventually(TIMEOUT, "a trial fails", || {
        assert_eq!(failed(&weir.statuses("GET", 1)), 0);
        backends[0].count() >= 2 && opened(&weir, "trial") >= 2.0
    });
    backends[0].release();
}

#[test]
fn without_a_retry_budget_no_request_is_moved_and_none_fails_early() {
    let empty = "breaker: {open: 1s}\nretry: {budget: {share: 0%, floor: 0}}";
    let (backends, weir) = one_of_five_falls_silent(empty);
    let clients = sent_until_open(&weir);
    let caught = backends[0].count();
    // Several times as long as what is slow.
    eventually(TIMEOUT, "its open time is over", || state(&weir, 0) == "half_open");
    assert_eq!((backends[0].in_flight(), backends[0].abandoned()), (caught, 0));
    backends[0].release();
    assert_eq!(failed(&statuses_of(clients)), 0);
    let sum: usize = backends.iter().map(Backend::count).sum();
    assert_eq!(weir.metrics().sum("lb_retries_total", &[]), 0.0, "{sum} requests arrived");
}

#[test]
fn a_slow_request_to_a_backend_whose_breaker_is_closed_is_sent_once() {
    let (backends, weir) = with_known_latency(5, SHORT);
    backends.iter().for_each(|backend| backend.on("/report", Behaviour::NeverAnswer));
    let reports: Vec<Client> = (0..5).map(|_| sent(&weir, "GET", "/report")).collect();
    let arrived = || backends.iter().map(|backend| backend.count_of("/report")).sum::<usize>();
    eventually(TIMEOUT, "all are waiting", || arrived() == 5);
    let until = crate::support::now() + USUAL * 15;
    eventually(TIMEOUT, "they have waited for many times as long as what is slow", || {
        assert_eq!(failed(&weir.statuses("GET", 5)), 0);
        crate::support::now() > until
    });
    assert_eq!(arrived(), 5);
    backends.iter().for_each(Backend::release);
    assert_eq!(failed(&statuses_of(reports)), 0);
    assert_eq!(arrived(), 5);
    assert_eq!(weir.metrics().sum("lb_breaker_opened_total", &[]), 0.0, "{}", weir.stderr());
}

// ── a new worker ──

/// It is open, and stays so after `replace`.
fn stays_open(replace: impl FnOnce(&Weir)) {
    let (backends, weir) = world(3, LONG);
    backends[0].set(Behaviour::status(500));
    weir.statuses("GET", 12);
    assert_eq!(state(&weir, 0), "open");
    replace(&weir);
    backends[0].forget();
    assert_eq!(state(&weir, 0), "open");
    assert_eq!(failed(&weir.statuses("GET", 9)), 0);
    assert_eq!(backends[0].count(), 0);
}

#[test]
fn it_stays_open_over_a_reload() {
    stays_open(Weir::replace_by_reload);
}

#[test]
fn it_stays_open_over_an_upgrade_of_the_supervisor() {
    stays_open(Weir::replace_by_upgrade);
}

#[test]
fn it_stays_open_over_a_crash() {
    stays_open(Weir::replace_by_kill_after_a_checkpoint);
}
