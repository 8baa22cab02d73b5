//! Turns Pingora's errors into faults, and decisions into Pingora's errors.
//!
//! What a kind of error means by itself is in `upstream/error_kinds.rs`.

use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::exchange::outcome::{Fault, Judgement, Kind, Side};
use crate::exchange::refusal::Refusal;
use crate::policy::retry::AttemptFailure;
use crate::upstream::error_kinds::{self, ErrorText, NOT_HTTP2};
use crate::upstream::shortage::{self, Shortage};
use crate::upstream::tls_error::{self, TlsFault};

/// Whether the backend says that it has not processed the request: it refused the stream, or closed
/// the connection before it. Pingora decides this (`handle_read_header_error`) and keeps only the result.
fn is_unprocessed(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
        && matches!(error.retry, RetryType::Decided(true))
}

/// The failure of a backend to which no connection could be made.
///
/// # Errors
/// This machine lacks a resource, so no backend is to blame.
pub(super) fn connect_failure(error: &Error, to: &SocketAddr) -> Result<AttemptFailure, Shortage> {
    match Shortage::of(error, to) {
        Some(shortage) => Err(shortage),
        None => {
            let kind = tls_kind(error).unwrap_or(error_kinds::meaning(error.etype()).backend);
            let failure = kind.failure();
            Ok(if failure.is_unsent() { failure } else { AttemptFailure::Connect })
        }
    }
}

/// The kind of fault of a TLS handshake; `None` for any other error.
fn tls_kind(error: &Error) -> Option<Kind> {
    tls_error::explain(error).map(|(fault, _)| match fault {
        TlsFault::Certificate => Kind::Certificate,
        TlsFault::Other => Kind::Tls,
    })
}

/// The fault that an error of Pingora reports.
pub(super) fn fault(error: &Error) -> Fault {
    let (side, kind) = match error.esource() {
        ErrorSource::Upstream => (Side::Backend, backend_kind(error)),
        ErrorSource::Downstream => (Side::Client, error_kinds::meaning(error.etype()).client),
        ErrorSource::Internal | ErrorSource::Unset if is_after_response(error) => {
            (Side::Internal, Kind::AfterResponse)
        }
        ErrorSource::Internal | ErrorSource::Unset => (Side::Internal, Kind::Other),
    };
    Fault { side, kind }
}

/// The kind of fault on a backend's connection. What the error carries comes before its own kind.
fn backend_kind(error: &Error) -> Kind {
    if is_unprocessed(error) {
        return Kind::Unprocessed;
    }
    // The system refused a socket.
    if *error.etype() == ErrorType::InternalError && shortage::cause(error).is_some() {
        return Kind::Connect;
    }
    if *error.etype() == ErrorType::H2Error && h2_error(error).is_some_and(h2::Error::is_library) {
        return Kind::Protocol;
    }
    tls_kind(error).unwrap_or(error_kinds::meaning(error.etype()).backend)
}

/// Whether the response is complete, and only the rest of the request was not sent. Pingora ends such
/// an exchange with an error, too.
fn is_after_response(error: &Error) -> bool {
    let context = error.context.as_ref().map(pingora_error::ImmutStr::as_str);
    *error.esource() == ErrorSource::Unset && context == Some("downstream_state is_errored")
}

/// What happened, for the operator, without the address, which is logged beside it.
pub(super) fn describe(error: &Error) -> String {
    if let Some((_, why)) = tls_error::explain(error) {
        return why;
    }
    let cause = shortage::cause(error);
    if *error.etype() == ErrorType::InvalidHTTPHeader {
        return invalid_response(error);
    }
    if *error.etype() == ErrorType::H2Error && cause.is_none() {
        return describe_http2(error);
    }
    match (error_kinds::meaning(error.etype()).text, cause) {
        (ErrorText::General(_), Some(cause)) if shortage::is_no_local_address(cause) => {
            shortage::NO_LOCAL_ADDRESS.to_owned()
        }
        (ErrorText::General(_), Some(cause)) => cause.to_string(),
        (text, _) => text.as_str().to_owned(),
    }
}

/// What is wrong with response headers. The error of a parser contains all that it read, so it is not
/// shown. Any other error names the rule that was violated.
fn invalid_response(error: &Error) -> String {
    match (&error.cause, &error.context) {
        (None, Some(rule)) => format!("the response is not valid HTTP: {}", rule.as_str()),
        _ => "the response is not valid HTTP/1".to_owned(),
    }
}

fn h2_error(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// What is wrong with an HTTP/2 stream or connection. To the library, a response of HTTP/1 looks like
/// a frame that is too long.
fn describe_http2(error: &Error) -> String {
    let Some(error) = h2_error(error) else { return "no HTTP/2 stream could be opened".to_owned() };
    let reason = error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    let is_not_http2 = matches!(reason, h2::Reason::FRAME_SIZE_ERROR | h2::Reason::PROTOCOL_ERROR);
    match (error.is_library(), error.is_go_away()) {
        (true, true) if is_not_http2 => NOT_HTTP2.to_owned(),
        (true, _) => format!("the response is not valid HTTP/2: {reason}"),
        (false, true) => format!("the backend closed the HTTP/2 connection: {reason}"),
        (false, false) => format!("the backend reset the HTTP/2 stream: {reason}"),
    }
}

/// The error that discards a backend's response, so that Pingora makes another attempt.
pub(super) fn retry_status_error(status: u16) -> Box<Error> {
    let mut error = Error::explain(ErrorType::HTTPStatus(status), "a status to retry");
    error.as_up();
    error.set_retry(true);
    error
}

/// The side that Weir was waiting for when the deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutSide {
    /// The client, to read the response.
    Client,
    /// The backend, to send more of it.
    Backend,
}

/// The error that ends a request whose deadline passes while the response is being sent.
pub(super) fn deadline_error(side: TimeoutSide) -> Box<Error> {
    let why = "past the request's deadline";
    match side {
        TimeoutSide::Client => Error::explain(ErrorType::WriteTimedout, why).into_down(),
        TimeoutSide::Backend => Error::explain(ErrorType::ReadTimedout, why).into_up(),
    }
}

/// Sets whether Pingora makes another attempt after `error`, as `may_retry` says.
pub(super) fn with_retry(
    mut error: Box<Error>,
    reused: bool,
    may_retry: impl FnOnce(&Error) -> bool,
) -> Box<Error> {
    // Pingora panics when it reads `retry` while it is undecided.
    error.retry.decide_reuse(reused);
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error; // it was decided with the status
    }
    let retry = may_retry(&error);
    error.set_retry(retry);
    error
}

/// Why the backend is to blame, for the operator.
pub(super) fn describe_blame(error: &Error, judged: &Judgement) -> String {
    match (judged.blame, error.esource()) {
        (Some(AttemptFailure::Refused), _) => "the backend did not process the request".to_owned(),
        (Some(AttemptFailure::Moved), _) => {
            "no response for far longer than usual; the request was moved to another backend"
                .to_owned()
        }
        (_, ErrorSource::Upstream) => describe(error),
        // At the deadline Weir ends the client's connection, so the error comes from there.
        _ if judged.refusal == Some(Refusal::ResponseTimeout) => {
            "the response headers timed out".to_owned()
        }
        _ => "no response before the request's deadline".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    use crate::exchange::refusal::Outcome;

    fn up(kind: ErrorType) -> Box<Error> {
        Error::explain(kind, "").into_up()
    }

    fn down(kind: ErrorType) -> Box<Error> {
        Error::explain(kind, "").into_down()
    }

    fn os(kind: ErrorType, code: i32) -> Box<Error> {
        Error::because(kind, "", io::Error::from_raw_os_error(code)).into_up()
    }

    #[test]
    fn an_error_of_the_backend_is_a_fault_of_its_kind() {
        for (kind, expected) in [
            (ErrorType::ConnectTimedout, Kind::ConnectTimeout),
            (ErrorType::TLSHandshakeTimedout, Kind::ConnectTimeout),
            (ErrorType::ReadTimedout, Kind::Timeout),
            (ErrorType::WriteTimedout, Kind::Timeout),
            (ErrorType::ConnectRefused, Kind::Connect),
            (ErrorType::ConnectNoRoute, Kind::Connect),
            (ErrorType::ConnectError, Kind::Connect),
            (ErrorType::BindError, Kind::Connect),
            (ErrorType::SocketError, Kind::Connect),
            (ErrorType::TLSHandshakeFailure, Kind::Tls),
            (ErrorType::InvalidHTTPHeader, Kind::Protocol),
            (ErrorType::InvalidH2, Kind::Protocol),
            (ErrorType::H2Error, Kind::Closed),
            (ErrorType::ConnectionClosed, Kind::Closed),
            (ErrorType::ReadError, Kind::Closed),
            (ErrorType::WriteError, Kind::Closed),
            (ErrorType::InternalError, Kind::Closed),
        ] {
            let found = fault(&up(kind.clone()));
            assert_eq!(found, Fault { side: Side::Backend, kind: expected }, "{kind:?}");
        }
        let distrust = Error::explain(
            ErrorType::TLSHandshakeFailure,
            "invalid peer certificate: UnknownIssuer, SNI: a",
        );
        assert_eq!(fault(&distrust.into_up()).kind, Kind::Certificate);
        // The system refused a socket.
        assert_eq!(fault(&os(ErrorType::InternalError, 24)).kind, Kind::Connect);
    }

    #[test]
    fn an_error_of_the_client_is_a_fault_of_its_kind() {
        for (kind, expected) in [
            (ErrorType::ReadTimedout, Kind::Timeout),
            (ErrorType::WriteTimedout, Kind::Unread),
            (ErrorType::ReadError, Kind::Closed),
            (ErrorType::WriteError, Kind::Closed),
            (ErrorType::ConnectionClosed, Kind::Closed),
            (ErrorType::H2Error, Kind::Closed),
            (ErrorType::InvalidHTTPHeader, Kind::Protocol),
        ] {
            let found = fault(&down(kind.clone()));
            assert_eq!(found, Fault { side: Side::Client, kind: expected }, "{kind:?}");
        }
    }

    #[test]
    fn an_error_after_the_response_is_recognized_only_without_a_side() {
        let after = || Error::explain(ErrorType::InternalError, "downstream_state is_errored");
        let kind = |error: &Error| fault(error).kind;
        assert_eq!(fault(&after()), Fault { side: Side::Internal, kind: Kind::AfterResponse });
        assert_eq!(kind(&after().into_up()), Kind::Closed);
        assert_eq!(kind(&after().into_in()), Kind::Other);
        assert_eq!(kind(&Error::explain(ErrorType::InternalError, "another")), Kind::Other);
    }

    #[test]
    fn only_pingoras_decision_says_that_a_request_was_not_processed() {
        for (kind, retry, expected) in [
            (ErrorType::H2Error, RetryType::Decided(true), Kind::Unprocessed),
            (ErrorType::H2Downgrade, RetryType::Decided(true), Kind::Unprocessed),
            (ErrorType::H2Error, RetryType::Decided(false), Kind::Closed),
            (ErrorType::H2Error, RetryType::ReusedOnly, Kind::Closed),
            (ErrorType::ConnectionClosed, RetryType::Decided(true), Kind::Closed),
        ] {
            let mut error = up(kind);
            error.retry = retry;
            assert_eq!(fault(&error).kind, expected, "{error:?}");
        }
    }

    #[test]
    fn a_shortage_of_this_machine_is_no_failure_to_connect() {
        let to = SocketAddr::Inet(([127, 0, 0, 1], 1).into());
        let failure = |error: Box<Error>| connect_failure(&error, &to);
        assert_eq!(failure(os(ErrorType::SocketError, 24)), Err(Shortage::Descriptors));
        assert_eq!(failure(os(ErrorType::ConnectRefused, 111)), Ok(AttemptFailure::Connect));
        assert_eq!(failure(up(ErrorType::ConnectTimedout)), Ok(AttemptFailure::ConnectTimeout));
        assert_eq!(failure(up(ErrorType::TLSHandshakeFailure)), Ok(AttemptFailure::Tls));
        let distrust =
            Error::explain(ErrorType::TLSHandshakeFailure, "invalid peer certificate: Expired");
        assert_eq!(failure(distrust.into_up()), Ok(AttemptFailure::Certificate));
    }

    #[test]
    fn an_operator_reads_what_happened() {
        for (error, text) in [
            (os(ErrorType::ConnectRefused, 111), "connection refused"),
            (up(ErrorType::ConnectTimedout), "connecting timed out"),
            (up(ErrorType::ConnectNoRoute), "no route to the backend"),
            (up(ErrorType::ReadTimedout), "the response timed out"),
            (up(ErrorType::ConnectionClosed), "the backend closed the connection"),
            (up(ErrorType::InvalidH2), NOT_HTTP2),
            (up(ErrorType::H2Error), "no HTTP/2 stream could be opened"),
            (os(ErrorType::ConnectError, 99), shortage::NO_LOCAL_ADDRESS),
            (os(ErrorType::ReadError, 104), "Connection reset by peer (os error 104)"),
            (os(ErrorType::ConnectionClosed, 104), "Connection reset by peer (os error 104)"),
            (up(ErrorType::WriteError), "the connection broke while the request was sent"),
        ] {
            assert_eq!(describe(&error), text, "{error:?}");
        }
    }

    #[test]
    fn the_bytes_of_an_invalid_response_are_not_shown() {
        let rule = Error::explain(ErrorType::InvalidHTTPHeader, "two lengths");
        assert_eq!(describe(&rule), "the response is not valid HTTP: two lengths");
        let cause = io::Error::other("secret");
        let parser = Error::because(ErrorType::InvalidHTTPHeader, "buf: secret", cause);
        assert_eq!(describe(&parser), "the response is not valid HTTP/1");
    }

    #[tokio::test]
    async fn a_backend_that_answers_http2_with_http1_is_named_as_such() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let (_requests, connection) = h2::client::handshake(ours).await.unwrap();
        let reply = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut theirs, reply).await.unwrap();
        let error = connection.await.unwrap_err();
        let error = Error::because(ErrorType::H2Error, "", error).into_up();
        assert_eq!(describe(&error), NOT_HTTP2);
        assert_eq!(fault(&error).kind, Kind::Protocol, "and not as a closed connection");
    }

    #[test]
    fn a_reset_stream_is_described_by_its_reason() {
        let reset = h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM);
        let error = Error::because(ErrorType::H2Error, "", reset).into_up();
        let text = describe(&error);
        assert!(text.starts_with("the backend reset the HTTP/2 stream: "), "{text}");
        assert_eq!(fault(&error).kind, Kind::Closed);
    }

    #[test]
    fn a_retry_is_decided_once() {
        let retries = |error: Box<Error>, reused, may| with_retry(error, reused, |_| may).retry();
        assert!(retries(up(ErrorType::ReadError), false, true));
        assert!(!retries(up(ErrorType::ReadError), false, false));
        // Pingora would retry on its own, because the connection was reused.
        let mut reused = up(ErrorType::ReadError);
        reused.retry = RetryType::ReusedOnly;
        assert!(!retries(reused, true, false));
        let status = with_retry(retry_status_error(503), true, |_| panic!("decided twice"));
        assert!(status.retry());
        assert_eq!(*status.esource(), ErrorSource::Upstream);
    }

    #[test]
    fn a_deadline_is_blamed_on_the_side_that_weir_waited_for() {
        let of = |side| fault(&deadline_error(side));
        let client = Fault { side: Side::Client, kind: Kind::Unread };
        let backend = Fault { side: Side::Backend, kind: Kind::Timeout };
        assert_eq!((of(TimeoutSide::Client), of(TimeoutSide::Backend)), (client, backend));
    }

    #[test]
    fn blame_is_described_by_what_was_decided() {
        let judged = |blame, refusal| Judgement { blame, refusal, outcome: Outcome::Completed };
        for (error, judged, text) in [
            (
                up(ErrorType::H2Error),
                judged(Some(AttemptFailure::Refused), None),
                "the backend did not process the request",
            ),
            (
                up(ErrorType::ReadTimedout),
                judged(Some(AttemptFailure::Timeout), Some(Refusal::RequestTimeout)),
                "the response timed out",
            ),
            (
                down(ErrorType::ReadError),
                judged(Some(AttemptFailure::Timeout), Some(Refusal::ResponseTimeout)),
                "the response headers timed out",
            ),
            (
                down(ErrorType::ReadError),
                judged(Some(AttemptFailure::Timeout), Some(Refusal::RequestTimeout)),
                "no response before the request's deadline",
            ),
        ] {
            assert_eq!(describe_blame(&error, &judged), text);
        }
    }
}
