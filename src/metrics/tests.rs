use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use prometheus::proto::{MetricFamily, MetricType};

use super::counts::Sums;
use super::*;
use crate::exchange::event::{ExchangeEvent, Observer, Wire};

use crate::exchange::refusal::{Abort, Refusal, Scope};
use crate::exchange::{Replay, Rolls};
use crate::fixture;
use crate::http::metric_label::MethodLabel;
use crate::policy::retry::AttemptFailure;
use crate::runtime::ids::{BackendId, PoolId};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_nanos(5_000_000);
const IDEMPOTENT: Replay =
    Replay { idempotent: true, response_started: false, body_whole: true, half_closed: false };

struct World {
    registry: Registry,
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    observer: Arc<dyn Observer>,
}

fn world() -> World {
    world_of(fixture::web())
}

fn world_of(snapshot: Arc<Snapshot>) -> World {
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry, &snapshot).unwrap());
    let observer: Arc<dyn Observer> = Arc::new(SnapshotMetrics::new(&metrics));
    World { registry, snapshot, metrics, observer }
}

impl World {
    fn admitted(&self) -> crate::exchange::Exchange {
        fixture::admitted(&self.snapshot, &self.observer)
    }

    fn respond(&self, status: u16) {
        let mut exchange = self.admitted();
        exchange.pick(NOW, Rolls::default()).unwrap();
        exchange.finished(Outcome::Completed, Some(&fixture::wire(status)), NOW);
    }

    fn refuse(&self, refusal: Refusal) {
        let wire = fixture::wire(refusal.status());
        self.admitted().finished(Outcome::Refused(refusal), Some(&wire), NOW);
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
fn a_response_is_counted_for_its_backend() {
    let world = world();
    world.respond(200);
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
    exchange.finished(Outcome::Refused(Refusal::NoRoute), Some(&wire), NOW);
    assert!(world.has(r#"lb_requests_total{backend="",method="GET",pool="",status="404"} 1"#));
}

#[test]
fn a_duration_goes_from_the_first_byte_to_the_end() {
    let world = world();
    world.respond(200);
    let sum = r#"lb_request_duration_seconds_sum{backend="10.0.0.1:3000",pool="web"} 0.005"#;
    assert!(world.has(sum), "{}", world.text());
}

#[test]
fn a_failed_attempt_is_an_error_of_its_backend_and_a_retry_of_its_pool() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, Rolls::default()).unwrap();
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", IDEMPOTENT, NOW));
    exchange.pick(NOW, Rolls::default()).unwrap();
    exchange.finished(Outcome::Completed, Some(&fixture::wire(200)), NOW);
    assert!(world.has(r#"lb_errors_total{backend="10.0.0.1:3000",pool="web",type="connect"} 1"#));
    assert!(world.has(r#"lb_retries_total{pool="web",reason="connect"} 1"#));
    assert_eq!(world.metrics.totals().retries, 1);
}

#[test]
fn a_failed_attempt_without_another_is_not_a_retry() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, Rolls::default()).unwrap();
    let started = Replay { response_started: true, ..IDEMPOTENT };
    assert!(!exchange.attempt_failed(AttemptFailure::Reset, "reset", started, NOW));
    assert!(world.has(r#"lb_errors_total{backend="10.0.0.1:3000",pool="web",type="reset"} 1"#));
    assert_eq!(world.metrics.totals().retries, 0);
}

#[test]
fn only_a_new_connection_is_timed() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
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
    world.observer.observe(&ExchangeEvent::RateLimited(Scope::Route));
    assert!(world.has(r#"lb_rate_limited_requests_total{scope="route"} 1"#));
    assert!(world.has(r#"lb_rate_limited_requests_total{scope="global"} 0"#));
    assert_eq!(world.metrics.totals().rate_limited, 1);
}

#[test]
fn a_response_below_500_is_a_success_and_one_from_500_a_failure() {
    let world = world();
    world.respond(200);
    world.respond(404);
    world.respond(500);
    let totals = world.metrics.totals();
    assert_eq!((totals.requests, totals.success, totals.failed), (3, 2, 1));
}

#[test]
fn a_client_error_is_neither_success_nor_failure() {
    let world = world();
    world.refuse(Refusal::NoRoute);
    world.refuse(Refusal::RateLimited(Scope::Global, Duration::from_secs(1)));
    let mut exchange = world.admitted();
    exchange.pick(NOW, Rolls::default()).unwrap();
    exchange.finished(Outcome::ClientAborted, Some(&fixture::wire(499)), NOW);
    let totals = world.metrics.totals();
    assert_eq!((totals.requests, totals.success, totals.failed), (3, 0, 0));
}

#[test]
fn an_own_5xx_an_aborted_response_and_an_abandoned_exchange_are_failures() {
    let world = world();
    world.refuse(Refusal::ConnectFailed);
    world.admitted().finished(Outcome::UpstreamAborted, Some(&fixture::wire(200)), NOW);
    drop(world.admitted());
    assert_eq!(world.metrics.totals().failed, 3);
    assert!(world.has(r#"lb_errors_total{backend="",pool="web",type="upstream_aborted"} 1"#));
    assert!(world.has(r#"lb_errors_total{backend="",pool="web",type="abandoned"} 1"#));
}

#[test]
fn the_average_latency_is_that_of_all_exchanges() {
    let world = world();
    assert_eq!(world.metrics.totals().latency_seconds, 0.0);
    world.respond(200);
    world.admitted().finished(
        Outcome::Completed,
        Some(&fixture::wire(200)),
        Timestamp::from_nanos(15_000_000),
    );
    let abort = Outcome::Aborted(Abort::DrainTimeout);
    world.admitted().finished(abort, None, Timestamp::from_nanos(25_000_000));
    let seconds = world.metrics.totals().latency_seconds;
    assert!((seconds - 0.015).abs() < 1e-9, "{seconds}");
    assert!(world.has(r#"lb_requests_total{backend="",method="OTHER",pool="web",status="0"} 1"#));
    assert!(world.has(r#"lb_errors_total{backend="",pool="web",type="drain_timeout"} 1"#));
}

#[test]
fn health_and_leases_are_read_from_the_snapshot_at_a_scrape() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, Rolls::default()).unwrap();
    world.metrics.refresh(&world.snapshot, NOW);
    assert!(world.has(r#"lb_backend_in_flight_requests{backend="10.0.0.1:3000",pool="web"} 1"#));
    assert!(world.has(r#"lb_backend_up{backend="10.0.0.2:3000",pool="web"} 1"#));
    assert!(world.has(r#"lb_healthy_backends{pool="web"} 2"#));
}

#[test]
fn a_renamed_metric_has_the_same_value_under_its_old_name() {
    let world = world();
    world.metrics.connections().certificate_unavailable.with_label_values(&["a.crt"]).set(1);
    let mut exchange = world.admitted();
    exchange.pick(NOW, Rolls::default()).unwrap();
    world.metrics.refresh(&world.snapshot, NOW);
    for line in [
        r#"lb_backend_in_flight_requests{backend="10.0.0.1:3000",pool="web"} 1"#,
        r#"lb_active_connections{backend="10.0.0.1:3000",pool="web"} 1"#,
        r#"lb_certificate_unavailable{certificate="a.crt"} 1"#,
        r#"lb_certificate_missing{certificate="a.crt"} 1"#,
        "# TYPE lb_active_connections gauge",
        "# HELP lb_active_connections Deprecated, will be removed: \
         use lb_backend_in_flight_requests.",
    ] {
        assert!(world.has(line), "{line} is not in\n{}", world.text());
    }
}

#[test]
fn the_handles_given_out_count_into_the_exposition() {
    let world = world();
    world.metrics.connections().open.inc();
    world.metrics.panics().inc();
    world.metrics.access_log_dropped().inc_by(3);
    world.metrics.config_loaded(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    assert!(world.has("lb_downstream_connections 1"));
    assert!(world.has("lb_panics_total 1"));
    assert!(world.has("lb_access_log_dropped_total 3"));
    assert!(world.has("lb_config_reload_success 1"));
    assert!(world.has("lb_config_last_reload_timestamp_seconds 1700000000"));
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
    exchange.pick(NOW, Rolls::default()).unwrap();
    exchange.attempt_failed(AttemptFailure::Status(599), "evil reason", IDEMPOTENT, NOW);
    exchange.pick(NOW, Rolls::default()).unwrap();
    exchange.finished(Outcome::Completed, Some(&hostile), NOW);
    drop(exchange);
    let values: BTreeSet<String> = world
        .families()
        .iter()
        .filter(|family| family.name() == "lb_requests_total")
        .flat_map(|family| family.get_metric().to_vec())
        .filter(|metric| metric.get_counter().get_value() > 0.0)
        .flat_map(|metric| metric.get_label().to_vec())
        .map(|label| label.value().to_owned())
        .collect();
    let expected = ["10.0.0.2:3000", "2xx", "OTHER", "web"].map(String::from);
    assert_eq!(values, BTreeSet::from(expected));
    let text = world.text();
    assert!(!text.to_lowercase().contains("evil"), "{text}");
    // The process collector has values of its own.
    let ours = text.lines().filter(|line| !line.contains("process_"));
    assert!(ours.into_iter().all(|line| !line.contains("599")), "{text}");
}

#[test]
fn likely_series_exist_at_0_from_the_start() {
    let world = world();
    for line in [
        r#"lb_requests_total{backend="10.0.0.1:3000",method="GET",pool="web",status="200"} 0"#,
        r#"lb_requests_total{backend="10.0.0.2:3000",method="POST",pool="web",status="502"} 0"#,
        r#"lb_requests_total{backend="",method="GET",pool="web",status="503"} 0"#,
        r#"lb_requests_total{backend="",method="GET",pool="",status="404"} 0"#,
        r#"lb_errors_total{backend="10.0.0.1:3000",pool="web",type="connect"} 0"#,
        r#"lb_errors_total{backend="",pool="web",type="no_backend"} 0"#,
        r#"lb_retries_total{pool="web",reason="reset"} 0"#,
        r#"lb_certificate_renewals_total{outcome="done"} 0"#,
        r#"lb_certificate_renewals_total{outcome="failed"} 0"#,
    ] {
        assert!(world.has(line), "{line} is not in\n{}", world.text());
    }
    assert!(!world.text().contains(r#"type="tls""#), "no backend uses TLS here");
    let of = |backend: &str| {
        let text = world.text();
        let is_it = |line: &&str| line.contains(backend) && !line.contains("duration_seconds");
        text.lines().filter(is_it).count()
    };
    assert_eq!(of("10.0.0.1:3000"), 25, "four gauges, ten statuses and eleven errors");
}

#[test]
fn with_very_many_backends_no_series_exists_at_0() {
    let addresses: Vec<_> =
        (1..=1001).map(|port| fixture::address(&format!("10.0.0.1:{port}"))).collect();
    let world = world_of(Arc::new(fixture::snapshot(vec![fixture::pool("web", &addresses, None)])));
    let text = world.text();
    assert_eq!(text.matches(r#"method="GET",pool="web",status="#).count(), 2, "of the pool alone");
    assert!(text.contains(r#"lb_retries_total{pool="web",reason="connect"} 0"#));
}

#[test]
fn every_name_has_the_prefix_and_every_counter_ends_in_total() {
    let world = world();
    world.respond(200);
    world.observer.observe(&ExchangeEvent::RateLimited(Scope::Pool));
    world.metrics.set_supervisor_stats(&supervision());
    for family in world.families() {
        let name = family.name();
        assert!(name.starts_with("lb_") || name.starts_with("process_"), "{name}");
        let counter = family.get_field_type() == MetricType::COUNTER;
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
fn every_kind_of_error_has_its_own_index() {
    let places: BTreeSet<usize> = error_kinds().iter().map(|kind| kind.index()).collect();
    assert_eq!(places.len(), ErrorKind::COUNT);
    assert!(places.iter().all(|place| *place < ErrorKind::COUNT));
}

/// All kinds.
fn error_kinds() -> Vec<ErrorKind> {
    let kinds = [
        ErrorKind::Connect,
        ErrorKind::Tls,
        ErrorKind::Certificate,
        ErrorKind::Refused,
        ErrorKind::Reset,
        ErrorKind::Timeout,
        ErrorKind::Moved,
        ErrorKind::Status,
        ErrorKind::NoBackend,
        ErrorKind::RequestTimeout,
        ErrorKind::InvalidResponse,
        ErrorKind::UpstreamAborted,
        ErrorKind::Internal,
        ErrorKind::Abandoned,
        ErrorKind::Overload,
        ErrorKind::BadRequest,
        ErrorKind::TooLarge,
        ErrorKind::ClientTimeout,
        ErrorKind::ClientWriteTimeout,
    ];
    kinds.into_iter().chain(Abort::ALL.map(ErrorKind::Aborted)).collect()
}

/// The words in backticks between two texts of docs/OPERATIONS.md.
fn documented(from: &str, to: &str) -> BTreeSet<String> {
    let page = include_str!("../../docs/OPERATIONS.md");
    let (_, rest) = page.split_once(from).expect(from);
    let (text, _) = rest.split_once(to).expect(to);
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn labels<'a>(kinds: impl IntoIterator<Item = &'a ErrorKind>) -> BTreeSet<String> {
    kinds.into_iter().map(|kind| kind.as_str().to_owned()).collect()
}

#[test]
fn the_manual_lists_exactly_the_types_of_errors() {
    let row = documented("| `lb_errors_total{pool,backend,type}` |", " |\n");
    assert_eq!(row, labels(&error_kinds()));
}

#[test]
fn the_manual_lists_the_errors_whose_series_exist_from_the_start() {
    let listed = documented("- `lb_errors_total`: ", ";\n- ");
    let of_backend = ErrorKind::OF_BACKEND.iter().chain(&ErrorKind::OF_TLS);
    let others = ErrorKind::OF_POOL.iter().chain(&ErrorKind::OF_NO_POOL);
    assert_eq!(listed, labels(of_backend.chain(others)));
}

/// A worker with another configuration: two pools with different backends.
fn changed() -> World {
    let backend = |name, address| fixture::pool(name, &[fixture::address(address)], None);
    let pools = vec![backend("web", "10.0.0.2:3000"), backend("new", "10.0.0.1:3000")];
    world_of(Arc::new(fixture::snapshot(pools)))
}

impl World {
    /// Inherits the counts of `other`, serialized as between two processes.
    fn inherit(&self, other: &Counts) {
        let text = serde_json::to_string(other).unwrap();
        let read: Counts = serde_json::from_str(&text).unwrap();
        assert_eq!(&read, other);
        self.metrics.import(&read, &self.snapshot);
    }

    fn counts(&self) -> Counts {
        self.metrics.export(&self.snapshot)
    }

    /// Increments every counter once.
    fn count_everything(&self) {
        self.respond(200);
        self.respond(500);
        self.refuse(Refusal::NoBackend);
        let mut exchange = self.admitted();
        exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
        exchange.connected(false, Timestamp::from_nanos(100_000_003));
        assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", IDEMPOTENT, NOW));
        exchange.pick(NOW, Rolls::default()).unwrap();
        let late = Timestamp::from_nanos(777_777_777);
        exchange.finished(Outcome::Completed, Some(&fixture::wire(200)), late);
        for scope in Scope::ALL {
            self.observer.observe(&ExchangeEvent::RateLimited(scope));
        }
        self.observer.observe(&ExchangeEvent::Shed);
        self.observer.observe(&ExchangeEvent::Upgraded { pool: PoolId::new(0) });
        self.metrics.panics().inc();
        self.metrics.access_log_dropped().inc_by(3);
        self.metrics.connections().stalled_ended.inc();
        self.metrics.connections().certificate_renewals.with_label_values(&["done"]).inc();
    }

    /// Every counter and histogram except those of the process, which change by themselves.
    fn counted(&self) -> Vec<MetricFamily> {
        let mut families = self.families();
        families.retain(|family| {
            family.get_field_type() != MetricType::GAUGE && !family.name().starts_with("process_")
        });
        families
    }

    /// The number of lines of this metric, and their sum.
    fn sum(&self, metric: &str) -> f64 {
        let text = self.text();
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

#[test]
fn every_counter_and_histogram_is_inherited_unchanged() {
    let (old, new) = (world(), world());
    old.count_everything();
    for family in old.counted() {
        let seen = family.get_metric().iter().any(|metric| {
            metric.get_counter().get_value() > 0.0 || metric.get_histogram().get_sample_count() > 0
        });
        assert!(seen, "nothing was counted, so nothing is shown: {}", family.name());
    }
    new.inherit(&old.counts());
    assert_eq!(new.counted(), old.counted());
    assert_eq!(new.metrics.totals(), old.metrics.totals());
}

#[test]
fn an_unknown_metric_is_inherited_as_well() {
    let (old, new) = (world(), world());
    for (world, count) in [(&old, 7), (&new, 1)] {
        let later = IntCounterVec::new(Opts::new("lb_later_total", "Added later."), &["of"]);
        let later = register(&world.registry, later.unwrap()).unwrap();
        later.with_label_values(&["a"]).inc_by(count);
        let options = HistogramOpts::new("lb_later_seconds", "Added later.");
        let later = Histogram::with_opts(options.buckets(vec![1.0, 2.0])).unwrap();
        register(&world.registry, later).unwrap().observe(1.5);
    }
    new.inherit(&old.counts());
    assert!(new.has(r#"lb_later_total{of="a"} 8"#), "{}", new.text());
    assert!(new.has(r#"lb_later_seconds_bucket{le="1"} 0"#), "{}", new.text());
    assert!(new.has(r#"lb_later_seconds_bucket{le="2"} 2"#), "{}", new.text());
    assert!(new.has("lb_later_seconds_sum 3"), "{}", new.text());
}

#[test]
fn a_metric_that_only_an_older_version_had_is_shown_as_it_was() {
    let (old, new) = (world(), world());
    let options = HistogramOpts::new("lb_former_seconds", "Was there before.");
    let former = Histogram::with_opts(options.buckets(vec![1.0])).unwrap();
    register(&old.registry, former).unwrap().observe(0.5);
    new.inherit(&old.counts());
    assert_eq!(new.counted(), old.counted());
}

#[test]
fn own_and_inherited_add_up() {
    let (old, new) = (world(), world());
    old.count_everything();
    new.count_everything();
    new.inherit(&old.counts());
    let (one, both) = (old.metrics.totals(), new.metrics.totals());
    assert_eq!(both.requests, 2 * one.requests);
    assert_eq!(both.success, 2 * one.success);
    assert_eq!(both.failed, 2 * one.failed);
    assert_eq!(both.retries, 2 * one.retries);
    assert_eq!(both.rate_limited, 2 * one.rate_limited);
    assert!((both.latency_seconds - one.latency_seconds).abs() < 1e-9);
    for name in ["lb_requests_total", "lb_errors_total", "lb_request_duration_seconds_bucket"] {
        assert_eq!(new.sum(name), 2.0 * old.sum(name), "{name}");
    }
}

#[test]
fn the_counts_of_a_draining_worker_are_added_once() {
    let (old, new) = (world(), world());
    old.count_everything();
    let mut reported = old.counts();
    new.inherit(&reported);
    for _ in 0..3 {
        old.count_everything();
        let now = old.counts();
        new.inherit(&now.since(&reported));
        reported = now;
    }
    new.inherit(&old.counts().since(&reported));
    assert_eq!(new.metrics.totals().requests, 16);
    assert_eq!(new.sum("lb_requests_total"), 16.0);
    assert_eq!(new.sum("lb_request_duration_seconds_count"), 16.0);
    assert_eq!(
        new.sum("lb_request_duration_seconds_bucket"),
        old.sum("lb_request_duration_seconds_bucket")
    );
    let of_backends = |world: &World| {
        let members = world.snapshot.pools[0].members.iter();
        members.map(|one| (one.backend.attempts(), one.backend.failures())).collect::<Vec<_>>()
    };
    assert_eq!(of_backends(&new), of_backends(&old));
}

#[test]
fn inherited_counts_are_passed_on() {
    let (first, second, third) = (world(), world(), world());
    first.count_everything();
    second.inherit(&first.counts());
    second.count_everything();
    third.inherit(&second.counts());
    assert_eq!(third.counted(), second.counted());
    assert_eq!(third.metrics.totals(), second.metrics.totals());
    assert_eq!(third.sum("lb_requests_total"), 8.0);
}

#[test]
fn without_new_counts_the_message_is_small() {
    let world = world();
    world.count_everything();
    let before = world.counts();
    let new = world.counts().since(&before);
    assert!(serde_json::to_string(&new).unwrap().len() < 1000, "{new:?}");
    assert_eq!(world.counts().since(&Counts::default()).sums, before.sums);
}

#[test]
fn a_sum_is_exactly_equal_after_the_transfer() {
    let (old, new) = (world(), world());
    for nanos in 1..2000_u64 {
        let mut exchange = old.admitted();
        exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
        exchange.connected(false, Timestamp::from_nanos(nanos * 1_000_003 / 7));
    }
    new.inherit(&old.counts());
    let sum = |world: &World| {
        let families = world.families();
        let connect = families.iter().find(|one| one.name() == "lb_upstream_connect_seconds");
        connect.unwrap().get_metric()[0].get_histogram().get_sample_sum()
    };
    assert_eq!(sum(&new).to_bits(), sum(&old).to_bits());
}

#[test]
fn series_of_removed_backends_are_dropped_but_stay_in_the_totals() {
    let (old, new) = (world(), changed());
    old.respond(200);
    old.respond(200);
    old.refuse(Refusal::NoBackend);
    new.inherit(&old.counts());
    let text = new.text();
    assert!(!text.contains(r#"backend="10.0.0.1:3000",method="GET",pool="web""#), "{text}");
    assert!(new.has(
        r#"lb_requests_total{backend="10.0.0.2:3000",method="GET",pool="web",status="200"} 1"#
    ));
    assert!(new.has(r#"lb_requests_total{backend="",method="GET",pool="web",status="503"} 1"#));
    assert_eq!(new.metrics.totals().requests, 3);
    assert_eq!(new.snapshot.pools[0].members[0].backend.attempts(), 1);
    assert_eq!(new.snapshot.pools[1].members[0].backend.attempts(), 0, "of another pool");
}

#[test]
fn series_without_a_pool_are_kept() {
    let (old, new) = (world(), changed());
    old.metrics.panics().inc();
    old.observer.observe(&ExchangeEvent::RateLimited(Scope::Global));
    let mut exchange = crate::exchange::Exchange::new(
        Arc::clone(&old.snapshot),
        Arc::clone(&old.observer),
        Timestamp::ZERO,
    );
    exchange.finished(Outcome::Refused(Refusal::NoRoute), Some(&fixture::wire(404)), NOW);
    new.inherit(&old.counts());
    assert!(new.has(r#"lb_requests_total{backend="",method="GET",pool="",status="404"} 1"#));
    assert!(new.has(r#"lb_rate_limited_requests_total{scope="global"} 1"#));
    assert!(new.has("lb_panics_total 1"));
}

#[test]
fn a_histogram_with_other_buckets_keeps_its_count_and_its_sum() {
    let (other, new) = (Registry::new(), world());
    let options = HistogramOpts::new("lb_upstream_connect_seconds", "With other buckets.");
    let histogram = Histogram::with_opts(options.buckets(vec![0.2, 1.0, 2.0])).unwrap();
    let histogram = register(&other, histogram).unwrap();
    [0.1, 0.5, 1.5, 9.0].into_iter().for_each(|seconds| histogram.observe(seconds));
    new.inherit(&Counts::of(&other.gather(), Sums::default()));
    let buckets = |counts: &[(&str, u64)], count, sum| {
        for (le, count) in counts {
            let line = format!("lb_upstream_connect_seconds_bucket{{le=\"{le}\"}} {count}");
            assert!(new.has(&line), "{line} is not in\n{}", new.text());
        }
        assert!(new.has(&format!("lb_upstream_connect_seconds_count {count}")), "{}", new.text());
        assert!(new.has(&format!("lb_upstream_connect_seconds_sum {sum}")), "{}", new.text());
        assert!(!new.text().contains(r#"lb_upstream_connect_seconds_bucket{le="2"}"#));
    };
    buckets(&[("0.05", 0), ("0.25", 1), ("1", 2), ("3", 3), ("+Inf", 4)], 4, "11.1");
    let old = world();
    let (pool, backend) = (PoolId::new(0), BackendId::new(0));
    old.observer.observe(&ExchangeEvent::Connected { pool, backend, took: Duration::from_secs(1) });
    new.inherit(&old.counts());
    buckets(&[("0.05", 0), ("0.25", 1), ("1", 3), ("3", 4), ("+Inf", 5)], 5, "12.1");
}

#[test]
fn inherited_series_stand_in_the_order_of_their_labels() {
    let (old, new, both) = (world(), world(), world());
    for world in [&old, &both] {
        world.respond(200);
        world.respond(404);
    }
    for world in [&new, &both] {
        world.respond(301);
        world.respond(301);
    }
    new.inherit(&old.counts());
    let requests = |world: &World| {
        let families = world.counted().into_iter();
        families.filter(|one| one.name() == "lb_requests_total").collect::<Vec<_>>()
    };
    assert_eq!(requests(&new), requests(&both));
}

#[test]
fn a_counter_that_has_become_a_gauge_is_not_inherited() {
    let (other, new) = (Registry::new(), world());
    let named = ("lb_downstream_connections", "As a counter.");
    counters(&other, named, &["of"]).unwrap().with_label_values(&["a"]).inc();
    new.inherit(&Counts::of(&other.gather(), Sums::default()));
    assert!(new.has("lb_downstream_connections 0"), "{}", new.text());
    assert_eq!(new.text().matches("\nlb_downstream_connections").count(), 1);
}

#[test]
fn gauges_are_not_inherited() {
    let (old, new) = (world(), world());
    new.metrics.config_loaded(UNIX_EPOCH);
    old.metrics.connections().open.set(5);
    old.metrics.set_supervisor_stats(&supervision());
    old.metrics.refresh(&old.snapshot, NOW);
    new.inherit(&old.counts());
    assert!(new.has("lb_downstream_connections 0"), "{}", new.text());
    assert!(new.has("lb_config_reload_success 1"), "{}", new.text());
    assert!(new.has("lb_healthy_backends{pool=\"web\"} 0"), "{}", new.text());
}

fn supervision() -> SupervisorStats {
    SupervisorStats {
        generation: 4,
        reloads_done: 2,
        reloads_refused: 3,
        upgrades_done: 5,
        upgrades_refused: 6,
        restarts: 1,
        hangs: 8,
        draining_workers: 2,
        draining_connections: 77,
        log_dropped: 8,
        draining_requests: Vec::new(),
        last_reload_ok: false,
        last_reload_at: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        uptime: Duration::ZERO,
        hang_timeout: None,
    }
}

#[test]
fn the_supervisors_metrics_are_exposed() {
    let world = world();
    assert!(!world.text().contains("lb_worker_generation"), "{}", world.text());
    world.metrics.set_supervisor_stats(&supervision());
    assert!(world.has("lb_worker_generation 4"), "{}", world.text());
    assert!(world.has(r#"lb_config_reloads_total{outcome="done"} 2"#));
    assert!(world.has(r#"lb_config_reloads_total{outcome="rejected"} 3"#));
    assert!(world.has(r#"lb_supervisor_upgrades_total{outcome="done"} 5"#));
    assert!(world.has(r#"lb_supervisor_upgrades_total{outcome="rejected"} 6"#));
    assert!(world.has("lb_worker_restarts_total 1"));
    assert!(world.has("lb_worker_hangs_total 8"));
    assert!(world.has("lb_draining_workers 2"));
    assert!(world.has("lb_draining_connections 77"));
    assert!(world.has("lb_config_reload_success 0"));
    assert!(world.has("lb_config_last_reload_timestamp_seconds 1700000000"));
}

#[test]
fn the_supervisors_counts_are_not_inherited() {
    let (old, new) = (world(), world());
    old.metrics.set_supervisor_stats(&supervision());
    new.metrics.set_supervisor_stats(&supervision());
    new.inherit(&old.counts());
    assert!(new.has(r#"lb_config_reloads_total{outcome="done"} 2"#), "{}", new.text());
    assert!(new.has("lb_worker_restarts_total 1"));
}

#[test]
fn lost_lines_of_the_log_are_counted_by_process_and_those_of_workers_are_inherited() {
    let (old, new) = (world(), world());
    for (world, lost) in [(&old, 3), (&new, 4)] {
        let dropped = log_dropped().unwrap();
        world.metrics.show_log_dropped(&dropped).unwrap();
        dropped.inc_by(lost);
        world.metrics.set_supervisor_stats(&supervision());
    }
    new.inherit(&old.counts());
    assert!(new.has(r#"lb_log_dropped_total{process="worker"} 7"#), "{}", new.text());
    assert!(new.has(r#"lb_log_dropped_total{process="supervisor"} 8"#), "{}", new.text());
    assert_eq!(new.text().matches("# TYPE lb_log_dropped_total counter").count(), 1);
}

#[test]
fn the_supervisors_message_survives_serialization() {
    let text = serde_json::to_string(&supervision()).unwrap();
    assert_eq!(serde_json::from_str::<SupervisorStats>(&text).unwrap(), supervision());
}

#[test]
fn a_request_is_counted_for_the_members_of_its_own_snapshot() {
    let world = world();
    world.respond(200); // at the first backend
    let second = world.snapshot.with_members(|_, pool| Some(vec![pool.members[1].clone()]));
    let first_is_position_0 = world.admitted();
    world.metrics.follow(&second).unwrap();
    let observer: Arc<dyn Observer> = Arc::new(SnapshotMetrics::new(&world.metrics));
    let mut exchange = fixture::admitted(&Arc::new(second), &observer);
    exchange.pick(NOW, Rolls::default()).unwrap();
    exchange.finished(Outcome::Completed, Some(&fixture::wire(200)), NOW);
    drop((exchange, first_is_position_0));
    for backend in ["10.0.0.1:3000", "10.0.0.2:3000"] {
        let line = format!(
            r#"lb_requests_total{{backend="{backend}",method="GET",pool="web",status="200"}} 1"#
        );
        assert!(world.has(&line), "{}", world.text());
    }
}

#[test]
fn retries_stay_in_the_totals_when_the_members_change() {
    let world = world();
    let mut exchange = world.admitted();
    exchange.pick(NOW, Rolls::default()).unwrap();
    assert!(exchange.attempt_failed(AttemptFailure::Connect, "refused", IDEMPOTENT, NOW));
    let second = world.snapshot.with_members(|_, pool| Some(vec![pool.members[1].clone()]));
    world.metrics.follow(&second).unwrap();
    assert_eq!(world.metrics.totals().retries, 1);
}
