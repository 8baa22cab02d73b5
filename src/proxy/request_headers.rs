//! What we change in the heads that pass through.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Version};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_error::{Error, ErrorType, OrErr, Result};

use super::forwarding::{self, ClientHop};
use crate::config::Forwarding;
use crate::http::hop_by_hop::{self, Direction};
use crate::http::{request_id, via};

/// Names a request through all hops.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What `Via` says of a request that comes straight from a client of HTTP/1.1: nearly all.
const VIA_FIRST: HeaderValue = HeaderValue::from_static("1.1 weir");

/// The id of a request: the client's, if a log can carry it, or a new one.
pub(super) fn assign_request_id(request: &RequestHeader, roll: u128) -> Option<HeaderValue> {
    let given = request
        .headers
        .get(&X_REQUEST_ID)
        .filter(|value| value.to_str().is_ok_and(|value| request_id::accept(value).is_some()));
    let new = || HeaderValue::from_str(request_id::from_roll(roll).as_str()).ok();
    given.cloned().or_else(new)
}

/// The path of the target. What is no path, such as `*`, is given as it came.
pub(super) fn path(request: &RequestHeader) -> &str {
    let target = request.raw_path();
    if target.starts_with(b"/") {
        return request.uri.path();
    }
    str::from_utf8(target).unwrap_or_default()
}

/// Makes the head that a client sent, and Pingora has copied, the one that a backend gets.
pub(super) fn prepare_upstream_request(
    request: &mut RequestHeader,
    received: &RequestHeader,
    (client_hop, backend): (ClientHop<'_>, &str),
    request_id: Option<&HeaderValue>,
    (trusted, fields): (&[IpNet], Forwarding),
) -> Result<()> {
    for name in hop_by_hop::to_remove(&received.headers, Direction::Request) {
        request.remove_header(&name);
    }
    if received.version != Version::HTTP_11 && !request.headers.contains_key(header::HOST) {
        // An HTTP/1.0 client may leave it out; we, who speak HTTP/1.1, may not (RFC 9112 §3.2).
        request.insert_header(header::HOST, backend)?;
    }
    if received.version == Version::HTTP_10 {
        // It cannot take the interim answer that the backend would give (RFC 9110 §10.1.1).
        request.remove_header(&header::EXPECT);
    }
    forwarding::set_forwarding_headers(request, client_hop, trusted, fields)?;
    if received.headers.keys().any(forwarding::is_trace_header) {
        forwarding::strip_invalid_trace_context(request);
    }
    if let Some(request_id) = request_id {
        // It replaces what the client sent: several, or one that no log can carry.
        request.insert_header("X-Request-Id", request_id.clone())?;
    }
    request.insert_header("Via", via(request, received.version)?)
}

fn value(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InternalError, "a field of our own")
}

fn via(request: &RequestHeader, received: Version) -> Result<HeaderValue> {
    if received == Version::HTTP_11 && !request.headers.contains_key(header::VIA) {
        return Ok(VIA_FIRST);
    }
    value(via::append(text_lines(&request.headers, header::VIA), received, via::PSEUDONYM))
}

fn text_lines(headers: &HeaderMap, name: HeaderName) -> impl DoubleEndedIterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok())
}

/// Refuses an answer whose end can be seen in two ways, and puts right what has one meaning only.
pub(super) fn validate_upstream_response(response: &mut ResponseHeader) -> Result<()> {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // We ask for no other coding, so none may come (RFC 9112 §6.1).
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || response.version == Version::HTTP_10 {
            let what = "a coding that nobody asked for";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, what).into_up());
        }
    }
    // Several that differ were refused by Pingora; several that agree are one (RFC 9112 §6.3).
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next(), lengths.next());
    let Some(first) = first.filter(|first| second.is_some() || first.as_bytes().contains(&b','))
    else {
        return Ok(());
    };
    let digits = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    let length = HeaderValue::from_bytes(digits.trim_ascii());
    let length = length.or_err(ErrorType::InvalidHTTPHeader, "a length")?;
    response.insert_header(header::CONTENT_LENGTH, length)
}

/// Makes a backend's answer head the one that the client gets. Whether the client's connection
/// can be kept.
pub(super) fn prepare_client_response(
    response: &mut ResponseHeader,
    request_id: Option<&HeaderValue>,
    client_speaks: Version,
) -> Result<bool> {
    for name in hop_by_hop::to_remove(&response.headers, Direction::Response) {
        response.remove_header(&name);
    }
    if let Some(request_id) = request_id {
        response.insert_header("X-Request-Id", request_id.clone())?;
    }
    if response.version == Version::HTTP_10 {
        // Each hop speaks for itself (RFC 9110 §2.5).
        response.set_version(Version::HTTP_11);
    }
    if response.status == StatusCode::NO_CONTENT || response.status.is_informational() {
        // They have no body, and say nothing of its length (RFC 9110 §8.6, RFC 9112 §6.1).
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    // An HTTP/1.0 client knows no chunks: without a length, the end of the connection is the end
    // of the body (RFC 9112 §6.3). `unchunked.rs` takes the coding away.
    let has_length = response.headers.contains_key(header::CONTENT_LENGTH);
    let has_none = response.status.is_informational()
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(client_speaks != Version::HTTP_10 || has_length || has_none)
}
