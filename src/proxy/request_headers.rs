//! The changes of request headers that HTTP requires of a proxy.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Version};
use pingora::http::RequestHeader;
use pingora_error::{ErrorType, OrErr as _, Result};
use pingora_proxy::Session;

use super::{forwarding, log_record};
use crate::exchange::{ClientInfo, Exchange};
use crate::http::hop_by_hop::{self, MessageDirection};
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
    client: ClientInfo,
) -> Result<()> {
    let received = session.req_header();
    for name in hop_by_hop::to_remove(&received.headers, MessageDirection::Request) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Rolls;
    use crate::exchange::refusal::Outcome;
    use crate::exchange::request::Transfer;
    use crate::fixture::CLIENT;
    use crate::proxy::tests::{ONE_POOL, forwarded, lines, session};
    use crate::time::Timestamp;

    /// The headers for the backend, without those of `forwarding.rs`.
    async fn prepared(received: &str) -> Vec<String> {
        let session = session(received).await;
        let mut exchange = forwarded(ONE_POOL, "/");
        exchange.pick(Timestamp::ZERO, Rolls::default()).unwrap();
        let id = assign_request_id(session.req_header(), 0xabc);
        exchange.received(log_record::request(&session, id));
        let mut request = session.req_header().clone();
        let client = ClientInfo { peer: CLIENT, address: CLIENT };
        prepare_upstream_request(&mut request, &session, &exchange, client).unwrap();
        exchange.ended(Outcome::Completed, Transfer::default(), Timestamp::ZERO);
        let mut lines = lines(&request.headers);
        lines.retain(|line| !line.starts_with("x-forwarded-") && !line.starts_with("x-real-ip"));
        lines
    }

    const NEW_ID: &str = "x-request-id: 00000000000000000000000000000abc";

    #[tokio::test]
    async fn an_http10_request_becomes_valid_http11() {
        let received = "GET / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n";
        assert_eq!(prepared(received).await, ["host: 10.1.0.1:8080", "via: 1.0 weir", NEW_ID]);
        let received = "GET / HTTP/1.0\r\nhost: a.test\r\n\r\n";
        assert_eq!(prepared(received).await, ["host: a.test", "via: 1.0 weir", NEW_ID]);
    }

    #[tokio::test]
    async fn an_http11_request_keeps_its_expectation_and_loses_what_is_of_one_hop() {
        let received = "GET / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\n\
            connection: x-hop\r\nx-hop: 1\r\nte: trailers\r\nvia: 1.1 cdn\r\n\r\n";
        assert_eq!(
            prepared(received).await,
            ["expect: 100-continue", "host: a.test", "via: 1.1 cdn, 1.1 weir", NEW_ID]
        );
    }

    #[tokio::test]
    async fn one_request_id_goes_to_the_backend() {
        for (ids, expected) in [
            ("x-request-id: mine\r\n", "x-request-id: mine"),
            ("x-request-id: mine\r\nx-request-id: other\r\n", "x-request-id: mine"),
            ("x-request-id: <script>\r\n", NEW_ID),
            ("x-request-id:\r\n", NEW_ID),
        ] {
            let received = format!("GET / HTTP/1.1\r\nhost: a.test\r\n{ids}\r\n");
            let sent = prepared(&received).await;
            assert_eq!(sent, ["host: a.test", "via: 1.1 weir", expected], "{ids:?}");
        }
    }

    #[tokio::test]
    async fn a_trace_context_is_passed_on_only_if_it_is_valid() {
        let received = |traceparent: &str| {
            format!("GET / HTTP/1.1\r\nhost: a.test\r\n{traceparent}tracestate: a=1\r\n\r\n")
        };
        let valid = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
        assert_eq!(
            prepared(&received(valid)).await[1],
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        );
        assert_eq!(prepared(&received(valid)).await[2], "tracestate: a=1");
        for invalid in [String::new(), "traceparent: 1\r\n".to_owned(), valid.repeat(2)] {
            let sent = prepared(&received(&invalid)).await;
            assert_eq!(sent, ["host: a.test", "via: 1.1 weir", NEW_ID], "{invalid:?}");
        }
    }
}
