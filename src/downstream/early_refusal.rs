//! Responses that no session of Pingora sends: before a request was read, and after a panic.

use super::reply;
use crate::exchange::refusal::Refusal;
use crate::http::request_id::{self, RequestId};

/// A refusal sent before a request could be read.
#[derive(Debug)]
pub struct EarlyRefusal {
    pub(crate) refusal: Refusal,
    /// The request id in the response.
    pub(crate) id: RequestId,
    /// The request line as far as it was read, for the log. It may contain anything.
    pub(crate) request_line: String,
    /// Bytes of the response body that were sent.
    pub(crate) bytes_out: usize,
}

impl EarlyRefusal {
    /// A refusal with a new id, of which nothing has been sent.
    pub(crate) fn new(refusal: Refusal, request_line: String) -> Self {
        let id = request_id::from_roll(fastrand::u128(..));
        Self { refusal, id, request_line, bytes_out: 0 }
    }

    /// Whether the request line, as far as it was read, is of a HEAD request.
    pub(crate) fn is_head(&self) -> bool {
        self.request_line.starts_with("HEAD ")
    }
}

/// A request that a panic ended before its response started.
#[derive(Debug)]
pub(crate) struct PanickedRequest {
    /// The `X-Request-Id` in its line of the access log.
    pub(crate) id: String,
    /// Whether the response must not have a body.
    pub(crate) is_head: bool,
}

impl PanickedRequest {
    /// Bytes of the body of its response.
    pub(crate) fn body_bytes(&self) -> u64 {
        let body = reply::text_body(Refusal::Internal).len();
        if self.is_head { 0 } else { u64::try_from(body).unwrap_or(u64::MAX) }
    }
}

/// How much of a request line is kept for the log, in bytes.
const LINE_KEPT: usize = 512;

/// The first line in these bytes, as text.
pub(crate) fn text_of_line(bytes: &[u8]) -> String {
    let end = bytes.iter().take(LINE_KEPT).position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = bytes.get(..end.unwrap_or_else(|| bytes.len().min(LINE_KEPT)));
    String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_kept_for_the_log_up_to_a_limit() {
        assert_eq!(text_of_line(b"GET / HTTP/1.1\r\nHost: a"), "GET / HTTP/1.1");
        assert_eq!(text_of_line(b"GET /\nHost: a"), "GET /");
        assert_eq!(text_of_line(b"\r\nGET /"), "");
        assert_eq!(text_of_line(b"GET /half"), "GET /half");
        assert_eq!(text_of_line(&[b'a'; LINE_KEPT + 1]), "a".repeat(LINE_KEPT));
        assert_eq!(text_of_line(b"\x16\x03\xff"), "\u{16}\u{3}\u{fffd}");
    }

    #[test]
    fn a_head_request_is_recognised_by_its_whole_method() {
        let is_head =
            |line: &str| EarlyRefusal::new(Refusal::BadRequest, line.to_owned()).is_head();
        assert!(is_head("HEAD / HTTP/1.1"));
        assert!(!is_head("HEADER / HTTP/1.1") && !is_head("head / HTTP/1.1") && !is_head("HEAD"));
    }

    #[test]
    fn the_logged_size_of_the_response_after_a_panic_is_what_is_sent() {
        for is_head in [true, false] {
            let request = PanickedRequest { id: "1".to_owned(), is_head };
            let sent = reply::raw_http1_reply(Refusal::Internal, &request.id, is_head);
            let (_, body) =
                std::str::from_utf8(sent.as_bytes()).unwrap().split_once("\r\n\r\n").unwrap();
            assert_eq!(request.body_bytes(), u64::try_from(body.len()).unwrap());
            assert_eq!(body.is_empty(), is_head);
        }
    }
}
