//! The state of an exchange: what hooks and observers may ask, the deadlines that follow from it, and
//! what the edge reports.
//!
//! The decisions, which call each other in order, are in the parent module.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ::http::{HeaderValue, Method};

use super::breaker;
use super::{Attempt, ClientInfo, Exchange, Target};
use crate::exchange::event::ExchangeEvent;
use crate::exchange::parts::Tunnel;
use crate::exchange::refusal::Refusal;
use crate::exchange::request::Request;
use crate::http::method::is_idempotent;
use crate::policy::retry::AttemptFailure;
use crate::runtime::backend::Backend;
use crate::runtime::ids::PoolId;
use crate::runtime::moving::{AttemptWatch, MoveToken};
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// Up to this much of a request may still be unsent when all of it has been read from the client.
const UNSENT_MAX: u64 = 64 * 1024;

impl Exchange {
    /// Counts a part of the request body that is about to be sent.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLarge`], once the body exceeds the limit.
    pub fn body_received(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.body.bytes = self.body.bytes.saturating_add(bytes);
        self.body.most = self.body.most.max(self.body.bytes);
        let most = self.snapshot.body_bytes_max.unwrap_or(u64::MAX);
        self.record_refusal(if self.body.bytes > most {
            Err(Refusal::BodyTooLarge)
        } else {
            Ok(())
        })
    }

    /// Stores the request for the access log.
    pub fn received(&mut self, request: Request) {
        self.request = Some(request);
    }

    /// The request, until the exchange is complete.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The `X-Request-Id` for backend and client; `None` once the exchange is complete.
    #[must_use]
    pub fn request_id(&self) -> Option<&HeaderValue> {
        self.request.as_ref().and_then(|request| request.id.as_ref())
    }

    /// Whether a request with this method may be sent twice: the method is idempotent, or the pool's
    /// `retry.methods` lists it.
    #[must_use]
    pub fn allows_repetition(&self, method: &Method) -> bool {
        let pool = self.current_pool(&self.snapshot);
        is_idempotent(method) || pool.is_some_and(|pool| pool.retry.methods.contains(method))
    }

    /// Whether it is complete and was reported.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.conclusion.reported
    }

    /// Bytes of the request body that were read: those of the attempt that sent most of it.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.body.most
    }

    /// Whether the current attempt has less time than the pool's timeout, because the deadline is
    /// nearer.
    #[must_use]
    pub fn is_until_deadline(&self) -> bool {
        self.current.until_deadline
    }

    /// Whether all attempts so far failed before there was a connection, and the pool has no other
    /// backend that could be tried. Without an attempt it is false.
    #[must_use]
    pub fn is_all_down(&self) -> bool {
        let never = self.attempts.iter().all(|one| {
            matches!(one.failure, Some(AttemptFailure::Connect | AttemptFailure::ConnectTimeout))
        });
        let pool = self.current_pool(&self.snapshot);
        !self.attempts.is_empty()
            && never
            && pool.is_some_and(|pool| !pool.has_untried(&self.tried()))
    }

    /// The pinned snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// When the first byte of the request arrived.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.times.started
    }

    /// The deadline; [`Timestamp::MAX`] until a route or the request's `grpc-timeout` sets it, and with
    /// `request: off`.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.times.deadline
    }

    /// The client; known once the request has been checked.
    #[must_use]
    pub fn client(&self) -> Option<ClientInfo> {
        self.client
    }

    /// Its pool.
    #[must_use]
    pub fn pool_id(&self) -> Option<PoolId> {
        self.destination.pool
    }

    /// The backend of the current attempt.
    #[must_use]
    pub fn backend(&self) -> Option<&Backend> {
        self.current.lease.as_ref().map(|lease| lease.backend().as_ref())
    }

    /// Every attempt so far, in order.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        self.attempts.as_slice()
    }

    /// When the headers of the response for the client arrived.
    #[must_use]
    pub fn first_byte(&self) -> Option<Timestamp> {
        self.response.first_byte
    }

    /// How long the request has waited for places at backends; zero if it has not.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.times.queued
    }

    /// Why it was rejected, if it was.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.conclusion.refusal
    }

    /// The detail of the rejection, as a stable code.
    #[must_use]
    pub fn detail(&self) -> Option<&'static str> {
        self.conclusion.detail
    }

    /// Sets the detail of the rejection.
    pub fn set_detail(&mut self, detail: &'static str) {
        self.conclusion.detail = Some(detail);
    }

    /// Sets the peer of a connection that has no request yet.
    pub fn set_peer(&mut self, peer: IpAddr) {
        self.client = Some(ClientInfo { peer, address: peer.to_canonical() });
    }

    /// Records that the edge responds with this refusal.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.conclusion.refusal = Some(refusal);
    }

    // ── deadlines of an attempt ──

    /// The deadline for the complete headers of the response, if the last part of the request was
    /// sent at `now`. It is a deadline and not a read timeout, so that a byte now and then cannot
    /// extend it.
    ///
    /// A long request gets twice the time: the part that was read from the client is still being
    /// sent, and the backend may take as long for each piece as for its response.
    #[must_use]
    pub fn head_by(&self, now: Timestamp) -> Timestamp {
        if self.has_response() {
            return self.times.deadline;
        }
        let pool = self.current_pool(&self.snapshot);
        let timeout = pool.map_or(Duration::ZERO, |pool| pool.timeouts.response);
        let times = if self.body.bytes > UNSENT_MAX { 2 } else { 1 };
        self.times.deadline.min(self.current.try_deadline).min(now + timeout * times)
    }

    /// Whether the headers of a response for the client have arrived.
    #[must_use]
    pub fn has_response(&self) -> bool {
        self.response.first_byte.is_some()
    }

    /// The current attempt, if it may be moved to another backend before its timeout. `waker` is woken
    /// whenever its backend is taken out, until its response headers arrive.
    #[must_use]
    pub fn watch(&mut self, waker: impl FnOnce() -> Waker) -> Option<AttemptWatch> {
        let watch = super::retry_limits::watch(self)?;
        self.current.lease.as_mut()?.wake_when_out(waker());
        Some(watch)
    }

    /// The current attempt is moved to another backend: it is about to fail for that.
    pub fn set_moved(&mut self, token: MoveToken) {
        self.current.moved = true;
        self.current.reserved |= token.take();
    }

    /// Whether the current attempt is moved to another backend.
    #[must_use]
    pub fn is_moved(&self) -> bool {
        self.current.moved
    }

    // ── upgrade to a WebSocket ──

    /// Whether the client asks for an upgrade. False for a pool that uses only HTTP/2.
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.upgrade.wanted
    }

    /// The deadline for the backend to accept the upgrade. The connection itself is made with the
    /// idle timeout of a tunnel, which would be too long for this.
    #[must_use]
    pub fn upgrade_deadline(&self, target: &Target, now: Timestamp) -> Timestamp {
        let patience = target.backoff + target.connect_timeout + target.response_timeout;
        self.times.deadline.min(now + patience)
    }

    /// The deadline for the next part of a response that is not an upgrade: the response timeout,
    /// and the same time again for the client to read the part before it.
    #[must_use]
    pub fn body_deadline(&self, now: Timestamp) -> Timestamp {
        let pool = self.current_pool(&self.snapshot);
        let silence = pool.map_or(Duration::ZERO, |pool| pool.timeouts.response);
        self.times.deadline.min(now + silence * 2)
    }

    /// The backend has accepted the upgrade. Returns the idle timeout.
    pub fn upgraded(&mut self, now: Timestamp) -> Duration {
        self.times.last_event = now;
        breaker::judge_upgrade(self, now);
        super::retry_limits::settle_response(self, 101, now);
        self.response.first_byte.get_or_insert(now);
        self.times.deadline = Timestamp::MAX;
        let pool = self.current_pool(&self.snapshot);
        let silence = pool.map_or(Duration::ZERO, |pool| pool.timeouts.tunnel);
        self.upgrade.tunnel =
            Some(Tunnel { since: now, counted: pool.map(|pool| pool.tunnels.enter()) });
        if let Some(pool) = self.destination.pool {
            self.observer.observe(&ExchangeEvent::Upgraded { pool });
        }
        silence
    }

    /// When it was upgraded, if it was.
    #[must_use]
    pub fn tunnel_since(&self) -> Option<Timestamp> {
        self.upgrade.tunnel.as_ref().map(|tunnel| tunnel.since)
    }

    // ── gRPC ──

    /// Records the gRPC status sent to the client; the last one counts.
    pub fn grpc_ended(&mut self, status: u16) {
        self.response.grpc_status = Some(status);
    }

    /// The gRPC status sent to the client, if any.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        self.response.grpc_status
    }
}
