//! Violations, replaced bytes of targets, the request body, and data that waits for its reader.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use pingora_core::protocols::Stream;

use super::{CloseReason, ConnectionState, EarlyRefusal};
use crate::downstream::stalled::{Reader, Stallable, Stalled, ToBackend};
use crate::http::scan::Violation;
use crate::http::target::ReplacedByte;
use crate::runtime::moving::{AttemptWatch, MoveToken};
use crate::time::Timestamp;
use crate::upstream::http2::RequestBody;

impl ConnectionState {
    /// A part of a response was written. `waits` says whether the client has to read before more
    /// can be.
    pub(crate) fn set_waiting_for_reader(self: &Arc<Self>, waits: bool) {
        self.client_wait.set(waits, self, Reader::Client);
    }

    /// Records the response that was sent without a request. Only the first one counts.
    pub(crate) fn set_early_refusal(&self, refusal: EarlyRefusal) {
        self.early_refusal.get_or_init(|| refusal);
    }

    /// Records a violation of HTTP by the client. Only the first one counts.
    pub(crate) fn set_violation(&self, violation: Violation) {
        self.violation.get_or_init(|| violation);
    }

    /// Records bytes that the scanner replaced in request targets.
    pub(crate) fn add_target_changes(&self, changes: impl Iterator<Item = ReplacedByte>) {
        let mut changes = changes.peekable();
        if changes.peek().is_some() {
            self.target_changes.lock().extend(changes);
        }
    }

    /// Removes and returns the replaced bytes of the current request.
    pub(crate) fn take_target_changes(&self) -> Vec<ReplacedByte> {
        let mut changes = self.target_changes.lock();
        if changes.is_empty() {
            return Vec::new();
        }
        let current = self.requests_served();
        let mine = changes.iter().filter(|change| change.message == current).copied().collect();
        changes.retain(|change| change.message > current);
        mine
    }

    /// The first violation of HTTP by the client, if any.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// The client has closed its side of the connection, so nothing that it waits for is retried. Returns
    /// whether pipelined requests are still to be served. The same task reads again after the last of
    /// them, so no waker is needed.
    pub(crate) fn input_ended(&self) -> bool {
        self.attempt.is_half_closed.store(true, Relaxed);
        self.is_in_request() && !self.is_upgraded() && self.has_pipelined_input()
    }

    /// Watches the current attempt: it may have to be moved to another backend.
    pub(crate) fn watch_attempt(&self, watch: AttemptWatch, now: Timestamp) {
        self.attempt.watch(watch, now);
    }

    /// The response headers have arrived. If the attempt was to be moved at the same moment, it is not.
    pub(crate) fn response_arrived(&self) {
        if self.attempt.stop() {
            self.clear_request_timeout();
        }
    }

    /// The token of the attempt, if it has to be moved.
    pub(crate) fn take_moved(&self) -> Option<MoveToken> {
        self.attempt.take_moved()
    }

    /// Sets the sender of the request body; `None` if the backend speaks HTTP/1.
    pub(crate) fn set_request_body(&self, body: Option<Arc<RequestBody>>) {
        *self.attempt.request_body.lock() = body;
    }

    /// The sender of the request body, if the backend speaks HTTP/2.
    pub(crate) fn request_body(&self) -> Option<Arc<RequestBody>> {
        self.attempt.request_body.lock().clone()
    }

    /// Waits until more of the request body may be read.
    pub(crate) fn poll_body_capacity(&self, context: &mut Context<'_>) -> Poll<()> {
        self.request_body().map_or(Poll::Ready(()), |body| body.poll_capacity(context))
    }

    /// Keeps the stream after the end of the service, because the client may still be sending.
    pub(crate) fn park_for_linger(&self, stream: Stream) {
        *self.lingering.lock() = Some(stream);
    }

    /// Removes and returns the stream that was kept.
    pub(crate) fn take_lingering(&self) -> Option<Stream> {
        self.lingering.lock().take()
    }

    /// The response that was sent without a request, if any.
    pub(crate) fn early_refusal(&self) -> Option<&EarlyRefusal> {
        self.early_refusal.get()
    }
}

impl Stallable for ConnectionState {
    fn connection_key(&self) -> usize {
        Arc::as_ptr(&self.connection).addr()
    }

    fn is_tls(&self) -> bool {
        self.connection.tls.is_some()
    }

    fn is_backend_http2(&self) -> bool {
        self.request_body().is_some()
    }

    fn stalled(&self) -> Option<&Arc<Stalled<Self>>> {
        self.stalled.get()
    }

    fn to_backend(&self) -> &ToBackend<Self> {
        &self.to_backend
    }

    fn give_up(&self, reader: Reader) {
        let (stalled, open) =
            (CloseReason::code(Some(CloseReason::WriteTimeout)), CloseReason::code(None));
        if self.close_reason.compare_exchange(open, stalled, Relaxed, Relaxed).is_ok() {
            self.given_up.get_or_init(|| reader);
        }
        self.task.wake();
    }

    fn given_up_for(&self) -> Option<Reader> {
        self.given_up.get().copied()
    }
}
