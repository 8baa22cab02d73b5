use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::*;
use crate::exchange::Replay;
use crate::exchange::event::Wire;
use crate::exchange::refusal::Refusal;
use crate::fixture;
use crate::http::label::MethodLabel;
use crate::policy::retry::Failure;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_nanos(5_000_000);
const IDEMPOTENT: Replay = Replay { idempotent: true, answer_started: false, body_whole: true };

struct World {
    registry: Registry,
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    observer: Arc<dyn Observer>,
}

fn world() -> World {
    let registry = Registry::new();
    let snapshot = fixture::web();
    let metrics = Arc::new(Metrics::new(&registry, &snapshot).unwrap());
    let observer: Arc<dyn Observer> = metrics.clone();
    World { registry, snapshot, metrics, observer }
}

impl World {
    fn admitted(&self) -> crate::exchange::Exchange {
        fixture::admitted(&self.snapshot, &self.observer)
    }

    fn answer(&self, status: u16) {
        let mut exchange = self.admitted();
        exchange.pick(NOW, (0, 0)).unwrap();
        exchange.finished(Ending::Answered, Some(&fixture::wire(status)), NOW);
    }

    fn refuse(&self, refusal: Refusal) {
        let wire = fixture::wire(refusal.status());
        self.admitted().finished(Ending::Refused(refusal), Some(&wire), NOW);
    }

    fn text(&self) -> String {
        let families = self.metrics.gather();
        prometheus::TextEncoder::new().encode_to_string(&families).unwrap()
    }

    fn has(&self, line: &str) -> bool {
        self.text().lines().any(|candidate| candidate == line)
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.metrics.gather()
    }
}

#[test]
fn an_answer_is_counted_under_the_backend_that_gave_it() {
    let world = world();
    world.answer(200);
    assert!(
        world.has(
            r#"lb_requests_total{backend="10.0.0.1:3000",method="GET",pool="web",status="200"} 1"#
        ),
        "{}",
        world.text()
    );
}

#[test]
fn a_refusal_before_a_backend_was_tried_has_no_backend() {
    let world = world();
    world.refuse(Refusal::NoBackend);
    assert!(world.has(r#"lb_requests_total{backend="",method="GET",pool="web",status="503"} 1"#));
    assert!(world.has(r#"lb_errors_total{backend="",pool="web",type="no_backend"} 1"#));
}

#[test]
fn an_exchange_that_never_found_a_pool_has_neither() {
    let world = world();
    let mut exchange = crate::exchange::Exchange::new(
        Arc::clone(&world.snapshot),
        Arc::clone(&world.observer),
        Timestamp::ZERO,
    );
    let wire = fixture::wire(404);
    exchange.finished(Ending::Refused(Refusal::NoRoute), Some(&wire), NOW);
    assert!(world.has(r#"lb_requests_total{backend="",method="GET",pool="",status="404"} 1"#));
}

#[test]
fn a_duration_goes_from_the_first_byte_to_the_end() {
    let world = world();
    world.answer(200);
    let sum = r#"lb_request_duration_seconds_sum{backend="10.0.0.1:3000",pool="web"} 0.005"#;
    assert!(world.has(sum), "{}", world.text());
}

#[test]
fn a_failed_attempt_is_an_error_of_its_backend_and_a_retry_of_its_pool() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, (0, 0)).unwrap();
    assert!(exchange.failed(Failure::Connect, "refused", IDEMPOTENT, NOW));
    exchange.pick(NOW, (0, 0)).unwrap();
    exchange.finished(Ending::Answered, Some(&fixture::wire(200)), NOW);
    assert!(world.has(r#"lb_errors_total{backend="10.0.0.1:3000",pool="web",type="connect"} 1"#));
    assert!(world.has(r#"lb_retries_total{pool="web",reason="connect"} 1"#));
    assert_eq!(world.metrics.totals().retries, 1);
}

#[test]
fn a_failed_attempt_that_nothing_follows_is_no_retry() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, (0, 0)).unwrap();
    let started = Replay { answer_started: true, ..IDEMPOTENT };
    assert!(!exchange.failed(Failure::Reset, "reset", started, NOW));
    assert!(world.has(r#"lb_errors_total{backend="10.0.0.1:3000",pool="web",type="reset"} 1"#));
    assert_eq!(world.metrics.totals().retries, 0);
}

#[test]
fn only_a_new_connection_is_timed() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(Timestamp::ZERO, (0, 0)).unwrap();
    assert!(world.has("lb_upstream_connect_seconds_count 0"));
    exchange.connected(true, NOW);
    assert!(world.has("lb_upstream_connect_seconds_count 0"));
    exchange.connected(false, NOW);
    assert!(world.has("lb_upstream_connect_seconds_count 1"));
    assert!(world.has("lb_upstream_connect_seconds_sum 0.005"));
}

#[test]
fn a_rate_limited_request_is_counted_by_the_limit_that_was_hit() {
    let world = world();
    world.metrics.observe(&Event::RateLimited(Scope::Route));
    assert!(world.has(r#"lb_rate_limited_requests_total{scope="route"} 1"#));
    assert!(world.has(r#"lb_rate_limited_requests_total{scope="global"} 0"#));
    assert_eq!(world.metrics.totals().rate_limited, 1);
}

#[test]
fn an_answer_below_500_is_a_success_and_one_from_500_a_failure() {
    let world = world();
    world.answer(200);
    world.answer(404);
    world.answer(500);
    let totals = world.metrics.totals();
    assert_eq!((totals.requests, totals.success, totals.failed), (3, 2, 1));
}

#[test]
fn what_a_client_brought_on_itself_is_neither_success_nor_failure() {
    let world = world();
    world.refuse(Refusal::NoRoute);
    world.refuse(Refusal::RateLimited(Scope::Global, Duration::from_secs(1)));
    let mut exchange = world.admitted();
    exchange.pick(NOW, (0, 0)).unwrap();
    exchange.finished(Ending::ClientClosed, Some(&fixture::wire(499)), NOW);
    let totals = world.metrics.totals();
    assert_eq!((totals.requests, totals.success, totals.failed), (3, 0, 0));
}

#[test]
fn our_own_refusal_a_cut_answer_and_an_abandoned_exchange_are_failures() {
    let world = world();
    world.refuse(Refusal::ConnectFailed);
    world.admitted().finished(Ending::Cut, Some(&fixture::wire(200)), NOW);
    drop(world.admitted());
    assert_eq!(world.metrics.totals().failed, 3);
    assert!(world.has(r#"lb_errors_total{backend="",pool="web",type="response_cut"} 1"#));
    assert!(world.has(r#"lb_errors_total{backend="",pool="web",type="dropped"} 1"#));
}

#[test]
fn the_average_latency_is_that_of_what_went_over_the_wire() {
    let world = world();
    assert_eq!(world.metrics.totals().latency_seconds, 0.0);
    world.answer(200);
    world.admitted().finished(
        Ending::Answered,
        Some(&fixture::wire(200)),
        Timestamp::from_nanos(15_000_000),
    );
    drop(world.admitted());
    let seconds = world.metrics.totals().latency_seconds;
    assert!((seconds - 0.010).abs() < 1e-9, "{seconds}");
}

#[test]
fn health_and_leases_are_read_from_the_snapshot_at_a_scrape() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, (0, 0)).unwrap();
    world.metrics.refresh(&world.snapshot);
    assert!(world.has(r#"lb_active_connections{backend="10.0.0.1:3000",pool="web"} 1"#));
    assert!(world.has(r#"lb_backend_up{backend="10.0.0.2:3000",pool="web"} 1"#));
    assert!(world.has(r#"lb_healthy_backends{pool="web"} 2"#));
}

#[test]
fn the_handles_given_out_count_into_the_exposition() {
    let world = world();
    world.metrics.downstream_connections().inc();
    world.metrics.panics().inc();
    world.metrics.access_log_dropped().inc_by(3);
    world.metrics.config_loaded(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    assert!(world.has("lb_downstream_connections 1"));
    assert!(world.has("lb_panics_total 1"));
    assert!(world.has("lb_access_log_dropped_total 3"));
    assert!(world.has("lb_config_reload_success 1"));
    assert!(world.has("lb_config_last_reload_timestamp_seconds 1700000000"));
    world.metrics.config_refused();
    assert!(world.has("lb_config_reload_success 0"));
}

#[test]
fn a_client_or_a_backend_cannot_invent_a_label() {
    let world = world();
    let hostile = Wire {
        method_label: MethodLabel::from(&::http::Method::from_bytes(b"EVIL-METHOD").unwrap()),
        method: "EVIL-METHOD",
        scheme: "http",
        host: "evil.example",
        path: "/evil",
        query: Some("evil=1"),
        protocol: "HTTP/1.1",
        user_agent: Some("evil agent"),
        request_id: "evil-id",
        status: 299,
        bytes_in: 0,
        bytes_out: 0,
    };
    let mut exchange = world.admitted();
    exchange.pick(NOW, (0, 0)).unwrap();
    exchange.failed(Failure::Status(599), "evil reason", IDEMPOTENT, NOW);
    exchange.pick(NOW, (0, 0)).unwrap();
    exchange.finished(Ending::Answered, Some(&hostile), NOW);
    drop(exchange);
    let values: BTreeSet<String> = world
        .families()
        .iter()
        .filter(|family| family.name() == "lb_requests_total")
        .flat_map(|family| family.get_metric().to_vec())
        .flat_map(|metric| metric.get_label().to_vec())
        .map(|label| label.value().to_owned())
        .collect();
    let expected = ["10.0.0.2:3000", "2xx", "OTHER", "web"].map(String::from);
    assert_eq!(values, BTreeSet::from(expected));
    let text = world.text();
    assert!(!text.to_lowercase().contains("evil"), "{text}");
    assert!(!text.contains("599"), "{text}");
}

#[test]
fn every_name_has_the_prefix_and_every_counter_ends_in_total() {
    let world = world();
    world.answer(200);
    world.metrics.observe(&Event::RateLimited(Scope::Pool));
    for family in world.families() {
        let name = family.name();
        assert!(name.starts_with("lb_") || name.starts_with("process_"), "{name}");
        let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
        assert_eq!(counter, name.ends_with("_total"), "{name}");
        assert!(!family.help().is_empty(), "{name}");
    }
}

#[test]
fn two_balancers_cannot_share_a_registry() {
    let world = world();
    assert!(Metrics::new(&world.registry, &world.snapshot).is_err());
}

#[test]
fn every_kind_of_error_has_its_own_place() {
    let kinds = [
        ErrorKind::Connect,
        ErrorKind::Reset,
        ErrorKind::Timeout,
        ErrorKind::Status,
        ErrorKind::NoBackend,
        ErrorKind::RequestTimeout,
        ErrorKind::InvalidResponse,
        ErrorKind::ResponseCut,
        ErrorKind::Internal,
        ErrorKind::Dropped,
        ErrorKind::TooManyConnections,
    ];
    let places: BTreeSet<usize> = kinds.iter().map(|kind| kind.index()).collect();
    assert_eq!(places.len(), ErrorKind::COUNT);
    assert!(places.iter().all(|place| *place < ErrorKind::COUNT));
}
