//! What Pingora's errors mean for an exchange.

use pingora_error::{Error, ErrorSource, ErrorType};

use super::line::{Line, Verdict};
use crate::exchange::refusal::Refusal;
use crate::policy::retry::Failure;

/// Why an attempt failed on a connection that existed.
pub(super) fn of_attempt(error: &Error) -> Failure {
    if is_timeout(error) { Failure::Timeout } else { Failure::Reset }
}

/// Whether the backend is to blame. Its own aborts and the client's say nothing about it.
pub(super) fn blames_backend(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
}

/// Whether the client is gone, or did not keep to the rules.
pub(super) fn blames_client(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream
}

/// What to answer once an exchange has failed for good; `None` if the client has left.
pub(super) fn to_answer(error: &Error, line: Option<&Line>) -> Option<Refusal> {
    if line.is_some_and(|line| line.verdict() == Verdict::PastDeadline) {
        return Some(Refusal::RequestTimeout);
    }
    match error.esource() {
        ErrorSource::Upstream => Some(of_backend(error)),
        ErrorSource::Downstream => of_client(error),
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::Internal),
    }
}

fn of_backend(error: &Error) -> Refusal {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Refusal::ConnectTimeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Refusal::ResponseTimeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError => Refusal::ConnectFailed,
        ErrorType::InvalidHTTPHeader => Refusal::InvalidResponse,
        _ => Refusal::ConnectionReset,
    }
}

fn of_client(error: &Error) -> Option<Refusal> {
    match error.etype() {
        ErrorType::ReadTimedout => Some(Refusal::SlowClient),
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::WriteTimedout
        | ErrorType::ConnectionClosed => None,
        _ => Some(Refusal::BadRequest),
    }
}

fn is_timeout(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
}

/// A few words for the operator, without addresses that are told elsewhere.
pub(super) fn reason(error: &Error) -> String {
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(cause) => cause.to_string(),
        None => error.etype().as_str().to_owned(),
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
    failed: impl FnOnce(Failure, &str) -> bool,
) -> Box<Error> {
    // An undecided error would make Pingora panic where it asks.
    error.retry.decide_reuse(reused);
    let decided = matches!(error.etype(), ErrorType::HTTPStatus(_));
    if !decided {
        let again = blames_backend(&error) && failed(of_attempt(&error), &reason(&error));
        error.set_retry(again);
    }
    error
}
