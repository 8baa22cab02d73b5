//! The choice of a backend for the next attempt, and the wait for a place at one.

use std::sync::Arc;
use std::time::Duration;

use super::attempts::{Attempt, Target};
use super::{Exchange, Rolls, breaker, retry_limits};
use crate::config::limits::BACKOFF_MAX;
use crate::exchange::event::ExchangeEvent;
use crate::exchange::refusal::Refusal;
use crate::policy::backoff;
use crate::policy::retry::AttemptFailure;
use crate::policy::wait_queue::QueueRefusal;
use crate::runtime::backend_set::BackendSet;
use crate::runtime::ids::PoolId;
use crate::runtime::pool::{Ask, Pick, Pool};
use crate::runtime::waiters::{Applicant, Waiters};
use crate::time::Timestamp;

/// What a request does next.
#[derive(Debug)]
pub enum Choice {
    /// It is sent to a backend.
    Attempt(Target),
    /// It waits for a place at one, at most until this time: call [`Exchange::poll_wait`], and
    /// [`Exchange::end_wait`] once that is ready or the time is over.
    Wait(Timestamp),
}

/// What the pick of a request depends on, except for the time.
struct Wish {
    tried: BackendSet,
    unreachable: BackendSet,
    key: u64,
    roll: u64,
    may_try: bool,
    measured: bool,
}

impl Wish {
    fn at(&self, now: Timestamp) -> Ask<'_> {
        Ask {
            tried: &self.tried,
            unreachable: &self.unreachable,
            key: self.key,
            roll: self.roll,
            may_try: self.may_try,
            measured: self.measured,
            now,
        }
    }

    /// Requests of one class can use the same backends.
    fn class(&self) -> Option<u8> {
        self.tried.is_empty().then_some(u8::from(self.may_try))
    }
}

pub(super) fn pick_or_refuse(
    exchange: &mut Exchange,
    now: Timestamp,
    rolls: Rolls,
) -> Result<Choice, Refusal> {
    exchange.times.last_event = now;
    release(exchange, now);
    exchange.current.moved = false;
    exchange.body.bytes = 0;
    let snapshot = Arc::clone(&exchange.snapshot);
    let id = exchange.destination.pool.ok_or(Refusal::NoRoute)?;
    let pool = snapshot.pools.get(id).ok_or(Refusal::NoRoute)?;
    if exchange.times.deadline.since(now).is_zero() {
        return Err(Refusal::RequestTimeout);
    }
    exchange.current.roll = rolls.backoff;
    let wish = wish(exchange, pool, rolls);
    if pool.waiters.as_ref().is_some_and(|waiters| waiters.must_wait(now))
        && !pool.available().is_empty()
    {
        return wait(exchange, id, pool, wish, now);
    }
    match pool.pick(&wish.at(now)) {
        Ok(pick) => Ok(Choice::Attempt(attempt(exchange, id, pool, pick, now))),
        Err(none) => {
            breaker::report(exchange, none.changes);
            if none.is_full {
                wait(exchange, id, pool, wish, now)
            } else {
                Err(Refusal::without_backend(pool))
            }
        }
    }
}

fn wish(exchange: &Exchange, pool: &Pool, rolls: Rolls) -> Wish {
    let unsent = |one: &&Attempt| one.failure.is_some_and(AttemptFailure::is_unsent);
    Wish {
        tried: exchange.tried(),
        unreachable: exchange.attempts.iter().filter(unsent).map(|one| one.backend).collect(),
        key: exchange.hash_key(),
        roll: rolls.pick,
        may_try: exchange.body.plain
            && breaker::made_fewer_than(exchange, pool, u32::from(pool.retry.attempts.get()) - 1),
        measured: exchange.body.plain,
    }
}

/// Begins the attempt at the backend that was picked.
fn attempt(exchange: &mut Exchange, id: PoolId, pool: &Pool, pick: Pick, now: Timestamp) -> Target {
    breaker::report(exchange, pick.changes);
    let left = exchange.times.deadline.since(now);
    let retry_after = std::mem::take(&mut exchange.current.retry_after);
    // Moving to another backend needs no wait; returning to the same one does.
    let backoff = match pick.again {
        true => backoff(exchange, pool).max(retry_after).min(left),
        false => Duration::ZERO,
    };
    exchange.attempts.push(Attempt { backend: pick.id, failure: None, budget_exhausted: false });
    let backend = Arc::clone(pick.lease.backend());
    exchange.current.lease = Some(pick.lease);
    exchange.current.picked = now + backoff;
    let left = left.saturating_sub(backoff);
    let try_timeout = retry_limits::try_timeout(exchange, pool, now).unwrap_or(Duration::MAX);
    exchange.current.try_deadline = exchange.current.picked + try_timeout;
    exchange.current.until_deadline = left <= pool.timeouts.response.min(try_timeout);
    Target {
        pool: id,
        id: pick.id,
        backend,
        backoff,
        connect_timeout: pool.timeouts.connect.min(try_timeout).min(left),
        response_timeout: pool.timeouts.response.min(left),
        idle_timeout: pool.timeouts.idle,
        tunnel_timeout: exchange.upgrade.wanted.then_some(pool.timeouts.tunnel),
    }
}

fn backoff(exchange: &Exchange, pool: &Pool) -> Duration {
    let repeats = exchange.attempts.len().saturating_sub(exchange.tried().len());
    let repeats = u32::try_from(repeats).unwrap_or(u32::MAX);
    backoff::wait(pool.retry.backoff, BACKOFF_MAX, repeats, exchange.current.roll)
}

/// Releases the place of the current attempt, and gives it to a request that waits.
pub(super) fn release(exchange: &mut Exchange, now: Timestamp) {
    if exchange.current.lease.take().is_some() {
        dispatch(exchange, now);
    }
}

// ── the wait for a place ──

fn wait(
    exchange: &mut Exchange,
    id: PoolId,
    pool: &Pool,
    wish: Wish,
    now: Timestamp,
) -> Result<Choice, Refusal> {
    let Some(waiters) = &pool.waiters else { return Err(refuse_place(exchange, None)) };
    let (snapshot, observer) = (Arc::clone(&exchange.snapshot), Arc::clone(&exchange.observer));
    let class = wish.class();
    let take = move |now| match snapshot.pools.get(id)?.pick(&wish.at(now)) {
        Ok(pick) => Some(pick),
        Err(none) => {
            breaker::report_to(&*observer, &snapshot, id, none.changes);
            None
        }
    };
    let applicant = Applicant { take: Box::new(take), class, deadline: exchange.times.deadline };
    let waiting =
        waiters.enter(applicant, now).map_err(|refusal| refuse_place(exchange, Some(refusal)))?;
    let until = waiting.until();
    exchange.current.waiting = Some(Box::new(waiting));
    Ok(Choice::Wait(until))
}

pub(super) fn end_wait_or_refuse(
    exchange: &mut Exchange,
    now: Timestamp,
) -> Result<Target, Refusal> {
    exchange.times.last_event = now;
    let snapshot = Arc::clone(&exchange.snapshot);
    let id = exchange.destination.pool.ok_or(Refusal::NoRoute)?;
    let pool = snapshot.pools.get(id).ok_or(Refusal::NoRoute)?;
    let outcome = leave_queue(exchange, now);
    match outcome.unwrap_or(Err(QueueRefusal::Timeout)) {
        Ok(pick) if exchange.times.deadline <= now => {
            pass_on(exchange, pick, now);
            Err(Refusal::RequestTimeout)
        }
        Ok(pick) => Ok(attempt(exchange, id, pool, pick, now)),
        Err(_) if exchange.times.deadline <= now => Err(Refusal::RequestTimeout),
        Err(_) if pool.available().is_empty() => Err(Refusal::without_backend(pool)),
        Err(refusal) => Err(refuse_place(exchange, Some(refusal))),
    }
}

/// The exchange ends: a place that it was given meanwhile goes to another request.
pub(super) fn stop_waiting(exchange: &mut Exchange, now: Timestamp) {
    if let Some(Ok(pick)) = leave_queue(exchange, now) {
        pass_on(exchange, pick, now);
    }
}

/// Gives a place that is not used to another request.
fn pass_on(exchange: &Exchange, pick: Pick, now: Timestamp) {
    breaker::report(exchange, pick.changes);
    pick.lease.cancel();
    dispatch(exchange, now);
}

fn leave_queue(exchange: &mut Exchange, now: Timestamp) -> Option<Result<Pick, QueueRefusal>> {
    let waiting = exchange.current.waiting.take()?;
    let waited = now.since(waiting.since());
    exchange.times.queued = exchange.times.queued.saturating_add(waited);
    let outcome = waiters(exchange)?.leave(&waiting, now);
    if let Some(pool) = exchange.destination.pool {
        exchange.observer.observe(&ExchangeEvent::Queued { pool, waited });
    }
    outcome
}

fn refuse_place(exchange: &mut Exchange, reason: Option<QueueRefusal>) -> Refusal {
    if let Some(pool) = exchange.destination.pool {
        exchange.observer.observe(&ExchangeEvent::QueueRefused { pool, reason });
    }
    exchange.set_detail(reason.map_or("no_queue", QueueRefusal::as_str));
    match reason {
        None | Some(QueueRefusal::Full | QueueRefusal::Evicted) => Refusal::QueueFull,
        Some(QueueRefusal::Expected | QueueRefusal::Timeout) => Refusal::QueueTimeout,
    }
}

fn waiters(exchange: &Exchange) -> Option<&Waiters<Pick>> {
    exchange.current_pool(&exchange.snapshot)?.waiters.as_deref()
}

fn dispatch(exchange: &Exchange, now: Timestamp) {
    if let Some(pool) = exchange.current_pool(&exchange.snapshot) {
        pool.dispatch(now);
    }
}
