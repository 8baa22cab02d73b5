//! The terms of a circuit breaker: its parameters, what it learns, and what it decides.

use std::num::NonZeroU32;
use std::time::Duration;

use super::rate::FailureRate;
use crate::time::Timestamp;

/// Up to this rate of the peers, a relapse needs no more evidence.
const RARE: FailureRate = FailureRate::per_cent(5);

/// A failure within this many open times after a return makes the next open time longer.
const MEMORY: u32 = 4;
/// And always within this many times the first open time.
const MEMORY_LEAST: u32 = 10;

/// When a breaker opens and closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerParams {
    /// Failures in a row.
    pub failures: NonZeroU32,
    /// Share of failures among the last [`Self::attempts`], in per cent.
    pub share: u32,
    /// The number of attempts that a share is taken of; at most [`super::History::LEN_MAX`].
    pub attempts: u32,
    /// The first open time.
    pub open: Duration,
    /// The longest open time.
    pub open_max: Duration,
    /// Trials at the same time.
    pub trials: NonZeroU32,
    /// Successful trials that close it.
    pub successes: NonZeroU32,
    /// The share of a pool's backends that may be out at the same time, in per cent; at least one
    /// backend may.
    pub out_max: u32,
    /// Only logs and counts; no backend is taken out.
    pub shadow: bool,
}

/// How an attempt went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFault {
    /// The connection was refused: the backend serves no request.
    Refused,
    /// It failed before its response, or with its status.
    Failed,
    /// The response was aborted after its headers.
    Cut,
    /// It took far longer than its peers.
    Slow,
}

impl AttemptFault {
    /// Whether a trial that fails like this costs a client something.
    pub(super) const fn is_costly(self) -> bool {
        matches!(self, Self::Cut | Self::Slow)
    }
}

/// Why a breaker opened: values of `lb_breaker_opened_total{cause}` and of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too many failures in a row.
    Failures,
    /// Too large a share of failures.
    Share,
    /// A refused connection.
    Refused,
    /// Far slower than the peers.
    Slow,
    /// A trial failed.
    Trial,
    /// A failure soon after the breaker had closed.
    Relapse,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 6] =
        [Self::Failures, Self::Share, Self::Refused, Self::Slow, Self::Trial, Self::Relapse];

    /// Its name in metrics and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Share => "share",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Trial => "trial",
            Self::Relapse => "relapse",
        }
    }
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerPhase {
    /// The backend gets requests.
    Closed,
    /// It gets none.
    Open,
    /// It gets trials.
    HalfOpen,
}

impl BreakerPhase {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name in metrics and `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A reason to open, by the backend's own results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Why.
    pub cause: Cause,
    /// The failure that completed it.
    pub fault: AttemptFault,
    /// The number of failures,
    pub failed: u32,
    /// among this many attempts.
    pub of: u32,
    /// The number of their last results by which the peers are judged.
    pub window: u32,
}

/// The other backends of the pool, at the time of a suspicion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// Other backends that get requests.
    pub eligible_others: usize,
    /// Backends whose breaker is not closed.
    pub out: usize,
    /// All backends of the pool.
    pub total: usize,
    /// The median rate of failures of the others.
    pub usual: FailureRate,
}

/// A change of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It has opened.
    Opened {
        /// The reason.
        why: Suspicion,
        /// For this time.
        open_for: Duration,
    },
    /// The first trial has begun.
    HalfOpened,
    /// It has closed.
    Closed,
}

/// The time now, with a random number for what follows.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// The random number.
    pub roll: u64,
}

impl BreakerParams {
    /// How long after a return a failure makes the next open time longer than this last one.
    pub(super) fn memory(&self, length: Duration) -> Duration {
        length.saturating_mul(MEMORY).max(self.open.saturating_mul(MEMORY_LEAST))
    }

    /// A share is taken of at least this many attempts.
    pub(super) const fn attempts_min(&self) -> u32 {
        self.attempts.div_ceil(2)
    }

    /// The number of last results by which the peers are judged: one failure among very few results
    /// would look like a high rate.
    pub(super) const fn window(&self, of: u32) -> u32 {
        let least = self.attempts_min();
        if of < least { least } else { of }
    }

    /// Whether the peers are well enough, by more than chance, and numerous enough, for a backend to be taken out.
    pub(super) fn permits(&self, why: Suspicion, peers: Peers) -> bool {
        // A backend that refuses connections serves no request, so nothing is lost without it.
        if matches!(why.cause, Cause::Refused) {
            return true;
        }
        let per_cent = usize::try_from(self.out_max).unwrap_or(100);
        let most = peers.total * per_cent / 100;
        if peers.out >= most.max(1) {
            return false;
        }
        let is_no_chance = peers.usual.rules_out(why.failed, why.of);
        match why.cause {
            // It has failed before, so less evidence is enough while the peers fail rarely.
            Cause::Relapse => peers.usual <= RARE || is_no_chance,
            // Slow requests come together, so chance underestimates them.
            Cause::Slow => is_no_chance && peers.usual.is_exceeded(5, why.failed, why.of),
            Cause::Failures | Cause::Share | Cause::Refused | Cause::Trial => is_no_chance,
        }
    }
}
