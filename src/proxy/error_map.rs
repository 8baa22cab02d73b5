//! What Pingora's errors mean for an exchange.

use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::exchange::outcome::{self, Judgement, Kind, Side};
use crate::exchange::refusal::Refusal;
use crate::policy::retry::Failure;
use crate::upstream::handshake::{self, Fault};
use crate::upstream::ours::{self, Shortage};

/// Whether the backend says that it did nothing with the request: it refused the stream, or went
/// away before it. Pingora has looked at it (`handle_read_header_error`), and keeps nothing else.
fn is_refused(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
        && matches!(error.retry, RetryType::Decided(true))
}

/// Why there is no connection to this address.
pub(super) fn of_connection(error: &Error, to: &SocketAddr) -> Result<Failure, Shortage> {
    if let Some(shortage) = Shortage::of(error, to) {
        return Err(shortage);
    }
    Ok(match handshake::failure(error) {
        Some((Fault::Certificate, _)) => Failure::Certificate,
        Some((Fault::Other, _)) => Failure::Tls,
        None => Failure::Connect,
    })
}

/// One of Pingora's errors, in the words of the decision that follows.
pub(super) fn fault(error: &Error) -> outcome::Fault {
    let (side, kind) = match error.esource() {
        ErrorSource::Upstream => (Side::Backend, of_backend(error)),
        ErrorSource::Downstream => (Side::Client, of_client(error)),
        ErrorSource::Internal | ErrorSource::Unset if is_after_a_whole_answer(error) => {
            (Side::Internal, Kind::AfterResponse)
        }
        ErrorSource::Internal | ErrorSource::Unset => (Side::Internal, Kind::Other),
    };
    outcome::Fault { side, kind }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
fn of_backend(error: &Error) -> Kind {
    match error.etype() {
        _ if is_refused(error) => Kind::Unprocessed,
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Kind::ConnectTimeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Kind::Timeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError => Kind::Connect,
        // What Pingora makes of a socket that the system refused.
        ErrorType::InternalError if ours::cause(error).is_some() => Kind::Connect,
        ErrorType::TLSHandshakeFailure => match handshake::failure(error) {
            Some((Fault::Certificate, _)) => Kind::Certificate,
            Some((Fault::Other, _)) | None => Kind::Tls,
        },
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Kind::Protocol,
        ErrorType::H2Error if h2_error(error).is_some_and(h2::Error::is_library) => Kind::Protocol,
        _ => Kind::Closed,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
fn of_client(error: &Error) -> Kind {
    match error.etype() {
        ErrorType::ReadTimedout => Kind::Timeout,
        ErrorType::WriteTimedout => Kind::Unread,
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::ConnectionClosed
        // The stream was reset, or its connection is gone.
        | ErrorType::H2Error => Kind::Closed,
        _ => Kind::Protocol,
    }
}

/// Whether the answer is whole, and the backend did not want the rest of the request: what Pingora
/// ends such an exchange with is an error all the same.
fn is_after_a_whole_answer(error: &Error) -> bool {
    let context = error.context.as_ref().map(pingora_error::ImmutStr::as_str);
    *error.esource() == ErrorSource::Unset && context == Some("downstream_state is_errored")
}

/// A few words for the operator, without addresses that are told elsewhere.
pub(super) fn reason(error: &Error) -> String {
    if let Some((_, why)) = handshake::failure(error) {
        return why;
    }
    match (error.etype(), ours::cause(error)) {
        (ErrorType::ConnectRefused, _) => "connection refused".to_owned(),
        (ErrorType::ConnectTimedout, _) => "no connection in time".to_owned(),
        (ErrorType::ConnectNoRoute, _) => "no route to it".to_owned(),
        (ErrorType::ReadTimedout, _) => "no answer in time".to_owned(),
        (ErrorType::ConnectionClosed, None) => "it closed the connection".to_owned(),
        (ErrorType::InvalidHTTPHeader, _) => of_head(error),
        (ErrorType::InvalidH2, _) => NOT_HTTP2.to_owned(),
        (ErrorType::H2Error, None) => of_http2(error),
        (_, Some(cause)) if ours::is_no_local_address(cause) => ours::NO_LOCAL_ADDRESS.to_owned(),
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

/// The error that ends a request whose time is up while its response is on its way. The backend is
/// still sending; the client is to blame if it had to be waited for.
pub(super) fn late(is_client: bool) -> Box<Error> {
    let why = "past the request's deadline";
    match is_client {
        true => Error::explain(ErrorType::WriteTimedout, why).into_down(),
        false => Error::explain(ErrorType::ReadTimedout, why).into_up(),
    }
}

/// Decides about an error on a connection that existed. If the backend is to blame, `failed` tells
/// whether to try again.
pub(super) fn while_proxying(
    mut error: Box<Error>,
    reused: bool,
    judged: Judgement,
    failed: impl FnOnce(Failure, &str) -> bool,
) -> Box<Error> {
    // An undecided error would make Pingora panic where it asks.
    error.retry.decide_reuse(reused);
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        return error; // decided when the status came
    }
    let is_over = judged.refusal != Some(Refusal::ResponseTimeout);
    let late = if is_over { "no answer in the request's time" } else { NO_HEADERS };
    let again = match (judged.blame, error.esource()) {
        (None, _) => false,
        (Some(Failure::Refused), _) => failed(Failure::Refused, "it did nothing with the request"),
        (Some(blame), ErrorSource::Upstream) => failed(blame, &reason(&error)),
        (Some(blame), _) => failed(blame, late),
    };
    error.set_retry(again);
    error
}
