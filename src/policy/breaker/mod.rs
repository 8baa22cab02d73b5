//! The circuit breaker of one backend: it gets no requests while it fails more than the others.
//!
//! ```text
//!              it fails, and its peers do not
//!   Closed ─────────────────────────────────────▶ Open
//!     ▲                                            │ the open time is over
//!     │  `successes` trials succeeded              ▼
//!     └───────────────────────────────────────  half-open ──▶ Open: a trial failed
//! ```
//!
//! It judges attempts by the requests of clients, not by health checks: a backend whose health check
//! passes may still fail. Three rules make it safe against itself:
//! - It is relative. A backend is judged against the median rate of failures of its peers, and has to
//!   fail more than chance explains at that rate. If all fail alike, always or now and then, the fault
//!   is not the backend's, and taking backends out only makes it worse.
//! - It is bounded. The last eligible backend always stays, and at most a share of a pool is out.
//! - It comes back by trials: single requests that can be retried elsewhere. A backend that gets no
//!   such request comes back by time.
//!
//! A trial of a backend that fails before its response costs no client anything, so it is repeated
//! soon. A trial of one that is slow, or that aborts its responses, costs a client time or its
//! response. There the first open time is twice as long, and doubles.

mod history;
mod rate;
mod terms;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use history::History;
pub use rate::FailureRate;
pub use terms::{
    AttemptFault, BreakerParams, BreakerPhase, Cause, Moment, Peers, Suspicion, Transition,
};

use crate::time::{Timestamp, nanos};

/// A backend without a trial comes back by time after this many open times.
const WITHOUT_TRIAL: u32 = 10;
/// A trial that takes longer than this keeps no further one back: it may be a stream without an end.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// The breaker of one backend.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    /// `None` while it is closed.
    open: Option<OpenState>,
    /// Trials under way.
    trials: u32,
    /// When the last one began.
    tried: Timestamp,
    /// The last open time, before jitter.
    length: Duration,
    /// Until then it opens again as soon as its share of failures is too large.
    probation_until: Timestamp,
    /// Until then the next open time is longer than the last one.
    remembered_until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct OpenState {
    /// The end of the open time.
    until: Timestamp,
    costly: bool,
    /// Successful trials in a row.
    successes: u32,
    /// The first trial was reported.
    half_open: bool,
}

/// A breaker for the next worker. Times are durations, because workers have different clocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerState {
    /// The rest of the open time; `None` if it is closed.
    open_for: Option<Duration>,
    costly: bool,
    successes: u32,
    length: Duration,
    probation: Duration,
    remembered: Duration,
}

impl Breaker {
    /// Whether a failure, the last one in `history`, is a reason to open.
    #[must_use]
    pub fn suspect(
        &self,
        params: &BreakerParams,
        fault: AttemptFault,
        history: History,
        now: Timestamp,
    ) -> Option<Suspicion> {
        if self.open.is_some() {
            return None;
        }
        let row = history.in_a_row();
        let of = history.len().min(params.attempts);
        let failed = history.failures(of);
        let is_enough = of >= params.attempts_min();
        let is_share_now = failed * 100 >= params.share * of;
        let is_share = is_enough && is_share_now;
        let (cause, failed, of) = match fault {
            AttemptFault::Refused => (Cause::Refused, row, row),
            // Some requests of any service are slow, so only the median counts.
            AttemptFault::Slow if is_enough && failed * 2 >= of => (Cause::Slow, failed, of),
            AttemptFault::Slow => return None,
            _ if now < self.probation_until && is_share_now => (Cause::Relapse, failed, of),
            AttemptFault::Failed | AttemptFault::Cut if row >= params.failures.get() => {
                (Cause::Failures, row, row)
            }
            AttemptFault::Failed | AttemptFault::Cut if is_share => (Cause::Share, failed, of),
            AttemptFault::Failed | AttemptFault::Cut => return None,
        };
        Some(Suspicion { cause, fault, failed, of, window: params.window(of) })
    }

    /// The suspicion of a backend with this number of requests that have waited for far longer than
    /// usual, while it has not responded to any.
    #[must_use]
    pub const fn suspect_silence(&self, params: &BreakerParams, waiting: u32) -> Option<Suspicion> {
        if self.open.is_some() || waiting < params.failures.get() {
            return None;
        }
        Some(Suspicion {
            cause: Cause::Slow,
            fault: AttemptFault::Slow,
            failed: waiting,
            of: waiting,
            window: params.window(waiting),
        })
    }

    /// Opens for this reason, unless the peers forbid it.
    pub fn open(
        &mut self,
        params: &BreakerParams,
        why: Suspicion,
        peers: Peers,
        at: Moment,
    ) -> Option<Transition> {
        if self.open.is_some() || peers.eligible_others == 0 || !params.permits(why, peers) {
            return None;
        }
        let costly = why.fault.is_costly();
        let first = if costly { params.open.saturating_mul(2) } else { params.open };
        let again = self.length.saturating_mul(2);
        let length = if at.now < self.remembered_until { first.max(again) } else { first };
        self.length = length.min(params.open_max);
        Some(self.trip(why, costly, at))
    }

    fn trip(&mut self, why: Suspicion, costly: bool, at: Moment) -> Transition {
        let open_for = jittered(self.length, at.roll);
        self.open =
            Some(OpenState { until: at.now + open_for, costly, successes: 0, half_open: false });
        Transition::Opened { why, open_for }
    }

    /// Begins a trial, if one is due. It has to be ended by [`Self::end_trial`] exactly once.
    pub fn try_trial(
        &mut self,
        params: &BreakerParams,
        now: Timestamp,
    ) -> Option<Option<Transition>> {
        let open = self.open.as_mut()?;
        let is_full = self.trials >= params.trials.get() && now < self.tried + TRIAL_MAX;
        if now < open.until || is_full {
            return None;
        }
        self.trials = self.trials.saturating_add(1);
        self.tried = now;
        let first = !std::mem::replace(&mut open.half_open, true);
        Some(first.then_some(Transition::HalfOpened))
    }

    /// Ends a trial. A trial that is cancelled says nothing about the backend.
    pub fn end_trial(&mut self) {
        self.trials = self.trials.saturating_sub(1);
    }

    /// Records the result of a trial.
    pub fn record_trial(
        &mut self,
        params: &BreakerParams,
        result: Result<(), AttemptFault>,
        at: Moment,
    ) -> Option<Transition> {
        let open = self.open.as_mut().filter(|open| at.now >= open.until)?;
        match result {
            Ok(()) => {
                open.successes += 1;
                (open.successes >= params.successes.get()).then(|| self.close(params, at.now))
            }
            Err(fault) => {
                let costly = open.costly || fault.is_costly();
                let quarters = if costly { 8 } else { 5 };
                let longer = self.length.saturating_mul(quarters) / 4;
                self.length = longer.min(params.open_max);
                let why = Suspicion { cause: Cause::Trial, fault, failed: 1, of: 1, window: 1 };
                Some(self.trip(why, costly, at))
            }
        }
    }

    /// Closes it if no trial has come for so long that none can be expected.
    pub fn expire(&mut self, params: &BreakerParams, now: Timestamp) -> Option<Transition> {
        let open = self.open?;
        let last = open.until + self.length.saturating_mul(WITHOUT_TRIAL);
        let is_tried = self.trials > 0 && now < self.tried + TRIAL_MAX;
        (now >= last && !is_tried).then(|| self.close(params, now))
    }

    fn close(&mut self, params: &BreakerParams, now: Timestamp) -> Transition {
        self.open = None;
        self.probation_until = now + self.length;
        self.remembered_until = now + params.memory(self.length);
        Transition::Closed
    }

    /// Its state.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> BreakerPhase {
        match self.open {
            None => BreakerPhase::Closed,
            Some(open) if now < open.until => BreakerPhase::Open,
            Some(_) => BreakerPhase::HalfOpen,
        }
    }

    /// The end of the open time; `None` if it is closed.
    #[must_use]
    pub fn opens_until(&self) -> Option<Timestamp> {
        self.open.map(|open| open.until)
    }

    /// Its state for the next worker.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> BreakerState {
        BreakerState {
            open_for: self.open.map(|open| open.until.since(now)),
            costly: self.open.is_some_and(|open| open.costly),
            successes: self.open.map_or(0, |open| open.successes),
            length: self.length,
            probation: self.probation_until.since(now),
            remembered: self.remembered_until.since(now),
        }
    }

    /// Continues with the state that another worker exported `age` before `now`, within the times
    /// that are configured now. Trials stay with the worker that made them.
    pub fn import(
        &mut self,
        params: &BreakerParams,
        state: &BreakerState,
        age: Duration,
        now: Timestamp,
    ) {
        let jittered_max = params.open_max.saturating_mul(6) / 5;
        self.open = state.open_for.map(|left| OpenState {
            until: now + left.saturating_sub(age).min(jittered_max),
            costly: state.costly,
            successes: state.successes,
            half_open: left.is_zero(),
        });
        self.length = state.length.min(params.open_max);
        let probation = state.probation.saturating_sub(age);
        self.probation_until = now + probation.min(params.open_max);
        let remembered = state.remembered.saturating_sub(age);
        self.remembered_until = now + remembered.min(params.memory(params.open_max));
    }
}

/// A fifth more or less, so that backends that failed together are not tried together.
fn jittered(length: Duration, roll: u64) -> Duration {
    let least_ns = u128::from(nanos(length)) * 4 / 5;
    let more_ns = (least_ns / 2).saturating_mul(u128::from(roll)) >> 64;
    Duration::from_nanos(u64::try_from(least_ns + more_ns).unwrap_or(u64::MAX))
}
