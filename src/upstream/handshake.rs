//! What is wrong where no TLS with a backend comes about.

use pingora_error::{Error, ErrorType};

/// Whose certificate, or what else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The certificate that the backend showed is not one to trust.
    Certificate,
    /// Anything else: it speaks no TLS, or none that we speak, or does not like our certificate.
    Other,
}

/// What rustls calls a certificate that it does not trust.
const DISTRUST: &str = "invalid peer certificate";

/// What is wrong, and in words for the operator, if `error` is of a handshake. Pingora keeps what
/// rustls said as text alone.
#[must_use]
pub fn failure(error: &Error) -> Option<(Fault, String)> {
    if !matches!(error.etype(), ErrorType::TLSHandshakeFailure) {
        return None;
    }
    let text = error.to_string();
    // What Pingora adds: whom it had asked for.
    let said = text.split(", SNI:").next().unwrap_or(&text);
    if let Some(said) = said.find(DISTRUST).and_then(|at| said.get(at..)) {
        return Some((Fault::Certificate, said.trim().to_owned()));
    }
    let said = said.rsplit("cause: ").next().unwrap_or(said);
    Some((Fault::Other, format!("no TLS: {}", said.trim())))
}
