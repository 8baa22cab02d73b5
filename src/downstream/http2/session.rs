//! A stream of HTTP/2 with a client, as Pingora's session.
//!
//! All that is about heads is `h2_stream.rs`. Bodies are passed here piece by piece, so that the
//! stream's line knows when the client is waited for, in either direction, as it does where `GuardedStream` lies below HTTP/1.

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
use crate::downstream::connection_state::{CloseReason, ConnectionState, Direction};
use crate::downstream::http2::read::{read_with_state, transferred};
use crate::downstream::http2::stream::Http2Stream;
use crate::downstream::min_rate::MinRateGuard;
use crate::downstream::reply;
use crate::exchange::refusal::Refusal;
use crate::http::grpc;
use crate::policy::transfer_rate::MinTransferRate;

/// What Pingora's trait asks for and nobody has: messages beside HTTP.
type Messages = Box<dyn tokio_stream::Stream<Item = Result<Bytes>> + Unpin + Send + Sync>;

/// A stream of a client's, watched.
pub(crate) struct Http2Session {
    inner: Http2Stream,
    state: Arc<ConnectionState>,
    /// `None` if the client may be as slow as it likes.
    min_rate: Option<MinRateGuard>,
    /// Of the answer's body, once its head was sent.
    body: Option<SendStream<Bytes>>,
    sent: usize,
    ended: bool,
    /// The client has said all of its body. Where trailers follow, the library does not say so.
    is_read: bool,
}

impl Http2Session {
    pub(crate) fn new(
        inner: Http2Stream,
        state: Arc<ConnectionState>,
        clock: Clock,
        rate: Option<MinTransferRate>,
    ) -> Self {
        // A call of gRPC is a conversation, in which either side may be silent.
        let is_call = grpc::is_grpc(&inner.req_header().headers);
        let rate = rate.filter(|_| !is_call);
        let min_rate = rate.map(|rate| MinRateGuard::new(rate, clock));
        Self { inner, state, min_rate, body: None, sent: 0, ended: false, is_read: false }
    }

    /// Sends all of `data`, as fast as the client takes it.
    async fn send(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(()); // an answer without a body has ended with its head
        }
        while !data.is_empty() {
            let room = self.room(data.len()).await?;
            let piece = data.split_to(room.min(data.len()));
            self.sent += piece.len();
            self.send_piece(piece, end && data.is_empty())?;
        }
        if end { self.end() } else { Ok(()) }
    }

    fn send_piece(&mut self, piece: Bytes, end: bool) -> Result<()> {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else {
            return Error::e_explain(ErrorType::H2Error, "a body without a head");
        };
        self.ended = end;
        self.state.response.body(piece.len());
        body.send_data(piece, end).or_err(ErrorType::WriteError, "while sending an answer")
    }

    /// So many bytes does the client take now: at least one, at most `wanted`.
    async fn room(&mut self, wanted: usize) -> Result<usize> {
        let patience = self.inner.get_write_timeout();
        let Self { body, state, min_rate, .. } = self;
        let Some(body) = body else {
            return Error::e_explain(ErrorType::H2Error, "a body without a head");
        };
        body.reserve_capacity(wanted);
        let room = poll_fn(|context| {
            if matches!(state.close_reason(), Some(CloseReason::WriteTimeout | CloseReason::Forced))
            {
                return Poll::Ready(Error::e_explain(ErrorType::WriteTimedout, "it is too slow"));
            }
            // What is there already is not told again.
            let polled = match body.capacity() {
                0 => body.poll_capacity(context),
                room => Poll::Ready(Some(Ok(room))),
            };
            let polled = polled.map(|room| match room {
                Some(room) => room.or_err(ErrorType::WriteError, "waiting for a client's window"),
                None => Error::e_explain(ErrorType::H2Error, "the client has ended the stream"),
            });
            state.response.set_unread(polled.is_pending());
            if polled.is_pending() {
                // Nobody reads more of the request meanwhile. What is on its way goes on.
                let _left = state.poll_body_capacity(context);
            }
            state.set_waiting_for_reader(polled.is_pending());
            if let Some(min_rate) = min_rate {
                min_rate.on_transfer(state, Direction::Write, transferred(&polled, |room| *room));
            }
            polled
        });
        let room = match patience {
            Some(patience) => match tokio::time::timeout(patience, room).await {
                Ok(room) => room,
                Err(_late) => Error::e_explain(ErrorType::WriteTimedout, "it takes no answer"),
            },
            None => room.await,
        };
        room.inspect_err(|error| {
            if *error.etype() == ErrorType::WriteTimedout {
                body.send_reset(Reason::CANCEL); // or what waits would wait on, up to 32 KiB
            }
        })
    }

    /// Nothing more comes of the answer.
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

    /// Responds with 500.
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

    /// Waits until more may be read of the request's body.
    async fn hold_back(&mut self) -> Result<()> {
        let state = Arc::clone(&self.state);
        let room = poll_fn(|context| state.poll_body_capacity(context));
        tokio::select! {
            biased;
            () = room => Ok(()),
            given_up = self.given_up() => given_up.map(drop),
        }
    }

    /// Waits until the client gives the stream up.
    async fn given_up(&mut self) -> Result<Option<Bytes>> {
        let Self { inner, state, body, .. } = self;
        let given_up = async {
            match body {
                Some(body) => poll_fn(|context| body.poll_reset(context))
                    .await
                    .or_err(ErrorType::H2Error, "while waiting for the client's end")?,
                None => inner.idle().await?,
            };
            Error::e_explain(ErrorType::H2Error, "the client has given the stream up")
        };
        read_with_state(given_up, state, false, None).await
    }
}

impl Drop for Http2Session {
    /// A panic ends the request: where no response has begun, the client gets one.
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
        self.hold_back().await?;
        let reading = self.inner.read_body_bytes();
        let read = read_with_state(reading, &self.state, true, self.min_rate.as_mut()).await?;
        self.is_read |= read.is_none();
        Ok(read)
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_done() {
            return self.given_up().await;
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
                    return Error::e_explain(ErrorType::InternalError, "a tunnel in a stream");
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
        // Pingora asks for more until this is so, without a pause.
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
        Some(Box::new(tokio_stream::empty())) // there is nothing beside HTTP
    }

    fn restore_custom_message_reader(&mut self, _: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        // Where the backend speaks HTTP/1, Pingora does without.
        self.state.request_body().map(|_| -> Box<dyn CustomMessageWrite> { Box::new(()) })
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
