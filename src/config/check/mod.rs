//! Checks the file as typed and makes the configuration.
//!
//! An invalid value counts as left out from then on, so that each mistake is reported once and the rest of
//! the file is still checked. The result is discarded if there was any problem.

mod action;
mod admin;
mod backend;
mod bindings;
mod breaker;
mod conditions;
mod discovery;
mod listener;
mod pool;
mod references;
mod route;
mod shadowing;
mod transport;

use std::collections::HashMap;
use std::hash::Hash;
use std::num::{NonZeroU64, NonZeroUsize};

use ipnet::IpNet;

use super::file::{
    AccessLog, DEFAULT_LISTENER, Limits, RateLimit, RawAccessLog, RawFile, RawLimits, RawListener,
    RawRateLimit,
};
use super::limits;
use super::listener::Listener;
use super::meaning::{Admin, Config, Threads};
use super::problem::{Diagnostics, Origin, Problem, SourcePosition, Spanned};
use super::read::{IntoMeaning as _, List};
use super::source::ConfigSource;
use super::terms::{LogFormat, ResponseBuffers};
use super::value::{SizeOrOff, Threads as TypedThreads};
use crate::http::scan::Limits as HeadLimits;
use crate::policy::transfer_rate::MinTransferRate;
use bindings::{Bindings, Bound};

/// The configuration of `file`.
pub(super) fn check(file: RawFile, found: &mut Diagnostics) -> Config {
    let mut bound = Bindings::default();
    let unclear = may_come_by_https(&file);
    let probes = pool::grpc_probes(file.pools.as_ref());
    let (limits, access_log) = (file.limits(), file.access_log());
    let (forwarded, shutdown) = (file.forwarded().meaning(), file.shutdown().meaning());
    let admin = file.admin();
    let defined_at = admin.address.as_ref().and_then(|address| address.at.position());
    let (address, ready_when) = admin::address(admin, &file.refused, &mut bound, found);
    let listeners = if file.refused.contains(&"listeners") {
        Vec::new()
    } else {
        listeners(file.listeners, &mut bound, found)
    };
    if !listeners.is_empty() && !listeners.iter().any(|listener| listener.http2) {
        let what = "health checks use gRPC, but no listener accepts HTTP/2, which gRPC needs";
        let warn = |at| Problem::new(at, what).help("add `http2: true`, or `tls`, to a listener");
        found.warnings.extend(probes.into_iter().map(warn));
    }
    let (pools, names) = pool::pools(file.pools, &bound, found);
    let ready_when = admin::ready_when(ready_when, &names, found);
    let admin = Admin { address, ready_when, defined_at: SourcePosition(defined_at) };
    if !unclear && listeners.iter().all(|one| one.tls.is_none()) {
        route::all_come_by_http(file.routes.as_ref(), found);
    }
    let routes = if file.refused.contains(&"routes") {
        Vec::new()
    } else {
        route::routes(file.routes, &names, found)
    };
    Config {
        listeners,
        admin,
        threads: threads(file.threads.as_ref(), found),
        forwarded,
        shutdown,
        trusted_proxies: networks(file.trusted_proxies),
        routes,
        pools,
        rate_limit: file.rate_limit.and_then(|rate| rate_limit(rate.value)),
        limits: self::limits(limits),
        access_log: self::access_log(access_log, found),
        source: ConfigSource::default(),
    }
}

/// Whether clients may use https although no valid listener has TLS.
fn may_come_by_https(file: &RawFile) -> bool {
    let refused = |key| file.refused.contains(&key);
    let listeners = file.listeners.as_ref().map(|listeners| &listeners.value);
    let unclear = |one: &Spanned<RawListener>| one.value.refused.contains(&"tls");
    refused("trusted_proxies")
        || file.trusted_proxies.as_ref().is_some_and(|proxies| proxies.value.typed > 0)
        || refused("listeners")
        || listeners.is_some_and(|listeners| {
            listeners.entries.len() < listeners.typed || listeners.entries.iter().any(unclear)
        })
}

fn listeners(
    typed: Option<Spanned<List<RawListener>>>,
    bound: &mut Bindings,
    found: &mut Diagnostics,
) -> Vec<Listener> {
    let Some(typed) = typed else {
        bound.add(Bound { address: DEFAULT_LISTENER, at: None, admin: false }, found);
        return vec![Listener::plaintext(DEFAULT_LISTENER)];
    };
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "`listeners` is empty, so no client could connect");
        found.add(problem.help("remove `listeners` for the default, 0.0.0.0:8080"));
    }
    if typed.value.typed > limits::LISTENERS_MAX {
        let what =
            format!("{} listeners, but {} are the most", typed.value.typed, limits::LISTENERS_MAX);
        found.add(Problem::new(typed.at, what));
        return Vec::new();
    }
    let mut listeners = Vec::new();
    for typed in typed.value.entries {
        // Without a valid address the rest is still looked at.
        let at = typed.value.address.as_ref().map(|address| address.at);
        let defined_at = SourcePosition(at.and_then(Origin::position));
        let address = typed.value.address.map_or(DEFAULT_LISTENER, |address| {
            bound.add(Bound { address: address.value, at, admin: false }, found);
            address.value
        });
        let proxy_protocol = listener::proxy_protocol(typed.value.proxy_protocol, found);
        let tls = typed.value.tls.map(|tls| listener::tls(tls, found));
        let http2 = typed.value.http2.map_or(tls.is_some(), |http2| http2.value);
        listeners.push(Listener { address, proxy_protocol, tls, http2, defined_at });
    }
    listeners
}

fn threads(typed: Option<&Spanned<TypedThreads>>, found: &mut Diagnostics) -> Threads {
    let Some(typed) = typed else { return Threads::Auto };
    let count = match typed.value {
        TypedThreads::Auto => return Threads::Auto,
        TypedThreads::Count(count) => count,
    };
    let fits = usize::try_from(count).ok().and_then(NonZeroUsize::new);
    if let Some(count) = fits.filter(|count| count.get() <= limits::THREADS_MAX) {
        return Threads::Count(count);
    }
    let what = format!("`threads` cannot be {count}");
    let help = format!("a whole number from 1 to {}", limits::THREADS_MAX);
    found.add(Problem::new(typed.at, what).help(help));
    Threads::Auto
}

fn limits(typed: RawLimits) -> Limits {
    let defined_at = typed.connections.as_ref().and_then(|typed| typed.at.position());
    let head = HeadLimits {
        target_bytes: typed.target_bytes().meaning(),
        header_bytes: typed.header_bytes().meaning(),
        headers: typed.headers().meaning(),
    };
    let grace = typed.body_grace();
    let rate = typed.body_rate().meaning().and_then(NonZeroU64::new);
    let min_rate = rate.map(|bytes_per_second| MinTransferRate { bytes_per_second, grace });
    let response_buffers = match typed.response_buffers.as_ref().map(|buffers| buffers.value) {
        None => ResponseBuffers::OfMemory,
        Some(SizeOrOff::Off) => ResponseBuffers::Off,
        Some(SizeOrOff::Bytes(bytes)) => ResponseBuffers::Bytes(bytes),
    };
    let defined_at = SourcePosition(defined_at);
    typed.configuration(defined_at, head, min_rate, response_buffers)
}

fn access_log(typed: RawAccessLog, found: &mut Diagnostics) -> AccessLog {
    if let (LogFormat::Off, Some(target)) = (typed.format().0, &typed.target) {
        let what = "`target` has no effect, because `format: off` disables the access log";
        found.add(Problem::new(target.at, what).help("remove it, or choose a format"));
    }
    typed.meaning()
}

/// `None` if the rate is invalid.
fn rate_limit(typed: RawRateLimit) -> Option<RateLimit> {
    let rate = typed.requests_per_second.as_ref()?.value;
    Some(typed.configuration(rate))
}

fn networks(typed: Option<Spanned<List<IpNet>>>) -> Vec<IpNet> {
    typed.map(|networks| networks.value.meaning()).unwrap_or_default()
}

/// Failures without those that are listed twice, which are reported.
fn distinct<T: Copy + Eq + Hash>(list: List<T>, found: &mut Diagnostics) -> Vec<T> {
    let mut seen: HashMap<T, Origin> = HashMap::new();
    let mut distinct = Vec::new();
    for Spanned { at, value } in list.entries {
        if let Some(first) = seen.get(&value) {
            let problem = Problem::new(at, "this failure is listed twice");
            found.add(problem.help(format!("the first is at {first}")));
        } else {
            seen.insert(value, at);
            distinct.push(value);
        }
    }
    distinct
}

/// The problems of a file, for tests.
#[cfg(test)]
fn problems(text: &str) -> Vec<String> {
    match super::load(Some(text.as_bytes()), &super::Overrides::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {

    fn of(keys: &str) -> Vec<String> {
        let pool = "pools: [{name: a, backends: [http://10.0.0.1:1]}]";
        match crate::config::load(
            Some(format!("{pool}\n{keys}").as_bytes()),
            &crate::config::Overrides::default(),
        ) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_route_for_https_needs_tls_here_or_a_proxy_that_terminates_it() {
        let routes = "routes: [{scheme: https, pool: a}, {pool: a}]";
        let found = of(routes);
        assert!(found.len() == 1 && found[0].contains("no request can use https"), "{found:?}");
        assert_eq!(of(&format!("{routes}\ntrusted_proxies: [10.0.0.0/8]")), [""; 0]);
        let invalid = of(&format!("{routes}\ntrusted_proxies: [nonsense]"));
        assert_eq!(invalid.len(), 1, "the proxies were meant to be there: {invalid:?}");
    }

    #[test]
    fn a_misspelt_pool_is_reported_unless_its_definition_may_be_broken() {
        let found = of("routes: [{pool: b}]");
        assert!(found.len() == 1 && found[0].contains("the only pool is `a`"), "{found:?}");
        let text = "pools: [{name: a, backends: [http://10.0.0.1:1]}, \
                    {name: '-/-', backends: [http://10.0.0.2:1]}]\nroutes: [{pool: b}, {path: /a, pool: a}]";
        let problems =
            crate::config::load(Some(text.as_bytes()), &crate::config::Overrides::default());
        let problems = problems.unwrap_err().to_string();
        assert!(!problems.contains("there is no pool"), "{problems}");
    }
}
