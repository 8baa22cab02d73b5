//! WebSocket: a request that becomes a tunnel once the backend agrees, and not a byte before.
//!
//! Pingora carries the bytes, and goes on timing each read after the 101. Its patience with the
//! backend is fixed before the connection is made, so a request that asks for a tunnel gets a
//! tunnel's patience from the start (`peer.rs`), and the line keeps the time until the answer.

use std::os::fd::RawFd;

use http::{StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::Digest;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::local_response;
use crate::downstream::session_ext::SessionExt as _;
use crate::downstream::stalled::ToBackend;
use crate::exchange::refusal::Refusal;
use crate::exchange::{Exchange, Target};
use crate::http::upgrade::{WEBSOCKET, agrees_to_websocket};
use crate::time::Timestamp;

/// An attempt begins. If it is to become a tunnel, the backend has so long to say so. Else the wait for
/// its response begins with the connection (`request.rs`).
pub(super) fn arm_upgrade_deadline(
    session: &Session,
    exchange: &Exchange,
    target: &Target,
    now: Timestamp,
) {
    if let Some(state) = session.connection_state() {
        state.attempt_started(match exchange.wants_upgrade() {
            true => exchange.upgrade_deadline(target, now),
            false => exchange.deadline(),
        });
    }
}

/// The connection to the backend is there. The head that asks for a tunnel goes out a moment later
/// (`cork.rs`).
pub(super) fn cork_request(
    session: &Session,
    exchange: &Exchange,
    (socket, digest): (RawFd, Option<&Digest>),
) {
    let Some(state) = session.connection_state() else { return };
    state.to_backend.connected(digest);
    if !exchange.wants_upgrade() {
        return;
    }
    if let Err(error) = state.cork.put(socket) {
        log::debug!("not corked: error=\"{error}\"");
    }
}

/// Puts back what speaks about the connection and was removed from the request, if the client asks
/// for a tunnel.
pub(super) fn restore_request_headers(
    request: &mut RequestHeader,
    exchange: &Exchange,
) -> Result<()> {
    if exchange.wants_upgrade() {
        request.insert_header("Connection", "Upgrade")?;
        request.insert_header("Upgrade", WEBSOCKET)?;
    }
    Ok(())
}

/// The backend has answered: with a 101 that fits, which opens the tunnel; or otherwise, and the
/// exchange is one like any other.
///
/// # Errors
/// A 101 that nobody asked for, or to something else.
pub(super) fn on_response_headers(
    session: &mut Session,
    response: &ResponseHeader,
    exchange: &mut Exchange,
    now: Timestamp,
) -> Result<()> {
    if response.status != StatusCode::SWITCHING_PROTOCOLS {
        if !response.status.is_informational() {
            if let Some(state) = session.connection_state() {
                state.set_deadline(exchange.deadline()); // the wait for the headers is over
            }
            arm_body_deadline(session, exchange, now);
        }
        return Ok(());
    }
    if !exchange.wants_upgrade() || !agrees_to_websocket(&response.headers) {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 unasked").into_up());
    }
    if session.connection_state().is_some_and(|state| state.has_pipelined_input()) {
        // Whoever sent it could not know that it would be read as a part of a tunnel. A request
        // that was pipelined must not become one (RFC 6455 §4.1: nothing before the answer).
        exchange.set_detail("before_101");
        exchange.refuse(Refusal::BadRequest);
        return Err(local_response::refusal_error(Refusal::BadRequest));
    }
    let silence = exchange.upgraded(now);
    session.set_read_timeout(Some(silence));
    session.set_write_timeout(Some(silence));
    if let Some(state) = session.connection_state() {
        state.upgraded();
        ToBackend::opened(state);
    }
    Ok(())
}

/// More of an answer may come that is no tunnel. Pingora's patience is a tunnel's all the same, so
/// the line keeps the time: as long for the backend as for the client, who has to take what came
/// before.
pub(super) fn arm_body_deadline(session: &Session, exchange: &Exchange, now: Timestamp) {
    if exchange.wants_upgrade()
        && exchange.tunnel_since().is_none()
        && let Some(state) = session.connection_state()
    {
        state.set_deadline(exchange.body_deadline(now));
    }
}

/// Puts back what speaks about the connection and was removed from the 101.
pub(super) fn restore_response_headers(response: &mut ResponseHeader) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        response.insert_header(header::CONNECTION, "Upgrade")?;
        response.insert_header(header::UPGRADE, WEBSOCKET)?;
    }
    Ok(())
}
