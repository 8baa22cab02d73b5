//! What is wrong where no TLS with a backend comes about.

use pingora_error::{Error, ErrorType};

use super::shut::SHUT;

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

/// What rustls says where an operator is helped by other words.
const IN_WORDS: [(&str, &str); 2] = [
    (
        "received fatal alert: NoApplicationProtocol",
        "it offers no HTTP/2 (ALPN); write `protocol: auto` or `http1`",
    ),
    (
        "received corrupt message of type InvalidContentType",
        "it does not speak TLS; is its URL `http://`?",
    ),
];

/// What is wrong, and in words for the operator, if `error` is of a handshake. Pingora keeps what
/// rustls said as text alone.
#[must_use]
pub fn failure(error: &Error) -> Option<(Fault, String)> {
    if !matches!(error.etype(), ErrorType::TLSHandshakeFailure) {
        return None;
    }
    let text = error.to_string();
    if let Some(at) = text.find(SHUT) {
        return Some((Fault::Other, plain(text.get(at..).unwrap_or(SHUT))));
    }
    // What Pingora adds: whom it had asked for.
    let said = text.split(", SNI:").next().unwrap_or(&text);
    if let Some(said) = said.find(DISTRUST).and_then(|at| said.get(at..)) {
        let help = match said.contains("UnknownIssuer") {
            true => "; nobody vouches for it whom `tls.ca` names, or without it this system trusts",
            false => "",
        };
        return Some((Fault::Certificate, plain(said) + help));
    }
    let known = IN_WORDS.iter().find(|(rustls, _)| said.contains(rustls));
    let why = known.map_or_else(
        || format!("no TLS: {}", plain(said.rsplit("cause: ").next().unwrap_or(said))),
        |(_, words)| (*words).to_owned(),
    );
    Some((Fault::Other, why))
}

/// Without the quotes that rustls puts around names: logs put it between quotes.
fn plain(said: &str) -> String {
    said.trim().replace('"', "'")
}
