//! WebSocket: a connection is upgraded once the backend has agreed, and no byte is passed on
//! before.
//!
//! Pingora copies the bytes, and still applies its read timeouts after the 101. Its timeouts for a
//! backend are fixed before it connects. So a request for an upgrade gets the timeouts of an
//! upgraded connection from the start (`upstream_peer.rs`), and the connection's state holds the
//! deadline of the response.

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

/// Sets the deadline of an attempt. For an upgrade, the backend has to agree by then. Otherwise the
/// wait for its response starts with the connection (`request.rs`).
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

/// Corks the connection to the backend if the request is for an upgrade. Its headers are sent a
/// moment later (`downstream/cork.rs`).
pub(super) fn cork_request(
    session: &Session,
    exchange: &Exchange,
    socket: RawFd,
    digest: Option<&Digest>,
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

/// Restores the headers of an upgrade, which were removed as hop-by-hop headers.
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

/// Handles response headers of the backend: a 101 upgrades the connection; any other response is
/// handled as usual.
///
/// # Errors
/// A 101 that was not asked for, or for another protocol.
pub(super) fn on_response_headers(
    session: &mut Session,
    response: &ResponseHeader,
    exchange: &mut Exchange,
    now: Timestamp,
) -> Result<()> {
    if response.status != StatusCode::SWITCHING_PROTOCOLS {
        if !response.status.is_informational() {
            if let Some(state) = session.connection_state() {
                state.set_deadline(exchange.deadline()); // the headers are complete
            }
            arm_body_deadline(session, exchange, now);
        }
        return Ok(());
    }
    if !exchange.wants_upgrade() || !agrees_to_websocket(&response.headers) {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a 101 for no upgrade").into_up());
    }
    if session.connection_state().is_some_and(|state| state.has_pipelined_input()) {
        // The client sent it before the upgrade, so it may be a pipelined request, which must not
        // become data of the WebSocket (RFC 6455 §4.1).
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

/// Sets the deadline for the next part of a response that is not an upgrade. Pingora's timeouts are
/// still those of an upgraded connection. The client has to read the part before by then, too.
pub(super) fn arm_body_deadline(session: &Session, exchange: &Exchange, now: Timestamp) {
    if exchange.wants_upgrade()
        && exchange.tunnel_since().is_none()
        && let Some(state) = session.connection_state()
    {
        state.set_deadline(exchange.body_deadline(now));
    }
}

/// Restores the headers of a 101, which were removed as hop-by-hop headers.
pub(super) fn restore_response_headers(response: &mut ResponseHeader) -> Result<()> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        response.insert_header(header::CONNECTION, "Upgrade")?;
        response.insert_header(header::UPGRADE, WEBSOCKET)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use pingora_error::ErrorSource;

    use crate::downstream::connection_state::ConnectionState;
    use crate::proxy::tests::{ONE_POOL, forwarded, lines, session_with_state, websocket};

    const NOW: Timestamp = Timestamp::ZERO;

    async fn started() -> (Session, Arc<ConnectionState>) {
        let bytes = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
        let (session, state) = session_with_state(bytes).await;
        state.bytes_read(1, || NOW);
        state.request_started(NOW);
        (session, state)
    }

    fn switching(protocol: &'static str) -> ResponseHeader {
        let mut response = ResponseHeader::build(101, None).unwrap();
        response.insert_header("connection", "upgrade").unwrap();
        response.insert_header("upgrade", protocol).unwrap();
        response
    }

    #[tokio::test]
    async fn an_agreed_upgrade_has_no_deadline() {
        let (mut session, state) = started().await;
        let mut exchange = websocket();
        on_response_headers(&mut session, &switching("websocket"), &mut exchange, NOW).unwrap();
        assert!(state.is_upgraded());
        assert_eq!(exchange.tunnel_since(), Some(NOW));
        assert_eq!(exchange.deadline(), Timestamp::MAX);
    }

    #[tokio::test]
    async fn a_101_that_was_not_asked_for_is_the_backends_fault() {
        for (mut exchange, response) in [
            (forwarded(ONE_POOL, "/"), switching("websocket")),
            (websocket(), switching("h2c")),
            (websocket(), ResponseHeader::build(101, None).unwrap()),
        ] {
            let (mut session, state) = started().await;
            let error = on_response_headers(&mut session, &response, &mut exchange, NOW);
            let error = error.unwrap_err();
            assert_eq!(*error.etype(), ErrorType::InvalidHTTPHeader);
            assert_eq!(*error.esource(), ErrorSource::Upstream);
            assert!(!state.is_upgraded());
        }
    }

    #[tokio::test]
    async fn bytes_that_a_client_sent_before_the_101_are_not_passed_on() {
        let (mut session, state) = started().await;
        state.bytes_read(2, || NOW);
        let mut exchange = websocket();
        let upgraded =
            on_response_headers(&mut session, &switching("websocket"), &mut exchange, NOW);
        assert!(upgraded.is_err());
        assert_eq!(exchange.refusal(), Some(Refusal::BadRequest));
        assert!(!state.is_upgraded());
    }

    #[tokio::test]
    async fn a_rejected_upgrade_has_a_deadline_for_each_part_of_its_response() {
        let (mut session, state) = started().await;
        let mut exchange = websocket();
        let header_timeout = state.next_deadline();
        let respond = |session: &mut Session, exchange: &mut Exchange, status: u16| {
            let response = ResponseHeader::build(status, None).unwrap();
            on_response_headers(session, &response, exchange, NOW).unwrap();
        };
        respond(&mut session, &mut exchange, 103);
        assert_eq!(state.next_deadline(), header_timeout, "the headers are not complete yet");
        respond(&mut session, &mut exchange, 403);
        assert_eq!(state.next_deadline(), exchange.body_deadline(NOW));
        assert!(!state.is_upgraded());
        // Without an upgrade, Pingora's timeouts are the right ones.
        let (mut session, state) = started().await;
        let mut exchange = forwarded(ONE_POOL, "/");
        respond(&mut session, &mut exchange, 403);
        assert_eq!(state.next_deadline(), exchange.deadline());
    }

    #[test]
    fn the_headers_of_an_upgrade_are_restored_for_an_upgrade_only() {
        let expected = ["connection: Upgrade", "upgrade: websocket"];
        let request = |exchange: &Exchange| {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            restore_request_headers(&mut request, exchange).unwrap();
            lines(&request.headers)
        };
        assert_eq!(request(&websocket()), expected);
        assert!(request(&forwarded(ONE_POOL, "/")).is_empty());
        let response = |status: u16| {
            let mut response = ResponseHeader::build(status, None).unwrap();
            restore_response_headers(&mut response).unwrap();
            lines(&response.headers)
        };
        assert_eq!(response(101), expected);
        assert!(response(100).is_empty() && response(200).is_empty());
    }
}
