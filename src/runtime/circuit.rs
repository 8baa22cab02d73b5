//! The circuit breaker of one backend, as requests of all threads use it.
//!
//! A pick reads a few atomics. A success of a backend that does not fail is one read. The lock is taken
//! for failures and trials, and what a pick reads of the breaker changes only under it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::breaker::{
    AttemptFault, Breaker, BreakerParams, BreakerPhase, BreakerState, FailureRate, History, Moment,
    Peers, Suspicion, Transition,
};
use crate::policy::latency::Latency;
use crate::policy::penalty::Penalty;
use crate::runtime::waiting::WaitingAttempts;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::time::{Timestamp, nanos};

/// What is known of a backend by its requests.
#[derive(Debug, Default)]
pub struct Circuit {
    breaker: Mutex<Breaker>,
    /// The end of the open time in nanoseconds; 0 while the breaker is closed.
    open_until_ns: AtomicU64,
    /// Requests are kept away: it is not closed, and not in shadow mode.
    keeps_out: AtomicBool,
    /// It was opened by a refused connection.
    refuses: AtomicBool,
    /// The last results: [`History`].
    results: AtomicU64,
    /// Which of the last attempts were slow: [`History`].
    slow: AtomicU64,
    /// The time to response headers: [`Latency`].
    latency: AtomicU64,
    /// Failures that count as load.
    penalty: Penalty,
    /// Measured attempts that have no response headers yet.
    pub(super) waiting: WaitingAttempts,
    /// When the last headers arrived, or when the first of these attempts began, in nanoseconds.
    heard_ns: AtomicU64,
    /// When it was last noticed that these attempts wait for too long, in nanoseconds.
    noticed_ns: AtomicU64,
    /// The number of attempts that waited then.
    noticed: AtomicU32,
}

/// What is known of a backend by its requests, for the next worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitState {
    breaker: BreakerState,
    refuses: bool,
    results: u64,
    slow: u64,
    latency: u64,
}

/// A backend to which attempts wait, and that does not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It was not noticed before.
    Begins,
    /// It lasts since it was last noticed, and this number of attempts have waited since then.
    Lasts(u32),
}

impl Circuit {
    // ── results ──

    /// Records a success.
    pub fn succeeded(&self) {
        push(&self.results, false);
    }

    /// Records a failure; `Some` if that is a reason to open.
    pub fn failed(
        &self,
        params: &BreakerParams,
        fault: AttemptFault,
        now: Timestamp,
    ) -> Option<Suspicion> {
        let history = push(&self.results, true);
        self.breaker.lock().suspect(params, fault, history, now)
    }

    /// Records whether an attempt was slow; `Some` if that is a reason to open.
    pub fn took(&self, params: &BreakerParams, is_slow: bool, now: Timestamp) -> Option<Suspicion> {
        let history = push(&self.slow, is_slow);
        if !is_slow {
            return None;
        }
        self.breaker.lock().suspect(params, AttemptFault::Slow, history, now)
    }

    /// A reason to open if this number of attempts have waited for too long.
    pub fn suspect_silence(&self, params: &BreakerParams, waiting: u32) -> Option<Suspicion> {
        self.breaker.lock().suspect_silence(params, waiting)
    }

    /// The rate of failures, see [`History::rate`]; `None` without results.
    #[must_use]
    pub fn rate(&self, fault: AttemptFault, last: u32) -> Option<FailureRate> {
        let bits = if fault == AttemptFault::Slow { &self.slow } else { &self.results };
        History::from_bits(bits.load(Relaxed)).rate(last)
    }

    /// Counts a failure as load for a while.
    pub fn penalize(&self, now: Timestamp) {
        self.penalty.add(now);
    }

    /// The load of the last failures.
    #[must_use]
    pub fn penalty(&self, now: Timestamp) -> u64 {
        self.penalty.load(now)
    }

    // ── state ──

    /// Opens the breaker, unless the peers forbid it.
    pub fn open(
        &self,
        params: &BreakerParams,
        why: Suspicion,
        peers: Peers,
        at: Moment,
    ) -> Option<Transition> {
        let mut breaker = self.breaker.lock();
        let change = breaker.open(params, why, peers, at)?;
        self.publish(&breaker, params, why.fault);
        Some(change)
    }

    /// Begins a trial, if one is due.
    pub fn try_trial(&self, params: &BreakerParams, now: Timestamp) -> Option<Option<Transition>> {
        if now < self.open_until() {
            return None;
        }
        self.breaker.lock().try_trial(params, now)
    }

    /// Ends a trial.
    pub fn end_trial(&self) {
        self.breaker.lock().end_trial();
    }

    /// Records the result of a trial.
    pub fn record_trial(
        &self,
        params: &BreakerParams,
        result: Result<(), AttemptFault>,
        at: Moment,
    ) -> Option<Transition> {
        let mut breaker = self.breaker.lock();
        let change = breaker.record_trial(params, result, at)?;
        self.publish(&breaker, params, result.err().unwrap_or(AttemptFault::Failed));
        Some(change)
    }

    /// Closes the breaker, if no trial has come for too long.
    pub fn expire(&self, params: &BreakerParams, now: Timestamp) -> Option<Transition> {
        let mut breaker = self.breaker.lock();
        let change = breaker.expire(params, now)?;
        self.publish(&breaker, params, AttemptFault::Failed);
        Some(change)
    }

    /// Makes the new state visible. Results from before a return say nothing about the time after.
    fn publish(&self, breaker: &Breaker, params: &BreakerParams, fault: AttemptFault) {
        let until = breaker.opens_until();
        if until.is_none() {
            self.results.store(0, Relaxed);
            self.slow.store(0, Relaxed);
        }
        self.refuses.store(until.is_some() && fault == AttemptFault::Refused, Relaxed);
        self.keeps_out.store(until.is_some() && !params.shadow, Relaxed);
        self.open_until_ns.store(until.map_or(0, |until| until.as_nanos().max(1)), Relaxed);
        if self.keeps_out() {
            self.waiting.wake_all();
        }
    }

    /// Whether the breaker is not closed.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.open_until_ns.load(Relaxed) != 0
    }

    /// Whether requests are kept away from its backend, except for trials.
    #[must_use]
    pub fn keeps_out(&self) -> bool {
        self.keeps_out.load(Relaxed)
    }

    /// Whether a refused connection has opened it.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    /// The end of its open time.
    #[must_use]
    pub fn open_until(&self) -> Timestamp {
        Timestamp::from_nanos(self.open_until_ns.load(Relaxed))
    }

    /// Its state.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> BreakerPhase {
        match self.open_until_ns.load(Relaxed) {
            0 => BreakerPhase::Closed,
            until if now.as_nanos() < until => BreakerPhase::Open,
            _ => BreakerPhase::HalfOpen,
        }
    }

    // ── latency ──

    /// A measured attempt begins.
    pub fn begin(&self, now: Timestamp) {
        // First the time: with an old one, the backend would seem to be silent since then.
        if self.waiting.count() == 0 {
            self.heard_ns.store(now.as_nanos(), Relaxed);
        }
        self.waiting.add();
    }

    /// A measured attempt waits no longer.
    pub fn end(&self) {
        self.waiting.subtract();
    }

    /// The backend has responded, or an attempt failed, so it is not silent.
    pub fn reacted(&self, now: Timestamp) {
        self.heard_ns.store(now.as_nanos(), Relaxed);
    }

    /// The response headers of a measured attempt arrived after this time.
    pub fn heard(&self, took: Duration, now: Timestamp) {
        self.reacted(now);
        // A sample that another thread overwrites is not missed.
        let latency = Latency::from_bits(self.latency.load(Relaxed)).with(took);
        self.latency.store(latency.bits(), Relaxed);
    }

    /// The typical time to response headers.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        Latency::from_bits(self.latency.load(Relaxed)).typical()
    }

    /// Whether attempts wait, and no headers have arrived for longer than `limit`.
    #[must_use]
    pub fn is_silent(&self, limit: Duration, now: Timestamp) -> bool {
        self.waiting.count() > 0
            && now.as_nanos().saturating_sub(self.heard_ns.load(Relaxed)) > nanos(limit)
    }

    /// How long the backend has not responded; or how long the first measured attempt has waited, if
    /// none waited before.
    #[must_use]
    pub fn silent_for(&self, now: Timestamp) -> Duration {
        now.since(Timestamp::from_nanos(self.heard_ns.load(Relaxed)))
    }

    /// Measured attempts that have no response headers yet.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.count()
    }

    /// Whether a silence was not noticed yet.
    #[must_use]
    pub fn is_silence_new(&self) -> bool {
        self.noticed_ns.load(Relaxed) < self.heard_ns.load(Relaxed)
    }

    /// Notices that attempts wait and that nothing is heard, at most once per `limit`.
    pub fn notice_silence(&self, limit: Duration, now: Timestamp) -> Option<Silence> {
        let before = self.noticed_ns.load(Relaxed);
        let is_known = !self.is_silence_new();
        let is_soon = now.as_nanos().saturating_sub(before) < nanos(limit);
        if is_known && is_soon {
            return None;
        }
        let mine = self.noticed_ns.compare_exchange(before, now.as_nanos(), Relaxed, Relaxed);
        mine.ok()?;
        let waiting = self.waiting.count();
        let earlier = self.noticed.swap(waiting, Relaxed);
        Some(if is_known { Silence::Lasts(waiting.min(earlier)) } else { Silence::Begins })
    }

    /// Whether a request that waits for its response could be moved to another backend.
    #[cfg(test)]
    pub(crate) fn has_movable(&self) -> bool {
        self.waiting.has_movable()
    }

    // ── handoff ──

    /// Its state for the next worker.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> CircuitState {
        CircuitState {
            breaker: self.breaker.lock().export(now),
            refuses: self.refuses(),
            results: self.results.load(Relaxed),
            slow: self.slow.load(Relaxed),
            latency: self.latency.load(Relaxed),
        }
    }

    /// Continues with the state that another worker exported `age` before `now`.
    pub fn import(
        &self,
        params: &BreakerParams,
        state: &CircuitState,
        age: Duration,
        now: Timestamp,
    ) {
        let mut breaker = self.breaker.lock();
        breaker.import(params, &state.breaker, age, now);
        self.publish(
            &breaker,
            params,
            if state.refuses { AttemptFault::Refused } else { AttemptFault::Failed },
        );
        self.results.store(state.results, Relaxed);
        self.slow.store(state.slow, Relaxed);
        self.latency.store(state.latency, Relaxed);
    }
}

/// Adds a result. A success after many successes only reads.
fn push(bits: &AtomicU64, failed: bool) -> History {
    let mut before = bits.load(Relaxed);
    loop {
        let after = History::from_bits(before).with(failed);
        if after.bits() == before {
            return after;
        }
        match bits.compare_exchange_weak(before, after.bits(), Relaxed, Relaxed) {
            Ok(_) => return after,
            Err(newer) => before = newer,
        }
    }
}
