//! What is promised, checked from outside: an observer that counts, and the sums of a day.

use std::collections::HashMap;
use std::sync::Mutex;

use weir::exchange::event::{ExchangeEvent, Observer};
use weir::exchange::refusal::{Outcome, Refusal};

/// What happened in a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) exchanges: u64,
    pub(crate) answered: u64,
    pub(crate) cancelled: u64,
    pub(crate) limited: u64,
    pub(crate) unserved: u64,
    pub(crate) attempts: u64,
    pub(crate) retries: u64,
    pub(crate) flips: u64,
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.answered += other.answered;
        self.cancelled += other.cancelled;
        self.limited += other.limited;
        self.unserved += other.unserved;
        self.attempts += other.attempts;
        self.retries += other.retries;
        self.flips += other.flips;
    }
}

/// Counts what exchanges tell.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sums: Sums,
    failed: HashMap<(usize, usize), u64>,
}

impl Checker {
    pub(crate) fn sums(&self) -> Sums {
        self.seen.lock().unwrap().sums.clone()
    }

    /// How often an attempt at this backend of this pool failed.
    pub(crate) fn failed(&self, pool: usize, backend: usize) -> u64 {
        self.seen.lock().unwrap().failed.get(&(pool, backend)).copied().unwrap_or(0)
    }
}

impl Observer for Checker {
    fn observe(&self, event: &ExchangeEvent<'_>) {
        let mut seen = self.seen.lock().unwrap();
        match event {
            ExchangeEvent::Connected { .. }
            | ExchangeEvent::Breaker { .. }
            | ExchangeEvent::Queued { .. }
            | ExchangeEvent::QueueRefused { .. }
            | ExchangeEvent::Shed
            | ExchangeEvent::RetryBudgetExhausted { .. } => {}
            ExchangeEvent::AttemptFailed { pool, backend, retried, .. } => {
                *seen.failed.entry((pool.position(), backend.position())).or_default() += 1;
                seen.sums.retries += u64::from(*retried);
            }
            // No client in the simulated days requests an upgrade.
            ExchangeEvent::Upgraded { .. } => {}
            ExchangeEvent::RateLimited(_) => seen.sums.limited += 1,
            ExchangeEvent::Finished(summary) => {
                let sums = &mut seen.sums;
                sums.exchanges += 1;
                sums.attempts += count(summary.exchange.attempts().len());
                match summary.ending {
                    Outcome::Completed => sums.answered += 1,
                    Outcome::Abandoned => sums.cancelled += 1,
                    Outcome::Refused(Refusal::NoBackend) => sums.unserved += 1,
                    Outcome::Refused(_)
                    | Outcome::Redirected
                    | Outcome::Responded
                    | Outcome::UpstreamAborted
                    | Outcome::Aborted(_)
                    | Outcome::ClientAborted
                    | Outcome::ClientWriteTimeout
                    | Outcome::TunnelIdle
                    | Outcome::TunnelDrained => {}
                }
            }
        }
    }
}

pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}
