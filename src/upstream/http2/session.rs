//! A request to an HTTP/2 backend, as a custom session of Pingora.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::http::custom::client::Session;
use pingora_core::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{Digest, UniqueIDType};
use pingora_error::{Error, ErrorType, OrErr as _, Result};
use tokio_stream::Stream;

use super::request_body::{RequestBody, RequestBodyWriter};
use crate::clock::Clock;

/// Connection-specific headers of HTTP/1.1, which HTTP/2 forbids (RFC 9113 §8.2.2).
const HTTP1_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Resets the stream when dropped, unless request and response are complete.
struct ResetOnDrop(Arc<RequestBody>);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        self.0.reset_unless_done();
    }
}

/// A request and its response.
pub struct Http2UpstreamSession {
    body: ResetOnDrop,
    inner: Http2Session,
    digest: Digest,
    tls: bool,
    /// Whether HTTP/1.1 may be used instead.
    has_choice: bool,
    wants_http1: bool,
    /// How long the backend may send nothing.
    read_timeout: Option<Duration>,
}

impl Http2UpstreamSession {
    pub(in crate::upstream) fn new(inner: Http2Session, tls: bool, has_choice: bool) -> Self {
        let body = Arc::<RequestBody>::default();
        let of_connection = inner.digest().cloned().unwrap_or_default();
        // Pingora's digest is for the response to CONNECT, so it needs one.
        let head = ResponseHeader::build(StatusCode::OK, Some(0)).ok();
        let proxy_digest = head.map(|head| {
            Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(Arc::clone(&body)))))
        });
        let digest = Digest { proxy_digest, ..of_connection };
        let body = ResetOnDrop(body);
        Self { body, inner, digest, tls, has_choice, wants_http1: false, read_timeout: None }
    }

    /// Whether HTTP/1.1 should be used for this backend from now on.
    pub(in crate::upstream) fn wants_http1(&self) -> bool {
        self.wants_http1
    }

    /// Returns the inner session, for reuse of its connection.
    pub(in crate::upstream) fn into_inner(self) -> Http2Session {
        if self.inner.response_finished() {
            self.body.0.response_received(); // the reader may have stopped before the end
        }
        self.inner
    }

    /// Converts the headers of an HTTP/1.1 request to HTTP/2 (RFC 9113 §8.3.1).
    fn convert(&self, request: &mut RequestHeader) -> Result<()> {
        for name in &HTTP1_HEADERS {
            request.remove_header(name);
        }
        // Pingora drops the 100 of the backend; Weir sends its own to the client.
        request.remove_header(&header::EXPECT);
        let host = request.remove_header(&header::HOST);
        let authority = match (&host, request.uri.authority()) {
            (Some(host), _) => Authority::try_from(host.as_bytes())
                .or_err(ErrorType::InvalidHTTPHeader, "the Host header is not a valid authority")?,
            (None, Some(authority)) => authority.clone(),
            (None, None) => {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "a request without a host");
            }
        };
        let path = request.uri.path_and_query().cloned();
        let uri = Uri::builder()
            .scheme(if self.tls { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(authority)
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build();
        request.set_uri(
            uri.or_err(ErrorType::InvalidHTTPHeader, "the request target is not a valid URI")?,
        );
        Ok(())
    }

    /// Whether the response ended with its headers although they announce a body (RFC 9113 §8.1.1). The
    /// `h2` library does not check that.
    fn lacks_body(&self) -> bool {
        let Some(head) = self.inner.response_header() else { return false };
        let is_head = self.inner.request_header().is_some_and(|it| it.method == Method::HEAD);
        let has_body =
            !is_head && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = head.headers.get(header::CONTENT_LENGTH);
        has_body
            && length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
    }

    /// Decides whether an error makes the connection, or HTTP/2 with this backend, unusable.
    fn note_connection_error(&mut self, mut error: Box<Error>) -> Box<Error> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
        match error.etype() {
            // The connection may hang: it takes no new streams.
            ErrorType::ReadTimedout if !self.body.0.waits_for_client() => {
                self.inner.conn.mark_shutdown();
            }
            ErrorType::H2Downgrade | ErrorType::InvalidH2 if self.has_choice => {
                self.wants_http1 = true;
                // Otherwise the next request would use it again instead of HTTP/1.1.
                self.inner.conn.mark_shutdown();
            }
            ErrorType::H2Downgrade | ErrorType::InvalidH2 => error.set_retry(false),
            _ => {}
        }
        error
    }
}

/// Reads, and sends the body of the request meanwhile. The timeout begins again with each piece of the
/// body that is received or sent, because an upload may take long.
async fn read_while_sending<T>(
    body: &RequestBody,
    timeout: Option<Duration>,
    reading: impl Future<Output = Result<T>>,
) -> Result<T> {
    let clock = Clock::process();
    let timeout = timeout.unwrap_or(Duration::MAX);
    let mut stalled = pin!(tokio::time::sleep(timeout));
    let mut reading = pin!(reading);
    let mut progress = body.progress();
    poll_fn(|context| {
        let _left = body.poll_sent(context);
        if let Some(status) = body.poll_aborted_with(context) {
            let status = ErrorType::HTTPStatus(status);
            return Poll::Ready(Error::e_explain(status, "the request was aborted"));
        }
        let polled = reading.as_mut().poll(context);
        if polled.is_ready() {
            return polled;
        }
        let before = std::mem::replace(&mut progress, body.progress());
        if before != progress {
            stalled.as_mut().reset(clock.instant(clock.now() + timeout).into());
        }
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Error::e_explain(ErrorType::ReadTimedout, "the response timed out"))
    })
    .await
}

/// The same, until the response has been sent to the client in full.
async fn read_while_sending_until_done<T>(
    body: &RequestBody,
    timeout: Option<Duration>,
    reading: impl Future<Output = Result<Option<T>>>,
) -> Result<Option<T>> {
    let mut reading = pin!(read_while_sending(body, timeout, reading));
    poll_fn(|context| {
        let polled = reading.as_mut().poll(context);
        if polled.is_pending() && body.poll_over(context) {
            return Poll::Ready(Ok(None));
        }
        polled
    })
    .await
}

#[async_trait]
impl Session for Http2UpstreamSession {
    async fn write_request_header(
        &mut self,
        mut request: Box<RequestHeader>,
        end: bool,
    ) -> Result<()> {
        self.convert(&mut request)?;
        self.inner.write_request_header(request, end)?;
        let (stream, timeout) = (self.inner.take_request_body_writer(), self.inner.write_timeout);
        self.body.0.headers_sent(stream, end, timeout);
        Ok(())
    }

    async fn write_request_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        let mut body = self.writer();
        body.write_all_buf(&mut data).await?;
        if end { body.finish().await } else { Ok(()) }
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.writer().finish().await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout; // Pingora's own would not consider the body
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        let read =
            read_while_sending(&self.body.0, self.read_timeout, self.inner.read_response_header())
                .await;
        read.map_err(|error| self.note_connection_error(error))?;
        if self.inner.check_response_end_or_error().unwrap_or(false) && self.lacks_body() {
            return Error::e_explain(
                ErrorType::H2Error,
                "the response ended without the body it announced",
            );
        }
        Ok(())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        let read = read_while_sending_until_done(
            &self.body.0,
            self.read_timeout,
            self.inner.read_response_body(),
        )
        .await;
        read.map_err(|error| self.note_connection_error(error))
    }

    fn response_finished(&self) -> bool {
        self.inner.response_finished()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.body.0.reset_unless_done();
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.inner.response_header()
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        let read = read_while_sending_until_done(
            &self.body.0,
            self.read_timeout,
            self.inner.read_trailers(),
        )
        .await;
        if self.inner.response_finished() {
            self.body.0.response_received();
        }
        read.map_err(|error| self.note_connection_error(error))
    }

    fn fd(&self) -> UniqueIDType {
        self.inner.fd()
    }

    async fn check_response_end_or_error(&mut self, _: bool) -> Result<bool> {
        self.inner.check_response_end_or_error()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        Some(Box::new(self.writer()))
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync>> {
        Some(Box::new(tokio_stream::empty())) // custom messages do not exist
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }
}

impl Http2UpstreamSession {
    fn writer(&self) -> RequestBodyWriter {
        let body = Arc::clone(&self.body.0);
        RequestBodyWriter { body, timeout: self.inner.write_timeout }
    }
}
