//! Everything that a request needs, at one version.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{
    self, AmbiguousPaths, BackendAddress, Config, Forwarding, HeaderChanges, Protocol,
    UnderscoreHeaders,
};
use crate::name::RouteName;
use crate::policy::bucket::Rate;
use crate::policy::limiter::{Params, RateLimiter};
use crate::policy::retry::RetryPolicy;
use crate::policy::retry_budget::{BudgetParams, RetryBudget};
use crate::runtime::action::Action;
use crate::runtime::backend::{Backend, Member, TransportKey};
use crate::runtime::breakers::Breakers;
use crate::runtime::endpoint::{Endpoint, Lookup};
use crate::runtime::ids::PoolMap;
use crate::runtime::pool::{Pool, selector};
use crate::runtime::routes::Routes;
use crate::runtime::tunnels::TunnelGauge;

/// One version of the runtime state. Immutable except for the atomics inside backends and limiters.
#[derive(Debug)]
pub struct Snapshot {
    /// Identifies the configuration.
    pub version: String,
    /// The pools.
    pub pools: PoolMap<Pool>,
    /// The routes.
    pub routes: Vec<Route>,
    /// Finds a route.
    pub table: Routes,
    /// The rate limit for every request.
    pub limiter: Option<RateLimiter>,
    /// The networks whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Which headers carry the client's address.
    pub forwarded: Forwarding,
    /// What to do with paths that servers may interpret differently and that could match different
    /// routes.
    pub ambiguous_paths: AmbiguousPaths,
    /// What to do with request headers whose name contains an underscore.
    pub underscore_headers: UnderscoreHeaders,
    /// The longest request body.
    pub body_bytes_max: Option<u64>,
    /// The key of the limiters' tables.
    pub seed: Seed,
}

/// The key of the limiters' tables. It stays the same from worker to worker; otherwise the buckets
/// passed on to the next worker could not be found.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl fmt::Debug for Seed {
    /// It is secret, so `Debug` does not show it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seed")
    }
}

/// A route.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs.
    pub name: Option<RouteName>,
    /// What it does with a request.
    pub action: Action,
    /// Changes of the request headers for the backend.
    pub request_headers: HeaderChanges,
    /// Changes of the response headers for the client.
    pub response_headers: HeaderChanges,
    /// Which requests it matches, as text: identifies the route.
    pub identity: RouteKey,
    /// The rate limit for requests of this route.
    pub limiter: Option<RateLimiter>,
}

/// Which requests a route matches, as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// The host, `*.` and the suffix, or `*` for every host; after the scheme, if it is for one.
    pub host: String,
    /// The path, and the other conditions.
    pub path: String,
}

impl RouteKey {
    fn of(route: &config::Route) -> Self {
        let scheme = route.scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
        Self {
            host: format!("{scheme}{}", route.host),
            path: format!("{}{}", route.path, route.conditions),
        }
    }
}

impl Snapshot {
    /// Builds the snapshot. `lookup` resolves a host name and a port to an address; a backend
    /// without an address gets no requests. `seed` keys the rate limiters' tables, so that no
    /// client can target a specific slot.
    #[must_use]
    pub fn new(
        config: &Config,
        version: &str,
        seed: u64,
        mut lookup: impl FnMut(&str, u16) -> Lookup,
    ) -> Self {
        let pools = config.pools.iter().map(|pool| build_pool(pool, seed, &mut lookup));
        let routes = config.routes.iter().map(|route| Route {
            name: route.name.clone(),
            action: Action::new(&route.action),
            request_headers: route.request_headers.clone(),
            response_headers: route.response_headers.clone(),
            identity: RouteKey::of(route),
            limiter: route.rate_limit.as_ref().and_then(|limit| limiter(limit, seed)),
        });
        Self {
            version: version.to_owned(),
            pools: pools.collect(),
            routes: routes.collect(),
            table: Routes::new(&config.routes),
            limiter: config.rate_limit.as_ref().and_then(|limit| limiter(limit, seed)),
            ambiguous_paths: config.limits.ambiguous_paths,
            underscore_headers: config.limits.underscore_headers,
            body_bytes_max: config.limits.body,
            trusted_proxies: config.trusted_proxies.clone(),
            forwarded: config.forwarded,
            seed: Seed(seed),
        }
    }

    /// Whether every pool has a healthy backend.
    #[must_use]
    pub fn serves_every_pool(&self) -> bool {
        self.pools.iter().all(|pool| !pool.healthy().is_empty())
    }
}

fn build_pool(
    pool: &config::Pool,
    seed: u64,
    lookup: &mut impl FnMut(&str, u16) -> Lookup,
) -> Pool {
    let mut members = Vec::with_capacity(pool.backends.len());
    for backend in &pool.backends {
        let endpoint = match &backend.address {
            BackendAddress::Socket(address) => Endpoint::fixed(*address),
            BackendAddress::Name(name, port) => Endpoint::named(name, *port, lookup(name, *port)),
        };
        let label = backend.address.to_string();
        let server = Backend::new(&label, endpoint, pool.health_check.as_ref())
            .with_transport(transport(pool, backend));
        members.push(Member { backend: Arc::new(server), weight: backend.weight });
    }
    Pool {
        name: pool.name.clone(),
        members,
        selector: selector(pool.algorithm),
        retry_selector: selector(pool.algorithm),
        health_check: pool.health_check.clone(),
        breakers: pool.breaker.as_ref().map(Breakers::new),
        retry: RetryPolicy {
            attempts: pool.retry.attempts,
            connect: pool.retry.on.connect,
            reset: pool.retry.on.reset,
            timeout: pool.retry.on.timeout,
            status: pool.retry.on.status.clone(),
            methods: pool.retry.methods.clone(),
            backoff: pool.retry.backoff,
            try_timeout: pool.retry.try_timeout,
        },
        retry_budget: pool.retry.budget.map(retry_budget),
        timeouts: pool.timeouts,
        protocol: pool.transport.protocol,
        limiter: pool.rate_limit.as_ref().and_then(|limit| limiter(limit, seed)),
        tunnels: TunnelGauge::default(),
    }
}

fn retry_budget(budget: config::RetryBudget) -> RetryBudget {
    let config::RetryBudget { share, floor, window } = budget;
    RetryBudget::new(BudgetParams { share_thousandths: share * 10, floor, window })
}

fn transport(pool: &config::Pool, backend: &config::Backend) -> TransportKey {
    let protocol = pool.transport.protocol;
    let tls = backend.server_name.is_some();
    let proxied = pool.transport.proxy_protocol;
    if !tls && protocol != Protocol::H2c && !proxied {
        return TransportKey::default();
    }
    // Renewed certificates in the same files do not make a different server.
    let config::TransportTls { verify, ca, identity } = &pool.transport.tls;
    let (ca, cert) = (ca.as_ref().map(|ca| &ca.path), identity.as_ref().map(|id| &id.cert.path));
    let fingerprint =
        format!("{:?} {protocol:?} {proxied} {verify} {ca:?} {cert:?}", backend.server_name);
    TransportKey { tls, fingerprint: xxh3_64(fingerprint.as_bytes()) }
}

/// A checked limit has a rate above zero, so the result is never `None`.
fn limiter(limit: &config::RateLimit, seed: u64) -> Option<RateLimiter> {
    let rate = Rate::new(limit.requests_per_second, limit.burst)?;
    let params = Params {
        rate,
        ipv6_prefix: limit.ipv6_prefix,
        clients_max: limit.clients_max,
        exempt: limit.exempt.clone(),
    };
    Some(RateLimiter::new(params, seed))
}
