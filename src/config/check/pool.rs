//! Pools and what belongs to them.

use std::collections::HashMap;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use super::super::file::{self, ProbeType};
use super::super::limits;
use super::super::meaning::{Backend, HealthCheck, Pool, Probe, Retry, RetryOn, Timeouts};
use super::super::problem::SourcePosition;
use super::super::problem::{Diagnostics, Origin, Problem, Spanned};
use super::super::read::{List, OffOr};
use super::super::terms::{Algorithm, BackendAddress, StatusSet};
use super::super::transport::Transport;
use super::super::value::{DurationOrOff, Failure, ServerName, spell};
use super::bindings::Bindings;
use super::rate::rate_limit;
use super::{Range, backend, positive, secs, transport};
use crate::name::PoolName;

/// The names of the pools, for the routes.
#[derive(Default)]
pub(super) struct Names {
    /// Where `pools` stands.
    pub(super) at: Option<Origin>,
    /// How many pools there are, those without a valid name included.
    pub(super) count: usize,
    /// Whether each of them has a valid name. If not, any name may be the missing one.
    pub(super) complete: bool,
    pub(super) list: Vec<Spanned<PoolName>>,
    /// By name the index of the pool, and where the name stands.
    pub(super) index: HashMap<String, Spanned<usize>>,
}

/// The pools. That there are any was checked when the file was read.
pub(super) fn pools(
    typed: Option<Spanned<List<file::Pool>>>,
    bound: &Bindings,
    found: &mut Diagnostics,
) -> (Vec<Pool>, Names) {
    let Some(typed) = typed else { return (Vec::new(), Names::default()) };
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "`pools` is empty, so there is nothing to balance");
        found.add(problem.help(file::SMALLEST));
    }
    if typed.value.typed > limits::POOLS_MAX {
        let what = format!("{} pools, but {} are the most", typed.value.typed, limits::POOLS_MAX);
        found.add(Problem::new(typed.at, what));
        return (Vec::new(), Names::default());
    }
    let mut names = Names { at: Some(typed.at), count: typed.value.typed, ..Names::default() };
    let mut pools = Vec::new();
    for (index, pool) in typed.value.entries.into_iter().enumerate() {
        if let Some(name) = &pool.value.name {
            names.register(name, index, found);
        }
        if pool.value.backends.is_none() && !pool.value.refused.contains(&"backends") {
            let problem = Problem::new(pool.at, "`backends` is missing");
            found.add(problem.help("for example `backends: [http://10.0.0.1:3000]`"));
        }
        pools.extend(one(pool.value, bound, found));
    }
    names.complete = names.list.len() == names.count;
    (pools, names)
}

/// Where pools have gRPC health checks.
pub(super) fn grpc_probes(pools: Option<&Spanned<List<file::Pool>>>) -> Vec<Origin> {
    let pools = pools.into_iter().flat_map(|pools| &pools.value.entries);
    let at = |pool: &Spanned<file::Pool>| match &pool.value.health_check.as_ref()?.value {
        OffOr::Value(check) => {
            check.kind.as_ref().filter(|kind| kind.value.0 == ProbeType::Grpc).map(|kind| kind.at)
        }
        OffOr::Off => None,
    };
    pools.filter_map(at).collect()
}

impl Names {
    fn register(&mut self, name: &Spanned<PoolName>, index: usize, found: &mut Diagnostics) {
        let typed = name.value.as_str();
        if let Some(first) = self.index.get(typed) {
            let problem = Problem::new(name.at, format!("a second pool is named `{typed}`"));
            found.add(problem.help(format!("the first is at {}", first.at)));
        } else {
            self.index.insert(typed.to_owned(), Spanned { at: name.at, value: index });
        }
        self.list.push(name.clone());
    }
}

/// A pool without a valid name gets one, so that the rest of it is checked.
fn one(typed: file::Pool, bound: &Bindings, found: &mut Diagnostics) -> Option<Pool> {
    let name_of_pool = typed.tls.as_ref().and_then(|tls| tls.value.server_name.clone());
    let name_of_pool = name_of_pool.map(|name| name.value);
    let backends = typed.backends.map(|it| backends(it, name_of_pool.as_ref(), bound, found));
    let backends = backends.unwrap_or_default();
    let transport = Transport {
        proxy_protocol: typed.proxy_protocol.is_some(),
        ..transport::transport(typed.tls, typed.protocol, typed.http2, &backends, found)
    };
    let health_check = match typed.health_check.map(|check| check.value) {
        Some(OffOr::Off) => None,
        Some(OffOr::Value(check)) => Some(health_check(check, found)),
        None => Some(health_check(file::HealthCheck::default(), found)),
    };
    let retry = retry(typed.retry.map(|retry| retry.value).unwrap_or_default(), found);
    let timeouts =
        timeouts(typed.timeouts.map(|timeouts| timeouts.value).unwrap_or_default(), found);
    let rate_limit = typed.rate_limit.and_then(|rate| rate_limit(rate.value, found));
    Some(Pool {
        name: typed.name.map(|name| name.value).or_else(|| PoolName::new("default").ok())?,
        algorithm: typed.algorithm.map_or(Algorithm::RoundRobin, |algorithm| algorithm.value.0),
        backends,
        health_check,
        retry,
        timeouts,
        transport,
        rate_limit,
    })
}

fn backends(
    typed: Spanned<List<file::Backend>>,
    name_of_pool: Option<&ServerName>,
    bound: &Bindings,
    found: &mut Diagnostics,
) -> Vec<Backend> {
    if typed.value.typed == 0 {
        let problem =
            Problem::new(typed.at, "`backends` is empty, so the pool could not serve any request");
        found.add(problem.help("for example `backends: [http://10.0.0.1:3000]`"));
    }
    if typed.value.typed > limits::BACKENDS_MAX {
        let what = format!(
            "{} backends, but a pool has at most {}",
            typed.value.typed,
            limits::BACKENDS_MAX
        );
        found.add(Problem::new(typed.at, what).help("make two pools of them"));
        return Vec::new();
    }
    let mut seen: HashMap<BackendAddress, Origin> = HashMap::new();
    let mut backends = Vec::new();
    for backend in typed.value.entries {
        let range = Range { name: "weight", first: 1, last: u64::from(limits::WEIGHT_MAX) };
        let weight: NonZeroU32 = match backend.value.weight {
            Some(Spanned { at, value: 0 }) => {
                let problem = Problem::new(at, "`weight` cannot be 0");
                found.add(problem.help(
                    "a whole number from 1 to 1000; to send a backend no requests, remove it",
                ));
                NonZeroU32::MIN
            }
            weight => range.count(weight, 1, found),
        };
        let Some(Spanned { at, value: url }) = backend.value.url else { continue };
        let own_name = backend.value.server_name;
        let server_name = transport::server_name(&url, own_name, name_of_pool, found);
        let address = url.address;
        found.extend(backend::impossible(&address, at, bound));
        if let Some(first) = seen.get(&address) {
            let what = format!("the backend `{address}` is listed twice");
            found.add(Problem::new(at, what).help(format!(
                "the first is at {first}; to give a backend more traffic, raise its `weight`"
            )));
        } else {
            seen.insert(address.clone(), at);
        }
        let defined_at = SourcePosition(at.position());
        backends.push(Backend { address, weight, server_name, defined_at });
    }
    backends
}

fn health_check(typed: file::HealthCheck, found: &mut Diagnostics) -> HealthCheck {
    let probe = probe(&typed, found);
    let refused = typed.refused;
    let interval_at = typed.interval.as_ref().map(|interval| interval.at);
    let timeout_at = typed.timeout.as_ref().map(|timeout| timeout.at);
    let interval = positive(
        typed.interval,
        secs(10),
        "an interval of 0 would send health checks without a pause",
        found,
    );
    if let Some(at) = interval_at.filter(|_| interval < limits::INTERVAL_SANE) {
        let what = format!("an interval of {} is very short", spell(interval));
        let help = "health checks this often load the backends, and a short pause makes a backend unhealthy; 10s is usual";
        found.warnings.push(Problem::new(at, what).help(help));
    }
    let timeout = secs(3).min(interval);
    let timeout =
        positive(typed.timeout, timeout, "a timeout of 0 would fail every health check", found);
    let longer = timeout > interval && !refused.contains(&"interval");
    if let Some(timeout_at) = timeout_at.filter(|_| longer) {
        // An interval given by a flag is the easiest one to change.
        let given = interval_at.filter(|at| matches!(at, Origin::Override(_)));
        let what = format!(
            "`timeout` ({}) is longer than `interval` ({})",
            spell(timeout),
            spell(interval)
        );
        found.add(Problem::new(given.unwrap_or(timeout_at), what).help(
            "a health check must end before the next one starts: raise `interval` or lower `timeout`",
        ));
    }
    let unhealthy = Range { name: "unhealthy_after", first: 1, last: u64::from(limits::RUN_MAX) };
    let healthy = Range { name: "healthy_after", first: 1, last: u64::from(limits::RUN_MAX) };
    HealthCheck {
        probe,
        interval,
        timeout,
        unhealthy_after: unhealthy.count(typed.unhealthy_after, 2, found),
        healthy_after: healthy.count(typed.healthy_after, 2, found),
    }
}

fn probe(typed: &file::HealthCheck, found: &mut Diagnostics) -> Probe {
    let of_http = if typed.path.is_some() { ProbeType::Http } else { ProbeType::Tcp };
    let kind = typed.kind.as_ref().map_or(of_http, |kind| kind.value.0);
    if kind != ProbeType::Tcp || !(is_refused(typed, "type") || is_refused(typed, "path")) {
        unused(typed, kind, found);
    }
    match kind {
        ProbeType::Tcp => Probe::Tcp,
        ProbeType::Grpc => Probe::Grpc {
            service: typed.service.as_ref().map_or_else(String::new, |it| it.value.0.clone()),
        },
        ProbeType::Http => Probe::Http {
            path: typed.path.as_ref().map_or_else(|| "/".to_owned(), |path| path.value.0.clone()),
            host: typed.host.as_ref().map(|host| host.value.0.clone()),
            status: StatusSet(
                typed.status.as_ref().map_or_else(|| vec![(200, 299)], |it| it.value.0.clone()),
            ),
            body: typed.body.as_ref().map(|body| body.value.0.clone()),
        },
    }
}

fn is_refused(typed: &file::HealthCheck, key: &str) -> bool {
    typed.refused.contains(&key)
}

/// Reports keys of another type of health check.
fn unused(typed: &file::HealthCheck, kind: ProbeType, found: &mut Diagnostics) {
    let of_http = [
        ("path", typed.path.as_ref().map(|path| path.at)),
        ("host", typed.host.as_ref().map(|host| host.at)),
        ("status", typed.status.as_ref().map(|status| status.at)),
        ("body", typed.body.as_ref().map(|body| body.at)),
    ];
    let of_http = of_http.into_iter().map(|(name, at)| (ProbeType::Http, name, at));
    let service = typed.service.as_ref().map(|service| service.at);
    for (of, name, at) in of_http.chain([(ProbeType::Grpc, "service", service)]) {
        let Some(at) = at.filter(|_| of != kind) else { continue };
        let this = match kind {
            ProbeType::Grpc => "a gRPC",
            ProbeType::Http => "an HTTP",
            ProbeType::Tcp => "a TCP",
        };
        let word = if of == ProbeType::Grpc { "grpc" } else { "http" };
        let problem = Problem::new(at, format!("`{name}` has no effect on {this} health check"));
        found.add(problem.help(format!("remove it, or write `type: {word}`")));
    }
}

fn retry(typed: file::Retry, found: &mut Diagnostics) -> Retry {
    if typed.attempts.as_ref().is_some_and(|attempts| attempts.value == 1) {
        let backoff = typed.backoff.as_ref().map(|backoff| ("backoff", backoff.at));
        for (key, at) in backoff.into_iter().chain(typed.on.as_ref().map(|on| ("on", on.at))) {
            let what = format!("`{key}` has no effect, because `attempts: 1` disables retries");
            found.add(Problem::new(at, what).help("remove it, or raise `attempts`"));
        }
    }
    let range = Range { name: "attempts", first: 1, last: u64::from(limits::ATTEMPTS_MAX) };
    let backoff = typed.backoff.map_or(Duration::from_millis(50), |backoff| {
        if backoff.value > limits::BACKOFF_MAX {
            let longest = spell(limits::BACKOFF_MAX);
            let what = format!("a back-off of {} is too long", spell(backoff.value));
            found.add(Problem::new(backoff.at, what).help(format!("{longest} is the longest")));
        }
        backoff.value
    });
    Retry {
        attempts: range.count::<NonZeroU8>(typed.attempts, 3, found),
        backoff,
        on: typed.on.map_or_else(default_retry_on, |on| retry_on(on, found)),
    }
}

fn default_retry_on() -> RetryOn {
    RetryOn { connect: true, reset: true, timeout: true, status: vec![502, 503, 504] }
}

fn retry_on(typed: Spanned<List<Failure>>, found: &mut Diagnostics) -> RetryOn {
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "`on` is empty, so no request would be retried");
        found.add(problem.help("to switch retries off, write `attempts: 1`"));
    }
    let mut on = RetryOn::default();
    let mut seen: HashMap<Failure, Origin> = HashMap::new();
    for Spanned { at, value } in typed.value.entries {
        if let Some(first) = seen.get(&value) {
            let problem = Problem::new(at, "this failure is listed twice");
            found.add(problem.help(format!("the first is at {first}")));
            continue;
        }
        seen.insert(value, at);
        match value {
            Failure::Connect => on.connect = true,
            Failure::Reset => on.reset = true,
            Failure::Timeout => on.timeout = true,
            Failure::Status(status) => on.status.push(status),
        }
    }
    on
}

fn patience(
    typed: Option<Spanned<DurationOrOff>>,
    why: &str,
    found: &mut Diagnostics,
) -> Option<Duration> {
    let within = match typed {
        Some(Spanned { value: DurationOrOff::Off, .. }) => return None,
        Some(Spanned { at, value: DurationOrOff::Duration(value) }) => Some(Spanned { at, value }),
        None => None,
    };
    Some(positive(within, secs(60), why, found))
}

fn timeouts(typed: file::Timeouts, found: &mut Diagnostics) -> Timeouts {
    let connect = "a timeout of 0 would fail every connection";
    let request = "a timeout of 0 would fail every request";
    let idle = "a timeout of 0 would close every backend connection after its request";
    let tunnel = "a timeout of 0 would close every WebSocket";
    Timeouts {
        connect: positive(typed.connect, secs(2), connect, found),
        response: positive(typed.response, secs(30), request, found),
        request: patience(typed.request, request, found),
        idle: positive(typed.idle, secs(55), idle, found),
        tunnel: positive(typed.tunnel, secs(60 * 60), tunnel, found),
    }
}
