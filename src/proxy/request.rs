//! The start of a request and the pieces of its body.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::StatusCode;
use pingora_error::Result;
use pingora_proxy::Session;

use super::local_response;
use super::pingora::early_response::keep_open_after_interim;
use super::pingora::{body_end, expect_continue};
use crate::clock::Clock;
use crate::downstream::connection_state::ConnectionState;
use crate::downstream::request_target;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::Exchange;
use crate::exchange::refusal::Refusal;
use crate::sockets;
use crate::time::Timestamp;

/// Starts a request. The header timeout applies until it has a deadline.
pub(super) fn begin(session: &mut Session, now: Timestamp) {
    let Some(state) = session.connection_state().cloned() else { return };
    state.request_started(now);
    session.set_write_timeout(Some(state.local_reply_timeout()));
    request_target::settle(session);
    if state.reached_max_requests() {
        session.set_keepalive(None);
    }
}

/// The deadline of the exchange becomes that of the connection.
pub(super) fn set_deadline(session: &Session, exchange: &Exchange) {
    if let Some(state) = session.connection_state() {
        state.set_deadline(exchange.deadline());
    }
}

/// Limits how much the kernel buffers for a new connection to a backend that does not read, as it is
/// limited for clients.
pub(super) fn limit_unsent(socket: RawFd) {
    if let Err(error) = sockets::lent(socket).and_then(sockets::limit_unsent) {
        log::debug!("send buffer not limited: error=\"{error}\"");
    }
}

/// A connection to a backend was made. Starts the wait for an HTTP/1 response; a client may have to
/// be asked to send its body to an HTTP/2 backend.
///
/// # Errors
/// The client is gone.
pub(super) async fn connected(
    session: &mut Session,
    exchange: &mut Exchange,
    now: Timestamp,
) -> Result<()> {
    let is_complete = is_complete(session);
    let Some(state) = session.connection_state() else { return Ok(()) };
    if is_complete && let Some(watch) = exchange.watch(|| Arc::clone(state).into()) {
        state.watch_attempt(watch, now);
    }
    if state.request_body().is_none() {
        arm_response_deadline(state, exchange, now);
        return Ok(());
    }
    expect_continue::send_continue(session).await
}

/// Whether a request that is without a body according to its headers really has none. Only HTTP/2
/// requests may have one without saying so.
fn is_complete(session: &mut Session) -> bool {
    !session.as_downstream().is_http2() || session.as_downstream_mut().is_body_empty()
}

/// Response headers with this status have arrived, and are not discarded.
pub(super) fn response_arrived(session: &Session, status: StatusCode) {
    if !status.is_informational()
        && let Some(state) = session.connection_state()
    {
        state.response_arrived();
    }
}

/// A backend's response with this status is about to be sent. Without a length (`framed`), it ends
/// when the connection is closed.
pub(super) fn responding(session: &mut Session, status: StatusCode, framed: bool) {
    keep_open_after_interim(session, status);
    if let (false, Some(state)) = (framed, session.connection_state()) {
        state.is_until_closed.store(true, Relaxed);
    }
}

/// Sets the deadline for all headers of the response, after the connection was made or more of the
/// request was read. Pingora's own timeout starts again with each byte of the headers.
///
/// Not for HTTP/2, where headers come as a whole. `upstream/http2/` has their deadline, because it
/// knows how much of the request is still to be sent.
fn arm_response_deadline(state: &ConnectionState, exchange: &Exchange, now: Timestamp) {
    if !exchange.wants_upgrade() {
        state.set_deadline(exchange.head_by(now));
    }
}

/// Counts a piece of the request body before it goes to the backend.
///
/// # Errors
/// The body is larger than `limits.body`.
pub(super) fn body_received(
    session: &mut Session,
    piece: &mut Option<Bytes>,
    is_end: bool,
    exchange: &mut Exchange,
    clock: Clock,
) -> Result<()> {
    body_end::remove_empty(piece, is_end);
    let has_body = !session.as_downstream_mut().is_body_empty();
    if has_body
        && let Some(state) = session.connection_state()
        && state.request_body().is_none()
    {
        arm_response_deadline(state, exchange, clock.now());
    }
    let received = exchange.body_received(piece.as_ref().map_or(0, Bytes::len));
    received.map_err(|refusal| {
        abort_body(session, refusal);
        local_response::refusal_error(refusal)
    })
}

/// Stops sending the body to an HTTP/2 backend. Otherwise Pingora would wait for a response to a
/// request that is never complete.
fn abort_body(session: &Session, refusal: Refusal) {
    if let Some(body) = session.connection_state().and_then(|state| state.request_body()) {
        body.abort(refusal.status());
    }
}
