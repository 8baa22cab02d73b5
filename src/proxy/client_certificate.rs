//! Headers that pass the client's certificate on to backends.
//!
//! Backends trust these headers. So any that a client sends are removed, on every listener and for
//! every client.

use http::header::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora_error::{ErrorType, OrErr as _, Result};

use crate::downstream::connection_info::ConnectionInfo;
use crate::http::underscore;
use crate::tls::handshake_info::ClientCertificate;

/// Weir's own headers, and all that start like them.
const PREFIX: &str = "x-client-cert";
/// The headers of RFC 9440, which a proxy that terminates TLS must not pass on (§4).
const STANDARD: &str = "client-cert";

/// Removes these headers from the request, and sets them from the TLS handshake.
pub(super) fn set_client_cert_headers(
    request: &mut RequestHeader,
    connection: Option<&ConnectionInfo>,
) -> Result<()> {
    let tls = connection.and_then(|connection| connection.tls.as_ref());
    set(request, tls.and_then(|tls| tls.facts.client.as_ref()))
}

fn set(request: &mut RequestHeader, client: Option<&ClientCertificate>) -> Result<()> {
    // Most requests have none, and an empty list is not allocated.
    let received: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| is_client_cert_header(name.as_str()))
        .cloned()
        .collect();
    for name in &received {
        request.remove_header(name);
    }
    let Some(client) = client else { return Ok(()) };
    let verified = if client.verified { "yes" } else { "no" };
    request.insert_header("X-Client-Cert-Verified", verified)?;
    request.insert_header("X-Client-Cert-Fingerprint", value(&client.fingerprint)?)?;
    request.insert_header("X-Client-Cert-Subject", value(&client.subject)?)?;
    if !client.names.is_empty() {
        request.insert_header("X-Client-Cert-San", value(&client.names.join(", "))?)?;
    }
    Ok(())
}

/// Gateways that turn headers into variables cannot tell `_` from `-`.
fn is_client_cert_header(name: &str) -> bool {
    let is = |other: &str| name.len() == other.len() && underscore::starts_with(name, other);
    underscore::starts_with(name, PREFIX) || is(STANDARD) || is("client-cert-chain")
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InternalError, "a header that Weir sets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::lines;

    #[test]
    fn no_client_can_set_the_certificate_headers() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for name in [
            "X-Client-Cert-Verified",
            "x-client-cert-anything",
            "X_Client_Cert_Verified",
            "x-client_cert-subject",
            "Client-Cert",
            "Client_Cert_Chain",
        ] {
            request.append_header(name, "forged").unwrap();
        }
        request.append_header("X-Client", "kept").unwrap();
        set_client_cert_headers(&mut request, None).unwrap();
        let left: Vec<&str> = request.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-client"]);
    }

    fn shown(client: &ClientCertificate) -> Vec<String> {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("X-Client-Cert-San", "DNS:forged").unwrap();
        set(&mut request, Some(client)).unwrap();
        lines(&request.headers)
    }

    #[test]
    fn the_headers_describe_the_certificate_of_the_handshake() {
        let mut client = ClientCertificate {
            verified: true,
            fingerprint: "ab12".to_owned(),
            subject: "CN=a".to_owned(),
            names: vec!["DNS:a.test".to_owned(), "URI:spiffe://a".to_owned()],
        };
        assert_eq!(
            shown(&client),
            [
                "x-client-cert-fingerprint: ab12",
                "x-client-cert-san: DNS:a.test, URI:spiffe://a",
                "x-client-cert-subject: CN=a",
                "x-client-cert-verified: yes",
            ]
        );
        client = ClientCertificate { verified: false, names: Vec::new(), ..client };
        assert_eq!(
            shown(&client),
            [
                "x-client-cert-fingerprint: ab12",
                "x-client-cert-subject: CN=a",
                "x-client-cert-verified: no",
            ]
        );
    }

    #[test]
    fn a_certificate_cannot_add_a_header_line() {
        let client = ClientCertificate {
            verified: true,
            fingerprint: "ab12".to_owned(),
            subject: "CN=a\r\nx-admin: yes".to_owned(),
            names: Vec::new(),
        };
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        assert!(set(&mut request, Some(&client)).is_err());
    }

    #[test]
    fn names_that_only_look_like_certificate_headers_are_kept() {
        for (name, is_removed) in [
            ("x-client-cert", true),
            ("client_cert", true),
            ("client-cert-chain", true),
            ("client-cert-chain-length", false),
            ("client-certificate", false),
            ("x-client-car", false),
        ] {
            assert_eq!(is_client_cert_header(name), is_removed, "{name}");
        }
    }
}
