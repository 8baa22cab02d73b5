//! Our own answers: what a client gets when no backend answers (RFC 9110 §15).

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, Session};
use tokio::io::AsyncWriteExt;

use super::early::PanickedRequest;
use super::line::{LINGER, Line};
use super::{change, connection, grpc, progress};
use crate::clock::Clock;
use crate::exchange::refusal::Refusal;
use crate::exchange::{DirectResponse, Exchange};
use crate::http::accept::{Form, preferred};
use crate::http::grpc::is_grpc;
use crate::http::request_id;
use pingora::http::{RequestHeader, ResponseHeader};

/// The methods that are served, for a 405 (RFC 9110 §15.5.6).
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Answers with a refusal. The connection is kept where Pingora can tell that the request was
/// read whole.
pub(super) async fn refuse(
    session: &mut Session,
    exchange: &Exchange,
    refusal: Refusal,
) -> Result<()> {
    let (mut head, body) = answer(session, exchange.request_id(), refusal)?;
    change::response(&mut head, exchange)?;
    let is_end = matches!(refusal, Refusal::BadRequest | Refusal::BodyTooLarge);
    if session.req_header().method == Method::CONNECT || is_end {
        // What follows is not HTTP, or nobody knows where it begins, or it is too much to read.
        session.set_keepalive(None);
    }
    let Some(body) = body else {
        return grpc::write(session, head).await;
    };
    write(session, head, body).await
}

/// Sends a whole answer. Over HTTP/2 nothing may follow a head that has no body, not even an empty
/// piece of one (RFC 9113 §8.1), and Pingora drops it for HTTP/1 alone.
async fn write(session: &mut Session, head: ResponseHeader, body: Bytes) -> Result<()> {
    let is_head = session.req_header().method == Method::HEAD;
    if is_head || body.is_empty() || is_bodiless(head.status) {
        return grpc::write(session, head).await;
    }
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(body), true).await
}

/// Whether an answer of this status has never a body (RFC 9110 §6.4.1).
fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Answers as the route says.
pub(super) async fn give(
    session: &mut Session,
    exchange: &Exchange,
    own: &DirectResponse,
) -> Result<()> {
    let (mut head, body) = match own {
        DirectResponse::Redirect { status, location } => {
            let mut head = ResponseHeader::build(*status, Some(6))?;
            head.insert_header(header::LOCATION, location.as_str())?;
            (head, "")
        }
        DirectResponse::Respond(respond) => {
            let mut head = ResponseHeader::build(respond.status, Some(6))?;
            if !respond.body.is_empty() {
                head.insert_header(header::CONTENT_TYPE, respond.content_type.clone())?;
            }
            (head, respond.body.as_str())
        }
    };
    if !is_bodiless(head.status) {
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
    if let Some(id) = exchange.request_id() {
        head.insert_header("X-Request-Id", id.clone())?;
    }
    change::response(&mut head, exchange)?;
    write(session, head, Bytes::copy_from_slice(body.as_bytes())).await
}

fn answer(
    session: &Session,
    request_id: Option<&HeaderValue>,
    refusal: Refusal,
) -> Result<(ResponseHeader, Option<Bytes>)> {
    let request = session.req_header();
    if is_grpc(&request.headers) {
        return grpc::refusal(request, request_id, refusal).map(|head| (head, None));
    }
    plain(request, request_id, refusal).map(|(head, body)| (head, Some(body)))
}

/// A response in the form that the client prefers.
pub(super) fn plain(
    request: &RequestHeader,
    request_id: Option<&HeaderValue>,
    refusal: Refusal,
) -> Result<(ResponseHeader, Bytes)> {
    let text = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let (content_type, body) = match preferred(text(header::ACCEPT)) {
        Form::Text => ("text/plain; charset=utf-8", text_body(refusal)),
        Form::Json => ("application/json", json(refusal)),
    };
    let mut head = ResponseHeader::build(refusal.status(), Some(8))?;
    head.insert_header(header::CONTENT_TYPE, content_type)?;
    head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    if let Some(seconds) = refusal.retry_after() {
        head.insert_header("Retry-After", seconds.to_string())?;
    }
    if refusal == Refusal::MethodNotAllowed {
        head.insert_header("Allow", ALLOW)?;
    }
    if let Some(request_id) = request_id {
        head.insert_header("X-Request-Id", request_id.clone())?;
    }
    Ok((head, Bytes::from(body)))
}

/// Every text and code is ours and has nothing to escape.
fn json(refusal: Refusal) -> String {
    let (status, code, text) = (refusal.status(), refusal.code(), refusal.text());
    format!("{{\"status\":{status},\"error\":\"{code}\",\"message\":\"{text}\"}}\n")
}

/// The error that makes Pingora stop and come back to us for the answer.
pub(super) fn stop(refusal: Refusal) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(refusal.status()), refusal.code())
}

/// A response where there is no session that could send one.
pub(super) struct Unasked {
    text: String,
    body: usize,
}

impl Unasked {
    /// All of it, as HTTP/1.
    pub(super) const fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// How many bytes of the body are among the first `written` of it.
    pub(super) const fn body_bytes(&self, written: usize) -> usize {
        written.saturating_sub(self.text.len() - self.body)
    }
}

/// The body of a response of our own, where only text can be sent.
pub(super) fn text_body(refusal: Refusal) -> String {
    format!("{}\n", refusal.text())
}

/// A response to a connection that has no request yet, or none that can be read; without the body if
/// it is to a HEAD request (RFC 9110 §9.3.2).
pub(super) fn unasked(refusal: Refusal, id: &str, is_head: bool) -> Unasked {
    let (status, text) = (refusal.status(), text_body(refusal));
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = reason.unwrap_or_default();
    let length = text.len();
    let body = if is_head { "" } else { &text };
    let date = get_cached_date();
    let date = date.to_str().unwrap_or_default();
    let retry_after = refusal.retry_after().map(|after| format!("Retry-After: {after}\r\n"));
    let retry_after = retry_after.unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nCache-Control: no-store\r\n{retry_after}\
         X-Request-Id: {id}\r\nConnection: close\r\n\r\n{body}"
    );
    Unasked { text, body: body.len() }
}

/// Answers a connection that is one too many, before anything is read from it.
pub(super) async fn turn_away(stream: Stream, refusal: Refusal) {
    let id = request_id::from_roll(fastrand::u128(..));
    send_and_close(stream, &unasked(refusal, id.as_str(), false)).await;
}

/// Responds to a request that a panic ended before its response began.
pub(super) async fn after_panic(stream: Stream, request: &PanickedRequest) {
    send_and_close(stream, &unasked(Refusal::Internal, &request.id, request.is_head)).await;
}

async fn send_and_close(mut stream: Stream, answer: &Unasked) {
    let sent = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await
    };
    match tokio::time::timeout(LINGER, sent).await {
        Ok(Ok(())) => linger(stream).await,
        Ok(Err(error)) => log::debug!("response not sent: error=\"{error}\""),
        Err(elapsed) => log::debug!("response not sent: error=\"{elapsed}\""),
    }
}

/// Says that nothing more is coming, and reads what still comes.
pub(super) async fn linger(mut stream: Stream) {
    let lingering = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, lingering).await {
        log::debug!("client left: {error}");
    }
}

/// Ends an exchange that has failed for good: with an answer, if one can still be given.
pub(super) async fn fail(
    session: &mut Session,
    error: &Error,
    exchange: &mut Exchange,
) -> FailToProxy {
    let begun = progress::has_begun(session) || exchange.tunnel_since().is_some();
    let now = Clock::process().now();
    let judged = progress::judge(error, session, (exchange, now));
    let violation = super::line(session).and_then(Line::violation);
    if let Some(violation) = violation {
        exchange.set_detail(violation.code());
    }
    let refusal = exchange.refusal().or_else(|| violation.map(Refusal::from));
    let refusal = refusal.or(judged.refusal);
    let mut error_code = 0;
    if let (false, Some(refusal)) = (begun, refusal) {
        exchange.refuse(refusal);
        if let Some(line) = connection::line(session).cloned() {
            line.answers(now);
            session.set_write_timeout(Some(line.patience()));
        }
        error_code = refusal.status();
        session.set_keepalive(None);
        if let Err(error) = refuse(session, exchange, refusal).await {
            log::debug!("could not answer: {error}");
        }
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}
