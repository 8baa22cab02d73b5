//! An interim response does not close the client's connection.
//!
//! If a response comes before the end of the request body, Pingora closes the client's connection
//! after it. It does so after an interim response (1xx), too, which is no reason to.
//!
//! This is needed until Pingora excepts interim responses.

use http::StatusCode;
use pingora_proxy::Session;

/// Prepares the session for a response with this status.
pub(crate) fn keep_open_after_interim(session: &mut Session, status: StatusCode) {
    let closes = is_final(status);
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(closes);
}

/// Whether no other response follows one with this status (RFC 9110 §15.2).
pub(crate) fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}
