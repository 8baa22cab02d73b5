//! One request over HTTP/2, as a session of Pingora's.

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

use super::upload::{Upload, Uploading};
use crate::clock::Clock;

/// Fields of a connection of HTTP/1.1, which have no place here (RFC 9113 §8.2.2).
const OF_HTTP1: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Leaves the stream, whatever becomes of the request.
struct Leaves(Arc<Upload>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A request and its answer.
pub struct Call {
    upload: Leaves,
    inner: Http2Session,
    digest: Digest,
    tls: bool,
    /// Whether the backend may be asked by HTTP/1.1 instead.
    has_choice: bool,
    wants_http1: bool,
    /// How long the backend may be silent.
    patience: Option<Duration>,
}

impl Call {
    pub(super) fn new(inner: Http2Session, tls: bool, has_choice: bool) -> Self {
        let upload = Arc::<Upload>::default();
        let of_connection = inner.digest().cloned().unwrap_or_default();
        // The digest is meant for an answer to CONNECT, so there must be one.
        let head = ResponseHeader::build(StatusCode::OK, Some(0)).ok();
        let proxy_digest = head.map(|head| {
            Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(Arc::clone(&upload)))))
        });
        let digest = Digest { proxy_digest, ..of_connection };
        let upload = Leaves(upload);
        Self { upload, inner, digest, tls, has_choice, wants_http1: false, patience: None }
    }

    /// Whether the backend is better asked by HTTP/1.1, and may be.
    pub(super) fn wants_http1(&self) -> bool {
        self.wants_http1
    }

    /// Gives the stream back.
    pub(super) fn leave(self) -> Http2Session {
        if self.inner.response_finished() {
            self.upload.0.answered(); // whoever needed no more of it may have left before
        }
        self.inner
    }

    /// Makes a head of HTTP/1.1 one of HTTP/2 (RFC 9113 §8.3.1).
    fn convert(&self, request: &mut RequestHeader) -> Result<()> {
        for name in &OF_HTTP1 {
            request.remove_header(name);
        }
        // Pingora does not show what the backend would say to it; the client has its leave from us.
        request.remove_header(&header::EXPECT);
        let host = request.remove_header(&header::HOST);
        let authority = match (&host, request.uri.authority()) {
            (Some(host), _) => Authority::try_from(host.as_bytes())
                .or_err(ErrorType::InvalidHTTPHeader, "a host that is no authority")?,
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
        request.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "a target that is no URI")?);
        Ok(())
    }

    /// An answer whose end came with its head, though it says that it has a body (RFC 9113 §8.1.1).
    /// The library does not look at that.
    fn is_cut_short(&self) -> bool {
        let Some(head) = self.inner.response_header() else { return false };
        let of_head = self.inner.request_header().is_some_and(|it| it.method == Method::HEAD);
        let has_body =
            !of_head && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = head.headers.get(header::CONTENT_LENGTH);
        has_body
            && length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
    }

    /// What an error says of the connection and of the backend.
    fn heed(&mut self, mut error: Box<Error>) -> Box<Error> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "Pingora's list of errors is open")]
        match error.etype() {
            // It may hang: nothing new begins on it.
            ErrorType::ReadTimedout if !self.upload.0.awaits_client() => {
                self.inner.conn.mark_shutdown();
            }
            ErrorType::H2Downgrade | ErrorType::InvalidH2 if self.has_choice => {
                self.wants_http1 = true;
                // The next stream would begin on it again, before it comes to HTTP/1.1.
                self.inner.conn.mark_shutdown();
            }
            ErrorType::H2Downgrade | ErrorType::InvalidH2 => error.set_retry(false),
            _ => {}
        }
        error
    }
}

/// Waits for `reading`, and sends what can be sent of the body meanwhile. A backend is silent from
/// when the last of the body has come or gone: an upload takes the time that it takes.
async fn beside<T>(
    upload: &Upload,
    patience: Option<Duration>,
    reading: impl Future<Output = Result<T>>,
) -> Result<T> {
    let clock = Clock::process();
    let patience = patience.unwrap_or(Duration::MAX);
    let mut silence = pin!(tokio::time::sleep(patience));
    let mut reading = pin!(reading);
    let mut moves = upload.moves();
    poll_fn(|context| {
        let _left = upload.poll_sent(context);
        if let Some(status) = upload.poll_given_up(context) {
            let status = ErrorType::HTTPStatus(status);
            return Poll::Ready(Error::e_explain(status, "the request is given up"));
        }
        let polled = reading.as_mut().poll(context);
        if polled.is_ready() {
            return polled;
        }
        let before = std::mem::replace(&mut moves, upload.moves());
        if before != moves {
            silence.as_mut().reset(clock.instant(clock.now() + patience).into());
        }
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Error::e_explain(ErrorType::ReadTimedout, "no answer in time"))
    })
    .await
}

/// The same, as long as the client needs what is read.
async fn beside_while_needed<T>(
    upload: &Upload,
    patience: Option<Duration>,
    reading: impl Future<Output = Result<Option<T>>>,
) -> Result<Option<T>> {
    let mut reading = pin!(beside(upload, patience, reading));
    poll_fn(|context| {
        let polled = reading.as_mut().poll(context);
        if polled.is_pending() && upload.poll_over(context) {
            return Poll::Ready(Ok(None));
        }
        polled
    })
    .await
}

#[async_trait]
impl Session for Call {
    async fn write_request_header(
        &mut self,
        mut request: Box<RequestHeader>,
        end: bool,
    ) -> Result<()> {
        self.convert(&mut request)?;
        self.inner.write_request_header(request, end)?;
        let (stream, patience) = (self.inner.take_request_body_writer(), self.inner.write_timeout);
        self.upload.0.begin(stream, end, patience);
        Ok(())
    }

    async fn write_request_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        let mut body = self.body();
        body.write_all_buf(&mut data).await?;
        if end { body.finish().await } else { Ok(()) }
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.body().finish().await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.patience = timeout; // the library's own knows nothing of the body
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        let read = beside(&self.upload.0, self.patience, self.inner.read_response_header()).await;
        read.map_err(|error| self.heed(error))?;
        if self.inner.check_response_end_or_error().unwrap_or(false) && self.is_cut_short() {
            return Error::e_explain(ErrorType::H2Error, "an answer without the body it announces");
        }
        Ok(())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        let read =
            beside_while_needed(&self.upload.0, self.patience, self.inner.read_response_body())
                .await;
        read.map_err(|error| self.heed(error))
    }

    fn response_finished(&self) -> bool {
        self.inner.response_finished()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.upload.0.leave();
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
        let read =
            beside_while_needed(&self.upload.0, self.patience, self.inner.read_trailers()).await;
        if self.inner.response_finished() {
            self.upload.0.answered();
        }
        read.map_err(|error| self.heed(error))
    }

    fn fd(&self) -> UniqueIDType {
        self.inner.fd()
    }

    async fn check_response_end_or_error(&mut self, _: bool) -> Result<bool> {
        self.inner.check_response_end_or_error()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        Some(Box::new(self.body()))
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync>> {
        Some(Box::new(tokio_stream::empty())) // there is nothing beside HTTP
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }
}

impl Call {
    fn body(&self) -> Uploading {
        let upload = Arc::clone(&self.upload.0);
        Uploading { upload, patience: self.inner.write_timeout }
    }
}
