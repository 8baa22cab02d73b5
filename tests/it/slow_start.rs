//! Slow start: a backend that is new or has recovered gets few requests at first. Counted at the backends.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use crate::support::backend::{Backend, Behaviour};
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// Longer than any test.
const LONG: &str = "slow_start: 1h";

/// One pool with health checks every 200 ms. `more` is further keys of the pool.
fn config(backends: &[Backend], more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    format!(
        "pools: [{{name: web, health_check: {{path: /health, interval: 200ms}}, backends: [{}], {more}}}]",
        urls.join(", ")
    )
}

fn start(count: usize, more: &str) -> (Vec<Backend>, Weir) {
    let backends = Backend::start_many(count);
    backends.iter().for_each(|backend| backend.on("/health", Behaviour::Good));
    let weir = Weir::start(&config(&backends, more));
    (backends, weir)
}

fn weight(weir: &Weir, backend: &Backend) -> f64 {
    let address = backend.address().to_string();
    weir.metrics().sum("lb_backend_weight", &[("backend", &address)])
}

/// The health checks of the first backend fail, and pass again.
fn fails_and_recovers(weir: &Weir, backend: &Backend) {
    let state = || weir.status()["backends"][0]["state"].as_str().unwrap_or_default().to_owned();
    backend.on("/health", Behaviour::status(503));
    eventually(TIMEOUT, "it is unhealthy", || state() == "unhealthy");
    backend.on("/health", Behaviour::Good);
    eventually(TIMEOUT, "it is healthy", || state() == "healthy");
}

/// The backend gets less than a tenth of its share of 150 requests.
fn gets_few(weir: &Weir, backends: &[Backend], starting: usize) {
    backends.iter().for_each(Backend::forget);
    assert!(weir.statuses("GET", 150).iter().all(|status| *status == 200));
    let count = backends[starting].count_of("/");
    let usual = 150 / backends.len();
    assert!(count < usual / 10, "{count} of {usual}");
    assert!(weight(weir, &backends[starting]) < 0.1);
}

#[test]
fn backends_that_start_with_weir_have_their_whole_share() {
    let (backends, weir) = start(3, LONG);
    weir.statuses("GET", 9);
    let counts: Vec<usize> = backends.iter().map(|backend| backend.count_of("/")).collect();
    assert_eq!(counts, [3, 3, 3]);
    assert!(backends.iter().all(|backend| weight(&weir, backend) == 1.0));
}

#[test]
fn a_backend_that_has_recovered_gets_few_requests_under_every_algorithm() {
    for algorithm in ["round_robin", "least_conn", "random"] {
        let (backends, weir) = start(3, &format!("{LONG}, algorithm: {algorithm}"));
        fails_and_recovers(&weir, &backends[0]);
        gets_few(&weir, &backends, 0);
        let status = weir.status();
        assert_eq!(status["backends"][0]["weight"], 1);
        assert!(status["backends"][0]["effective_weight"].as_f64() < Some(0.1));
    }
}

#[test]
fn a_backend_whose_circuit_breaker_has_closed_gets_few_requests() {
    let (backends, weir) = start(3, &format!("{LONG}, breaker: {{open: 50ms}}"));
    backends[0].set(Behaviour::status(500));
    let breaker = || weir.status()["backends"][0]["breaker"].as_str().map(str::to_owned);
    eventually(TIMEOUT, "it is out", || {
        weir.statuses("GET", 3);
        breaker().as_deref() != Some("closed")
    });
    backends[0].set(Behaviour::Good);
    eventually(TIMEOUT, "it is back", || {
        weir.statuses("GET", 1);
        breaker().as_deref() == Some("closed")
    });
    gets_few(&weir, &backends, 0);
}

#[test]
fn it_gets_its_whole_share_in_the_end() {
    let (backends, weir) = start(3, "slow_start: 200ms");
    fails_and_recovers(&weir, &backends[0]);
    eventually(TIMEOUT, "its whole weight", || weight(&weir, &backends[0]) == 1.0);
    backends.iter().for_each(Backend::forget);
    weir.statuses("GET", 30);
    assert_eq!(backends[0].count_of("/"), 10);
}

#[test]
fn a_backend_that_a_reload_adds_gets_few_requests() {
    let (mut backends, weir) = start(2, LONG);
    let third = Backend::start("b3");
    third.on("/health", Behaviour::Good);
    backends.push(third);
    weir.write_config(&config(&backends, LONG));
    weir.reload();
    gets_few(&weir, &backends, 2);
    assert_eq!(weight(&weir, &backends[0]), 1.0);
}

// ── a new worker ──

/// A slow start goes on after `replace`.
fn goes_on(replace: impl FnOnce(&Weir)) {
    let (backends, weir) = start(3, LONG);
    fails_and_recovers(&weir, &backends[0]);
    replace(&weir);
    gets_few(&weir, &backends, 0);
    assert_eq!(weight(&weir, &backends[1]), 1.0);
}

#[test]
fn it_goes_on_over_a_reload() {
    goes_on(Weir::replace_by_reload);
}

#[test]
fn it_goes_on_over_an_upgrade_of_the_supervisor() {
    goes_on(Weir::replace_by_upgrade);
}

#[test]
fn it_goes_on_over_a_crash() {
    goes_on(Weir::replace_by_kill_after_a_checkpoint);
}
