//! What begins a request, and what becomes of the pieces of its body.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::header::EXPECT;
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora_error::Result;
use pingora_proxy::Session;

use super::local_response;
use crate::clock::Clock;
use crate::downstream::request_target;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::Exchange;
use crate::exchange::refusal::Refusal;
use crate::sockets;
use crate::time::Timestamp;

/// The request begins: as long as it has no deadline, so long may an answer of ours take.
pub(super) fn begin(session: &mut Session, now: Timestamp) {
    let Some(state) = session.connection_state().cloned() else { return };
    state.request_started(now);
    session.set_write_timeout(Some(state.local_reply_timeout()));
    request_target::settle(session);
    if state.reached_max_requests() {
        session.set_keepalive(None);
    }
}

/// A connection to a backend is new. The kernel is to hold as little of a request that the backend does not
/// read as it holds of a response that its client does not read.
pub(super) fn limit_unsent(socket: RawFd) {
    if let Err(error) = sockets::lent(socket).and_then(sockets::limit_unsent) {
        log::debug!("send buffer not limited: error=\"{error}\"");
    }
}

/// A connection to a backend is there. If it speaks HTTP/2, a client that waits for leave to send its body
/// gets it from us: Pingora shows no interim response of such a backend, which is not asked for one
/// (`upstream::http2`).
///
/// # Errors
/// The client is gone.
pub(super) async fn connected(
    session: &mut Session,
    exchange: &Exchange,
    now: Timestamp,
) -> Result<()> {
    if session.connection_state().is_none_or(|state| state.request_body().is_none()) {
        arm_response_deadline(session, exchange, now);
        return Ok(());
    }
    let request = session.req_header();
    let is_asked = request.version != Version::HTTP_10 && request.headers.contains_key(EXPECT);
    let downstream = session.as_downstream_mut();
    if !is_asked || downstream.is_body_done() || downstream.body_bytes_read() > 0 {
        return Ok(());
    }
    let leave = Box::new(ResponseHeader::build(StatusCode::CONTINUE, Some(0))?);
    keep_open_after(session, StatusCode::CONTINUE);
    let sent = session.as_downstream_mut().write_response_header(leave).await;
    sent.map_err(|error| error.into_down())
}

/// A response of a backend is about to be sent: of this status, and `framed` or as long as the connection.
pub(super) fn responding(session: &mut Session, status: StatusCode, framed: bool) {
    keep_open_after(session, status);
    if let (false, Some(state)) = (framed, session.connection_state()) {
        state.is_until_closed.store(true, Relaxed);
    }
}

/// A response of this status is about to be sent. Where it comes before the end of the request, Pingora
/// closes the client's connection after it, which no interim response is a reason for.
fn keep_open_after(session: &mut Session, status: StatusCode) {
    let closes = is_final(status);
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(closes);
}

/// Whether no other response follows one of this status (RFC 9110 §15.2).
pub(super) fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// A connection to a backend is there, or more of the request has been read: from now on the backend has
/// so long for the headers of its response. Pingora's own timeout begins anew with each byte of them.
///
/// Not for HTTP/2: there the headers come as one, and the wait for them is over in `upstream::http2`, which
/// knows how much of the request is still to be sent.
fn arm_response_deadline(session: &Session, exchange: &Exchange, now: Timestamp) {
    if let Some(state) = session.connection_state().filter(|_| !exchange.wants_upgrade()) {
        state.set_deadline(exchange.head_by(now));
    }
}

/// Looks at a piece before it goes to the backend, and makes an empty piece that is the end (as HTTP/2
/// has it) an end without a piece. Pingora would write the piece to an HTTP/1 backend as a chunk of
/// length 0, which is the last chunk, and then the last chunk again.
///
/// # Errors
/// The body is larger than it may be.
pub(super) fn check(
    session: &mut Session,
    piece: &mut Option<Bytes>,
    is_end: bool,
    (exchange, clock): (&mut Exchange, Clock),
) -> Result<()> {
    *piece = piece.take().filter(|piece| !(is_end && piece.is_empty()));
    let has_body = !session.as_downstream_mut().is_body_empty();
    if has_body && session.connection_state().is_some_and(|state| state.request_body().is_none()) {
        arm_response_deadline(session, exchange, clock.now());
    }
    check_body_limit(session, exchange.body_received(piece.as_ref().map_or(0, Bytes::len)))
}

/// Stops in the middle of a request's body if no more is `taken` of it. Without giving the upload up,
/// Pingora would wait for what a backend of HTTP/2 answers to a request that is not sent to its end.
fn check_body_limit(session: &Session, taken: Result<(), Refusal>) -> Result<()> {
    taken.map_err(|refusal| {
        if let Some(upload) = session.connection_state().and_then(|state| state.request_body()) {
            upload.give_up(refusal.status());
        }
        local_response::refusal_error(refusal)
    })
}
