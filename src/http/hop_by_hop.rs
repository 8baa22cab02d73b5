//! Hop-by-hop headers (RFC 9110 §7.6.1).
//!
//! Some headers describe one connection, not the message; a proxy that passed them on would
//! describe the wrong connection. A sender may name more of them in `Connection`. That can also be
//! an attack: `Connection: X-Forwarded-For` asks the proxy to remove what it tells the backend
//! about the client. Such a name is ignored.
//!
//! Framing belongs to the library that writes the message. So `Content-Length` is never in the
//! list, and `Transfer-Encoding` only on requests: the library adds it again afterwards, according
//! to the body it has read.

use ::http::HeaderMap;
use ::http::header::{self, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageDirection {
    /// From the client to a backend.
    Request,
    /// From a backend to the client.
    Response,
}

const ON_REQUESTS: [&str; 10] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "connection",
    "upgrade",
    // The other half of the h2c upgrade that RFC 9113 removed.
    "http2-settings",
];

const ON_RESPONSES: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "upgrade",
];

/// Headers that `Connection` must not remove, because the message would then be framed, routed or
/// trusted differently. [`is_protected`] adds `X-Forwarded-…` and `X-Client-Cert-…`.
const PROTECTED: [&str; 28] = [
    "authorization",
    "cache-control",
    "client-cert",
    "client-cert-chain",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "early-data",
    "expect",
    "forwarded",
    "host",
    "location",
    "max-forwards",
    "origin",
    "range",
    "set-cookie",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "true-client-ip",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
];

/// The headers to remove from a message before it is passed on: those of the fixed list, and those
/// that `Connection` names and may name, as far as they are present.
///
/// For an upgrade, the caller adds `Connection` and `Upgrade` again; for gRPC likewise `TE:
/// trailers`. Names can occur twice.
///
/// Allocates only if `Connection` names a header of its own.
pub fn to_remove(
    headers: &HeaderMap,
    direction: MessageDirection,
) -> impl Iterator<Item = HeaderName> + use<> {
    let fixed: &[&str] = match direction {
        MessageDirection::Request => &ON_REQUESTS,
        MessageDirection::Response => &ON_RESPONSES,
    };
    // Few headers of the list are ever present, so one pass over the present ones costs less than
    // looking up each of the list. Most present headers begin with another letter.
    let position = |name: &HeaderName| {
        let name = name.as_str();
        let may_be = matches!(name.as_bytes(), [b'c' | b'h' | b'k' | b'p' | b't' | b'u', ..]);
        if may_be { fixed.iter().position(|other| *other == name) } else { None }
    };
    let mut found: SmallVec<[(usize, HeaderName); 2]> =
        headers.keys().filter_map(|name| Some((position(name)?, name.clone()))).collect();
    // Removing a header moves the last one into its place, so the order of removal affects the
    // result. It is always that of the list.
    found.sort_unstable_by_key(|&(position, _)| position);
    // Most lines contain only this, and it is removed anyway.
    let is_keep_alive = |line: &&HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter(|line| !is_keep_alive(line))
        .flat_map(options)
        .filter(|option| !fixed.iter().any(|name| name.eq_ignore_ascii_case(option)))
        .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
        .filter(|name| headers.contains_key(name) && !is_protected(name))
        .collect();
    found.into_iter().map(|(_, name)| name).chain(nominated)
}

/// Whether `Connection` has `option` (`close`, `upgrade`, …), in any case.
#[must_use]
pub fn has_connection_option(headers: &HeaderMap, option: &str) -> bool {
    connection_options(headers).any(|has| has.eq_ignore_ascii_case(option))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(header::CONNECTION).iter().flat_map(options)
}

/// A line that is not ASCII names nothing: it contains no header name.
fn options(line: &HeaderValue) -> impl Iterator<Item = &str> {
    let line = line.to_str().unwrap_or_default();
    line.split(',')
        .map(|option| option.trim_matches([' ', '\t']))
        .filter(|option| !option.is_empty())
}

/// Whether a header frames, routes or identifies a request, or is hop-by-hop.
pub(super) fn is_ours(name: &str) -> bool {
    ON_REQUESTS.contains(&name) || is_protected_name(name)
}

fn is_protected(name: &HeaderName) -> bool {
    is_protected_name(name.as_str())
}

fn is_protected_name(name: &str) -> bool {
    let prefixes = ["x-forwarded-", "x-client-cert"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || PROTECTED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    /// The headers that remain of `lines`, in alphabetical order.
    fn left(direction: MessageDirection, lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut map = headers(lines);
        for name in to_remove(&map, direction) {
            map.remove(name);
        }
        let mut left: Vec<String> = map.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn hop_by_hop_headers_are_removed_from_a_request() {
        let lines = [
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("accept", "*/*"),
        ];
        assert_eq!(left(MessageDirection::Request, &lines), ["accept"]);
    }

    #[test]
    fn the_proxys_own_authentication_is_removed_from_a_response() {
        let lines = [("proxy-authenticate", "Basic"), ("proxy-authentication-info", "x=1")];
        assert!(left(MessageDirection::Response, &lines).is_empty());
    }

    #[test]
    fn framing_belongs_to_the_library() {
        let lines = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(left(MessageDirection::Request, &lines), ["content-length"]);
        assert_eq!(
            left(MessageDirection::Response, &lines),
            ["content-length", "transfer-encoding"]
        );
    }

    #[test]
    fn a_named_header_is_removed_in_any_case_and_from_any_line() {
        let lines = [
            ("connection", "X-One ,\tx-two"),
            ("connection", ", x-three"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
        ];
        assert_eq!(left(MessageDirection::Request, &lines), ["x-four"]);
        assert_eq!(left(MessageDirection::Response, &lines), ["x-four"]);
    }

    #[test]
    fn connection_cannot_remove_what_the_proxy_adds_about_the_client() {
        let lines = [
            ("connection", "X-Forwarded-For, X-Forwarded-Prefix, Forwarded, X-Real-IP"),
            ("connection", "X-Request-Id, Via"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-prefix", "/a"),
            ("forwarded", "for=192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("x-request-id", "1"),
            ("via", "1.1 weir"),
        ];
        assert_eq!(left(MessageDirection::Request, &lines).len(), 6);
    }

    #[test]
    fn connection_cannot_remove_framing_routing_or_credentials() {
        let lines = [
            ("connection", "Host, Content-Length, Transfer-Encoding, Authorization, Cookie"),
            ("host", "example.com"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
        ];
        assert_eq!(left(MessageDirection::Response, &lines).len(), 5);
        assert_eq!(left(MessageDirection::Request, &lines).len(), 4, "all but Transfer-Encoding");
    }

    #[test]
    fn an_invalid_header_name_names_nothing() {
        let mut map = headers(&[("x-one", "1")]);
        map.append("connection", HeaderValue::from_bytes(b"x-one\xff").unwrap());
        map.append("connection", HeaderValue::from_static("x one, \"x-one\", ;"));
        assert!(to_remove(&map, MessageDirection::Request).all(|name| name != "x-one"));
    }

    #[test]
    fn only_present_headers_are_returned_in_the_order_of_the_list() {
        let map = headers(&[
            ("te", "trailers"),
            ("accept", "*/*"),
            ("keep-alive", "timeout=5"),
            ("connection", "Keep-Alive, TE, close"),
        ]);
        let names: Vec<_> = to_remove(&map, MessageDirection::Request).collect();
        assert_eq!(names, ["keep-alive", "te", "connection"]);
    }

    #[test]
    fn an_option_is_found_in_any_case() {
        let map = headers(&[("connection", "keep-alive, Upgrade")]);
        assert!(has_connection_option(&map, "upgrade"));
        assert!(!has_connection_option(&map, "close"));
    }
}
