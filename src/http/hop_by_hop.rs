//! Fields that end here (RFC 9110 §7.6.1).
//!
//! Some fields speak about one connection and not about the message; a proxy that passed
//! them on would speak for the wrong connection. A sender may name more of them in
//! `Connection`. That is also a trick: `Connection: X-Forwarded-For` asks the proxy to erase
//! what it tells the backend about the client. Such a nomination is not obeyed.
//!
//! Framing belongs to the library that writes the message. `Content-Length` is therefore never
//! in the list, and `Transfer-Encoding` only on requests: those the library frames anew, after
//! us, by what it has read of the body.

use ::http::HeaderMap;
use ::http::header::{self, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
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
    // The other half of the h2c upgrade that RFC 9113 took away.
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

/// What `Connection` may never take away, because the message would then be framed, routed
/// or believed differently. `X-Forwarded-…` and `X-Client-Cert-…` are added to this by
/// [`is_protected`].
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

/// The fields to take out of a message before it is passed on: those of the fixed list, and
/// whatever `Connection` nominates that may be nominated, as far as they are there.
///
/// Where an upgrade is to go through, the caller puts `Connection` and `Upgrade` back; for
/// gRPC likewise `TE: trailers`. Names can come twice.
///
/// Allocates only when `Connection` nominates a field of its own.
pub fn to_remove(
    headers: &HeaderMap,
    direction: Direction,
) -> impl Iterator<Item = HeaderName> + use<> {
    let fixed: &[&str] = match direction {
        Direction::Request => &ON_REQUESTS,
        Direction::Response => &ON_RESPONSES,
    };
    // Few of the list are ever there, so one walk over what is there costs less than to look
    // each of them up; and most of what is there begins with another letter.
    let place = |name: &HeaderName| {
        let name = name.as_str();
        let may_be = matches!(name.as_bytes(), [b'c' | b'h' | b'k' | b'p' | b't' | b'u', ..]);
        if may_be { fixed.iter().position(|other| *other == name) } else { None }
    };
    let mut found: SmallVec<[(usize, HeaderName); 2]> =
        headers.keys().filter_map(|name| Some((place(name)?, name.clone()))).collect();
    // A field that is removed leaves its place to the last one: the order of removal is seen in
    // what is left, and is always that of the list.
    found.sort_unstable_by_key(|&(place, _)| place);
    // Most lines say only this, and it is removed anyway.
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

/// A line that is not ASCII nominates nothing: no header name is in it.
fn options(line: &HeaderValue) -> impl Iterator<Item = &str> {
    let line = line.to_str().unwrap_or_default();
    line.split(',')
        .map(|option| option.trim_matches([' ', '\t']))
        .filter(|option| !option.is_empty())
}

/// Whether the name is one that frames, routes or identifies a request, or that ends here.
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

    /// What is left of `lines`, in the alphabet's order.
    fn left(direction: Direction, lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut map = headers(lines);
        for name in to_remove(&map, direction) {
            map.remove(name);
        }
        let mut left: Vec<String> = map.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn a_request_loses_what_speaks_about_the_connection() {
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
        assert_eq!(left(Direction::Request, &lines), ["accept"]);
    }

    #[test]
    fn a_response_loses_the_proxys_own_authentication() {
        let lines = [("proxy-authenticate", "Basic"), ("proxy-authentication-info", "x=1")];
        assert!(left(Direction::Response, &lines).is_empty());
    }

    #[test]
    fn framing_belongs_to_the_library() {
        let lines = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(left(Direction::Request, &lines), ["content-length"]);
        assert_eq!(left(Direction::Response, &lines), ["content-length", "transfer-encoding"]);
    }

    #[test]
    fn a_nominated_field_goes_in_any_case_and_from_any_line() {
        let lines = [
            ("connection", "X-One ,\tx-two"),
            ("connection", ", x-three"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
        ];
        assert_eq!(left(Direction::Request, &lines), ["x-four"]);
        assert_eq!(left(Direction::Response, &lines), ["x-four"]);
    }

    #[test]
    fn connection_cannot_erase_what_the_proxy_says_about_the_client() {
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
        assert_eq!(left(Direction::Request, &lines).len(), 6);
    }

    #[test]
    fn connection_cannot_erase_framing_routing_or_credentials() {
        let lines = [
            ("connection", "Host, Content-Length, Transfer-Encoding, Authorization, Cookie"),
            ("host", "example.com"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
        ];
        assert_eq!(left(Direction::Response, &lines).len(), 5);
        assert_eq!(left(Direction::Request, &lines).len(), 4, "all but Transfer-Encoding");
    }

    #[test]
    fn what_is_no_field_name_nominates_nothing() {
        let mut map = headers(&[("x-one", "1")]);
        map.append("connection", HeaderValue::from_bytes(b"x-one\xff").unwrap());
        map.append("connection", HeaderValue::from_static("x one, \"x-one\", ;"));
        assert!(to_remove(&map, Direction::Request).all(|name| name != "x-one"));
    }

    #[test]
    fn only_what_is_there_is_named_in_the_order_of_the_list() {
        let map = headers(&[
            ("te", "trailers"),
            ("accept", "*/*"),
            ("keep-alive", "timeout=5"),
            ("connection", "Keep-Alive, TE, close"),
        ]);
        let names: Vec<_> = to_remove(&map, Direction::Request).collect();
        assert_eq!(names, ["keep-alive", "te", "connection"]);
    }

    #[test]
    fn an_option_is_found_in_any_case() {
        let map = headers(&[("connection", "keep-alive, Upgrade")]);
        assert!(has_connection_option(&map, "upgrade"));
        assert!(!has_connection_option(&map, "close"));
    }
}
