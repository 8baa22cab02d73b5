//! A pool, and the one place where eligibility is decided.
//!
//! A selector does not know *why* a backend is not eligible. Health, circuit breakers, and the backends
//! that the request has already tried, are combined in the `PoolView`, which is sampled once per pick. So a
//! backend that changes during a pick cannot confuse it.

use std::ops::Deref;
use std::sync::Arc;

use crate::config::{self, HealthCheck, Timeouts};
use crate::name::PoolName;
use crate::policy::breaker::{Moment, Transition};
use crate::policy::limiter::RateLimiter;
use crate::policy::retry::RetryPolicy;
use crate::policy::retry_budget::RetryBudget;
use crate::policy::select::Candidates;
use crate::runtime::backend::{Backend, Eligibility, Member};
use crate::runtime::backend_set::BackendSet;
use crate::runtime::balancing::Balancing;
use crate::runtime::breakers::{BreakerChange, Breakers};
use crate::runtime::ids::BackendId;
use crate::runtime::lease::Lease;
use crate::runtime::tunnels::TunnelGauge;
use crate::runtime::waiters::Waiters;
use crate::time::Timestamp;

pub use crate::runtime::pick::{Ask, NoPick, Pick};

/// A named group of interchangeable backends.
#[derive(Debug, Clone)]
pub struct Pool {
    common: Arc<PoolCommon>,
    /// Its backends, fixed for the life of a snapshot.
    pub members: Arc<[Member]>,
    /// Whether any of them has `max_requests`.
    pub has_places: bool,
}

/// What a pool keeps when its members change: its settings, and its state except for that of its
/// backends. Nothing in it may depend on the position of a member.
#[derive(Debug)]
pub struct PoolCommon {
    /// Its name in routes, metrics and logs.
    pub name: PoolName,
    /// The configuration that new members are made from.
    pub config: config::Pool,
    /// How backends are selected.
    pub balancing: Balancing,
    /// Its health check, if any.
    pub health_check: Option<HealthCheck>,
    /// Its circuit breakers, unless they are off.
    pub breakers: Option<Breakers>,
    /// When a request may be retried.
    pub retry: RetryPolicy,
    /// How many retries may be made that do not help; `None`: any number.
    pub retry_budget: Option<RetryBudget>,
    /// Requests that wait for a place; `None` if none may.
    pub waiters: Option<Arc<Waiters<Pick>>>,
    /// The timeouts towards its backends.
    pub timeouts: Timeouts,
    /// The rate limit for requests of this pool.
    pub limiter: Option<RateLimiter>,
    /// Open WebSocket tunnels.
    pub tunnels: TunnelGauge,
}

/// The backends of a pool, for one pick.
struct Sorted {
    /// Healthy, with a closed circuit breaker.
    closed: BackendSet,
    /// Healthy, with a circuit breaker that is not closed.
    out: BackendSet,
}

impl Deref for Pool {
    type Target = PoolCommon;

    fn deref(&self) -> &PoolCommon {
        &self.common
    }
}

impl Pool {
    /// A pool with these members.
    #[must_use]
    pub fn new(common: PoolCommon, members: Vec<Member>) -> Self {
        Self::of(Arc::new(common), members)
    }

    /// The same pool with other members. All state of the pool is shared.
    #[must_use]
    pub fn with_members(&self, members: Vec<Member>) -> Self {
        self.balancing.weights.mark_due();
        Self::of(Arc::clone(&self.common), members)
    }

    fn of(common: Arc<PoolCommon>, members: Vec<Member>) -> Self {
        let has_places = members.iter().any(|member| member.max_requests.is_some());
        Self { common, members: members.into(), has_places }
    }

    /// Picks a backend: one that is due for a trial, or else an eligible one that was not tried. For
    /// a retry then one that is recovering, then one whose circuit breaker is open but that does not
    /// refuse connections, then an eligible one again. If the circuit breakers leave none, they are
    /// ignored. A backend without a free place is not picked, whatever else there is.
    ///
    /// # Errors
    /// There is no such backend, or none of them has a place.
    pub fn pick(&self, ask: &Ask<'_>) -> Result<Pick, NoPick> {
        let mut changes = Vec::new();
        self.balancing.refresh(&self.members, ask.now);
        let mut sorted = self.sorted();
        if !sorted.out.is_empty() {
            if let Some(pick) = self.try_trial(&sorted.out, ask, &mut changes) {
                return Ok(pick);
            }
            if !changes.is_empty() {
                sorted = self.sorted();
            }
        }
        let (eligible, again) = self.eligible(&sorted, ask);
        let Some((id, lease)) = self.lease(eligible, ask, &mut changes) else {
            return Err(NoPick { is_full: !eligible.is_empty(), changes });
        };
        // A retry at the same backend waits first, which says nothing about its latency.
        let measures = self.breakers.as_ref().is_some_and(Breakers::measures);
        let lease =
            if ask.measured && measures && !again { lease.measured(ask.now) } else { lease };
        Ok(Pick { id, lease, again, changes })
    }

    /// Selects one of these, and takes a place at it. Another thread may take the last place in between.
    fn lease(
        &self,
        mut eligible: BackendSet,
        ask: &Ask<'_>,
        changes: &mut Vec<BreakerChange>,
    ) -> Option<(BackendId, Lease)> {
        if self.has_places {
            eligible = eligible.without(&self.full());
        }
        loop {
            let id = self.select(eligible, ask, changes)?;
            if let Some(lease) = self.take_place(id) {
                return Some((id, lease));
            }
            eligible = eligible.without(&BackendSet::from_iter([id]));
        }
    }

    fn take_place(&self, id: BackendId) -> Option<Lease> {
        Lease::at(self.members.get(id.position())?)
    }

    /// The backends without a free place.
    fn full(&self) -> BackendSet {
        let full = self.members.iter().enumerate().filter(|(_, member)| !member.has_place());
        full.map(|(position, _)| BackendId::new(position)).collect()
    }

    /// Gives free places to requests that wait. To be called after a place was released, or a backend became
    /// usable.
    pub fn dispatch(&self, now: Timestamp) {
        if let Some(waiters) = &self.waiters {
            waiters.dispatch(now);
        }
    }

    /// The backends to select from, and whether they were tried before.
    fn eligible(&self, sorted: &Sorted, ask: &Ask<'_>) -> (BackendSet, bool) {
        let (Sorted { closed, out }, tried) = (sorted, ask.tried);
        if tried.is_empty() {
            return (if closed.is_empty() { *out } else { *closed }, false);
        }
        let fresh = closed.without(tried);
        if !fresh.is_empty() {
            return (fresh, false);
        }
        let last = self.last_resort(out, tried);
        // One that has refused a connection may accept one by now.
        let untried = out.without(tried);
        let none_connects = closed.without(ask.unreachable).is_empty();
        match (last.is_empty(), closed.is_empty()) {
            (false, _) => (last, false),
            (true, _) if none_connects && !untried.is_empty() => (untried, false),
            (true, false) => (*closed, true),
            (true, true) => (*out, true),
        }
    }

    /// Selects one of these. One that has not responded for longer than usual is passed over while
    /// another one responds.
    fn select(
        &self,
        eligible: BackendSet,
        ask: &Ask<'_>,
        changes: &mut Vec<BreakerChange>,
    ) -> Option<BackendId> {
        let Balancing { selector, retry_selector, .. } = &self.balancing;
        let selector = if ask.tried.is_empty() { selector } else { retry_selector };
        let eligible = match selector.compares_load() {
            true => self.balancing.thin(&self.members, eligible, ask.roll),
            false => eligible,
        };
        let view = PoolView { members: &self.members, eligible, now: ask.now };
        let first = BackendId::new(selector.select(&view, ask.key, ask.roll)?);
        let Some(breakers) = &self.breakers else { return Some(first) };
        let at = Moment { now: ask.now, roll: ask.roll };
        if !breakers.is_silent(self.backend(first)?, ask.now) {
            return Some(first);
        }
        let may_ask = ask.measured && ask.tried.is_empty();
        let (asks, change) = breakers.watch_silence(&self.members, first, may_ask, at);
        changes.extend(change);
        if asks || breakers.params.shadow || selector.keeps_clients() {
            return Some(first);
        }
        let silent = self.those(|backend| breakers.is_silent(backend, ask.now));
        let eligible = eligible.without(&silent);
        if eligible.is_empty() {
            return Some(first);
        }
        let view = PoolView { members: &self.members, eligible, now: ask.now };
        retry_selector.select(&view, ask.key, ask.roll).map(BackendId::new)
    }

    /// Begins a trial at the first backend that is due for one.
    fn try_trial(
        &self,
        out: &BackendSet,
        ask: &Ask<'_>,
        changes: &mut Vec<BreakerChange>,
    ) -> Option<Pick> {
        let breakers = self.breakers.as_ref()?;
        let out = out.without(ask.tried);
        for id in (0..out.len()).filter_map(|nth| out.nth(nth)) {
            let backend = self.backend(id)?;
            if ask.now < backend.circuit.open_until() {
                continue;
            }
            if ask.may_try
                && self.retry_budget.as_ref().is_none_or(|budget| budget.tokens(ask.now) > 0)
                && let Some((lease, first)) = self.begin_trial(id, breakers, ask.now)
            {
                changes.extend(first.map(|change| breakers.changed(id, change)));
                let mut lease = lease.of_trial();
                if ask.measured && breakers.measures() {
                    lease = lease.measured(ask.now);
                }
                let changes = std::mem::take(changes);
                return Some(Pick { id, lease, again: false, changes });
            }
            if let Some(change) = backend.circuit.expire(&breakers.params, ask.now) {
                backend.weight.begin_slow_start(ask.now);
                changes.push(breakers.changed(id, change));
            }
        }
        None
    }

    /// Takes a place for a trial, and begins it.
    fn begin_trial(
        &self,
        id: BackendId,
        breakers: &Breakers,
        now: Timestamp,
    ) -> Option<(Lease, Option<Transition>)> {
        let lease = self.take_place(id)?;
        let Some(first) = lease.backend().circuit.try_trial(&breakers.params, now) else {
            lease.cancel();
            return None;
        };
        Some((lease, first))
    }

    /// Whether there is any backend to retry a request on that has failed at those in `tried`.
    #[must_use]
    pub fn has_another(&self, tried: &BackendSet) -> bool {
        !self.available().is_empty() || self.has_untried(tried)
    }

    /// Whether there is an untried backend for a request that has failed at those in `tried`.
    #[must_use]
    pub fn has_untried(&self, tried: &BackendSet) -> bool {
        let sorted = self.sorted();
        !sorted.closed.without(tried).is_empty() || !self.last_resort(&sorted.out, tried).is_empty()
    }

    /// Whether a request can be moved: there is an untried backend that gets requests, responds to them
    /// and has a free place, and no other request waits for a place.
    #[must_use]
    pub fn responds_elsewhere(&self, tried: &BackendSet, now: Timestamp) -> bool {
        if self.waiters.as_ref().is_some_and(|waiters| waiters.must_wait(now)) {
            return false;
        }
        let untried = self.sorted().closed.without(tried);
        let is_silent = |backend: &Backend| {
            self.breakers.as_ref().is_some_and(|breakers| breakers.is_silent(backend, now))
        };
        (0..untried.len())
            .filter_map(|nth| self.members.get(untried.nth(nth)?.position()))
            .any(|member| member.has_place() && !is_silent(&member.backend))
    }

    /// Backends that were not tried, for a request that has failed elsewhere: those that are
    /// recovering, because their last health check passed, or else those that are out but do not
    /// refuse connections. Either is better than a backend that has just failed.
    fn last_resort(&self, out: &BackendSet, tried: &BackendSet) -> BackendSet {
        if tried.is_empty() {
            return BackendSet::EMPTY;
        }
        let recovers =
            |backend: &Backend| backend.operator_mode().is_none() && backend.is_recovering();
        let recovering = self.those(recovers).without(tried);
        if !recovering.is_empty() || out.is_empty() {
            return recovering;
        }
        let refused = self.those(|backend| backend.circuit.refuses());
        out.without(tried).without(&refused)
    }

    fn sorted(&self) -> Sorted {
        let mut sorted = Sorted { closed: BackendSet::EMPTY, out: BackendSet::EMPTY };
        for (position, member) in self.members.iter().enumerate() {
            match member.backend.eligibility() {
                Eligibility::Eligible => sorted.closed.insert(BackendId::new(position)),
                Eligibility::KeptOut => sorted.out.insert(BackendId::new(position)),
                Eligibility::Unhealthy | Eligibility::TakenOut(_) => {}
            }
        }
        sorted
    }

    /// The healthy backends.
    #[must_use]
    pub fn healthy(&self) -> BackendSet {
        self.those(Backend::is_healthy)
    }

    /// The healthy backends that no operator has taken out.
    #[must_use]
    pub fn available(&self) -> BackendSet {
        self.those(Backend::is_available)
    }

    /// Whether there is a healthy backend, and operators have taken out each of them.
    #[must_use]
    pub fn is_taken_out(&self) -> bool {
        self.available().is_empty() && !self.healthy().is_empty()
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

/// The eligible backends, frozen for one pick.
struct PoolView<'a> {
    members: &'a [Member],
    eligible: BackendSet,
    now: Timestamp,
}

impl Candidates for PoolView<'_> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.members.get(index).map_or(0, |member| member.backend.weight.thousandths())
    }

    fn in_flight(&self, index: usize) -> u64 {
        self.members.get(index).map_or(0, |member| member.backend.load(self.now))
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
