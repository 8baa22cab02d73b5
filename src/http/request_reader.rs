//! Reads requests of the admin port from bytes that arrive in any pieces.
//!
//! The scanner of client requests decides what is valid, so both ports agree. This reader adds what
//! a small server needs: it buffers the bytes of one request's headers, at most [`HEAD_MAX`], and
//! extracts the method, the path and whether the connection is reused.

use crate::http::scan::{Limits, Scanner, Violation};

/// The maximum number of buffered bytes: of a request line with its headers, and of requests sent
/// after it.
pub const HEAD_MAX: usize = 16 * 1024;

const LIMITS: Limits =
    Limits { target_bytes: 4 * 1024, header_bytes: HEAD_MAX - 5 * 1024, headers: 100 };
/// An empty buffer larger than this is freed, so an idle connection uses little memory.
const IDLE_BUFFER_MAX: usize = 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A request, as far as the admin port uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRequest {
    /// The method as sent.
    pub method: String,
    /// Without query, scheme and authority; `*` of `OPTIONS *`, the authority of `CONNECT`.
    pub path: String,
    /// Whether it is HTTP/1.0, where a connection is reused only if both sides agree.
    pub is_http_1_0: bool,
    /// Whether another request may follow on the connection: the client wants it, and there is no
    /// body, which would have to be read first.
    pub keeps_connection: bool,
}

/// Reads the requests of one connection.
#[derive(Debug, Clone)]
pub struct RequestReader {
    scanner: Scanner,
    buffer: Vec<u8>,
    /// How much of the buffer has been scanned.
    scanned: usize,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self { scanner: Scanner::new(LIMITS), buffer: Vec::new(), scanned: 0 }
    }
}

impl RequestReader {
    /// How many bytes [`push`](Self::push) accepts now.
    #[must_use]
    pub const fn room(&self) -> usize {
        HEAD_MAX.saturating_sub(self.buffer.len())
    }

    /// Whether no byte of a request has arrived.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Adds bytes that were read. Bytes beyond the [room](Self::room) are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        let fitting = bytes.get(..self.room()).unwrap_or(bytes);
        self.buffer.extend_from_slice(fitting);
    }

    /// The next request, once its headers are complete. After a request that does not [keep the
    /// connection](AdminRequest::keeps_connection), nothing more must be read.
    ///
    /// # Errors
    /// The bytes are not a valid request, or its headers are too large for the admin port.
    pub fn next_request(&mut self) -> Result<Option<AdminRequest>, Violation> {
        // The end may have begun in the previous bytes.
        let from = self.scanned.saturating_sub(HEAD_END.len() - 1);
        let tail = self.buffer.get(from..).unwrap_or_default();
        let end = find(tail, HEAD_END).map(|at| from + at + HEAD_END.len());
        let until = end.unwrap_or(self.buffer.len());
        let new = self.buffer.get(self.scanned..until).unwrap_or_default();
        self.scanner.feed(new).map_err(|broken| broken.violation)?;
        self.scanned = until;
        let Some(end) = end else {
            return if self.room() == 0 { Err(Violation::FieldBytes) } else { Ok(None) };
        };
        let has_body = !self.scanner.is_between();
        let request = self.buffer.get(..end).and_then(|head| parse(head, has_body));
        self.buffer.drain(..end);
        self.scanned = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BUFFER_MAX {
            self.buffer = Vec::new();
        }
        request.map(Some).ok_or(Violation::Target)
    }
}

/// Parses headers that the scanner has validated.
fn parse(head: &[u8], has_body: bool) -> Option<AdminRequest> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    // A header value may contain bytes that are not UTF-8.
    let head = String::from_utf8_lossy(head);
    let (line, headers) = head.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_http_1_0 = version == "HTTP/1.0";
    let has_option = |word: &str| {
        let values = headers.split("\r\n").filter_map(|header| header.split_once(':'));
        let connection = values.filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        connection
            .flat_map(|(_, value)| value.split(','))
            .any(|option| option.trim_matches([' ', '\t']).eq_ignore_ascii_case(word))
    };
    let wants = if is_http_1_0 { has_option("keep-alive") } else { true } && !has_option("close");
    Some(AdminRequest {
        method: method.to_owned(),
        path: path(target).to_owned(),
        is_http_1_0,
        keeps_connection: wants && !has_body,
    })
}

/// The path of a target in any form (RFC 9112 §3.2).
fn path(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    if target.starts_with('/') {
        return target;
    }
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<AdminRequest>, Violation> {
        let mut reader = RequestReader::default();
        reader.push(bytes);
        reader.next_request()
    }

    fn request(text: &str) -> AdminRequest {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_request_has_a_method_and_a_path_without_its_query() {
        for (target, path) in [
            ("/metrics", "/metrics"),
            ("/metrics?name[]=up", "/metrics"),
            ("http://weir.test:9090/status?pretty", "/status"),
            ("http://weir.test", "/"),
            ("http://weir.test?x=/y", "/"),
        ] {
            let request = request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", path), "{target}");
        }
        assert_eq!(request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path, "*");
    }

    #[test]
    fn the_version_and_the_client_decide_whether_a_connection_is_reused() {
        for (head, keeps) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: te, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ] {
            assert_eq!(request(head).keeps_connection, keeps, "{head}");
        }
    }

    #[test]
    fn a_request_that_arrives_byte_by_byte_is_the_same() {
        let head = b"GET /readyz HTTP/1.1\r\nHost: a\r\nX-Odd: \xff\r\n\r\n";
        let mut reader = RequestReader::default();
        for (index, byte) in head.iter().enumerate() {
            assert_eq!(reader.next_request(), Ok(None), "after {index} bytes");
            reader.push(&[*byte]);
        }
        assert_eq!(reader.next_request().unwrap().unwrap().path, "/readyz");
        assert!(reader.is_empty());
    }

    #[test]
    fn pipelined_requests_are_read_one_after_the_other() {
        let mut reader = RequestReader::default();
        reader.push(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nGET");
        assert_eq!(reader.next_request().unwrap().unwrap().path, "/a");
        assert_eq!(reader.next_request().unwrap().unwrap().path, "/b");
        assert_eq!(reader.next_request(), Ok(None));
        assert!(!reader.is_empty());
    }

    #[test]
    fn an_invalid_or_too_large_request_has_a_status() {
        let status = |bytes: &[u8]| read(bytes).unwrap_err().status();
        assert_eq!(status(b"\x16\x03\x01"), 400);
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 400, "no Host");
        assert_eq!(status(b"GET / HTTP/1.1\nHost: a\n\n"), 400);
        assert_eq!(status(b"GET / HTTP/2.0\r\n\r\n"), 505);
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000));
        assert_eq!(status(long.as_bytes()), 414);
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(16_000));
        assert_eq!(status(large.as_bytes()), 431);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(101));
        assert_eq!(status(many.as_bytes()), 431);
    }

    #[test]
    fn no_more_than_the_largest_request_is_buffered() {
        let mut reader = RequestReader::default();
        for _ in 0..100 {
            reader.push(&[b'x'; 1000]);
        }
        assert_eq!(reader.room(), 0);
        assert!(reader.next_request().is_err());
    }
}
