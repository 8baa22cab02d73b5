//! Detects clients that disconnect while their request runs.
//!
//! While a request is at a backend, Pingora reads from the client and notices by itself. Nothing
//! reads while Weir connects to a backend, or between two attempts. This module covers those
//! moments.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::connection_state;
use super::session_ext::SessionExt as _;

/// Whether a client still waits for its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientPresence {
    /// As far as is known.
    Waits,
    /// It has closed its side, and `half_closed` says that the request goes on.
    HalfClosed,
    /// It has disconnected.
    Left,
}

/// Checks once, without waiting.
pub(crate) fn check_now(session: &mut Session) -> ClientPresence {
    if !can_check(session) {
        return known(session);
    }
    let polled = {
        let reading = pin!(session.as_downstream_mut().read_body_or_idle(true));
        // The next read that waits registers a waker of its own.
        reading.poll(&mut Context::from_waker(Waker::noop()))
    };
    match polled {
        Poll::Ready(Err(_)) => ClientPresence::Left,
        Poll::Ready(Ok(_)) | Poll::Pending => known(session),
    }
}

/// What is known without another read.
pub(crate) fn known(session: &Session) -> ClientPresence {
    let http1 = session.as_downstream().as_http1();
    match http1.is_some_and(|session| session.is_half_closed()) {
        true => ClientPresence::HalfClosed,
        false => ClientPresence::Waits,
    }
}

/// Waits before another attempt.
///
/// # Errors
/// The client has disconnected meanwhile.
pub(crate) async fn back_off(session: &mut Session, wait: Duration) -> Result<()> {
    if wait.is_zero() {
        return Ok(());
    }
    wait_at_most(session, wait, std::future::pending()).await
}

/// Waits until `done` is ready, or at most for `wait`.
///
/// # Errors
/// The client has disconnected meanwhile.
pub(crate) async fn wait_at_most(
    session: &mut Session,
    wait: Duration,
    done: impl Future<Output = ()>,
) -> Result<()> {
    let done = tokio::time::timeout(wait, done);
    if !can_check(session) {
        done.await.unwrap_or_default();
        return Ok(());
    }
    tokio::select! {
        biased;
        left = session.as_downstream_mut().read_body_or_idle(true) => {
            left.map(drop).map_err(|error| error.into_down())
        }
        _ = done => Ok(()),
    }
}

/// Checks the client after a connection to a backend was made.
///
/// # Errors
/// The client has disconnected meanwhile.
pub(crate) fn check_after_connect(session: &mut Session) -> Result<()> {
    if check_now(session) == ClientPresence::Left { Err(client_left()) } else { Ok(()) }
}

/// The error for a client that has disconnected.
pub(crate) fn client_left() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the client has closed the connection").into_down()
}

/// Whether the client can send only its next request or close. If a deadline has passed, a read
/// would fail for that and say nothing about the client.
fn can_check(session: &mut Session) -> bool {
    let is_open = |state: &std::sync::Arc<connection_state::ConnectionState>| {
        state.close_reason().is_none() && !state.is_upgraded()
    };
    session.connection_state().is_none_or(is_open) && session.as_downstream_mut().is_body_done()
}
