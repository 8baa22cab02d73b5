//! The decisions of one request, in order.
//!
//! ```text
//! new ─▶ admit ─▶ pick ─▶ (connected) ─▶ response_head ─▶ finished
//!          │       ▲ │         │             │
//!          │       │ ▼         ▼             ▼
//!          │       └─attempt_failed ◀────────┘   while the retry policy allows it
//!          ▼
//!       Refusal
//! ```
//! An exchange pins one snapshot, so a change of the configuration cannot confuse it. It reads no
//! clock and generates no random numbers: the edge passes `now` and random numbers as arguments.
//! Dropping it in any state releases its lease and notifies the observer, exactly once.

mod admit;
mod attempts;
mod breaker;
pub mod event;
mod head;
pub mod outcome;
mod parts;
mod pick;
pub mod refusal;
pub mod request;
mod retry_limits;
mod state;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::exchange::attempts::Attempts;
use crate::exchange::event::{ExchangeEvent, Observer, Summary, Wire};
use crate::exchange::parts::{
    BodySize, Conclusion, CurrentAttempt, Destination, ResponseFacts, Times, UpgradeState,
};
use crate::exchange::refusal::{Outcome, Refusal};
use crate::exchange::request::{Request, Transfer};
use crate::http::address;
use crate::policy::retry::{AttemptFailure, RetryContext};
use crate::runtime::backend_set::BackendSet;
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

pub use admit::{Admitted, DirectResponse};
pub use attempts::{Attempt, Target};
pub use head::{ClientInfo, Head, X_FORWARDED_FOR, X_FORWARDED_PROTO};
pub use pick::Choice;

/// One request and its response.
pub struct Exchange {
    snapshot: Arc<Snapshot>,
    observer: Arc<dyn Observer>,
    request: Option<Request>,
    client: Option<ClientInfo>,
    times: Times,
    destination: Destination,
    attempts: Attempts,
    current: CurrentAttempt,
    body: BodySize,
    upgrade: UpgradeState,
    response: ResponseFacts,
    conclusion: Conclusion,
}

/// What decides whether a request can be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// A part of a response was sent to the client.
    pub response_started: bool,
    /// The whole request body is still available.
    pub body_whole: bool,
    /// The client has closed its side of the connection, and may not wait for a response.
    pub half_closed: bool,
}

/// What the response headers of a backend say about a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// `Retry-After` (RFC 9110 §10.2.3), if it is a number of seconds.
    pub retry_after: Option<Duration>,
}

impl From<u16> for ResponseHead {
    fn from(status: u16) -> Self {
        Self { status, retry_after: None }
    }
}

/// Random numbers for one pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rolls {
    /// For the choice of a backend.
    pub pick: u64,
    /// For the back-off.
    pub backoff: u64,
}

impl Exchange {
    /// Creates an exchange whose first byte arrived at `now`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, observer: Arc<dyn Observer>, now: Timestamp) -> Self {
        Self {
            snapshot,
            observer,
            request: None,
            client: None,
            times: Times {
                started: now,
                deadline: Timestamp::MAX,
                last_event: now,
                queued: Duration::ZERO,
            },
            destination: Destination::default(),
            attempts: Attempts::default(),
            current: CurrentAttempt {
                lease: None,
                waiting: None,
                picked: now,
                until_deadline: false,
                roll: 0,
                token: false,
                reserved: false,
                moved: false,
                try_deadline: Timestamp::MAX,
                retry_after: Duration::ZERO,
            },
            body: BodySize::default(),
            upgrade: UpgradeState::default(),
            response: ResponseFacts::default(),
            conclusion: Conclusion::default(),
        }
    }

    /// Picks a backend for the next attempt of a request that does not wait.
    ///
    /// # Errors
    /// The [`Refusal`] to respond with: no backend is eligible or has a place, or the deadline has passed.
    pub fn pick(&mut self, now: Timestamp, rolls: Rolls) -> Result<Target, Refusal> {
        match self.pick_or_wait(now, rolls)? {
            Choice::Attempt(target) => Ok(target),
            Choice::Wait(_) => self.end_wait(now),
        }
    }

    /// Picks a backend for the next attempt, or begins to wait for a place at one.
    ///
    /// # Errors
    /// The [`Refusal`] to respond with: no backend is eligible, the queue is full, or the deadline has
    /// passed.
    pub fn pick_or_wait(&mut self, now: Timestamp, rolls: Rolls) -> Result<Choice, Refusal> {
        let picked = pick::pick_or_refuse(self, now, rolls);
        self.record_refusal(picked)
    }

    /// Ready once it is known whether the request has a place.
    pub fn poll_wait(&self, context: &Context<'_>) -> Poll<()> {
        self.current.waiting.as_ref().map_or(Poll::Ready(()), |waiting| waiting.poll(context))
    }

    /// Ends the wait for a place.
    ///
    /// # Errors
    /// The [`Refusal`] to respond with: it has got no place.
    pub fn end_wait(&mut self, now: Timestamp) -> Result<Target, Refusal> {
        let ended = pick::end_wait_or_refuse(self, now);
        self.record_refusal(ended)
    }

    /// The current attempt has a connection: a reused one, or a new one.
    pub fn connected(&mut self, reused: bool, now: Timestamp) {
        self.times.last_event = now;
        if reused {
            return;
        }
        let (Some(pool), Some(attempt)) = (self.destination.pool, self.attempts.last()) else {
            return;
        };
        let took = now.since(self.current.picked);
        self.observer.observe(&ExchangeEvent::Connected { pool, backend: attempt.backend, took });
    }

    /// The current attempt failed. Returns whether to retry; the lease is released at once.
    /// `reason` is for the operator.
    pub fn attempt_failed(
        &mut self,
        failure: AttemptFailure,
        reason: &str,
        replay: Replay,
        now: Timestamp,
    ) -> bool {
        self.times.last_event = now;
        if self.upgrade.tunnel.is_some() {
            return false; // the attempt succeeded with the upgrade
        }
        breaker::record_failure(self, failure, now);
        let Some(attempt) = self.attempts.last_mut() else { return false };
        attempt.failure = Some(failure);
        let retried = retry_limits::claim_retry(self, failure, replay, now);
        self.fail_attempt(failure, reason, retried);
        retried
    }

    /// Ends the current attempt, whose failure was judged.
    fn fail_attempt(&mut self, failure: AttemptFailure, reason: &str, retried: bool) {
        let (Some(pool), Some(attempt)) = (self.destination.pool, self.attempts.last_mut()) else {
            return;
        };
        attempt.failure = Some(failure);
        let backend = attempt.backend;
        if let Some(lease) = &self.current.lease {
            lease.backend().attempt_failed(reason);
        }
        let now = self.times.last_event;
        pick::release(self, now);
        self.observer.observe(&ExchangeEvent::AttemptFailed { pool, backend, failure, retried });
    }

    /// There is no connection for the current attempt. Returns whether to retry. Without a
    /// `failure`, Weir lacked a resource of its own: this does not count as an attempt, the backend
    /// is not blamed, and the request is rejected.
    pub fn not_connected(
        &mut self,
        failure: Option<AttemptFailure>,
        reason: &str,
        replay: Replay,
        now: Timestamp,
    ) -> bool {
        if let Some(failure) = failure {
            return self.attempt_failed(failure, reason, replay, now);
        }
        self.times.last_event = now;
        retry_limits::return_token(self);
        self.attempts.pop();
        if let Some(lease) = self.current.lease.take() {
            lease.cancel();
        }
        pick::release(self, now);
        self.conclusion.refusal = Some(Refusal::Overload);
        false
    }

    /// The headers of the backend's response have arrived. Returns whether to discard it and retry.
    pub fn response_head(
        &mut self,
        head: impl Into<ResponseHead>,
        replay: Replay,
        now: Timestamp,
    ) -> bool {
        let head = head.into();
        self.times.last_event = now;
        let failure = AttemptFailure::Status(head.status);
        if retry_limits::is_in_time(self, head.retry_after, now)
            && retry_limits::claim_retry(self, failure, replay, now)
        {
            self.current.retry_after = head.retry_after.unwrap_or_default();
            breaker::record_failure(self, failure, now);
            self.fail_attempt(failure, "the backend responded with a status to retry", true);
            return true;
        }
        breaker::judge_headers(self, failure, now);
        retry_limits::settle_response(self, head.status, now);
        self.response.first_byte.get_or_insert(now);
        false
    }

    fn may_retry(&self, failure: AttemptFailure, replay: Replay, now: Timestamp) -> bool {
        let Some(pool) = self.current_pool(&self.snapshot) else { return false };
        let context = RetryContext {
            attempts_made: breaker::attempts_made(self, pool),
            idempotent: replay.idempotent,
            response_started: replay.response_started,
            body_whole: replay.body_whole,
            failed_trial: breaker::is_failed_trial(self, pool, failure),
        };
        pool.retry.allows(failure, context)
            && !replay.half_closed
            && !self.times.deadline.since(now).is_zero()
            && pool.has_another(&self.tried())
    }

    /// The exchange is complete. Only the first call counts.
    pub fn finished(&mut self, ending: Outcome, wire: Option<&Wire<'_>>, now: Timestamp) {
        self.times.last_event = now;
        breaker::judge_ending(self, ending, now);
        retry_limits::return_token(self);
        pick::stop_waiting(self, now);
        pick::release(self, now);
        if let Some(tunnel) = &mut self.upgrade.tunnel {
            tunnel.ended();
        }
        self.conclusion.counted = None;
        if !std::mem::replace(&mut self.conclusion.reported, true) {
            let summary = Summary { exchange: self, ending, wire, ended: now };
            self.observer.observe(&ExchangeEvent::Finished(summary));
        }
    }

    /// The exchange is complete, with this amount of data transferred. Only the first call counts.
    pub fn ended(&mut self, ending: Outcome, transfer: Transfer, now: Timestamp) {
        match self.request.take() {
            Some(request) => {
                request.with_wire(transfer, |wire| self.finished(ending, Some(wire), now));
            }
            None => self.finished(ending, None, now),
        }
    }

    fn record_refusal<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.conclusion.refusal = Some(*refusal);
        }
        result
    }

    fn hash_key(&self) -> u64 {
        match self.client.map(|client| address::client_key(client.address)) {
            Some(IpAddr::V4(address)) => xxh3_64(&address.octets()),
            Some(IpAddr::V6(address)) => xxh3_64(&address.octets()),
            None => 0,
        }
    }

    /// The backends of all attempts so far.
    fn tried(&self) -> BackendSet {
        self.attempts.iter().map(|attempt| attempt.backend).collect()
    }

    fn current_pool<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Pool> {
        snapshot.pools.get(self.destination.pool?)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let transfer = Transfer { bytes_in: self.body.most, ..Transfer::default() };
        self.ended(Outcome::Abandoned, transfer, self.times.last_event);
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exchange")
            .field("client", &self.client)
            .field("pool", &self.destination.pool)
            .field("attempts", &self.attempts.as_slice())
            .field("refusal", &self.conclusion.refusal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod breaker_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod request_limit_tests;
#[cfg(test)]
mod retry_limits_tests;
#[cfg(test)]
mod tests;
