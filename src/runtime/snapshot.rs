//! Everything that a request needs, at one version.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::{
    self, AmbiguousPaths, BackendAddress, Config, Forwarding, HeaderChanges, UnderscoreHeaders,
};
use crate::name::RouteName;
use crate::policy::bucket::Rate;
use crate::policy::limiter::{Params, RateLimiter};
use crate::policy::retry::RetryPolicy;
use crate::policy::retry_budget::{BudgetParams, RetryBudget};
use crate::policy::wait_queue::QueueParams;
use crate::runtime::action::Action;
use crate::runtime::backend::Member;
use crate::runtime::balancing::Balancing;
use crate::runtime::breakers::Breakers;
use crate::runtime::endpoint::{Endpoint, Lookup};
use crate::runtime::ids::{EntryId, PoolId, PoolMap};
use crate::runtime::members::new_backend;
use crate::runtime::overrides::CurrentOverrides;
use crate::runtime::pool::{Pick, Pool, PoolCommon};
use crate::runtime::request_limit::RequestLimit;
use crate::runtime::routes::Routes;
use crate::runtime::tunnels::TunnelGauge;
use crate::runtime::waiters::Waiters;
use crate::time::Timestamp;

/// One version of the runtime state. Immutable except for the atomics inside backends and limiters.
///
/// The backends of a pool can change while a worker runs. Then a new snapshot replaces this one, and
/// shares everything with it that has a state: all of [`SnapshotCommon`], of [`PoolCommon`], and the
/// backends that stay.
#[derive(Debug)]
pub struct Snapshot {
    common: Arc<SnapshotCommon>,
    /// The pools.
    pub pools: PoolMap<Pool>,
}

/// What all snapshots of one configuration share.
#[derive(Debug)]
pub struct SnapshotCommon {
    /// Identifies the configuration.
    pub version: String,
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
    /// The limit on requests in progress.
    pub request_limit: Option<RequestLimit>,
    /// The key of the limiters' tables.
    pub seed: Seed,
    /// What operators have set on backends.
    pub overrides: CurrentOverrides,
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
        let pools = pools.collect();
        let common = SnapshotCommon {
            version: version.to_owned(),
            routes: routes.collect(),
            table: Routes::new(&config.routes),
            limiter: config.rate_limit.as_ref().and_then(|limit| limiter(limit, seed)),
            ambiguous_paths: config.limits.ambiguous_paths,
            underscore_headers: config.limits.underscore_headers,
            body_bytes_max: config.limits.body,
            request_limit: config.limits.requests.map(RequestLimit::new),
            trusted_proxies: config.trusted_proxies.clone(),
            forwarded: config.forwarded,
            seed: Seed(seed),
            overrides: CurrentOverrides::default(),
        };
        Self { common: Arc::new(common), pools }
    }

    /// The same with other members in some pools. Requests that have pinned this one keep it.
    #[must_use]
    pub fn with_members(
        &self,
        mut members: impl FnMut(PoolId, &Pool) -> Option<Vec<Member>>,
    ) -> Self {
        let pools = self.pools.entries().map(|(id, pool)| match members(id, pool) {
            Some(members) => pool.with_members(members),
            None => pool.clone(),
        });
        Self { pools: pools.collect(), common: Arc::clone(&self.common) }
    }

    /// Applies what operators have set to all backends. Those that are not in the list are as configured.
    ///
    /// To be called after a new list was set, and after a snapshot with new members has replaced this
    /// one: whichever of the two comes last sees what the other has done.
    pub fn apply_overrides(&self, now: Timestamp) {
        let list = self.overrides.get();
        for pool in &self.pools {
            let mut has_new_weight = false;
            for member in pool.members.iter() {
                let set = list.get(pool.name.as_str(), &member.backend.label);
                has_new_weight |= member.backend.apply_override(set, now);
            }
            if has_new_weight {
                pool.balancing.recalculate(&pool.members, now);
            }
        }
    }

    /// Whether every pool has a healthy backend that no operator has taken out.
    #[must_use]
    pub fn serves_every_pool(&self) -> bool {
        self.pools.iter().all(|pool| !pool.available().is_empty())
    }
}

impl Deref for Snapshot {
    type Target = SnapshotCommon;

    fn deref(&self) -> &SnapshotCommon {
        &self.common
    }
}

fn build_pool(
    pool: &config::Pool,
    seed: u64,
    lookup: &mut impl FnMut(&str, u16) -> Lookup,
) -> Pool {
    let balancing = Balancing::new(pool.algorithm, pool.slow_start);
    let mut members = Vec::with_capacity(pool.backends.len());
    for (position, backend) in pool.backends.iter().enumerate() {
        let endpoint = match &backend.address {
            BackendAddress::Socket(address) => Endpoint::fixed(*address),
            BackendAddress::Name(name, port) => Endpoint::named(name, *port, lookup(name, *port)),
            // They are found later, and then become members.
            BackendAddress::Discovered(_) => continue,
        };
        let (label, entry) = (backend.address.to_string(), EntryId::new(position));
        let Some(server) = new_backend(pool, entry, &label, endpoint, None) else { continue };
        let server = server.with_weight(balancing.backend_weight());
        let config::Backend { weight, max_requests, .. } = *backend;
        members.push(Member { backend: Arc::new(server), weight, max_requests });
    }
    let is_limited = pool.backends.iter().any(|backend| backend.max_requests.is_some());
    let common = PoolCommon {
        name: pool.name.clone(),
        waiters: waiters(pool.queue).filter(|_| is_limited),
        balancing,
        config: pool.clone(),
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
        limiter: pool.rate_limit.as_ref().and_then(|limit| limiter(limit, seed)),
        tunnels: TunnelGauge::default(),
    };
    Pool::new(common, members)
}

fn waiters(queue: config::RequestQueue) -> Option<Arc<Waiters<Pick>>> {
    let config::RequestQueue { length, timeout, order } = queue;
    (length > 0).then(|| Arc::new(Waiters::new(QueueParams { length, timeout, order })))
}

fn retry_budget(budget: config::RetryBudget) -> RetryBudget {
    let config::RetryBudget { share, floor, window } = budget;
    RetryBudget::new(BudgetParams { share_thousandths: share * 10, floor, window })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};
    use crate::runtime::lease::Lease;

    #[test]
    fn a_snapshot_with_other_members_shares_the_state_of_the_pool_and_of_those_that_stay() {
        let text = "pools: [{name: a, rate_limit: {requests_per_second: 1, burst: 1}, retry: {budget: {floor: 5}}, \
                    backends: [http://10.0.0.1:1, http://10.0.0.2:1]}, {name: b, backends: [http://10.0.0.3:1]}]\n\
                    routes: [{path: /b, pool: b}, {pool: a}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let old =
            Snapshot::new(&config, "v", 1, |_, _| Lookup::Failed("no names in tests".to_owned()));
        let new = old
            .with_members(|id, pool| (id == PoolId::new(0)).then(|| vec![pool.members[1].clone()]));
        let counts: Vec<_> = new.pools.iter().map(|pool| pool.members.len()).collect();
        assert_eq!(counts, [1, 1]);
        assert_eq!(new.routes.len(), 2);
        // Counted under the old snapshot, seen under the new one.
        let lease = Lease::new(Arc::clone(&old.pools[0].members[1].backend));
        assert_eq!(new.pools[0].members[0].backend.in_flight(), 1);
        drop(lease);
        let client = "10.1.1.1".parse().unwrap();
        let limiters = [&old, &new].map(|one| one.pools[0].limiter.as_ref().unwrap());
        assert!(limiters[0].admit(client, Timestamp::ZERO).is_ok());
        assert!(limiters[1].admit(client, Timestamp::ZERO).is_err());
        let budgets = [&old, &new].map(|one| one.pools[0].retry_budget.as_ref().unwrap());
        assert!(budgets[0].take(Timestamp::ZERO));
        assert_eq!(budgets[1].tokens(Timestamp::ZERO), 4);
    }
}
