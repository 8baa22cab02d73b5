//! The state that a worker passes on to its successor.
//!
//! A reload starts a new worker without any state. Without a handoff it would send requests to
//! backends that are known to be down, and give every client a full bucket. So the old worker
//! exports its state, keyed by what both configurations have in common: a pool's name and a
//! backend's address, a limit's scope. Every process has its own clock, so the handoff contains
//! only durations relative to the moment of [`Handoff::export`], and the time since then.
//!
//! A worker continues to admit requests during the handover and the drain. Its successor charges
//! the tokens spent then: [`super::debits`].
//!
//! Counters are not here but in `metrics::Counts`, because a worker continues to count while it
//! drains, and every count must be added exactly once. `STATE` in `tests/handoff.rs` lists all state,
//! and whether it is handed off; a test there fails if a field is missing.
//!
//! If the configuration has changed:
//! - A backend whose host name now has another address, or with another transport (TLS, its server
//!   name), is a different server: its health is not imported.
//! - Under a changed rate, a bucket keeps the time that it still needed to be full, but at most the
//!   time that a bucket of the new rate takes. (The number of tokens spent cannot be kept: five of
//!   a burst of five are not five of a hundred.)
//! - With another `ipv6_prefix`, clients are different ones: all buckets are full.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::packed::Packed;
use crate::config::BackendAddress;
use crate::name::PoolName;
use crate::policy::limiter::{Bucket, RateLimiter};
use crate::policy::slow_start::RampState;
use crate::runtime::backend::{Backend, HealthState, PastInstant, TransportKey};
use crate::runtime::circuit::CircuitState;
use crate::runtime::endpoint::KnownName;
use crate::runtime::ids::EntryId;
use crate::runtime::members::{FoundServer, servers_of};
use crate::runtime::snapshot::{RouteKey, Seed, Snapshot};
use crate::time::Timestamp;

/// The maximum number of buckets exported per limiter: 16 MB. Those farthest from full are exported
/// first, so clients that are left out gain least.
pub const BUCKETS_MAX: usize = 1_000_000;

/// A worker's state for the next one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handoff {
    seed: Option<Seed>,
    backends: Vec<KnownBackend>,
    names: Vec<KnownName>,
    /// An older version omits them.
    members: Vec<KnownMembers>,
    limiters: Vec<LimiterState>,
    /// An older version omits them, and then every budget has its floor.
    retry_budgets: Vec<RetryBudgetState>,
    /// The time that has passed since this was the state. An older version omits it.
    age: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KnownBackend {
    pool: String,
    label: String,
    address: SocketAddr,
    #[serde(default)]
    speech: TransportKey,
    health: HealthState,
    #[serde(default)]
    circuit: CircuitState,
    /// An older version omits it.
    #[serde(default)]
    slow_start: Option<RampState>,
}

/// The backends that a source has given to a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownMembers {
    pool: String,
    /// As in the configuration.
    source: String,
    servers: Vec<FoundServer>,
}

/// The retry budget of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RetryBudgetState {
    pool: String,
    /// In thousandths of a token.
    level: u64,
}

/// Which requests a limit applies to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum BucketScope {
    Global,
    Route(RouteKey),
    Pool(String),
}

/// The buckets of one limiter that are not full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LimiterState {
    scope: BucketScope,
    ipv6_prefix: u8,
    /// The rate. A bucket that takes longer to fill than an empty one does owes tokens. An older
    /// version omits a part of it, and then it differs from any rate.
    #[serde(default)]
    token_ns: u64,
    #[serde(default)]
    full_ns: u64,
    buckets: Packed<Bucket>,
}

impl Handoff {
    /// Exports the state at `now`.
    #[must_use]
    pub fn export(snapshot: &Snapshot, now: Timestamp) -> Self {
        let mut backends = Vec::new();
        for pool in &snapshot.pools {
            backends.extend(pool.members.iter().filter_map(|member| {
                Some(KnownBackend {
                    pool: pool.name.to_string(),
                    label: member.backend.label.to_string(),
                    // A backend without an address has no state.
                    address: member.backend.address()?,
                    speech: member.backend.transport,
                    health: member.backend.export_health(now),
                    circuit: member.backend.circuit.export(now),
                    slow_start: member.backend.weight.export(now),
                })
            }));
        }
        let spent = |(scope, limiter): (BucketScope, &RateLimiter)| LimiterState {
            scope,
            ipv6_prefix: limiter.ipv6_prefix(),
            token_ns: limiter.rate().token_ns(),
            full_ns: limiter.rate().full_ns(),
            buckets: Packed::largest(limiter.export(now), BUCKETS_MAX),
        };
        let limiters = limiters(snapshot).map(spent).collect();
        let retry_budgets = snapshot.pools.iter().filter_map(|pool| {
            let level = pool.retry_budget.as_ref()?.export(now);
            Some(RetryBudgetState { pool: pool.name.to_string(), level })
        });
        let retry_budgets = retry_budgets.collect();
        Self {
            backends,
            limiters,
            retry_budgets,
            seed: Some(snapshot.seed),
            ..Self::export_names(snapshot)
        }
    }

    /// Exports the state of the backends' host names only.
    #[must_use]
    pub fn export_names(snapshot: &Snapshot) -> Self {
        let names = snapshot.pools.iter().flat_map(|pool| {
            let endpoints = pool.members.iter().map(|member| &member.backend.endpoint);
            endpoints.filter_map(|endpoint| KnownName::of(pool.name.as_str(), endpoint))
        });
        Self { names: names.collect(), members: known_members(snapshot), ..Self::default() }
    }

    /// The backends that a source gave to a pool when this was the state.
    #[must_use]
    pub fn members(&self, pool: &str, source: &str) -> Option<&[FoundServer]> {
        let mut known = self.members.iter();
        let known = known.find(|known| known.pool == pool && known.source == source)?;
        Some(&known.servers)
    }

    /// Whether the backends of a source that begins so are known.
    #[must_use]
    pub fn has_members_of(&self, source: &str) -> bool {
        self.members.iter().any(|known| known.source.starts_with(source))
    }

    /// The state of the backends' host names.
    #[must_use]
    pub fn names(&self) -> &[KnownName] {
        &self.names
    }

    /// The same without buckets, for a worker that starts: it imports them only when it takes over,
    /// and there may be millions.
    #[must_use]
    pub fn without_buckets(&self) -> Self {
        Self {
            seed: self.seed,
            backends: self.backends.clone(),
            names: self.names.clone(),
            members: self.members.clone(),
            limiters: Vec::new(),
            retry_budgets: Vec::new(),
            age: self.age,
        }
    }

    /// Adds to the time that has passed since this was the state.
    pub fn add_age(&mut self, by: Duration) {
        self.age = self.age.saturating_add(by);
    }

    /// Replaces the state of the host names by that of `other`, which is newer.
    pub fn replace_names(&mut self, other: Self) {
        self.names = other.names;
        self.members = other.members;
    }

    /// What to report to the operator about a successor's host names, one line each: those with
    /// another address, and those that could not be resolved.
    #[must_use]
    pub fn report_names(&self, successor: &Self) -> Vec<String> {
        let key = |known: &KnownName| (known.pool.clone(), known.host.clone(), known.port);
        let before: HashMap<_, _> = self.names.iter().map(|known| (key(known), known)).collect();
        let report = |known: &KnownName| known.report(before.get(&key(known)).copied());
        successor.names.iter().filter_map(report).collect()
    }

    /// The seed for the next snapshot, if known: bucket tags are hashes with this seed.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        self.seed.map(|Seed(seed)| seed)
    }

    /// Imports the state into a snapshot that has not served yet.
    pub fn import(&self, snapshot: &Snapshot, now: Timestamp) {
        self.import_health(snapshot, now);
        self.import_buckets(snapshot, now);
        self.import_retry_budgets(snapshot, now);
    }

    fn import_retry_budgets(&self, snapshot: &Snapshot, now: Timestamp) {
        let level = |name: &PoolName| {
            let known = self.retry_budgets.iter().find(|known| known.pool == name.as_str());
            known.map(|known| known.level)
        };
        for pool in &snapshot.pools {
            if let Some((budget, level)) = pool.retry_budget.as_ref().zip(level(&pool.name)) {
                budget.import(level, self.age, now);
            }
        }
    }

    /// The same for what is known of the backends alone. A worker that starts needs no more. A
    /// bucket in here is as old as the checkpoint, and would be taken for one that has earned
    /// nothing since; the handoff that the worker takes over with brings the buckets anyway.
    pub fn import_health(&self, snapshot: &Snapshot, now: Timestamp) {
        let exported = PastInstant { at: now, earlier: self.age };
        let key = |known: &KnownBackend| (known.pool.clone(), known.label.clone());
        let known: HashMap<_, _> = self.backends.iter().map(|one| (key(one), one)).collect();
        for pool in &snapshot.pools {
            let is_pool_new = !self.backends.iter().any(|known| known.pool == pool.name.as_str());
            for backend in pool.members.iter().map(|member| &member.backend) {
                let key = (pool.name.to_string(), backend.label.to_string());
                let is_same = |known: &&&KnownBackend| {
                    Some(known.address) == backend.address() && known.speech == backend.transport
                };
                let known = known.get(&key).filter(is_same);
                let Some(known) = known else {
                    if !is_pool_new {
                        backend.weight.begin_slow_start(now);
                    }
                    continue;
                };
                if let Some(state) = known.slow_start {
                    backend.weight.import(state, self.age, now);
                }
                if let Some(healthy) = backend.import_health(&known.health, exported) {
                    log_health(&pool.name, backend, healthy);
                }
                if let Some(breakers) = &pool.breakers {
                    backend.circuit.import(&breakers.params, &known.circuit, self.age, now);
                }
            }
        }
    }

    fn import_buckets(&self, snapshot: &Snapshot, now: Timestamp) {
        if self.seed != Some(snapshot.seed) {
            if self.limiters.iter().any(|spent| !spent.buckets.rows().is_empty()) {
                log::warn!("handoff: the buckets of another seed cannot be used");
            }
            return;
        }
        let spent: HashMap<_, _> = self.limiters.iter().map(|one| (&one.scope, one)).collect();
        for (scope, limiter) in limiters(snapshot) {
            let spent = spent.get(&scope);
            if let Some(spent) = spent.filter(|one| one.ipv6_prefix == limiter.ipv6_prefix()) {
                spent.import(limiter, self.age, now);
            }
        }
    }

    /// The exported buckets of all limiters.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (&BucketScope, &[Bucket])> {
        self.limiters.iter().map(|spent| (&spent.scope, spent.buckets.rows()))
    }
}

fn known_members(snapshot: &Snapshot) -> Vec<KnownMembers> {
    let mut known = Vec::new();
    for pool in &snapshot.pools {
        for (entry, backend) in pool.config.backends.iter().enumerate() {
            let BackendAddress::Discovered(discovery) = &backend.address else { continue };
            let servers = servers_of(pool, EntryId::new(entry));
            let (pool, source) = (pool.name.to_string(), discovery.from.to_string());
            known.push(KnownMembers { pool, source, servers });
        }
    }
    known
}

/// In the words of the health checks.
fn log_health(pool: &PoolName, backend: &Backend, healthy: bool) {
    let label = &backend.label;
    if healthy {
        log::info!("backend healthy: pool={pool} backend={label}");
        return;
    }
    let reason = backend.health().last_error.unwrap_or_default().replace('"', "'");
    log::warn!("backend unhealthy: pool={pool} backend={label} reason=\"{reason}\"");
}

impl LimiterState {
    /// Debts are valid as tokens of this rate only.
    fn import(&self, limiter: &RateLimiter, age: Duration, now: Timestamp) {
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let rate = limiter.rate();
        let is_same = (self.token_ns, self.full_ns) == (rate.token_ns(), rate.full_ns());
        let longest_ns = if is_same { u64::MAX } else { rate.full_ns() };
        for bucket in self.buckets.rows() {
            let full_in_ns = bucket.full_in_ns.saturating_sub(age_ns).min(longest_ns);
            limiter.import(Bucket { full_in_ns, ..*bucket }, now);
        }
    }
}

/// Every limiter with its scope.
pub(super) fn limiters(snapshot: &Snapshot) -> impl Iterator<Item = (BucketScope, &RateLimiter)> {
    let global = snapshot.limiter.iter().map(|limiter| (BucketScope::Global, limiter));
    let routes = snapshot.routes.iter().filter_map(|route| {
        let scope = BucketScope::Route(route.identity.clone());
        route.limiter.as_ref().map(|limiter| (scope, limiter))
    });
    let pools = snapshot.pools.iter().filter_map(|pool| {
        let limiter = pool.limiter.as_ref()?;
        Some((BucketScope::Pool(pool.name.to_string()), limiter))
    });
    global.chain(routes).chain(pools)
}
