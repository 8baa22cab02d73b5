//! What limits the retries of an exchange: the budget of the pool, `try_timeout` and `Retry-After`.
//!
//! A retry takes a token, and holds it until its result is known: a response without a failure
//! returns it, a failure uses it up. A retry without a result, because the client has left or Weir
//! rejects the request, returns it, too.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Exchange, Replay, breaker};
use crate::config::limits::BACKOFF_MAX;
use crate::exchange::event::ExchangeEvent;
use crate::policy::retry::AttemptFailure;
use crate::policy::retry_budget::RetryBudget;
use crate::runtime::breakers::Breakers;
use crate::runtime::moving::AttemptWatch;
use crate::runtime::pool::Pool;
use crate::time::Timestamp;

/// Decides whether to retry after `failure`, and takes the token that the retry costs. After a failed
/// connection it costs none: nothing was sent, so the failure has loaded no backend.
pub(super) fn claim_retry(
    exchange: &mut Exchange,
    failure: AttemptFailure,
    replay: Replay,
    now: Timestamp,
) -> bool {
    let is_retried = exchange.may_retry(failure, replay, now);
    if failure.is_unsent() {
        return is_retried; // a token of the request stays with it
    }
    if !is_retried {
        if !matches!(failure, AttemptFailure::Status(_)) {
            exchange.current.token = false;
            return_token(exchange);
        }
        return false;
    }
    let is_reserved = std::mem::replace(&mut exchange.current.reserved, false);
    let taken = is_reserved || budget(exchange).is_none_or(|budget| budget.take(now));
    exchange.current.token = taken;
    if !taken {
        if let Some(attempt) = exchange.attempts.last_mut() {
            attempt.budget_exhausted = true;
        }
        if let Some(pool) = exchange.destination.pool {
            exchange.observer.observe(&ExchangeEvent::RetryBudgetExhausted { pool });
        }
    }
    taken
}

/// The response headers for the client have arrived.
pub(super) fn settle_response(exchange: &mut Exchange, status: u16, now: Timestamp) {
    let Some(pool) = exchange.current_pool(&exchange.snapshot) else { return };
    let Some(budget) = &pool.retry_budget else { return };
    if pool.retry.is_failure(status) {
        exchange.current.token = false; // used up
    } else {
        budget.earn(now);
    }
    return_token(exchange);
}

/// The exchange or its attempt ends: returns the token of a retry without a failure, and that of a retry
/// that is not made.
pub(super) fn return_token(exchange: &mut Exchange) {
    let current = &mut exchange.current;
    let held = [&mut current.token, &mut current.reserved];
    let held = held.map(|it| std::mem::replace(it, false));
    if held == [false; 2] {
        return; // as nearly always
    }
    if let Some(budget) = budget(exchange) {
        held.into_iter().filter(|is_held| *is_held).for_each(|_| budget.give_back());
    }
}

/// The time limit of the current attempt up to its response headers, if another backend will be tried
/// after it. The token of that retry is reserved: an attempt without one has all the time.
pub(super) fn try_timeout(
    exchange: &mut Exchange,
    pool: &Pool,
    now: Timestamp,
) -> Option<Duration> {
    let limit = pool.retry.try_timeout.filter(|_| pool.retry.timeout)?;
    if !can_repeat(exchange, pool) || !pool.has_untried(&exchange.tried()) {
        return None;
    }
    if let Some(budget) = pool.retry_budget.as_ref().filter(|_| !exchange.current.reserved) {
        exchange.current.reserved = budget.take(now);
        return exchange.current.reserved.then_some(limit);
    }
    Some(limit)
}

/// Whether the current attempt is not the last one of a request that can be sent twice.
fn can_repeat(exchange: &Exchange, pool: &Pool) -> bool {
    exchange.body.plain
        && !exchange.upgrade.wanted
        && breaker::made_fewer_than(exchange, pool, u32::from(pool.retry.attempts.get()))
}

/// The current attempt for those that watch whether it has to be moved to another backend; `None` if it
/// cannot be retried there.
pub(super) fn watch(exchange: &Exchange) -> Option<AttemptWatch> {
    let id = exchange.destination.pool?;
    let pool = exchange.snapshot.pools.get(id)?;
    let lease = exchange.current.lease.as_ref().filter(|lease| lease.is_measured())?;
    let is_trial = lease.is_trial();
    let may_move = pool.breakers.as_ref().is_some_and(Breakers::moves_requests)
        && pool.members.len() > 1
        && (pool.retry.timeout || is_trial)
        && can_repeat(exchange, pool);
    may_move.then(|| AttemptWatch {
        snapshot: Arc::clone(&exchange.snapshot),
        pool: id,
        tried: match exchange.attempts.as_slice() {
            // Nearly always: no loop.
            [only] => SmallVec::from_buf_and_len([only.backend; 2], 1),
            all => all.iter().map(|attempt| attempt.backend).collect(),
        },
        since: exchange.current.picked,
        is_trial,
        has_token: exchange.current.reserved,
    })
}

/// Whether a retry could still be made in time if no other backend is left and this one wants not to
/// be asked again for so long. If not, the client gets the response with its `Retry-After`.
pub(super) fn is_in_time(
    exchange: &Exchange,
    retry_after: Option<Duration>,
    now: Timestamp,
) -> bool {
    let Some(wait) = retry_after else { return true };
    let pool = exchange.current_pool(&exchange.snapshot);
    wait < BACKOFF_MAX.min(exchange.times.deadline.since(now))
        || pool.is_some_and(|pool| pool.has_untried(&exchange.tried()))
}

fn budget(exchange: &Exchange) -> Option<&RetryBudget> {
    exchange.current_pool(&exchange.snapshot)?.retry_budget.as_ref()
}
