//! A pool, and the one place where eligibility is decided.
//!
//! A selector does not know *why* a backend is not eligible. Health, and the backends that the
//! request has already tried, are combined in the `PoolView`, which is sampled once per pick. So a
//! backend that changes during a pick cannot confuse it.

use std::sync::Arc;

use crate::config::{Algorithm, HealthCheck, Protocol, Timeouts};
use crate::name::PoolName;
use crate::policy::limiter::RateLimiter;
use crate::policy::retry::RetryPolicy;
use crate::policy::select::{Candidates, IpHash, LeastConnections, Random, RoundRobin, Selector};
use crate::runtime::backend::{Backend, Lease, Member};
use crate::runtime::backend_set::BackendSet;
use crate::runtime::ids::BackendId;
use crate::runtime::tunnels::TunnelGauge;

/// A named group of interchangeable backends.
#[derive(Debug)]
pub struct Pool {
    /// Its name in routes, metrics and logs.
    pub name: PoolName,
    /// Its backends.
    pub members: Vec<Member>,
    /// Picks a backend for a first attempt.
    pub selector: Box<dyn Selector>,
    /// Picks a backend for a retry. A retry that took a turn of the first attempts would break
    /// their rhythm: of two backends, the one that failed would get every next request.
    pub retry_selector: Box<dyn Selector>,
    /// Its health check, if any.
    pub health_check: Option<HealthCheck>,
    /// When a request may be retried.
    pub retry: RetryPolicy,
    /// The first back-off; see [`crate::config::Retry::backoff`].
    pub backoff: std::time::Duration,
    /// The timeouts towards its backends.
    pub timeouts: Timeouts,
    /// The HTTP version of its backends.
    pub protocol: Protocol,
    /// The rate limit for requests of this pool.
    pub limiter: Option<RateLimiter>,
    /// Open WebSocket tunnels.
    pub tunnels: TunnelGauge,
}

/// A backend that was picked.
#[derive(Debug)]
pub struct Pick {
    /// Which.
    pub id: BackendId,
    /// One request in flight to it.
    pub lease: Lease,
    /// Whether this request has tried it before, because no other backend was eligible.
    pub again: bool,
}

impl Pool {
    /// Picks a backend for a request that has failed at those in `tried`: a healthy one that was
    /// not tried, or else one that is recovering, or else a healthy one again.
    #[must_use]
    pub fn pick(&self, tried: &BackendSet, key: u64, roll: u64) -> Option<Pick> {
        let healthy = self.healthy();
        let fresh = match healthy.without(tried) {
            fresh if fresh.is_empty() => self.last_resort(tried),
            fresh => fresh,
        };
        let again = fresh.is_empty();
        let eligible = if again { healthy } else { fresh };
        let view = PoolView { members: &self.members, eligible };
        let selector = if tried.is_empty() { &self.selector } else { &self.retry_selector };
        let id = BackendId::new(selector.select(&view, key, roll)?);
        let backend = self.backend(id)?.clone();
        Some(Pick { id, lease: Lease::new(backend), again })
    }

    /// Whether there is any backend to retry a request on that has failed at those in `tried`.
    #[must_use]
    pub fn has_another(&self, tried: &BackendSet) -> bool {
        !self.healthy().is_empty() || !self.last_resort(tried).is_empty()
    }

    /// Whether there is an untried backend for a request that has failed at those in `tried`.
    #[must_use]
    pub fn has_untried(&self, tried: &BackendSet) -> bool {
        !self.healthy().without(tried).is_empty() || !self.last_resort(tried).is_empty()
    }

    /// Recovering backends that were not tried, for a request that has failed elsewhere. Their last
    /// health check passed, which is better than a backend that has just failed.
    fn last_resort(&self, tried: &BackendSet) -> BackendSet {
        if tried.is_empty() {
            return BackendSet::EMPTY;
        }
        self.those(Backend::is_recovering).without(tried)
    }

    /// The healthy backends.
    #[must_use]
    pub fn healthy(&self) -> BackendSet {
        self.those(Backend::is_healthy)
    }

    fn those(&self, is_one: impl Fn(&Backend) -> bool) -> BackendSet {
        let found = self.members.iter().enumerate().filter(|(_, member)| is_one(&member.backend));
        found.map(|(position, _)| BackendId::new(position)).collect()
    }

    /// This backend.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        self.members.get(id.position()).map(|member| &member.backend)
    }
}

/// A new selector for an algorithm.
#[must_use]
pub fn selector(algorithm: Algorithm) -> Box<dyn Selector> {
    match algorithm {
        Algorithm::RoundRobin => Box::new(RoundRobin::new()),
        Algorithm::LeastConnections => Box::new(LeastConnections::new()),
        Algorithm::IpHash => Box::new(IpHash::new()),
        Algorithm::Random => Box::new(Random::new()),
    }
}

/// The eligible backends, frozen for one pick.
struct PoolView<'a> {
    members: &'a [Member],
    eligible: BackendSet,
}

impl Candidates for PoolView<'_> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.members.get(index).map_or(0, |member| member.weight.get())
    }

    fn in_flight(&self, index: usize) -> u64 {
        self.members.get(index).map_or(0, |member| member.backend.load())
    }

    fn identity(&self, index: usize) -> u64 {
        self.members.get(index).map_or(0, |member| member.backend.identity)
    }

    fn is_eligible(&self, index: usize) -> bool {
        self.eligible.contains(BackendId::new(index))
    }

    fn eligible_count(&self) -> usize {
        self.eligible.len()
    }

    fn nth_eligible(&self, nth: usize) -> Option<usize> {
        self.eligible.nth(nth).map(BackendId::position)
    }
}
