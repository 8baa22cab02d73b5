//! Headers that pass the client's certificate on to backends.
//!
//! Backends trust these headers. So any that a client sends are removed, on every listener and for
//! every client.

use http::header::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora_error::{ErrorType, OrErr as _, Result};

use crate::downstream::connection_info::ConnectionInfo;
use crate::http::underscore;

/// Weir's own headers, and all that start like them.
const PREFIX: &str = "x-client-cert";
/// The headers of RFC 9440, which a proxy that terminates TLS must not pass on (§4).
const STANDARD: &str = "client-cert";

/// Removes these headers from the request, and sets them from the TLS handshake.
pub(super) fn set_client_cert_headers(
    request: &mut RequestHeader,
    connection: Option<&ConnectionInfo>,
) -> Result<()> {
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
    let tls = connection.and_then(|connection| connection.tls.as_ref());
    let Some(client) = tls.and_then(|tls| tls.facts.client.as_ref()) else { return Ok(()) };
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
}
