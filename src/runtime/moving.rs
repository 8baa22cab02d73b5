//! Moves requests away from a backend that was taken out while they waited for its response.
//!
//! A circuit breaker keeps later requests away from a backend that hangs or is far slower than the
//! others. Those that it has already, and trials, would wait until `timeouts.response`. So an attempt
//! that could be retried is watched: [`AttemptWatch::check`] decides whether it is retried elsewhere
//! before its timeout. That takes a token of the retry budget; without one it goes on waiting.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::policy::latency::{self, HeaderWait};
use crate::runtime::backend_set::BackendSet;
use crate::runtime::ids::{BackendId, PoolId};
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// An attempt that waits for its response headers, and that may be moved to another backend.
#[derive(Debug, Clone)]
pub struct AttemptWatch {
    /// The snapshot of its request.
    pub snapshot: Arc<Snapshot>,
    /// Its pool.
    pub pool: PoolId,
    /// The backends that the request has tried, the current one last.
    pub tried: SmallVec<[BackendId; 2]>,
    /// When its backend was picked.
    pub since: Timestamp,
    /// Whether it is a trial of the circuit breaker.
    pub is_trial: bool,
    /// Whether the request already holds a token for its next attempt.
    pub has_token: bool,
}

/// What to do with an attempt.
#[derive(Debug)]
pub enum MoveCheck {
    /// Retry it elsewhere now.
    Move(MoveToken),
    /// Let it wait, and check again after this time.
    Later(Duration),
    /// Let it wait, until its backend is taken out (again).
    Wait,
}

/// The token of the retry budget for the next attempt of a request that is moved. Dropping it returns
/// the token.
#[derive(Debug)]
pub struct MoveToken {
    /// Whose budget it is from; `None` if the request holds a token already, or needs none.
    budget: Option<(Arc<Snapshot>, PoolId)>,
}

impl AttemptWatch {
    /// Whether to move it.
    #[must_use]
    pub fn check(&self, now: Timestamp) -> MoveCheck {
        let Some(pool) = self.snapshot.pools.get(self.pool) else { return MoveCheck::Wait };
        let Some(wait) = self.wait(pool, now) else { return MoveCheck::Wait };
        let Some(breakers) = &pool.breakers else { return MoveCheck::Wait };
        if let Err(later) = breakers.check_wait(wait) {
            return MoveCheck::Later(later);
        }
        let tried: BackendSet = self.tried.iter().copied().collect();
        let token = if pool.responds_elsewhere(&tried, now) { self.token(pool, now) } else { None };
        token.map_or(MoveCheck::Later(latency::EXCESS_MIN), MoveCheck::Move)
    }

    /// When to check it first, if its backend is kept out from the start.
    #[must_use]
    pub fn first_check(&self, now: Timestamp) -> Option<Timestamp> {
        let pool = self.snapshot.pools.get(self.pool)?;
        let wait = self.wait(pool, now)?;
        Some(now + pool.breakers.as_ref()?.check_wait(wait).err().unwrap_or_default())
    }

    /// How it waits; `None` if its backend is not kept out.
    fn wait(&self, pool: &Pool, now: Timestamp) -> Option<HeaderWait> {
        let circuit = &pool.backend(*self.tried.last()?)?.circuit;
        circuit.keeps_out().then(|| HeaderWait {
            waited: now.since(self.since),
            silent_for: circuit.silent_for(now),
            is_trial: self.is_trial,
        })
    }

    fn token(&self, pool: &Pool, now: Timestamp) -> Option<MoveToken> {
        match &pool.retry_budget {
            Some(budget) if !self.has_token => budget
                .take(now)
                .then(|| MoveToken { budget: Some((Arc::clone(&self.snapshot), self.pool)) }),
            _ => Some(MoveToken { budget: None }),
        }
    }
}

impl MoveToken {
    /// Passes the token on. Returns whether there is one.
    #[must_use]
    pub fn take(mut self) -> bool {
        self.budget.take().is_some()
    }
}

impl Drop for MoveToken {
    fn drop(&mut self) {
        let Some((snapshot, pool)) = self.budget.take() else { return };
        if let Some(budget) = snapshot.pools.get(pool).and_then(|pool| pool.retry_budget.as_ref()) {
            budget.give_back();
        }
    }
}
