//! The changes of request headers that HTTP requires of a proxy.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Version};
use pingora::http::RequestHeader;
use pingora_error::{ErrorType, OrErr as _, Result};
use pingora_proxy::Session;

use super::{forwarding, log_record};
use crate::exchange::{Client, Exchange};
use crate::http::hop_by_hop::{self, Direction};
use crate::http::{request_id, via};

/// Identifies a request across all hops.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The `Via` of a request that comes directly from an HTTP/1.1 client, as most do.
const VIA_FIRST: HeaderValue = HeaderValue::from_static("1.1 weir");

/// The request id: the client's, if it is safe to log, or a new one.
pub(super) fn assign_request_id(request: &RequestHeader, roll: u128) -> Option<HeaderValue> {
    let given = request
        .headers
        .get(&X_REQUEST_ID)
        .filter(|value| value.to_str().is_ok_and(|value| request_id::accept(value).is_some()));
    let new = || HeaderValue::from_str(request_id::from_roll(roll).as_str()).ok();
    given.cloned().or_else(new)
}

/// Turns the client's request headers, copied by Pingora, into those for the backend.
pub(super) fn prepare_upstream_request(
    request: &mut RequestHeader,
    session: &Session,
    exchange: &Exchange,
    client: Client,
) -> Result<()> {
    let received = session.req_header();
    for name in hop_by_hop::to_remove(&received.headers, Direction::Request) {
        request.remove_header(&name);
    }
    if received.version != Version::HTTP_11 && !request.headers.contains_key(header::HOST) {
        // HTTP/1.0 allows a request without `Host`; HTTP/1.1, as sent to the backend, does not (RFC
        // 9112 §3.2).
        let backend = exchange.backend().map_or("", |backend| &backend.label);
        request.insert_header(header::HOST, backend)?;
    }
    if received.version == Version::HTTP_10 {
        // An HTTP/1.0 client cannot receive the backend's interim response (RFC 9110 §10.1.1).
        request.remove_header(&header::EXPECT);
    }
    let snapshot = exchange.snapshot();
    let hop = log_record::client_hop(session, client);
    forwarding::set_forwarding_headers(
        request,
        hop,
        &snapshot.trusted_proxies,
        snapshot.forwarded,
    )?;
    if received.headers.keys().any(forwarding::is_trace_header) {
        forwarding::strip_invalid_trace_context(request);
    }
    if let Some(request_id) = exchange.request_id() {
        // Replaces what the client sent, which may be several ids or one that is not safe to log.
        request.insert_header("X-Request-Id", request_id.clone())?;
    }
    request.insert_header("Via", via(request, received.version)?)
}

fn value(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InternalError, "a header that Weir sets")
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
