//! What the circuit breakers learn from an exchange: each attempt is judged once.
//!
//! A failure is recorded when it is known, a success once the response is whole. Own rejections,
//! clients that disconnect, and clients that stall say nothing about the backend. There is one
//! exception: a trial succeeds if its client leaves after the response headers.

use super::{Attempt, Exchange};
use crate::config::limits::ATTEMPTS_MAX;
use crate::exchange::event::{ExchangeEvent, Observer};
use crate::exchange::refusal::Outcome;
use crate::policy::breaker::{AttemptFault, Moment};
use crate::policy::retry::AttemptFailure;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::ids::PoolId;
use crate::runtime::lease::Lease;
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// Records that the current attempt failed.
pub(super) fn record_failure(exchange: &mut Exchange, failure: AttemptFailure, now: Timestamp) {
    if let Some(lease) = &mut exchange.current.lease {
        lease.backend().circuit.penalize(now);
        let is_silence = matches!(failure, AttemptFailure::Timeout | AttemptFailure::Moved);
        let is_measured = !is_silence && lease.stop_measuring(now).is_some();
        if is_measured || matches!(failure, AttemptFailure::Status(_)) {
            lease.backend().circuit.reacted(now);
        }
    }
    let pool = exchange.current_pool(&exchange.snapshot);
    let fault = pool.and_then(|pool| pool.fault(failure, exchange.response.first_byte.is_some()));
    if let Some(fault) = fault {
        record(exchange, Err(fault), now);
    }
}

/// Whether the current attempt is a trial, and `failure` fails it.
pub(super) fn is_failed_trial(exchange: &Exchange, pool: &Pool, failure: AttemptFailure) -> bool {
    exchange.current.lease.as_ref().is_some_and(Lease::is_trial)
        && pool.fault(failure, exchange.response.first_byte.is_some()).is_some()
}

/// Records what the response headers say. `status` is their status as a failure.
pub(super) fn judge_headers(exchange: &mut Exchange, status: AttemptFailure, now: Timestamp) {
    let pool = exchange.destination.pool.and_then(|id| exchange.snapshot.pools.get(id));
    if pool.is_some_and(|pool| pool.fault(status, false).is_some()) {
        return record_failure(exchange, status, now);
    }
    let (Some(pool), Some(attempt)) = (pool, exchange.attempts.last()) else { return };
    let Some(lease) = &mut exchange.current.lease else { return };
    let at = Moment { now, roll: exchange.current.roll };
    let change = pool.heard(attempt.backend, lease, at);
    report(exchange, change);
}

/// Records that the backend has accepted an upgrade.
pub(super) fn judge_upgrade(exchange: &mut Exchange, now: Timestamp) {
    record(exchange, Ok(()), now);
}

/// Records the outcome of the exchange for its last attempt.
pub(super) fn judge_ending(exchange: &mut Exchange, ending: Outcome, now: Timestamp) {
    match ending {
        Outcome::Completed => record(exchange, Ok(()), now),
        // A pool whose responses only end when the client leaves would never come back.
        Outcome::ClientAborted | Outcome::ClientWriteTimeout
            if exchange.has_response()
                && exchange.current.lease.as_ref().is_some_and(Lease::is_trial) =>
        {
            record(exchange, Ok(()), now);
        }
        Outcome::UpstreamAborted if exchange.upgrade.tunnel.is_none() => {
            record_failure(exchange, AttemptFailure::Reset, now);
        }
        Outcome::Refused(_)
        | Outcome::Redirected
        | Outcome::Responded
        | Outcome::UpstreamAborted
        | Outcome::ClientAborted
        | Outcome::ClientWriteTimeout
        | Outcome::TunnelIdle
        | Outcome::TunnelDrained
        | Outcome::Aborted(_)
        | Outcome::Abandoned => {}
    }
}

fn record(exchange: &mut Exchange, result: Result<(), AttemptFault>, now: Timestamp) {
    let Some(lease) = &mut exchange.current.lease else { return };
    let pool = exchange.destination.pool.and_then(|id| exchange.snapshot.pools.get(id));
    let (Some(pool), Some(attempt)) = (pool, exchange.attempts.last()) else { return };
    let at = Moment { now, roll: exchange.current.roll };
    let change = pool.record(attempt.backend, lease, result, at);
    report(exchange, change);
}

/// Logs and reports changes of circuit breakers.
pub(super) fn report(exchange: &Exchange, changes: impl IntoIterator<Item = BreakerChange>) {
    if let Some(id) = exchange.destination.pool {
        report_to(&*exchange.observer, &exchange.snapshot, id, changes);
    }
}

/// The same, for a pool of a snapshot.
pub(super) fn report_to(
    observer: &dyn Observer,
    snapshot: &Snapshot,
    id: PoolId,
    changes: impl IntoIterator<Item = BreakerChange>,
) {
    for change in changes {
        let Some(pool) = snapshot.pools.get(id) else { return };
        if let Some(backend) = pool.backend(change.backend) {
            change.log(&pool.name, &backend.label);
        }
        observer.observe(&ExchangeEvent::Breaker { pool: id, change });
    }
}

/// Whether fewer than `limit` attempts count for `retry.attempts`.
pub(super) fn made_fewer_than(exchange: &Exchange, pool: &Pool, limit: u32) -> bool {
    let is_below = |attempts: u32| attempts < limit;
    // Not more count than were made. Nearly always that is enough.
    u32::try_from(exchange.attempts.len()).is_ok_and(is_below)
        || is_below(attempts_made(exchange, pool))
}

/// The attempts that count for `retry.attempts`. A refused connection uses up no attempt while
/// another backend is left to try, unless retries are off.
pub(super) fn attempts_made(exchange: &Exchange, pool: &Pool) -> u32 {
    let is_refused = |attempt: &&Attempt| attempt.failure == Some(AttemptFailure::Connect);
    let refused = exchange.attempts.iter().filter(is_refused).count();
    let all = exchange.attempts.len();
    let are_free = refused > 0
        && all <= usize::from(ATTEMPTS_MAX)
        && pool.retry.attempts.get() > 1
        && pool.has_untried(&exchange.tried());
    u32::try_from(if are_free { all - refused } else { all }).unwrap_or(u32::MAX)
}
