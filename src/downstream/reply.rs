//! The headers and bodies of the responses that Weir sends itself.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::Result;

use crate::exchange::refusal::Refusal;
use crate::http::accept::{Form, preferred};

/// The supported methods, for a 405 (RFC 9110 §15.5.6).
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The response to a refused request, as text or as JSON, whichever its `Accept` prefers.
pub(crate) fn build_refusal(
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

/// All texts and codes are Weir's own and need no escaping.
fn json(refusal: Refusal) -> String {
    let (status, code, text) = (refusal.status(), refusal.code(), refusal.text());
    format!("{{\"status\":{status},\"error\":\"{code}\",\"message\":\"{text}\"}}\n")
}

/// A response for a client without a session.
pub(crate) struct RawReply {
    text: String,
    body: usize,
}

impl RawReply {
    /// The whole response, as HTTP/1.
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// How many bytes of the body are in the first `written` bytes.
    pub(crate) const fn body_bytes(&self, written: usize) -> usize {
        written.saturating_sub(self.text.len() - self.body)
    }
}

/// The body of a response, as text.
pub(crate) fn text_body(refusal: Refusal) -> String {
    format!("{}\n", refusal.text())
}

/// A response to a connection without a readable request. It has no body if the request is a HEAD
/// request (RFC 9110 §9.3.2).
pub(crate) fn raw_http1_reply(refusal: Refusal, id: &str, is_head: bool) -> RawReply {
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
    RawReply { text, body: body.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_after_the_headers_count_as_body() {
        let reply = raw_http1_reply(Refusal::BadRequest, "1", false);
        let (all, body) = (reply.as_bytes().len(), text_body(Refusal::BadRequest).len());
        assert_eq!(reply.body_bytes(all), body);
        assert_eq!(reply.body_bytes(all - body), 0);
        assert_eq!(reply.body_bytes(all - body + 3), 3);
        assert_eq!(reply.body_bytes(5), 0);
    }

    #[test]
    fn the_response_to_head_has_the_length_of_the_body_and_no_body() {
        let [head, get] = [true, false].map(|is_head| {
            let reply = raw_http1_reply(Refusal::Internal, "1", is_head);
            String::from_utf8(reply.as_bytes().to_vec()).unwrap()
        });
        let length = format!("\r\nContent-Length: {}\r\n", text_body(Refusal::Internal).len());
        assert!(head.contains(&length) && get.contains(&length), "{head}");
        assert!(head.ends_with("\r\n\r\n") && !get.ends_with("\r\n\r\n"), "{get}");
    }
}
