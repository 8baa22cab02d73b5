//! Turns Pingora's errors into faults, and decisions into Pingora's errors.

use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::exchange::outcome::{Fault, Judgement, Kind, Side};
use crate::exchange::refusal::Refusal;
use crate::policy::retry::Failure;
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
pub(super) fn connect_failure(error: &Error, to: &SocketAddr) -> Result<Failure, Shortage> {
    match Shortage::of(error, to) {
        Some(shortage) => Err(shortage),
        None => Ok(tls_kind(error).unwrap_or(Kind::Connect).failure()),
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
        ErrorSource::Downstream => (Side::Client, client_kind(error)),
        ErrorSource::Internal | ErrorSource::Unset if is_after_response(error) => {
            (Side::Internal, Kind::AfterResponse)
        }
        ErrorSource::Internal | ErrorSource::Unset => (Side::Internal, Kind::Other),
    };
    Fault { side, kind }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
fn backend_kind(error: &Error) -> Kind {
    match error.etype() {
        _ if is_unprocessed(error) => Kind::Unprocessed,
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Kind::ConnectTimeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Kind::Timeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError => Kind::Connect,
        // Pingora's error if the system refuses a socket.
        ErrorType::InternalError if shortage::cause(error).is_some() => Kind::Connect,
        ErrorType::TLSHandshakeFailure => tls_kind(error).unwrap_or(Kind::Tls),
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Kind::Protocol,
        ErrorType::H2Error if h2_error(error).is_some_and(h2::Error::is_library) => Kind::Protocol,
        _ => Kind::Closed,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
fn client_kind(error: &Error) -> Kind {
    match error.etype() {
        ErrorType::ReadTimedout => Kind::Timeout,
        ErrorType::WriteTimedout => Kind::Unread,
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::ConnectionClosed
        // The stream was reset, or its connection was closed.
        | ErrorType::H2Error => Kind::Closed,
        _ => Kind::Protocol,
    }
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
    match (error.etype(), shortage::cause(error)) {
        (ErrorType::ConnectRefused, _) => "connection refused".to_owned(),
        (ErrorType::ConnectTimedout, _) => "connecting timed out".to_owned(),
        (ErrorType::ConnectNoRoute, _) => "no route to the backend".to_owned(),
        (ErrorType::ReadTimedout, _) => "the response timed out".to_owned(),
        (ErrorType::ConnectionClosed, None) => "the backend closed the connection".to_owned(),
        (ErrorType::InvalidHTTPHeader, _) => invalid_response(error),
        (ErrorType::InvalidH2, _) => NOT_HTTP2.to_owned(),
        (ErrorType::H2Error, None) => describe_http2(error),
        (_, Some(cause)) if shortage::is_no_local_address(cause) => {
            shortage::NO_LOCAL_ADDRESS.to_owned()
        }
        (_, Some(cause)) => cause.to_string(),
        (other, None) => other.as_str().to_owned(),
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

const NOT_HTTP2: &str = "the backend does not speak HTTP/2";

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
        (Some(Failure::Refused), _) => "the backend did not process the request".to_owned(),
        (_, ErrorSource::Upstream) => describe(error),
        // At the deadline Weir ends the client's connection, so the error comes from there.
        _ if judged.refusal == Some(Refusal::ResponseTimeout) => {
            "the response headers timed out".to_owned()
        }
        _ => "no response before the request's deadline".to_owned(),
    }
}
