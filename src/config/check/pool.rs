//! Pools and what belongs to them.

use std::collections::HashMap;

use super::super::file::{
    HealthCheck, ProbeType, RawBackend, RawHealthCheck, RawPool, RawRetry, Retry,
};
use super::super::limits;
use super::super::meaning::{Backend, Pool};
use super::super::problem::{
    Diagnostics, Origin, Problem, SMALLEST, SourcePosition, Spanned, quote,
};
use super::super::read::{FromText as _, IntoMeaning as _, List, OffOr};
use super::super::terms::{BackendAddress, Probe, RetryOn, StatusSet};
use super::super::transport::Transport;
use super::super::value::{DurationOrOff, Failure, ServerName};
use super::bindings::Bindings;
use super::references::Names;
use super::{backend, breaker, discovery, distinct, rate_limit, transport};
use crate::http::method::is_idempotent;
use crate::name::PoolName;

/// The pools. That there are any was checked when the file was read.
pub(super) fn pools(
    typed: Option<Spanned<List<RawPool>>>,
    bound: &Bindings,
    found: &mut Diagnostics,
) -> (Vec<Pool>, Names) {
    let Some(typed) = typed else { return (Vec::new(), Names::default()) };
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "`pools` is empty, so there is nothing to balance");
        found.add(problem.help(SMALLEST));
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
        pools.extend(check_pool(pool.value, bound, found));
    }
    names.complete = names.list.len() == names.count;
    (pools, names)
}

/// Where pools have gRPC health checks.
pub(super) fn grpc_probes(pools: Option<&Spanned<List<RawPool>>>) -> Vec<Origin> {
    let pools = pools.into_iter().flat_map(|pools| &pools.value.entries);
    let at = |pool: &Spanned<RawPool>| match &pool.value.health_check.as_ref()?.value {
        OffOr::Value(check) => {
            check.kind.as_ref().filter(|kind| kind.value.0 == ProbeType::Grpc).map(|kind| kind.at)
        }
        OffOr::Off => None,
    };
    pools.filter_map(at).collect()
}

/// A pool without a valid name gets one, so that the rest of it is checked.
fn check_pool(typed: RawPool, bound: &Bindings, found: &mut Diagnostics) -> Option<Pool> {
    let algorithm = typed.algorithm().meaning();
    let timeouts = typed.timeouts().meaning();
    let http2 = typed.http2().meaning();
    let http2_at = typed.http2.as_ref().map(|http2| http2.at);
    let health_check = match typed.health_check() {
        OffOr::Off => None,
        OffOr::Value(check) => Some(health_check(check, found)),
    };
    let breaker = match typed.breaker() {
        OffOr::Off => None,
        OffOr::Value(breaker) => Some(breaker::breaker(breaker, found)),
    };
    let slow_start = typed.slow_start().meaning();
    let retry = retry(typed.retry(), found);
    let queue = typed.queue().meaning();
    let queue_at = typed.queue.as_ref().map(|queue| queue.at).filter(|_| queue.length > 0);
    let name_of_pool = typed.tls.as_ref().and_then(|tls| tls.value.server_name.clone());
    let name_of_pool = name_of_pool.map(|name| name.value);
    let backends = typed.backends.map(|it| backends(it, name_of_pool.as_ref(), bound, found));
    let backends = backends.unwrap_or_default();
    if let Some(at) = queue_at.filter(|_| backends.iter().all(|it| it.max_requests.is_none())) {
        let what = "no request would wait in this queue, because no backend of the pool has `max_requests`";
        found.warnings.push(Problem::new(at, what).help(
            "limit the backends, for example `{url: http://10.0.0.1:3000, max_requests: 100}`",
        ));
    }
    let transport = Transport {
        proxy_protocol: typed.proxy_protocol.is_some(),
        http2,
        ..transport::transport(typed.tls, typed.protocol, http2_at, &backends, found)
    };
    Some(Pool {
        name: typed.name.map(|name| name.value).or_else(|| PoolName::new("default").ok())?,
        algorithm,
        backends,
        health_check,
        breaker,
        retry,
        queue,
        slow_start,
        timeouts,
        transport,
        rate_limit: typed.rate_limit.and_then(|rate| rate_limit(rate.value)),
    })
}

fn backends(
    typed: Spanned<List<RawBackend>>,
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
        let weight = backend.value.weight();
        let max_requests = backend.value.max_requests.as_ref().map(|given| given.value);
        let Some(it) = discovery::backend(backend, name_of_pool, found) else { continue };
        let discovery::CheckedBackend { address, server_name, at } = it;
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
        backends.push(Backend { address, weight, max_requests, server_name, defined_at });
    }
    backends
}

fn health_check(typed: RawHealthCheck, found: &mut Diagnostics) -> HealthCheck {
    let probe = probe(&typed, found);
    let (interval, timeout) = (typed.interval(), typed.timeout());
    let interval_at = typed.interval.as_ref().map(|interval| interval.at);
    if let Some(at) = interval_at.filter(|_| interval < limits::INTERVAL_SANE) {
        let what = format!("an interval of {} is very short", interval.to_text());
        let help = "health checks this often load the backends, and a short pause makes a backend unhealthy; \
                    10s is usual";
        found.warnings.push(Problem::new(at, what).help(help));
    }
    let longer = timeout > interval && !is_refused(&typed, "interval");
    if let Some(typed_timeout) = typed.timeout.as_ref().filter(|_| longer) {
        // An interval given by a flag is the easiest one to change.
        let given = interval_at.filter(|at| matches!(at, Origin::Override(_)));
        let (timeout, interval) = (timeout.to_text(), interval.to_text());
        let what = format!("`timeout` ({timeout}) is longer than `interval` ({interval})");
        found.add(Problem::new(given.unwrap_or(typed_timeout.at), what).help(
            "a health check must end before the next one starts: raise `interval` or lower `timeout`",
        ));
    }
    typed.configuration(probe)
}

fn probe(typed: &RawHealthCheck, found: &mut Diagnostics) -> Probe {
    let kind = typed.kind().0;
    if kind != ProbeType::Tcp || !(is_refused(typed, "type") || is_refused(typed, "path")) {
        unused(typed, kind, found);
    }
    match kind {
        ProbeType::Tcp => Probe::Tcp,
        ProbeType::Grpc => Probe::Grpc {
            service: typed.service.as_ref().map_or_else(String::new, |it| it.value.0.clone()),
        },
        ProbeType::Http => Probe::Http {
            path: typed.path().0,
            host: typed.host.as_ref().map(|host| host.value.0.clone()),
            status: StatusSet(typed.status().0),
            body: typed.body.as_ref().map(|body| body.value.0.clone()),
        },
    }
}

fn is_refused(typed: &RawHealthCheck, key: &str) -> bool {
    typed.refused.contains(&key)
}

/// Reports keys of another type of health check.
fn unused(typed: &RawHealthCheck, kind: ProbeType, found: &mut Diagnostics) {
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

fn retry(typed: RawRetry, found: &mut Diagnostics) -> Retry {
    if typed.attempts.as_ref().is_some_and(|attempts| attempts.value.get() == 1) {
        let given = [
            ("backoff", typed.backoff.as_ref().map(|it| it.at)),
            ("on", typed.on.as_ref().map(|it| it.at)),
            ("try_timeout", typed.try_timeout.as_ref().map(|it| it.at)),
            ("methods", typed.methods.as_ref().map(|it| it.at)),
            ("budget", typed.budget.as_ref().map(|it| it.at)),
        ];
        for (key, at) in given.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            let what = format!("`{key}` has no effect, because `attempts: 1` disables retries");
            found.add(Problem::new(at, what).help("remove it, or raise `attempts`"));
        }
    }
    for Spanned { at, value } in &typed.methods().entries {
        if is_idempotent(value) {
            let what = format!("{} is retried without being listed", quote(value.as_str()));
            found.add(Problem::new(*at, what).help("it is idempotent: remove it"));
        }
    }
    let on = retry_on(typed.on(), typed.on.as_ref().map(|on| on.at), found);
    let is_set = typed.try_timeout() != DurationOrOff::Off;
    if let Some(given) = typed.try_timeout.as_ref().filter(|_| is_set && !on.timeout) {
        let what = "`try_timeout` has no effect, because `on` does not have `timeout`";
        found.add(Problem::new(given.at, what).help("remove it, or add `timeout` to `on`"));
    }
    typed.configuration(on)
}

fn retry_on(typed: List<Failure>, at: Option<Origin>, found: &mut Diagnostics) -> RetryOn {
    if let Some(at) = at.filter(|_| typed.typed == 0) {
        let problem = Problem::new(at, "`on` is empty, so no request would be retried");
        found.add(problem.help("to switch retries off, write `attempts: 1`"));
    }
    let mut on = RetryOn::default();
    for failure in distinct(typed, found) {
        match failure {
            Failure::Connect => on.connect = true,
            Failure::Reset => on.reset = true,
            Failure::Timeout => on.timeout = true,
            Failure::Status(status) => on.status.push(status),
        }
    }
    on
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::problems;
    use crate::config::{ConfigBuilder, Overrides, load};

    fn of(keys: &str) -> Vec<String> {
        problems(&format!("pools: [{{name: web, backends: [http://10.0.0.1:1], {keys}}}]"))
    }

    fn one(keys: &str, part: &str) {
        let found = of(keys);
        assert!(found.len() == 1 && found[0].contains(part), "{keys}: {found:?}");
    }

    #[test]
    fn keys_of_retries_are_reported_where_retries_are_off() {
        one("retry: {attempts: 1, backoff: 1s}", "`backoff` has no effect");
        one("retry: {attempts: 1, on: [connect]}", "`on` has no effect");
        assert_eq!(of("retry: {attempts: 2, backoff: 1s, on: [connect]}"), [""; 0]);
        one("retry: {on: [connect, 503, connect]}", "listed twice");
        one("retry: {on: []}", "no request would be retried");
        one("retry: {on: [connect], try_timeout: 1s}", "`try_timeout` has no effect");
        one("retry: {methods: [PUT]}", "retried without being listed");
    }

    #[test]
    fn keys_of_another_type_of_health_check_are_reported() {
        one("health_check: {type: tcp, path: /up}", "`path` has no effect on a TCP");
        one(
            "health_check: {type: http, path: /up, service: a}",
            "`service` has no effect on an HTTP",
        );
        one("health_check: {type: grpc, body: ok}", "`body` has no effect on a gRPC");
        one("health_check: {type: x, service: a, host: b}", "x");
    }

    #[test]
    fn a_queue_in_which_no_request_would_wait_is_a_warning() {
        let warnings = |backend: &str, queue: &str| {
            let text = format!("pools: [{{name: web, backends: [{backend}], queue: {queue}}}]");
            let builder =
                ConfigBuilder::new(Some(text.as_bytes()), &Overrides::default(), Path::new(""));
            builder.map_or(99, |builder| builder.finish().warnings.len())
        };
        assert_eq!(warnings("http://10.0.0.1:1", "{length: 5}"), 1);
        assert_eq!(warnings("http://10.0.0.1:1", "{length: 0, timeout: 1s}"), 0);
        assert_eq!(warnings("{url: http://10.0.0.1:1, max_requests: 2}", "{length: 5}"), 0);
    }

    #[test]
    fn a_health_check_ends_before_the_next_one() {
        one("health_check: {interval: 2s, timeout: 3s}", "`timeout` (3s) is longer");
        assert_eq!(of("health_check: {interval: 3s, timeout: 3s}"), [""; 0]);
    }

    #[test]
    fn slow_start_is_off_or_takes_some_time() {
        one("slow_start: 0s", "no slow start; write `off`");
        let window = |keys: &str| {
            let text = format!("pools: [{{name: web, backends: [http://10.0.0.1], {keys}}}]");
            load(Some(text.as_bytes()), &Overrides::default()).unwrap().pools[0].slow_start
        };
        assert_eq!(window("slow_start: 30s"), Some(std::time::Duration::from_secs(30)));
        assert_eq!(window("slow_start: off"), None);
        assert_eq!(window("algorithm: random"), None, "it is off if it is not written");
    }

    #[test]
    fn slow_start_is_found_under_the_names_of_other_load_balancers() {
        one("slowstart: 30s", "`slow_start`");
        one("slow_start_config: 30s", "`slow_start`");
    }

    #[test]
    fn a_backend_has_the_server_name_of_its_own_before_that_of_its_pool() {
        let text = "pools: [{name: web, tls: {server_name: pool.test}, backends: [\
                    {url: https://10.0.0.1, server_name: own.test}, https://10.0.0.2, http://10.0.0.3]}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let names: Vec<_> =
            config.pools[0].backends.iter().map(|one| one.server_name.as_deref()).collect();
        assert_eq!(names, [Some("own.test"), Some("pool.test"), None]);
    }

    #[test]
    fn a_server_name_is_the_host_of_the_url_without_the_final_dot() {
        let text =
            "pools: [{name: web, backends: [https://a.test.:8443, 'https://[2001:db8::1]']}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let names: Vec<_> =
            config.pools[0].backends.iter().map(|one| one.server_name.as_deref()).collect();
        assert_eq!(names, [Some("a.test"), Some("2001:db8::1")]);
    }
}
