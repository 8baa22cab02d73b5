//! Explains failed TLS handshakes with backends.

use pingora_error::{Error, ErrorType};

use super::blocked::BLOCKED;

/// The cause of a failed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate of the backend is not trusted.
    Certificate,
    /// Anything else: the backend does not speak TLS, or no common version, or rejects our certificate.
    Other,
}

/// The text of rustls for a certificate that is not trusted.
const DISTRUST: &str = "invalid peer certificate";

/// Texts of rustls, and what helps an operator more.
const EXPLANATIONS: [(&str, &str); 2] = [
    (
        "received fatal alert: NoApplicationProtocol",
        "it offers no HTTP/2 (ALPN); write `protocol: auto` or `http1`",
    ),
    (
        "received corrupt message of type InvalidContentType",
        "it does not speak TLS; is its URL `http://`?",
    ),
];

/// The cause of a failed handshake, and a text for the operator; `None` for any other error. Pingora
/// keeps the error of rustls as text only.
#[must_use]
pub fn explain(error: &Error) -> Option<(TlsFault, String)> {
    if !matches!(error.etype(), ErrorType::TLSHandshakeFailure) {
        return None;
    }
    let text = error.to_string();
    if let Some(at) = text.find(BLOCKED) {
        return Some((TlsFault::Other, plain(text.get(at..).unwrap_or(BLOCKED))));
    }
    // Pingora adds the server name.
    let said = text.split(", SNI:").next().unwrap_or(&text);
    if let Some(said) = said.find(DISTRUST).and_then(|at| said.get(at..)) {
        let help = match said.contains("UnknownIssuer") {
            true => "; neither `tls.ca` nor, without it, the system's root certificates verify it",
            false => "",
        };
        return Some((TlsFault::Certificate, plain(said) + help));
    }
    let known = EXPLANATIONS.iter().find(|(rustls, _)| said.contains(rustls));
    let why = known.map_or_else(
        || {
            format!(
                "TLS handshake failed: {}",
                plain(said.rsplit("cause: ").next().unwrap_or(said))
            )
        },
        |(_, words)| (*words).to_owned(),
    );
    Some((TlsFault::Other, why))
}

/// The text without the double quotes of rustls, because logs put it between quotes.
fn plain(said: &str) -> String {
    said.trim().replace('"', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &str) -> Option<(TlsFault, String)> {
        explain(&Error::explain(ErrorType::TLSHandshakeFailure, text.to_owned()))
    }

    #[test]
    fn only_an_untrusted_certificate_is_a_fault_of_the_certificate() {
        let (fault, text) =
            explained("x cause: invalid peer certificate: Expired, SNI: a").unwrap();
        assert_eq!(fault, TlsFault::Certificate);
        assert_eq!(text, "invalid peer certificate: Expired");
        let (_, text) = explained("invalid peer certificate: UnknownIssuer, SNI: a").unwrap();
        assert!(text.contains("UnknownIssuer; neither `tls.ca`"), "{text}");
        let (fault, _) = explained("x, SNI: invalid peer certificate").unwrap();
        assert_eq!(fault, TlsFault::Other, "the name of a server explains nothing");
    }

    #[test]
    fn an_alert_that_an_operator_can_act_on_says_how() {
        let (fault, text) = explained("received fatal alert: NoApplicationProtocol").unwrap();
        assert_eq!(fault, TlsFault::Other);
        assert!(text.contains("protocol: auto"), "{text}");
        let text = "received corrupt message of type InvalidContentType";
        assert!(explained(text).unwrap().1.contains("`http://`"));
    }

    #[test]
    fn any_other_error_is_shown_without_double_quotes() {
        let (fault, text) = explained("a cause: b cause: it said \"no\" , SNI: a").unwrap();
        assert_eq!((fault, text.as_str()), (TlsFault::Other, "TLS handshake failed: it said 'no'"));
        let other = Error::explain(ErrorType::ConnectRefused, "invalid peer certificate");
        assert_eq!(explain(&other), None);
    }
}
