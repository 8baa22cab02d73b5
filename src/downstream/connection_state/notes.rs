//! What is noted of a client connection beside its time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use pingora_core::protocols::Stream;

use super::{CloseReason, ConnectionState, EarlyRefusal};
use crate::downstream::stalled::{Reader, Stallable, Stalled, ToBackend};
use crate::http::scan::Violation;
use crate::http::target::Change;
use crate::upstream::http2::Upload;

impl ConnectionState {
    /// Some of a response was offered to the client. Whether it waits for the client now.
    pub(crate) fn set_waiting_for_reader(self: &Arc<Self>, waits: bool) {
        self.client_wait.set(waits, self, Reader::Client);
    }

    /// Notes that the connection is refused without a request. Only the first refusal counts.
    pub(crate) fn set_early_refusal(&self, refusal: EarlyRefusal) {
        self.early_refusal.get_or_init(|| refusal);
    }

    /// Notes what the client sent that is not HTTP.
    pub(crate) fn set_violation(&self, violation: Violation) {
        self.violation.get_or_init(|| violation);
    }

    /// Something else stands for these bytes of targets.
    pub(crate) fn add_target_changes(&self, changes: impl Iterator<Item = Change>) {
        let mut changes = changes.peekable();
        if changes.peek().is_some() {
            self.target_changes.lock().extend(changes);
        }
    }

    /// Those of the current request.
    pub(crate) fn take_target_changes(&self) -> Vec<Change> {
        let mut changes = self.target_changes.lock();
        if changes.is_empty() {
            return Vec::new();
        }
        let current = self.requests_served();
        let mine = changes.iter().filter(|change| change.message == current).copied().collect();
        changes.retain(|change| change.message > current);
        mine
    }

    /// What the client sent that is not HTTP.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// The request goes to a backend, by HTTP/2 if there is an `upload`.
    pub(crate) fn set_request_body(&self, upload: Option<Arc<Upload>>) {
        *self.request_body.lock() = upload;
    }

    /// What is on its way of the request's body, if its backend speaks HTTP/2.
    pub(crate) fn request_body(&self) -> Option<Arc<Upload>> {
        self.request_body.lock().clone()
    }

    /// Whether more may be read of the request's body.
    pub(crate) fn poll_body_capacity(&self, context: &mut Context<'_>) -> Poll<()> {
        self.request_body().map_or(Poll::Ready(()), |upload| upload.poll_room(context))
    }

    /// Nobody serves the stream any more, but the client may still be sending.
    pub(crate) fn park_for_linger(&self, stream: Stream) {
        *self.lingering.lock() = Some(stream);
    }

    /// The stream that was left.
    pub(crate) fn take_lingering(&self) -> Option<Stream> {
        self.lingering.lock().take()
    }

    /// How it was refused without a request, if it was.
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
