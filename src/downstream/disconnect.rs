//! Clients that close their side of the connection while their request runs.
//!
//! While a request is at a backend, Pingora reads from the client and notices by itself. Nothing
//! reads while a connection to a backend is awaited, nor between two attempts: so this looks there.

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
pub(crate) enum Presence {
    /// As far as can be told.
    Waits,
    /// It has closed its side, and its request is to be served all the same.
    HalfClosed,
    /// It has left.
    Left,
}

/// Looks once, and waits for nothing.
pub(crate) fn check_now(session: &mut Session) -> Presence {
    if !can_check(session) {
        return known(session);
    }
    let polled = {
        let reading = pin!(session.as_downstream_mut().read_body_or_idle(true));
        // Whoever waits for the client asks again, with a waker.
        reading.poll(&mut Context::from_waker(Waker::noop()))
    };
    match polled {
        Poll::Ready(Err(_)) => Presence::Left,
        Poll::Ready(Ok(_)) | Poll::Pending => known(session),
    }
}

/// What is known without another look.
pub(crate) fn known(session: &Session) -> Presence {
    let http1 = session.as_downstream().as_http1();
    match http1.is_some_and(|session| session.is_half_closed()) {
        true => Presence::HalfClosed,
        false => Presence::Waits,
    }
}

/// Waits before another attempt.
///
/// # Errors
/// The client has left meanwhile.
pub(crate) async fn back_off(session: &mut Session, wait: Duration) -> Result<()> {
    if wait.is_zero() {
        return Ok(());
    }
    let sleep = tokio::time::sleep(wait);
    if !can_check(session) {
        sleep.await;
        return Ok(());
    }
    tokio::select! {
        biased;
        left = session.as_downstream_mut().read_body_or_idle(true) => {
            left.map(drop).map_err(|error| error.into_down())
        }
        () = sleep => Ok(()),
    }
}

/// A connection to a backend was awaited, and is there.
///
/// # Errors
/// The client has left meanwhile.
pub(crate) fn check_after_connect(session: &mut Session) -> Result<()> {
    if check_now(session) == Presence::Left { Err(client_left()) } else { Ok(()) }
}

/// The error of a client that has left.
pub(crate) fn client_left() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the client has closed the connection").into_down()
}

/// Whether the next word of the client can only be its next request, or its end. While its time is
/// up, a read would fail for that.
fn can_check(session: &mut Session) -> bool {
    let is_open = |state: &std::sync::Arc<connection_state::ConnectionState>| {
        state.close_reason().is_none() && !state.is_upgraded()
    };
    session.connection_state().is_none_or(is_open) && session.as_downstream_mut().is_body_done()
}
