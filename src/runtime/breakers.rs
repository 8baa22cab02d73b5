//! The circuit breakers of one pool: they compare each backend with the others, and log changes of state.

use std::time::Duration;

use crate::config::{self, FailureSet};
use crate::name::PoolName;
use crate::policy::breaker::{
    AttemptFault, BreakerParams, FailureRate, Moment, Peers, Suspicion, Transition,
};
use crate::policy::latency::{self, HeaderWait};
use crate::policy::retry::AttemptFailure;
use crate::runtime::backend::{Backend, Eligibility, Member};
use crate::runtime::circuit::{Circuit, Silence};
use crate::runtime::ids::BackendId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::time::{Timestamp, nanos};

/// How often the typical latency of a pool is calculated.
const CALCULATED_EVERY: Duration = Duration::from_millis(100);

/// The circuit breakers of one pool.
#[derive(Debug)]
pub struct Breakers {
    /// When they open and close.
    pub params: BreakerParams,
    /// Which failures count.
    on: FailureSet,
    slower: Option<u32>,
    /// One backend is judged at a time, so that two do not count on each other.
    judging: Mutex<()>,
    /// The median latency in nanoseconds; 0 while it is unknown.
    typical_ns: AtomicU64,
    calculated_ns: AtomicU64,
    /// When most backends were last found to be silent together, in nanoseconds.
    stalled_ns: AtomicU64,
}

/// A change of one backend's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerChange {
    /// Which.
    pub backend: BackendId,
    /// What has changed.
    pub change: Transition,
    /// Nothing was done, only logged and counted.
    pub shadow: bool,
}

impl BreakerChange {
    /// Logs it for the operator.
    pub fn log(&self, pool: &PoolName, label: &str) {
        match self.change {
            Transition::Opened { why, open_for } => {
                let Suspicion { cause, failed, of, .. } = why;
                let what = if self.shadow { "would open (shadow)" } else { "opened" };
                log::warn!(
                    "breaker {what}: pool={pool} backend={label} cause={} failed={failed} of={of} \
                     open_for={:.1}s",
                    cause.as_str(),
                    open_for.as_secs_f64(),
                );
            }
            Transition::HalfOpened => {
                log::info!("breaker half-open, trying a request: pool={pool} backend={label}");
            }
            Transition::Closed if self.shadow => {
                log::info!("breaker would close (shadow): pool={pool} backend={label}");
            }
            Transition::Closed => log::info!("breaker closed: pool={pool} backend={label}"),
        }
    }
}

impl Breakers {
    /// As configured.
    #[must_use]
    pub fn new(breaker: &config::Breaker) -> Self {
        Self {
            params: BreakerParams {
                failures: breaker.failures,
                share: breaker.share,
                attempts: breaker.attempts.get(),
                open: breaker.open,
                open_max: breaker.open_max,
                trials: breaker.trials,
                successes: breaker.successes,
                out_max: breaker.out_max,
                shadow: breaker.shadow,
            },
            on: breaker.on.clone(),
            slower: breaker.slower,
            judging: Mutex::new(()),
            typical_ns: AtomicU64::new(0),
            calculated_ns: AtomicU64::new(0),
            stalled_ns: AtomicU64::new(0),
        }
    }

    /// How a failed attempt counts; `None` if it does not.
    #[must_use]
    pub fn fault(&self, failure: AttemptFailure, response_started: bool) -> Option<AttemptFault> {
        let (counts, fault) = match failure {
            AttemptFailure::Connect => (self.on.connect, AttemptFault::Refused),
            AttemptFailure::ConnectTimeout | AttemptFailure::Tls | AttemptFailure::Certificate => {
                (self.on.connect, AttemptFault::Failed)
            }
            // It did not process the request, and says so: no failure, but a wish.
            AttemptFailure::Refused => (false, AttemptFault::Failed),
            AttemptFailure::Reset | AttemptFailure::Timeout if response_started => {
                (self.on.cut, AttemptFault::Cut)
            }
            AttemptFailure::Reset => (self.on.reset, AttemptFault::Failed),
            AttemptFailure::Timeout => (self.on.timeout, AttemptFault::Failed),
            AttemptFailure::Moved => (true, AttemptFault::Slow),
            AttemptFailure::Status(status) => {
                let is_in = |range: &(u16, u16)| (range.0..=range.1).contains(&status);
                (self.on.status.iter().any(is_in), AttemptFault::Failed)
            }
        };
        counts.then_some(fault)
    }

    /// Records the result of an attempt that is not a trial.
    pub(super) fn record(
        &self,
        members: &[Member],
        id: BackendId,
        result: Result<(), AttemptFault>,
        at: Moment,
    ) -> Option<BreakerChange> {
        let backend = &members.get(id.position())?.backend;
        if self.params.shadow && backend.circuit.is_out() {
            // No trials are made, so every result is one.
            return self.record_trial(members, id, result, at);
        }
        match result {
            Ok(()) => {
                backend.circuit.succeeded();
                None
            }
            Err(fault) => {
                let why = backend.circuit.failed(&self.params, fault, at.now)?;
                self.open(members, id, why, at)
            }
        }
    }

    /// Records the result of a trial. One that fails as the peers do is no reason to stay out.
    pub(super) fn record_trial(
        &self,
        members: &[Member],
        id: BackendId,
        result: Result<(), AttemptFault>,
        at: Moment,
    ) -> Option<BreakerChange> {
        let backend = &members.get(id.position())?.backend;
        let result = match result {
            Err(AttemptFault::Failed) if self.peers_all_fail(members, id) => Ok(()),
            result => result,
        };
        let change = backend.circuit.record_trial(&self.params, result, at)?;
        Some(self.changed(id, change))
    }

    pub(super) fn changed(&self, backend: BackendId, change: Transition) -> BreakerChange {
        BreakerChange { backend, change, shadow: self.params.shadow }
    }

    fn open(
        &self,
        members: &[Member],
        id: BackendId,
        why: Suspicion,
        at: Moment,
    ) -> Option<BreakerChange> {
        let backend = &members.get(id.position())?.backend;
        let _alone = self.judging.lock();
        let mut peers = peers(members, id, why);
        if why.fault == AttemptFault::Slow && self.are_silent(members, id, at.now) {
            peers.usual = FailureRate::ALL;
        }
        let change = backend.circuit.open(&self.params, why, peers, at)?;
        Some(self.changed(id, change))
    }

    /// Whether even the best of the other backends that get requests fails as often as `share` allows.
    fn peers_all_fail(&self, members: &[Member], but: BackendId) -> bool {
        let eligible =
            others(members, but).filter(|backend| backend.eligibility() == Eligibility::Eligible);
        let rate = |circuit: &Circuit| circuit.rate(AttemptFault::Failed, self.params.attempts);
        let rates = eligible.map(|backend| rate(&backend.circuit).unwrap_or_default());
        rates.min().is_some_and(|best| best >= FailureRate::per_cent(self.params.share))
    }

    // ── latency ──

    /// The response headers of a measured attempt arrived. Returns whether they were far later than
    /// usual.
    pub(super) fn heard(
        &self,
        members: &[Member],
        backend: &Backend,
        took: Duration,
        now: Timestamp,
    ) -> Option<bool> {
        let slower = self.slower?;
        backend.circuit.heard(took, now);
        let calculated = self.calculated_ns.load(Relaxed);
        if now.as_nanos().saturating_sub(calculated) > nanos(CALCULATED_EVERY) {
            self.calculated_ns.store(now.as_nanos(), Relaxed);
            self.calculate(members);
        }
        let typical = self.typical()?;
        Some(took > latency::slow_beyond(typical, slower))
    }

    /// Whether the time to response headers is measured.
    pub(super) const fn measures(&self) -> bool {
        self.slower.is_some()
    }

    pub(super) fn record_slow(
        &self,
        members: &[Member],
        id: BackendId,
        is_slow: bool,
        at: Moment,
    ) -> Option<BreakerChange> {
        let circuit = &members.get(id.position())?.backend.circuit;
        let why = circuit.took(&self.params, is_slow, at.now)?;
        self.open(members, id, why, at)
    }

    /// The median latency of the pool's backends.
    pub(super) fn typical(&self) -> Option<Duration> {
        match self.typical_ns.load(Relaxed) {
            0 => None,
            typical => Some(Duration::from_nanos(typical)),
        }
    }

    fn calculate(&self, members: &[Member]) {
        let mut known = [Duration::ZERO; config::limits::BACKENDS_MAX];
        let mut count = 0;
        let averages = members.iter().filter_map(|member| member.backend.circuit.latency());
        for (place, average) in known.iter_mut().zip(averages) {
            *place = average;
            count += 1;
        }
        let typical = known.get_mut(..count).and_then(latency::median);
        self.typical_ns.store(typical.map_or(0, nanos), Relaxed);
    }

    /// Whether a backend has not responded to its requests for so long that another one is better.
    pub(super) fn is_silent(&self, backend: &Backend, now: Timestamp) -> bool {
        let typical = self.typical().map(latency::silent_beyond);
        typical.is_some_and(|limit| backend.circuit.is_silent(limit, now))
    }

    /// Whether requests that wait for a backend that is kept out may be moved to another backend.
    #[must_use]
    pub fn moves_requests(&self) -> bool {
        self.measures() && !self.params.shadow
    }

    /// Whether such a request is better moved now; otherwise after which time to check again.
    pub(super) fn check_wait(&self, wait: HeaderWait) -> Result<(), Duration> {
        let (Some(typical), Some(times)) = (self.typical(), self.slower) else {
            return Err(latency::EXCESS_MIN);
        };
        if wait.is_stuck(typical, times) {
            return Ok(());
        }
        let slow = latency::slow_beyond(typical, times);
        Err(if wait.waited < slow { slow.saturating_sub(wait.waited) } else { slow })
    }

    /// Watches a silent backend. Returns whether to send it this request, and whether it has opened.
    ///
    /// It may be busy with a few slow requests and get no others, so it gets one more, and another one each
    /// time of `slower` until enough wait to judge. If it does not respond to those for far too long either,
    /// it opens. `may_ask`: the request can be such a one.
    pub(super) fn watch_silence(
        &self,
        members: &[Member],
        id: BackendId,
        may_ask: bool,
        at: Moment,
    ) -> (bool, Option<BreakerChange>) {
        let Some(Member { backend, .. }) = members.get(id.position()) else { return (false, None) };
        let (Some(typical), Some(times)) = (self.typical(), self.slower) else {
            return (false, None);
        };
        let (limit, circuit) = (latency::slow_beyond(typical, times), &backend.circuit);
        let least = self.params.failures.get();
        let is_ask_due = circuit.is_silence_new() && circuit.waiting() >= least;
        if circuit.is_out() || (is_ask_due && !may_ask) {
            return (false, None);
        }
        match circuit.notice_silence(limit, at.now) {
            None => (false, None),
            Some(Silence::Begins) => (is_ask_due, None),
            Some(Silence::Lasts(waiting)) if waiting < least => (may_ask, None),
            Some(Silence::Lasts(_)) if self.is_stalled(members, id, limit, at.now) => (false, None),
            Some(Silence::Lasts(waiting)) => {
                let why = circuit.suspect_silence(&self.params, waiting);
                (false, why.and_then(|why| self.open(members, id, why, at)))
            }
        }
    }

    /// Whether most backends are silent, now or within `limit` before: while all stall, every request
    /// comes here, and the peers are looked at only now and then.
    fn is_stalled(
        &self,
        members: &[Member],
        but: BackendId,
        limit: Duration,
        now: Timestamp,
    ) -> bool {
        if now.as_nanos().saturating_sub(self.stalled_ns.load(Relaxed)) < nanos(limit) {
            return true;
        }
        let is_stalled = self.are_silent(members, but, now);
        if is_stalled {
            self.stalled_ns.store(now.as_nanos(), Relaxed);
        }
        is_stalled
    }

    /// Whether at least half of the others are silent, too.
    fn are_silent(&self, members: &[Member], but: BackendId, now: Timestamp) -> bool {
        let silent = others(members, but).filter(|backend| self.is_silent(backend, now)).count();
        silent > 0 && silent * 2 >= others(members, but).count()
    }
}

/// The other backends of the pool. One that an operator has taken out is no measure for the others, and
/// no help.
fn others(members: &[Member], but: BackendId) -> impl Iterator<Item = &Backend> {
    let others = members.iter().enumerate().filter(move |(index, _)| *index != but.position());
    let others = others.map(|(_, member)| &*member.backend);
    others.filter(|backend| backend.operator_mode().is_none())
}

/// The other backends of the pool.
fn peers(members: &[Member], but: BackendId, why: Suspicion) -> Peers {
    let mut found = Peers { eligible_others: 0, out: 0, total: 0, usual: FailureRate::ZERO };
    let mut rates = [FailureRate::ZERO; config::limits::BACKENDS_MAX];
    let mut known = 0;
    for (index, member) in members.iter().enumerate() {
        let backend = &member.backend;
        // One that an operator has taken out is no measure for the others, and no help.
        if backend.operator_mode().is_some() {
            continue;
        }
        found.total += 1;
        let is_out = backend.circuit.is_out();
        // One that health checks have taken out is out without its breaker.
        found.out += usize::from(is_out && backend.is_healthy());
        if index == but.position() {
            continue;
        }
        found.eligible_others += usize::from(backend.is_healthy() && !is_out);
        let rate = backend.circuit.rate(why.fault, why.window);
        if let (Some(rate), Some(place)) = (rate, rates.get_mut(known)) {
            *place = rate;
            known += 1;
        }
    }
    found.usual = rates.get_mut(..known).map(FailureRate::median).unwrap_or_default();
    found
}
