//! The JSON of `/status`.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_millis;
use serde::Serialize;

use crate::current::KnownSource;
use crate::metrics::{SupervisorStats, Totals};
use crate::runtime::backend::Member;
use crate::runtime::pool::Pool;
use crate::runtime::report;
use crate::runtime::request_limit::RequestLimit;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// The values that it is made of.
pub(super) struct Inputs<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The sources of backends.
    pub(super) sources: &'a [KnownSource],
    pub(super) totals: Totals,
    /// The last message of the supervisor, if there is one.
    pub(super) supervision: Option<SupervisorStats>,
    pub(super) downstream_connections: i64,
    pub(super) uptime: Duration,
    /// The age of the configuration.
    pub(super) age: Duration,
    /// The time now.
    pub(super) now: Timestamp,
    /// The wall clock time at a timestamp.
    pub(super) wall: &'a dyn Fn(Timestamp) -> SystemTime,
}

#[derive(Serialize)]
struct Status<'a> {
    uptime_seconds: u64,
    #[serde(flatten)]
    requests: RequestTotals,
    healthy_backends: usize,
    total_backends: usize,
    downstream_connections: i64,
    config: Configuration<'a>,
    supervisor: Option<SupervisorStatus>,
    /// `null` if there is no limit.
    request_limit: Option<RequestLimitStatus>,
    /// Of pools with a queue.
    queues: Vec<QueueStatus<'a>>,
    #[serde(flatten)]
    backends: Backends<'a>,
}

#[derive(Serialize)]
struct RequestTotals {
    total_requests: u64,
    success_requests: u64,
    failed_requests: u64,
    retry_attempts: u64,
    rate_limited_requests: u64,
    avg_latency_ms: f64,
}

/// The requests that the worker handles, and how many it may (`limits.requests`).
#[derive(Serialize)]
struct RequestLimitStatus {
    max_requests: u32,
    requests_in_progress: u32,
}

#[derive(Serialize)]
struct QueueStatus<'a> {
    pool: &'a str,
    waiting_requests: usize,
}

/// The backends, and where they come from.
#[derive(Serialize)]
struct Backends<'a> {
    backends: Vec<BackendStatus<'a>>,
    /// Names, services and files that give backends.
    discovery: Vec<SourceStatus<'a>>,
}

/// A source of backends.
#[derive(Serialize)]
struct SourceStatus<'a> {
    pool: &'a str,
    source: &'a str,
    backends: usize,
    last_lookup: Option<String>,
    last_answer: Option<String>,
    /// The name server, or the file.
    answered_by: &'a str,
    ttl_seconds: u64,
    last_error: Option<&'a str>,
}

#[derive(Serialize)]
struct SupervisorStatus {
    generation: u64,
    reloads_done: u64,
    reloads_rejected: u64,
    /// Deprecated: `reloads_rejected`.
    reloads_refused: u64,
    upgrades_done: u64,
    upgrades_rejected: u64,
    /// Deprecated: `upgrades_rejected`.
    upgrades_refused: u64,
    restarts: u64,
    hangs: u64,
    draining_workers: u64,
    draining_connections: u64,
}

#[derive(Serialize)]
struct Configuration<'a> {
    version: &'a str,
    age_seconds: u64,
}

/// The weight of a backend: as configured, and the one that selectors use.
#[derive(Serialize)]
struct StatusWeights {
    weight: u32,
    effective_weight: f64,
}

#[derive(Serialize)]
struct BackendStatus<'a> {
    pool: &'a str,
    url: String,
    state: &'static str,
    /// `null` if the pool has no circuit breaker.
    breaker: Option<&'static str>,
    #[serde(flatten)]
    weights: StatusWeights,
    in_flight_requests: u64,
    /// `null` if there is no limit.
    max_requests: Option<u32>,
    /// Deprecated: `in_flight_requests`.
    active_connections: u64,
    total_requests: u64,
    total_failures: u64,
    last_checked: Option<String>,
    last_error: Option<String>,
}

/// Formats the values as JSON, one per line.
pub(super) fn json(inputs: &Inputs<'_>) -> serde_json::Result<Vec<u8>> {
    let (pools, totals) = (&inputs.snapshot.pools, &inputs.totals);
    for pool in pools {
        pool.balancing.refresh(&pool.members, inputs.now);
    }
    let backends = pools
        .iter()
        .flat_map(|pool| pool.members.iter().map(move |member| backend(pool, member, inputs)));
    let status = Status {
        uptime_seconds: inputs.uptime.as_secs(),
        requests: RequestTotals {
            total_requests: totals.requests,
            success_requests: totals.success,
            failed_requests: totals.failed,
            retry_attempts: totals.retries,
            rate_limited_requests: totals.rate_limited,
            avg_latency_ms: milliseconds(totals.latency_seconds),
        },
        healthy_backends: pools.iter().map(|pool| pool.healthy().len()).sum(),
        total_backends: pools.iter().map(|pool| pool.members.len()).sum(),
        downstream_connections: inputs.downstream_connections,
        config: Configuration {
            version: &inputs.snapshot.version,
            age_seconds: inputs.age.as_secs(),
        },
        supervisor: inputs.supervision.as_ref().map(supervisor),
        request_limit: inputs.snapshot.request_limit.as_ref().map(request_limit),
        queues: pools.iter().filter_map(queue).collect(),
        backends: Backends {
            backends: backends.collect(),
            discovery: inputs.sources.iter().map(|it| source(it, inputs)).collect(),
        },
    };
    let mut body = serde_json::to_vec_pretty(&status)?;
    body.push(b'\n');
    Ok(body)
}

fn source<'a>(source: &'a KnownSource, inputs: &Inputs<'_>) -> SourceStatus<'a> {
    let KnownSource { pool, source, state } = source;
    let time = |at: Timestamp| format_rfc3339_millis((inputs.wall)(at)).to_string();
    SourceStatus {
        pool,
        source,
        backends: state.backends,
        last_lookup: state.looked_up.map(time),
        last_answer: state.answered.map(time),
        answered_by: &state.by,
        ttl_seconds: state.ttl.as_secs(),
        last_error: state.last_error.as_deref(),
    }
}

fn supervisor(stats: &SupervisorStats) -> SupervisorStatus {
    SupervisorStatus {
        generation: stats.generation,
        reloads_done: stats.reloads_done,
        reloads_rejected: stats.reloads_refused,
        reloads_refused: stats.reloads_refused,
        upgrades_done: stats.upgrades_done,
        upgrades_rejected: stats.upgrades_refused,
        upgrades_refused: stats.upgrades_refused,
        restarts: stats.restarts,
        hangs: stats.hangs,
        draining_workers: stats.draining_workers,
        draining_connections: stats.draining_connections,
    }
}

fn request_limit(limit: &RequestLimit) -> RequestLimitStatus {
    RequestLimitStatus { max_requests: limit.max(), requests_in_progress: limit.in_progress() }
}

fn queue(pool: &Pool) -> Option<QueueStatus<'_>> {
    let waiting_requests = pool.waiters.as_ref()?.waiting();
    Some(QueueStatus { pool: pool.name.as_str(), waiting_requests })
}

fn backend<'a>(pool: &'a Pool, member: &'a Member, inputs: &Inputs<'_>) -> BackendStatus<'a> {
    let server = &member.backend;
    let health = server.health();
    let in_flight = server.in_flight();
    BackendStatus {
        pool: pool.name.as_str(),
        url: server.url(),
        state: report::health_name(server),
        breaker: pool.breakers.is_some().then(|| server.circuit.phase(inputs.now).as_str()),
        weights: StatusWeights {
            weight: member.weight.get(),
            effective_weight: server.weight.units(),
        },
        in_flight_requests: in_flight,
        max_requests: member.max_requests.map(NonZeroU32::get),
        active_connections: in_flight,
        total_requests: server.attempts(),
        total_failures: server.failures(),
        last_checked: health.last_checked.map(|moment| {
            let at = (inputs.wall)(moment.at).checked_sub(moment.earlier);
            format_rfc3339_millis(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
        }),
        last_error: health.last_error,
    }
}

/// Seconds as milliseconds with three decimal places.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::Probe;
    use crate::fixture;
    use crate::runtime::handoff::Handoff;
    use crate::runtime::lease::Lease;

    const START: Duration = Duration::from_secs(1_700_000_000);

    fn status(snapshot: &Snapshot) -> Value {
        status_with(snapshot, None)
    }

    fn status_with(snapshot: &Snapshot, supervision: Option<SupervisorStats>) -> Value {
        let inputs = Inputs {
            snapshot,
            sources: &[],
            totals: Totals {
                requests: 7,
                success: 4,
                failed: 2,
                retries: 3,
                rate_limited: 1,
                latency_seconds: 0.001_234_56,
            },
            supervision,
            downstream_connections: 5,
            uptime: Duration::from_secs(60),
            age: Duration::from_secs(59),
            now: Timestamp::ZERO,
            wall: &|at| UNIX_EPOCH + START + at.since(Timestamp::ZERO),
        };
        serde_json::from_slice(&json(&inputs).unwrap()).unwrap()
    }

    fn probed() -> Snapshot {
        let check = Some(fixture::health_check(Probe::Tcp));
        let addresses = [fixture::address("10.0.0.1:80"), fixture::address("10.0.0.2:80")];
        fixture::snapshot(vec![fixture::pool("web", &addresses, check)])
    }

    #[test]
    fn it_contains_the_totals_and_every_backend() {
        let snapshot = probed();
        let [first, _] = &snapshot.pools[0].members[..] else { panic!("two backends") };
        first.backend.probed(Ok(()), Timestamp::from_nanos(1_500_000_000));
        first.backend.attempt_failed("connection refused");
        let _lease = Lease::new(first.backend.clone());
        let expected = json!({
            "uptime_seconds": 60, "total_requests": 7, "success_requests": 4,
            "failed_requests": 2, "retry_attempts": 3, "rate_limited_requests": 1,
            "avg_latency_ms": 1.235, "healthy_backends": 1, "total_backends": 2,
            "downstream_connections": 5,
            "config": {"version": "v1", "age_seconds": 59},
            "supervisor": null, "request_limit": null, "queues": [],
            "backends": [
                {
                    "pool": "web", "url": "http://10.0.0.1:80", "state": "healthy", "breaker": null, "weight": 1, "effective_weight": 1.0,
                    "in_flight_requests": 1, "max_requests": null, "active_connections": 1, "total_requests": 1, "total_failures": 1,
                    "last_checked": "2023-11-14T22:13:21.500Z",
                    "last_error": "connection refused",
                },
                {
                    "pool": "web", "url": "http://10.0.0.2:80", "state": "unknown", "breaker": null, "weight": 1, "effective_weight": 1.0,
                    "in_flight_requests": 0, "max_requests": null, "active_connections": 0, "total_requests": 0, "total_failures": 0,
                    "last_checked": null, "last_error": null,
                },
            ],
            "discovery": [],
        });
        assert_eq!(status(&snapshot), expected);
    }

    #[test]
    fn it_contains_the_stats_of_the_supervisor() {
        let stats = SupervisorStats {
            generation: 4,
            reloads_done: 2,
            reloads_refused: 3,
            upgrades_done: 6,
            upgrades_refused: 7,
            restarts: 1,
            hangs: 8,
            draining_workers: 5,
            draining_connections: 77,
            log_dropped: 8,
            draining_requests: Vec::new(),
            last_reload_ok: true,
            last_reload_at: UNIX_EPOCH,
            uptime: Duration::ZERO,
            hang_timeout: None,
        };
        let expected = json!({
            "generation": 4, "reloads_done": 2, "reloads_rejected": 3, "reloads_refused": 3, "restarts": 1, "hangs": 8,
            "upgrades_done": 6, "upgrades_rejected": 7, "upgrades_refused": 7, "draining_workers": 5, "draining_connections": 77,
        });
        assert_eq!(status_with(&probed(), Some(stats))["supervisor"], expected);
    }

    #[test]
    fn a_probe_of_the_former_worker_has_its_own_time() {
        let (old, new) = (probed(), probed());
        let at = Timestamp::from_nanos(9_000_000_000);
        old.pools[0].members[0].backend.probed(Ok(()), at);
        let handoff = Handoff::export(&old, Timestamp::from_nanos(12_000_000_000));
        handoff.import(&new, Timestamp::from_nanos(500_000_000));
        let checked = &status(&new)["backends"][0]["last_checked"];
        assert_eq!(*checked, "2023-11-14T22:13:17.500Z", "2.5 s before our start");
    }

    #[test]
    fn a_backend_whose_probes_fail_is_unhealthy() {
        let snapshot = probed();
        let failed = &snapshot.pools[0].members[1].backend;
        failed.probed(Err("refused".to_owned()), Timestamp::ZERO);
        assert_eq!(status(&snapshot)["backends"][1]["state"], "unhealthy");
        assert_eq!(status(&snapshot)["backends"][1]["last_error"], "refused");
    }
}
