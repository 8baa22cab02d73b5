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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_101_is_both_informational_and_final() {
        for (status, expected) in [(100, false), (101, true), (102, false), (103, false)] {
            assert_eq!(is_final(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
        for status in [200, 204, 304, 404, 599] {
            assert!(is_final(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }
}
