//! Upgrades of a connection to WebSocket (RFC 9110 §7.8, RFC 6455 §4). No other protocol is
//! supported.

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{Method, Version};

use super::hop_by_hop::has_connection_option;

/// The only supported upgrade protocol.
pub const WEBSOCKET: &str = "websocket";

/// Whether a request asks to upgrade to WebSocket. A request with a body does not: the end of its
/// body and the start of the WebSocket would be ambiguous.
#[must_use]
pub fn asks_for_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let body = |name: &HeaderName| match headers.get(name) {
        Some(value) => *name != header::CONTENT_LENGTH || value.as_bytes() != b"0",
        None => false,
    };
    *method == Method::GET
        && version == Version::HTTP_11
        && is_to_websocket(headers)
        && ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(body)
}

/// Whether a 101 accepts the upgrade to WebSocket.
#[must_use]
pub fn agrees_to_websocket(headers: &HeaderMap) -> bool {
    is_to_websocket(headers)
}

fn is_to_websocket(headers: &HeaderMap) -> bool {
    has_connection_option(headers, "upgrade")
        && headers
            .get_all(header::UPGRADE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .any(|protocol| protocol.trim_matches([' ', '\t']).eq_ignore_ascii_case(WEBSOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().copied().map(pair).collect()
    }

    fn asks(method: Method, version: Version, lines: &[(&'static str, &'static str)]) -> bool {
        asks_for_websocket(&method, version, &headers(lines))
    }

    const USUAL: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "websocket")];

    #[test]
    fn a_get_with_both_headers_is_an_upgrade_in_any_case() {
        assert!(asks(Method::GET, Version::HTTP_11, &USUAL));
        let shouted = [("connection", "keep-alive, UPGRADE"), ("upgrade", "WebSocket")];
        assert!(asks(Method::GET, Version::HTTP_11, &shouted));
    }

    #[test]
    fn one_of_the_headers_is_not_an_upgrade() {
        assert!(!asks(Method::GET, Version::HTTP_11, &USUAL[..1]));
        assert!(!asks(Method::GET, Version::HTTP_11, &USUAL[1..]));
    }

    #[test]
    fn other_methods_versions_and_protocols_are_not_upgrades() {
        assert!(!asks(Method::POST, Version::HTTP_11, &USUAL));
        assert!(!asks(Method::GET, Version::HTTP_10, &USUAL));
        assert!(!asks(Method::GET, Version::HTTP_2, &USUAL));
        let h2c = [("connection", "Upgrade"), ("upgrade", "h2c")];
        assert!(!asks(Method::GET, Version::HTTP_11, &h2c));
        let like = [("connection", "Upgrade"), ("upgrade", "websockets")];
        assert!(!asks(Method::GET, Version::HTTP_11, &like));
    }

    #[test]
    fn a_request_with_a_body_is_not_an_upgrade() {
        for body in [("content-length", "3"), ("transfer-encoding", "chunked")] {
            assert!(!asks(Method::GET, Version::HTTP_11, &[USUAL[0], USUAL[1], body]));
        }
        let empty = [USUAL[0], USUAL[1], ("content-length", "0")];
        assert!(asks(Method::GET, Version::HTTP_11, &empty));
    }
}
