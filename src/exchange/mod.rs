//! The decisions of one request, in order.
//!
//! ```text
//! new ─▶ admit ─▶ pick ─▶ (connected) ─▶ responded ─▶ finished
//!          │       ▲ │         │             │
//!          │       │ ▼         ▼             ▼
//!          │       └─failed ◀──┴─────────────┘   while the retry policy allows it
//!          ▼
//!       Refusal
//! ```
//! An exchange pins one snapshot, so a change of the world in its middle cannot confuse it. It
//! asks no clock and rolls no dice: the edge tells it `now` and hands it random numbers. Dropping
//! it in any state gives its lease back and tells the observer, exactly once.

mod admit;
mod attempts;
pub mod event;
mod facts;
mod grpc;
mod head;
pub mod outcome;
pub mod refusal;
pub mod request;
mod tunnel;
mod wait;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::limits::BACKOFF_MAX;
use crate::exchange::attempts::Attempts;
use crate::exchange::event::{Event, Observer, Summary, Wire};
use crate::exchange::refusal::{Ending, Refusal};
use crate::exchange::request::{Request, Transfer};
use crate::http::address;
use crate::policy::backoff;
use crate::policy::retry::{Failure, RetryContext};
use crate::runtime::backend::Lease;
use crate::runtime::backend_set::BackendSet;
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

pub use admit::{Admitted, OwnAnswer};
pub use attempts::{Attempt, Target};
pub use head::{Client, Head, X_FORWARDED_FOR, X_FORWARDED_PROTO};

/// One request and its response through us.
pub struct Exchange {
    snapshot: Arc<Snapshot>,
    observer: Arc<dyn Observer>,
    request: Option<Request>,
    started: Timestamp,
    deadline: Timestamp,
    client: Option<Client>,
    route: Option<usize>,
    new_path: Option<String>,
    own_answer: Option<Ending>,
    pool: Option<usize>,
    attempts: Attempts,
    lease: Option<Lease>,
    asks_tunnel: bool,
    tunnel: Option<tunnel::Tunnel>,
    grpc_status: Option<u16>,
    picked: Timestamp,
    /// The current attempt has less time than its pool allows.
    until_deadline: bool,
    first_byte: Option<Timestamp>,
    refusal: Option<Refusal>,
    detail: Option<&'static str>,
    /// Of the request's body, in the current attempt.
    body_bytes: u64,
    /// The same, in the attempt that got most of it.
    body_bytes_most: u64,
    last_seen: Timestamp,
    finished: bool,
}

/// What decides whether a request could be sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// Some of an answer has gone to the client.
    pub response_started: bool,
    /// The request's body is still at hand from its first byte.
    pub body_whole: bool,
    /// The client has closed its side of the connection; it may not wait for a response any more.
    pub half_closed: bool,
}

impl Exchange {
    /// An exchange whose first byte arrived at `now`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, observer: Arc<dyn Observer>, now: Timestamp) -> Self {
        Self {
            snapshot,
            observer,
            request: None,
            started: now,
            deadline: Timestamp::MAX,
            client: None,
            route: None,
            new_path: None,
            own_answer: None,
            pool: None,
            attempts: Attempts::default(),
            lease: None,
            asks_tunnel: false,
            tunnel: None,
            grpc_status: None,
            picked: now,
            until_deadline: false,
            first_byte: None,
            refusal: None,
            detail: None,
            body_bytes: 0,
            body_bytes_most: 0,
            last_seen: now,
            finished: false,
        }
    }

    /// Picks a backend for the next attempt. `rolls` are two random numbers, for the pick and
    /// for the back-off.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with: nobody is eligible, or the time is up.
    pub fn pick(&mut self, now: Timestamp, rolls: (u64, u64)) -> Result<Target, Refusal> {
        let picked = self.pick_or_refuse(now, rolls);
        self.note(picked)
    }

    fn pick_or_refuse(&mut self, now: Timestamp, rolls: (u64, u64)) -> Result<Target, Refusal> {
        self.last_seen = now;
        self.lease = None;
        self.body_bytes = 0;
        let snapshot = Arc::clone(&self.snapshot);
        let index = self.pool.ok_or(Refusal::NoRoute)?;
        let pool = snapshot.pools.get(index).ok_or(Refusal::NoRoute)?;
        let left = self.deadline.since(now);
        if left.is_zero() {
            return Err(Refusal::RequestTimeout);
        }
        let tried = self.tried();
        let pick = pool.pick(&tried, self.key(), rolls.0).ok_or(Refusal::NoBackend)?;
        // Moving on to another backend is no reason to wait; coming back to one is.
        let repeats = self.attempts.len().saturating_sub(tried.len());
        let repeats = u32::try_from(repeats).unwrap_or(u32::MAX);
        let backoff = match pick.again {
            true => backoff::wait(pool.backoff, BACKOFF_MAX, repeats, rolls.1).min(left),
            false => Duration::ZERO,
        };
        self.attempts.push(Attempt { backend: pick.index, failure: None });
        let backend = Arc::clone(pick.lease.backend());
        self.lease = Some(pick.lease);
        self.picked = now + backoff;
        let left = left.saturating_sub(backoff);
        self.until_deadline = left <= pool.timeouts.response;
        Ok(Target {
            pool: index,
            member: pick.index,
            backend,
            backoff,
            connect_timeout: pool.timeouts.connect.min(left),
            response_timeout: pool.timeouts.response.min(left),
            idle_timeout: pool.timeouts.idle,
            tunnel_timeout: self.asks_tunnel.then_some(pool.timeouts.tunnel),
        })
    }

    /// The current attempt has a connection: one that was kept, or a new one.
    pub fn connected(&mut self, reused: bool, now: Timestamp) {
        self.last_seen = now;
        if reused {
            return;
        }
        let (Some(pool), Some(attempt)) = (self.pool, self.attempts.last()) else { return };
        let took = now.since(self.picked);
        self.observer.observe(&Event::Connected { pool, backend: attempt.backend, took });
    }

    /// The current attempt failed. Whether the exchange should be tried again; the lease is given
    /// back at once. `reason` is for the operator.
    pub fn failed(
        &mut self,
        failure: Failure,
        reason: &str,
        replay: Replay,
        now: Timestamp,
    ) -> bool {
        self.last_seen = now;
        if self.tunnel.is_some() {
            return false; // the attempt succeeded when the tunnel began
        }
        let retried = self.may_retry(failure, replay, now);
        let (Some(pool), Some(attempt)) = (self.pool, self.attempts.last_mut()) else {
            return false;
        };
        attempt.failure = Some(failure);
        let backend = attempt.backend;
        if let Some(lease) = self.lease.take() {
            lease.backend().attempt_failed(reason);
        }
        self.observer.observe(&Event::AttemptFailed { pool, backend, failure, retried });
        retried
    }

    /// There is no connection for the current attempt. Whether the exchange should be tried again.
    /// Without a `failure` it is for want of something of our own: that was no attempt, no backend
    /// is blamed, and the request is rejected.
    pub fn not_connected(
        &mut self,
        failure: Option<Failure>,
        reason: &str,
        replay: Replay,
        now: Timestamp,
    ) -> bool {
        if let Some(failure) = failure {
            return self.failed(failure, reason, replay, now);
        }
        self.last_seen = now;
        self.attempts.pop();
        if let Some(lease) = self.lease.take() {
            lease.cancel();
        }
        self.refusal = Some(Refusal::Overload);
        false
    }

    /// The head of the backend's answer has come. Whether it should be thrown away and the
    /// exchange tried again.
    pub fn responded(&mut self, status: u16, replay: Replay, now: Timestamp) -> bool {
        self.last_seen = now;
        let failure = Failure::Status(status);
        if self.may_retry(failure, replay, now) {
            return self.failed(
                failure,
                "the backend answered with a status to retry",
                replay,
                now,
            );
        }
        self.first_byte.get_or_insert(now);
        false
    }

    fn may_retry(&self, failure: Failure, replay: Replay, now: Timestamp) -> bool {
        let Some(pool) = self.pool_in(&self.snapshot) else { return false };
        let facts = RetryContext {
            attempts_made: u32::try_from(self.attempts.len()).unwrap_or(u32::MAX),
            idempotent: replay.idempotent,
            response_started: replay.response_started,
            body_whole: replay.body_whole,
        };
        pool.retry.allows(failure, facts)
            && !replay.half_closed
            && !self.deadline.since(now).is_zero()
            && pool.has_another(&self.tried())
    }

    /// The exchange is over. Only the first call counts.
    pub fn finished(&mut self, ending: Ending, wire: Option<&Wire<'_>>, now: Timestamp) {
        self.last_seen = now;
        self.lease = None;
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.ended();
        }
        if !std::mem::replace(&mut self.finished, true) {
            let summary = Summary { exchange: self, ending, wire, ended: now };
            self.observer.observe(&Event::Finished(summary));
        }
    }

    /// The exchange is over, and this is how much of it went over the wire. Only the first call
    /// counts.
    pub fn ended(&mut self, ending: Ending, transfer: Transfer, now: Timestamp) {
        match self.request.take() {
            Some(request) => {
                request.with_wire(transfer, |wire| self.finished(ending, Some(wire), now));
            }
            None => self.finished(ending, None, now),
        }
    }

    fn note<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.refusal = Some(*refusal);
        }
        result
    }

    fn key(&self) -> u64 {
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

    fn pool_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Pool> {
        snapshot.pools.get(self.pool?)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let transfer = Transfer { bytes_in: self.body_bytes_most, ..Transfer::default() };
        self.ended(Ending::Dropped, transfer, self.last_seen);
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exchange")
            .field("client", &self.client)
            .field("pool", &self.pool)
            .field("attempts", &self.attempts.as_slice())
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
