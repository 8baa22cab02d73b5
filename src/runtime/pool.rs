//! A pool and the one place where eligibility is decided.
//!
//! A selector cannot know *why* a backend is not eligible. Health and what this request has
//! tried already meet in the `View`, sampled once per pick, so that a backend which changes in the
//! middle of a pick cannot confuse it.

use std::sync::Arc;

use crate::config::{Algorithm, HealthCheck, Protocol, Timeouts};
use crate::name::PoolName;
use crate::policy::limiter::RateLimiter;
use crate::policy::retry::RetryPolicy;
use crate::policy::select::{Candidates, IpHash, LeastConnections, Random, RoundRobin, Selector};
use crate::runtime::backend::{Backend, Lease, Member};
use crate::runtime::set::BackendSet;
use crate::runtime::tunnels::Tunnels;

/// A named group of interchangeable backends.
#[derive(Debug)]
pub struct Pool {
    /// What routes, metrics and logs call it.
    pub name: PoolName,
    /// Who is in it.
    pub members: Vec<Member>,
    /// Picks one for a first attempt.
    pub selector: Box<dyn Selector>,
    /// Picks one for any other. A retry that took a turn of the first attempts would bring them
    /// out of step: of two backends, the one that failed would have every next request.
    pub retry_selector: Box<dyn Selector>,
    /// How its backends are probed, if they are.
    pub health_check: Option<HealthCheck>,
    /// When an exchange may be tried again.
    pub retry: RetryPolicy,
    /// The first back-off; see [`crate::config::Retry::backoff`].
    pub backoff: std::time::Duration,
    /// How long to wait for a backend.
    pub timeouts: Timeouts,
    /// Which HTTP its backends speak.
    pub protocol: Protocol,
    /// For the requests of this pool.
    pub limiter: Option<RateLimiter>,
    /// Those that are open.
    pub tunnels: Tunnels,
}

/// A backend that was picked.
#[derive(Debug)]
pub struct Pick {
    /// Which of the pool's members.
    pub index: usize,
    /// One request in flight to it.
    pub lease: Lease,
    /// This request has tried it before: no other backend was eligible.
    pub again: bool,
}

impl Pool {
    /// Picks a backend for a request that has failed at those in `tried`: a healthy one that was not
    /// tried, else one that is recovering, else a healthy one once more.
    #[must_use]
    pub fn pick(&self, tried: &BackendSet, key: u64, roll: u64) -> Option<Pick> {
        let healthy = self.healthy();
        let fresh = match healthy.without(tried) {
            fresh if fresh.is_empty() => self.last_resort(tried),
            fresh => fresh,
        };
        let again = fresh.is_empty();
        let eligible = if again { healthy } else { fresh };
        let view = View { members: &self.members, eligible };
        let selector = if tried.is_empty() { &self.selector } else { &self.retry_selector };
        let index = selector.select(&view, key, roll)?;
        let backend = self.members.get(index)?.backend.clone();
        Some(Pick { index, lease: Lease::new(backend), again })
    }

    /// Whether a request that has failed at those in `tried` could go anywhere.
    #[must_use]
    pub fn has_another(&self, tried: &BackendSet) -> bool {
        !self.healthy().is_empty() || !self.last_resort(tried).is_empty()
    }

    /// Whether a request that has failed at those in `tried` could go to yet another backend.
    #[must_use]
    pub fn has_untried(&self, tried: &BackendSet) -> bool {
        !self.healthy().without(tried).is_empty() || !self.last_resort(tried).is_empty()
    }

    /// Those that are recovering and were not tried, for a request that has failed elsewhere. Their
    /// last health check passed, which is more than is known of a backend that has just failed.
    fn last_resort(&self, tried: &BackendSet) -> BackendSet {
        if tried.is_empty() {
            return BackendSet::EMPTY;
        }
        let recovering =
            |(index, member): (usize, &Member)| member.backend.is_recovering().then_some(index);
        let all: BackendSet = self.members.iter().enumerate().filter_map(recovering).collect();
        all.without(tried)
    }

    /// Who is healthy now.
    #[must_use]
    pub fn healthy(&self) -> BackendSet {
        let healthy =
            |(index, member): (usize, &Member)| member.backend.is_healthy().then_some(index);
        self.members.iter().enumerate().filter_map(healthy).collect()
    }

    /// The backend with this index.
    #[must_use]
    pub fn backend(&self, index: usize) -> Option<&Arc<Backend>> {
        self.members.get(index).map(|member| &member.backend)
    }
}

/// The selector of an algorithm, at its start.
#[must_use]
pub fn selector(algorithm: Algorithm) -> Box<dyn Selector> {
    match algorithm {
        Algorithm::RoundRobin => Box::new(RoundRobin::new()),
        Algorithm::LeastConnections => Box::new(LeastConnections::new()),
        Algorithm::IpHash => Box::new(IpHash::new()),
        Algorithm::Random => Box::new(Random::new()),
    }
}

/// Who is eligible, frozen for one pick.
struct View<'a> {
    members: &'a [Member],
    eligible: BackendSet,
}

impl Candidates for View<'_> {
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
        self.eligible.contains(index)
    }

    fn eligible_count(&self) -> usize {
        self.eligible.len()
    }

    fn nth_eligible(&self, nth: usize) -> Option<usize> {
        self.eligible.nth(nth)
    }
}
