//! An HTTP/2 stream of a client, on the API of `h2`.
//!
//! Pingora's own HTTP/2 session drops interim responses (1xx), so a client that expects
//! `100-continue` would wait for a 100 that never comes. The part of it that sends is private. So
//! streams are accepted here, with the same checks.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Response, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::authority::{
    RawTargetAuthority, raw_target_authority, validate_request_authority,
};
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::{Digest, Stream};
use pingora_error::{Error, ErrorType, OrErr as _, Result};

use crate::http::scheme::Scheme;
use crate::http::target::Absolute;

/// How much of a request body is kept for another attempt, in bytes; as much as Pingora keeps over
/// HTTP/1.
const KEPT: usize = 64 * 1024;

/// Headers that belong to an HTTP/1.1 connection (RFC 9113 §8.2.2).
const OF_HTTP1: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request, and the means to respond to it.
pub(crate) struct Http2Stream {
    request: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    writer: Option<SendStream<Bytes>>,
    response: Option<Box<ResponseHeader>>,
    /// Bytes read of the request body.
    read: usize,
    kept: Option<FixedBuffer>,
    digest: Arc<Digest>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// The next event of a connection.
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and move on at once")]
pub(crate) enum Accepted {
    /// A request.
    Stream(Http2Stream),
    /// A request that was malformed and has been rejected.
    Rejected,
}

impl Http2Stream {
    /// Waits for the next request; `None` once the connection accepts no more. This drives the
    /// connection.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) async fn accept(
        connection: &mut Connection<Stream, Bytes>,
        digest: Arc<Digest>,
    ) -> Result<Option<Accepted>> {
        let next = connection.accept().await.transpose();
        let next = next.or_err(ErrorType::H2Error, "while accepting requests of a client")?;
        let Some((request, mut respond)) = next else { return Ok(None) };
        let (parts, body) = request.into_parts();
        let mut request = RequestHeader::from(parts);
        unify_host(&mut request);
        if has_delimiter(request.raw_path()) || !has_clear_length(&request.headers) {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return Ok(Some(Accepted::Rejected));
        }
        if !has_clear_authority(&request) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            if let Err(error) = respond.send_response(response, true) {
                log::debug!("400 not sent: error=\"{error}\"");
            }
            return Ok(Some(Accepted::Rejected));
        }
        Ok(Some(Accepted::Stream(Self {
            request,
            body,
            respond,
            writer: None,
            response: None,
            read: 0,
            kept: None,
            digest,
            write_timeout: None,
            drain_timeout: None,
        })))
    }

    pub(crate) const fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    pub(crate) const fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    /// Reads a piece of the body; `None` at its end.
    pub(crate) async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let piece = self.body.data().await.transpose();
        let piece = piece.or_err(ErrorType::ReadError, "while reading the body of a client")?;
        if let Some(piece) = &piece {
            self.read += piece.len();
            if let Some(kept) = &mut self.kept {
                kept.write_to_buffer(piece);
            }
            let _of_a_closed_stream = self.body.flow_control().release_capacity(piece.len());
        }
        Ok(piece)
    }

    /// Reads and drops the rest of the body.
    pub(crate) async fn drain_request_body(&mut self) -> Result<()> {
        let timeout = self.drain_timeout.unwrap_or(Duration::MAX);
        let draining = async {
            while !self.is_body_done() && self.read_body_bytes().await?.is_some() {}
            Ok(())
        };
        match tokio::time::timeout(timeout, draining).await {
            Ok(drained) => drained,
            Err(_) => Error::e_explain(ErrorType::ReadTimedout, "while dropping a request's body"),
        }
    }

    /// Waits until the client resets the stream, before there is a response.
    pub(crate) async fn idle(&mut self) -> Result<Reason> {
        let reset = poll_fn(|context| self.respond.poll_reset(context)).await;
        reset.or_err(ErrorType::H2Error, "while waiting for a reset of the client")
    }

    /// Sends the headers of an interim response, or those of the response.
    pub(crate) fn write_response_header(
        &mut self,
        mut head: Box<ResponseHeader>,
        end: bool,
    ) -> Result<()> {
        if self.response.is_some() {
            log::debug!("a response has been sent already");
            return Ok(());
        }
        for name in &OF_HTTP1 {
            head.remove_header(name);
        }
        if head.status.is_informational() {
            let interim = Response::from_parts(head.as_owned_parts(), ());
            let sent = self.respond.send_informational(interim);
            return sent.or_err(ErrorType::WriteError, "while sending an interim response");
        }
        head.insert_header(header::DATE, get_cached_date())?;
        let response = Response::from_parts(head.as_owned_parts(), ());
        let writer = self.respond.send_response(response, end);
        self.writer = Some(writer.or_err(ErrorType::WriteError, "while sending headers")?);
        self.response = Some(head);
        Ok(())
    }

    /// Takes the sender of the body, once the response headers are sent.
    pub(crate) fn take_response_body_writer(&mut self) -> Option<SendStream<Bytes>> {
        self.writer.take()
    }

    /// The response headers, if they were sent.
    pub(crate) fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_deref()
    }

    /// Resets the stream.
    pub(crate) fn shutdown(&mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }

    pub(crate) fn is_body_done(&self) -> bool {
        self.is_body_empty() || self.body.is_end_stream()
    }

    pub(crate) fn is_body_empty(&self) -> bool {
        let length = self.request.headers.get(header::CONTENT_LENGTH);
        let says_so = length.is_some_and(|length| length.as_bytes() == b"0");
        self.read == 0 && (says_so || self.body.is_end_stream())
    }

    pub(crate) const fn body_bytes_read(&self) -> usize {
        self.read
    }

    pub(crate) fn enable_retry_buffering(&mut self) {
        self.kept.get_or_insert_with(|| FixedBuffer::new(KEPT));
    }

    pub(crate) fn retry_buffer_truncated(&self) -> bool {
        self.kept.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    pub(crate) fn get_retry_buffer(&self) -> Option<Bytes> {
        let kept = self.kept.as_ref().filter(|kept| !kept.is_truncated());
        kept.and_then(FixedBuffer::get_buffer)
    }

    pub(crate) const fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    pub(crate) const fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    pub(crate) const fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    pub(crate) const fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }
}

/// Whether a target contains a byte that would end it, or its line, in HTTP/1.
fn has_delimiter(target: &[u8]) -> bool {
    target.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r' | b' '))
}

/// Whether all `Content-Length` agree and there is no `Transfer-Encoding` (RFC 9110 §8.6).
fn has_clear_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|digits| parse_length(digits.trim_ascii()));
    let first = lengths.next();
    !headers.contains_key(header::TRANSFER_ENCODING)
        && first.is_none_or(|first| first.is_some() && lengths.all(|length| length == first))
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| str::from_utf8(digits).ok()?.parse().ok())?
}

/// Makes a `Host` equal to the authority if both mean the same (RFC 9113 §8.3.1). Pingora compares
/// them byte by byte.
fn unify_host(request: &mut RequestHeader) {
    let Some(authority) = request.uri.authority() else { return };
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next())
    else {
        return;
    };
    let scheme = request.uri.scheme_str().and_then(Scheme::named).unwrap_or(Scheme::Http);
    let target = Absolute { scheme, authority: authority.as_str(), rest: "" };
    if host == target.authority || !target.has_same_authority(host) {
        return;
    }
    let same = target.authority.to_owned();
    if let Err(error) = request.insert_header(header::HOST, same) {
        log::debug!("invalid authority: error=\"{error}\""); // it stays, and the request is rejected
    }
}

/// Whether the request names its host without a contradiction (RFC 9113 §8.3.1).
fn has_clear_authority(request: &RequestHeader) -> bool {
    let is_named = request.uri.authority().is_some() || request.headers.contains_key(header::HOST);
    let is_origin_form = request.method == Method::CONNECT
        || matches!(raw_target_authority(request.raw_path()), RawTargetAuthority::None);
    is_named && is_origin_form && validate_request_authority(request).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_equivalent_to_the_authority_becomes_equal_to_it() {
        let unified = |uri: &str, hosts: &[&str]| {
            let request = http::Request::get(uri).body(()).unwrap();
            let mut request = RequestHeader::from(request.into_parts().0);
            for host in hosts {
                request.append_header("host", *host).unwrap();
            }
            unify_host(&mut request);
            let hosts = request.headers.get_all(header::HOST).iter();
            hosts.map(|host| host.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(unified("http://a.test/", &["A.Test.:80"]), ["a.test"]);
        assert_eq!(unified("https://a.test:443/", &["a.test"]), ["a.test:443"]);
        assert_eq!(unified("https://a.test/", &["a.test:80"]), ["a.test:80"], "another port");
        assert_eq!(unified("http://a.test/", &["b.test"]), ["b.test"]);
        assert_eq!(unified("http://a.test/", &["A.test", "A.test"]), ["A.test", "A.test"]);
        assert_eq!(unified("/", &["A.test"]), ["A.test"], "there is no authority");
    }

    fn lengths(lines: &[&str]) -> bool {
        let line = |line: &&str| (header::CONTENT_LENGTH, line.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        has_clear_length(&headers)
    }

    #[test]
    fn several_equal_lengths_are_unambiguous() {
        for clear in [&[][..], &["0"], &["5"], &["5", "5"], &["5, 5"]] {
            assert!(lengths(clear), "{clear:?}");
        }
        for unclear in [&[""][..], &["+5"], &["5", "6"], &["5,"], &["99999999999999999999"]] {
            assert!(!lengths(unclear), "{unclear:?}");
        }
    }

    #[test]
    fn a_transfer_encoding_is_not_a_length() {
        let coding = (header::TRANSFER_ENCODING, "chunked".parse().unwrap());
        assert!(!has_clear_length(&HeaderMap::from_iter([coding])));
    }

    #[test]
    fn a_target_contains_no_byte_that_ends_a_request_line() {
        assert!(!has_delimiter(b"/a?b=c"));
        assert!(has_delimiter(b"/a b") && has_delimiter(b"/\n") && has_delimiter(b"/\0"));
    }
}
