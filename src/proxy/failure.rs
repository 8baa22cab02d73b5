//! What Pingora's errors mean for an exchange.

use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::exchange::refusal::Refusal;
use crate::policy::retry::Failure;
use crate::upstream::handshake::{self, Fault};

/// Why an attempt failed on a connection that existed.
pub(super) fn of_attempt(error: &Error) -> Failure {
    if is_timeout(error) { Failure::Timeout } else { Failure::Reset }
}

/// Whether the backend says that it did nothing with the request: it refused the stream, or went
/// away before it. Pingora has looked at it (`handle_read_header_error`), and keeps nothing else.
fn is_refused(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
        && matches!(error.retry, RetryType::Decided(true))
}

/// Why there is no connection.
pub(super) fn of_connection(error: &Error) -> Failure {
    match handshake::failure(error) {
        Some((Fault::Certificate, _)) => Failure::Certificate,
        Some((Fault::Other, _)) => Failure::Tls,
        None => Failure::Connect,
    }
}

/// Whether the client is gone, or did not keep to the rules.
pub(super) fn blames_client(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream
}

/// Whether the client did not take what was written for it.
pub(super) fn is_stalled_client(error: &Error) -> bool {
    blames_client(error) && matches!(error.etype(), ErrorType::WriteTimedout)
}

/// What to answer once an exchange has failed for good; `None` if the client has left. `late`
/// says who did not do its part in time.
pub(super) fn to_answer(error: &Error, late: Option<Late>) -> Option<Refusal> {
    match (late, error.esource()) {
        (Some(Late::Client), _) => Some(Refusal::SlowClient),
        (Some(Late::Backend), _) => Some(Refusal::RequestTimeout),
        (Some(Late::Headers), _) => Some(Refusal::ResponseTimeout),
        (None, ErrorSource::Upstream) => Some(of_backend(error)),
        (None, ErrorSource::Downstream) => of_client(error),
        (None, ErrorSource::Internal | ErrorSource::Unset) => Some(Refusal::Internal),
    }
}

/// Who had not done its part when the time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// It had not sent its whole body, and was waited for.
    Client,
    /// It had the whole request, or did not take it.
    Backend,
    /// The same, and the request as a whole still has time.
    Headers,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
fn of_backend(error: &Error) -> Refusal {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Refusal::ConnectTimeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Refusal::ResponseTimeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError => Refusal::ConnectFailed,
        ErrorType::TLSHandshakeFailure => match handshake::failure(error) {
            Some((Fault::Certificate, _)) => Refusal::CertificateInvalid,
            Some((Fault::Other, _)) | None => Refusal::TlsFailed,
        },
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Refusal::InvalidResponse,
        ErrorType::H2Error if h2_error(error).is_some_and(h2::Error::is_library) => {
            Refusal::InvalidResponse
        }
        _ => Refusal::ConnectionReset,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
fn of_client(error: &Error) -> Option<Refusal> {
    match error.etype() {
        ErrorType::ReadTimedout => Some(Refusal::SlowClient),
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::WriteTimedout
        | ErrorType::ConnectionClosed
        // The stream was reset, or its connection is gone.
        | ErrorType::H2Error => None,
        _ => Some(Refusal::BadRequest),
    }
}

/// Whether the answer is whole, and the backend did not want the rest of the request: what Pingora
/// ends such an exchange with is an error all the same.
pub(super) fn is_after_a_whole_answer(error: &Error) -> bool {
    let context = error.context.as_ref().map(pingora_error::ImmutStr::as_str);
    *error.esource() == ErrorSource::Unset && context == Some("downstream_state is_errored")
}

/// Whether a backend said nothing for too long.
pub(super) fn is_silence(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream && is_timeout(error)
}

pub(super) fn is_timeout(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
}

/// Whether the library ended a client's connection for what costs the client nothing: a head without
/// an end, streams that are reset at once.
pub(super) fn is_flood(error: &Error) -> bool {
    h2_error(error).is_some_and(|error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// A few words for the operator, without addresses that are told elsewhere.
pub(super) fn reason(error: &Error) -> String {
    if let Some((_, why)) = handshake::failure(error) {
        return why;
    }
    match (error.etype(), error.root_cause().downcast_ref::<std::io::Error>()) {
        (ErrorType::ConnectRefused, _) => "connection refused".to_owned(),
        (ErrorType::ConnectTimedout, _) => "no connection in time".to_owned(),
        (ErrorType::ConnectNoRoute, _) => "no route to it".to_owned(),
        (ErrorType::ReadTimedout, _) => "no answer in time".to_owned(),
        (ErrorType::ConnectionClosed, None) => "it closed the connection".to_owned(),
        (ErrorType::InvalidHTTPHeader, _) => of_head(error),
        (ErrorType::InvalidH2, _) => NOT_HTTP2.to_owned(),
        (ErrorType::H2Error, None) => of_http2(error),
        (_, Some(cause)) => cause.to_string(),
        (other, None) => other.as_str().to_owned(),
    }
}

/// What is wrong with a head. Where a parser gave up, its words are of no use, and Pingora adds all
/// that it read; else it is one rule that was broken.
fn of_head(error: &Error) -> String {
    match (&error.cause, &error.context) {
        (None, Some(rule)) => format!("its answer is not valid HTTP: {}", rule.as_str()),
        _ => "its answer is not valid HTTP/1".to_owned(),
    }
}

const NO_HEADERS: &str = "not all headers of a response in time";
const NOT_HTTP2: &str = "it does not speak HTTP/2";

fn h2_error(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// What is wrong with a stream or a connection of HTTP/2. What a backend of HTTP/1 answers looks
/// like the start of a frame that is too long.
fn of_http2(error: &Error) -> String {
    let Some(error) = h2_error(error) else { return "no stream of HTTP/2 could be had".to_owned() };
    let reason = error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    let is_nonsense = matches!(reason, h2::Reason::FRAME_SIZE_ERROR | h2::Reason::PROTOCOL_ERROR);
    match (error.is_library(), error.is_go_away()) {
        (true, true) if is_nonsense => NOT_HTTP2.to_owned(),
        (true, _) => format!("its answer is not valid HTTP/2: {reason}"),
        (false, true) => format!("it ended the connection of HTTP/2: {reason}"),
        (false, false) => format!("it reset the stream of HTTP/2: {reason}"),
    }
}

/// The error that throws a backend's answer away, so that the exchange is tried again.
pub(super) fn again(status: u16) -> Box<Error> {
    let mut error = Error::explain(ErrorType::HTTPStatus(status), "a status to retry");
    error.as_up();
    error.set_retry(true);
    error
}

/// The error that ends an exchange in the middle of its answer.
pub(super) fn late() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "past the request's deadline").into_up()
}

/// Decides about an error on a connection that existed. `failed` tells whether to try again.
pub(super) fn while_proxying(
    mut error: Box<Error>,
    reused: bool,
    late: Option<Late>,
    failed: impl FnOnce(Failure, &str) -> bool,
) -> Box<Error> {
    let refused = is_refused(&error);
    // An undecided error would make Pingora panic where it asks.
    error.retry.decide_reuse(reused);
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error; // decided when the status came
    }
    let again = match (late, error.esource()) {
        (Some(Late::Backend), _) => failed(Failure::Timeout, "no answer in the request's time"),
        (Some(Late::Headers), _) => failed(Failure::Timeout, NO_HEADERS),
        (None, ErrorSource::Upstream) if refused => {
            failed(Failure::Refused, "it did nothing with the request")
        }
        (None, ErrorSource::Upstream) => failed(of_attempt(&error), &reason(&error)),
        _ => false,
    };
    error.set_retry(again);
    error
}
