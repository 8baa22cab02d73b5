//! An HTTP/2 stream of a client, as a session of Pingora.
//!
//! `stream.rs` reads and writes headers. Bodies are passed on here piece by piece, so that the
//! stream's state knows when Weir is waiting for the client, in either direction. For HTTP/1,
//! `Http1Io` does the same.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::v1::client::http_req_header_to_wire;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::{Error, ErrorType, OrErr as _, Result};

use crate::clock::Clock;
use crate::downstream::connection_state::{ConnectionState, Direction};
use crate::downstream::http2::read::{read_with_state, transferred};
use crate::downstream::http2::stream::Http2Stream;
use crate::downstream::http2::write::{poll_capacity, too_slow};
use crate::downstream::min_rate::MinRateGuard;
use crate::downstream::reply;
use crate::exchange::refusal::Refusal;
use crate::http::grpc;
use crate::policy::transfer_rate::MinTransferRate;

/// Messages beside HTTP, which Pingora's trait allows for and Weir never has.
type Messages = Box<dyn tokio_stream::Stream<Item = Result<Bytes>> + Unpin + Send + Sync>;

/// An HTTP/2 stream of a client.
pub(crate) struct Http2Session {
    inner: Http2Stream,
    state: Arc<ConnectionState>,
    /// `None` if there is no minimum rate.
    min_rate: Option<MinRateGuard>,
    /// Sends the response body, once the headers are sent.
    body: Option<SendStream<Bytes>>,
    sent: usize,
    ended: bool,
    /// The request body has been read to its end. `h2` does not say so if trailers follow.
    is_read: bool,
}

impl Http2Session {
    pub(crate) fn new(
        inner: Http2Stream,
        state: Arc<ConnectionState>,
        clock: Clock,
        rate: Option<MinTransferRate>,
    ) -> Self {
        // Either side of a gRPC call may be silent for as long as it likes.
        let is_call = grpc::is_grpc(&inner.req_header().headers);
        let rate = rate.filter(|_| !is_call);
        let min_rate = rate.map(|rate| MinRateGuard::new(rate, clock));
        Self { inner, state, min_rate, body: None, sent: 0, ended: false, is_read: false }
    }

    /// Sends all of `data`, as fast as the client reads.
    async fn send(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(()); // a response without a body ended with its headers
        }
        while !data.is_empty() {
            let capacity = self.capacity(data.len()).await?;
            let piece = data.split_to(capacity.min(data.len()));
            self.sent += piece.len();
            self.send_piece(piece, end && data.is_empty())?;
        }
        if end { self.end() } else { Ok(()) }
    }

    fn send_piece(&mut self, piece: Bytes, end: bool) -> Result<()> {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else {
            return Error::e_explain(ErrorType::H2Error, "a body before the headers");
        };
        self.ended = end;
        self.state.response.body(piece.len());
        body.send_data(piece, end).or_err(ErrorType::WriteError, "while sending a response")
    }

    /// Waits for capacity to send: at least one byte, at most `wanted`.
    async fn capacity(&mut self, wanted: usize) -> Result<usize> {
        let timeout = self.inner.get_write_timeout();
        let Self { body, state, min_rate, .. } = self;
        let Some(body) = body else {
            return Error::e_explain(ErrorType::H2Error, "a body before the headers");
        };
        body.reserve_capacity(wanted);
        let capacity = poll_fn(|context| {
            if state.must_fail_writes() {
                return Poll::Ready(too_slow());
            }
            let polled = poll_capacity(body, context);
            state.response.set_unread(polled.is_pending());
            if polled.is_pending() {
                // Nothing else sends request data to the backend meanwhile.
                let _left = state.poll_body_capacity(context);
            }
            state.set_waiting_for_reader(polled.is_pending());
            if let Some(min_rate) = min_rate {
                min_rate.on_transfer(
                    state,
                    Direction::Write,
                    transferred(&polled, |capacity| *capacity),
                );
            }
            polled
        });
        let capacity = match timeout {
            Some(timeout) => match tokio::time::timeout(timeout, capacity).await {
                Ok(capacity) => capacity,
                Err(_elapsed) => too_slow(),
            },
            None => capacity.await,
        };
        capacity.inspect_err(|error| {
            if *error.etype() == ErrorType::WriteTimedout {
                body.send_reset(Reason::CANCEL); // otherwise up to 32 KiB stay buffered for the client
            }
        })
    }

    /// Ends the response body.
    fn end(&mut self) -> Result<()> {
        match &self.body {
            Some(_) if !self.ended => self.send_piece(Bytes::new(), true),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        let status = head.status;
        self.inner.write_response_header(head, end)?;
        if !status.is_informational() {
            self.state.response.headers(status.as_u16());
        }
        if let Some(body) = self.inner.take_response_body_writer() {
            self.body = Some(body);
            self.ended = end;
        }
        Ok(())
    }

    /// Sends a 500.
    fn fail(&mut self) -> Result<()> {
        let request = self.inner.req_header();
        let is_head = request.method == http::Method::HEAD;
        let id = self.state.panicked.get();
        let id = id.and_then(|request| HeaderValue::from_str(&request.id).ok());
        let (head, body) = reply::build_refusal(request, id.as_ref(), Refusal::Internal)?;
        self.begin(Box::new(head), is_head)?;
        if is_head { Ok(()) } else { self.send_piece(body, true) }
    }

    fn finish_with(&mut self, trailers: HeaderMap) -> Result<()> {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else { return Ok(()) };
        self.ended = true;
        body.send_trailers(trailers).or_err(ErrorType::WriteError, "while sending trailers")
    }

    /// Waits until more of the request body may be read.
    async fn body_capacity(&mut self) -> Result<()> {
        let state = Arc::clone(&self.state);
        let capacity = poll_fn(|context| state.poll_body_capacity(context));
        tokio::select! {
            biased;
            () = capacity => Ok(()),
            reset = self.wait_reset() => reset.map(drop),
        }
    }

    /// Waits until the client resets the stream.
    async fn wait_reset(&mut self) -> Result<Option<Bytes>> {
        let Self { inner, state, body, .. } = self;
        let reset = async {
            match body {
                Some(body) => poll_fn(|context| body.poll_reset(context))
                    .await
                    .or_err(ErrorType::H2Error, "while waiting for a reset of the client")?,
                None => inner.idle().await?,
            };
            Error::e_explain(ErrorType::H2Error, "the client has reset the stream")
        };
        read_with_state(reset, state, false, None).await
    }
}

impl Drop for Http2Session {
    /// After a panic, sends a response if none has started.
    fn drop(&mut self) {
        self.state.set_waiting_for_reader(false);
        if std::thread::panicking()
            && !self.state.response.has_started()
            && let Err(error) = self.fail()
        {
            log::debug!("response not sent: error=\"{error}\"");
        }
    }
}

#[async_trait]
impl Session for Http2Session {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.body_capacity().await?;
        let reading = self.inner.read_body_bytes();
        let read = read_with_state(reading, &self.state, true, self.min_rate.as_mut()).await?;
        self.is_read |= read.is_none();
        Ok(read)
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_done() {
            return self.wait_reset().await;
        }
        self.read_body_bytes().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.begin(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.begin(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send(data, end).await.map_err(|error| error.into_down())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.finish_with(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut is_whole = false;
        for task in tasks {
            is_whole |= match task {
                HttpTask::Header(head, end) => {
                    self.begin(head, end).map_err(|error| error.into_down())?;
                    end
                }
                HttpTask::Body(data, end) => {
                    self.write_body(data.unwrap_or_default(), end).await?;
                    end
                }
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(
                        ErrorType::InternalError,
                        "an upgrade of an HTTP/2 stream",
                    );
                }
                HttpTask::Trailer(trailers) => {
                    if let Some(trailers) = trailers {
                        self.finish_with(*trailers).map_err(|error| error.into_down())?;
                    }
                    true
                }
                HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if is_whole {
            self.end().map_err(|error| error.into_down())?;
        }
        Ok(is_whole)
    }

    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        let request = self.inner.req_header();
        format!("{} {}", request.method, request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        if !self.ended {
            self.inner.shutdown();
        }
    }

    fn is_body_done(&mut self) -> bool {
        // Pingora reads without a pause until this is true.
        self.is_read || self.inner.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        Some(self.inner.digest())
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.digest().socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.digest().socket_digest.as_ref()?.local_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http_req_header_to_wire(self.inner.req_header()).map(BytesMut::freeze).unwrap_or_default()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        Some(Box::new(tokio_stream::empty())) // there are no messages beside HTTP
    }

    fn restore_custom_message_reader(&mut self, _: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        // With an HTTP/1 backend, Pingora needs none.
        self.state.request_body().map(|_| -> Box<dyn CustomMessageWrite> { Box::new(()) })
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
