//! What HTTP/2 and gRPC want of a request and of its answer.

use http::{HeaderMap, HeaderValue, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::Exchange;
use crate::exchange::refusal::Refusal;
use crate::http::grpc;

/// The one thing that `TE` may say in HTTP/2 (RFC 9113 §8.2.2).
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Puts `TE: trailers` back for a backend of HTTP/2, which is the only one that can send trailers
/// through.
///
/// # Errors
/// The backend speaks HTTP/1.1, but the pool is for HTTP/2 alone.
pub(super) fn restore_te_trailers(
    request: &mut RequestHeader,
    session: &Session,
    exchange: &Exchange,
) -> Result<()> {
    let pool = exchange.pool_id().and_then(|id| exchange.snapshot().pools.get(id));
    let is_http2 = session.connection_state().is_some_and(|state| state.request_body().is_some());
    if is_http2 {
        let received = &session.req_header().headers;
        let mut lines = received.get_all(header::TE).iter().filter_map(|line| line.to_str().ok());
        if lines.any(|line| line.split(',').any(|it| it.trim().eq_ignore_ascii_case("trailers"))) {
            request.insert_header(header::TE, TRAILERS)?;
        }
    } else if pool.is_some_and(|pool| pool.protocol.is_http2_alone()) {
        // Pingora goes on with HTTP/1.1 where a backend does not choose.
        return Err(Error::explain(ErrorType::InvalidH2, "it speaks no HTTP/2").into_up());
    }
    Ok(())
}

/// Takes note of the status of gRPC in an answer's head, or in its trailers.
pub(super) fn record_status(fields: &HeaderMap, exchange: &mut Exchange) {
    if let Some(status) = grpc::status(fields) {
        exchange.grpc_ended(status);
    }
}

/// A refusal in the way of gRPC: a head and nothing behind it, with the status in it.
pub(super) fn refusal(
    request: &RequestHeader,
    request_id: Option<&HeaderValue>,
    refusal: Refusal,
) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(6))?;
    head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header("grpc-status", status(refusal).to_string())?;
    // Every text is ours and has nothing to escape.
    head.insert_header("grpc-message", refusal.text())?;
    if request.version != Version::HTTP_2 {
        head.insert_header(header::CONTENT_LENGTH, "0")?;
    }
    if let Some(id) = request_id {
        head.insert_header("X-Request-Id", id.clone())?;
    }
    Ok(head)
}

/// Sends a head that is the whole answer. Pingora's own way leaves HTTP/2 open for a body, and a
/// client of gRPC would then look for the status in the trailers.
pub(super) async fn send_headers_only(session: &mut Session, head: ResponseHeader) -> Result<()> {
    if let Some(stream) = session.as_downstream_mut().as_custom_mut() {
        return stream.write_response_header(Box::new(head), true).await;
    }
    session.write_response_header(Box::new(head), true).await
}

/// Which status of gRPC a refusal is.
fn status(refusal: Refusal) -> u16 {
    // Where nothing was asked of a backend, the client may ask again.
    let nothing_asked = refusal == Refusal::ConnectTimeout;
    grpc::status_for(if nothing_asked { 503 } else { refusal.status() })
}
