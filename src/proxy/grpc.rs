//! What gRPC, and HTTP/2 to backends, need of a request and its response.

use http::{HeaderMap, HeaderValue, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::Exchange;
use crate::exchange::refusal::Refusal;
use crate::http::grpc;
use crate::upstream::error_kinds::NOT_HTTP2;

/// The only value that `TE` may have in HTTP/2 (RFC 9113 §8.2.2).
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Restores `TE: trailers` for an HTTP/2 backend. Only such a backend can send trailers to the
/// client.
///
/// # Errors
/// The backend speaks HTTP/1.1, and the pool requires HTTP/2.
pub(super) fn restore_te_trailers(
    request: &mut RequestHeader,
    session: &Session,
    exchange: &Exchange,
) -> Result<()> {
    let pool = exchange.pool_id().and_then(|id| exchange.snapshot().pools.get(id));
    let is_http2 = session.connection_state().is_some_and(|state| state.request_body().is_some());
    if is_http2 {
        if accepts_trailers(&session.req_header().headers) {
            request.insert_header(header::TE, TRAILERS)?;
        }
    } else if pool.is_some_and(|pool| pool.config.transport.protocol.is_http2_alone()) {
        // If a backend selects no protocol, Pingora continues with HTTP/1.1.
        return Err(Error::explain(ErrorType::InvalidH2, NOT_HTTP2).into_up());
    }
    Ok(())
}

fn accepts_trailers(received: &HeaderMap) -> bool {
    let mut lines = received.get_all(header::TE).iter().filter_map(|line| line.to_str().ok());
    lines.any(|line| line.split(',').any(|it| it.trim().eq_ignore_ascii_case("trailers")))
}

/// Records the gRPC status in response headers or in trailers.
pub(super) fn record_status(fields: &HeaderMap, exchange: &mut Exchange) {
    if let Some(status) = grpc::status(fields) {
        exchange.grpc_ended(status);
    }
}

/// A refusal as gRPC: only headers, which contain the status.
pub(super) fn refusal(
    request: &RequestHeader,
    request_id: Option<&HeaderValue>,
    refusal: Refusal,
) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(6))?;
    head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header("grpc-status", refusal.grpc_status().to_string())?;
    // All texts are Weir's own and need no escaping.
    head.insert_header("grpc-message", refusal.text())?;
    if request.version != Version::HTTP_2 {
        head.insert_header(header::CONTENT_LENGTH, "0")?;
    }
    if let Some(id) = request_id {
        head.insert_header("X-Request-Id", id.clone())?;
    }
    Ok(head)
}

/// Sends headers that are the whole response. Pingora's own way leaves the HTTP/2 stream open for a
/// body, and a gRPC client would then expect the status in the trailers.
pub(super) async fn send_headers_only(session: &mut Session, head: ResponseHeader) -> Result<()> {
    if let Some(stream) = session.as_downstream_mut().as_custom_mut() {
        return stream.write_response_header(Box::new(head), true).await;
    }
    session.write_response_header(Box::new(head), true).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::{ONE_POOL, forwarded, lines, session};

    #[test]
    fn trailers_are_accepted_if_any_te_header_lists_them() {
        let accepts = |values: &[&'static str]| {
            let line = |value| (header::TE, HeaderValue::from_static(value));
            let mut headers = HeaderMap::new();
            for (name, value) in values.iter().copied().map(line) {
                headers.append(name, value);
            }
            accepts_trailers(&headers)
        };
        assert!(accepts(&["trailers"]));
        assert!(accepts(&["gzip;q=0.5, Trailers "]));
        assert!(accepts(&["gzip", "trailers"]), "in the second header");
        assert!(!accepts(&[]));
        assert!(!accepts(&["trailers-not", "xtrailers"]));
    }

    #[tokio::test]
    async fn an_http1_connection_fails_only_a_pool_that_requires_http2() {
        let session = session("GET / HTTP/1.1\r\nhost: a.test\r\nte: trailers\r\n\r\n").await;
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        restore_te_trailers(&mut request, &session, &forwarded(ONE_POOL, "/")).unwrap();
        assert!(request.headers.is_empty(), "HTTP/1.1 backends send no trailers");
        let http2 = ONE_POOL.replace("name: web,", "name: web, protocol: h2c,");
        let error = restore_te_trailers(&mut request, &session, &forwarded(&http2, "/"));
        let error = error.unwrap_err();
        assert_eq!(*error.etype(), ErrorType::InvalidH2);
        assert_eq!(*error.esource(), pingora_error::ErrorSource::Upstream);
    }

    #[test]
    fn a_refusal_is_status_200_with_the_error_in_headers() {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        let id = HeaderValue::from_static("id-1");
        let head = refusal(&request, Some(&id), Refusal::NoBackend).unwrap();
        assert_eq!(head.status, 200);
        let message = format!("grpc-message: {}", Refusal::NoBackend.text());
        let expected = ["content-type: application/grpc", &message, "grpc-status: 14"];
        let mut http2 = expected.to_vec();
        http2.push("x-request-id: id-1");
        let mut http1 = http2.clone();
        http1.insert(0, "content-length: 0");
        assert_eq!(lines(&head.headers), http1);
        request.set_version(Version::HTTP_2);
        let head = refusal(&request, Some(&id), Refusal::NoBackend).unwrap();
        assert_eq!(lines(&head.headers), http2);
    }
}
