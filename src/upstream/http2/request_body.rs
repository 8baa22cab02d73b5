//! Sends the body of a request to an HTTP/2 backend.

use std::collections::VecDeque;
use std::future::Future as _;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use atomic_waker::AtomicWaker;
use bytes::Bytes;
use h2::{Reason, SendStream};
use parking_lot::Mutex;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::custom::BodyWrite;
use pingora_error::{Error, ErrorType, Result};
use tokio::time::Sleep;

/// While more bytes than this are waiting, nothing is read from the client.
const BUFFERED_MAX: usize = 64 * 1024;

/// The body of a request, as far as the backend has not taken it yet. Polled by one task.
#[derive(Debug, Default)]
pub struct RequestBody {
    body: Mutex<Body>,
    /// Wakes the reader of the response.
    reader: AtomicWaker,
    /// The number of pieces that were received or sent.
    progress: AtomicU64,
}

#[derive(Debug, Default)]
struct Body {
    /// `None` before the headers are sent, without a body, and once the stream was left.
    stream: Option<SendStream<Bytes>>,
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// The pieces that are waiting are the last.
    is_whole: bool,
    /// The end of the body was sent.
    is_ended: bool,
    /// Nothing more can be sent.
    is_closed: bool,
    /// The response is complete.
    has_whole_response: bool,
    /// The response has been sent to the client in full.
    is_over: bool,
    /// The request is aborted: the status of the response that the client gets from Weir.
    aborted_with: Option<u16>,
    /// How long the backend may take nothing after its response.
    timeout: Duration,
    /// The end of this timeout, for a number of bytes that are left.
    stalled: Option<(usize, Pin<Box<Sleep>>)>,
}

impl RequestBody {
    /// The body of the request on this connection, if it is an HTTP/2 connection.
    #[must_use]
    pub fn of(connection: &Digest) -> Option<&Arc<Self>> {
        connection.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Ready when more of the body may be read from the client.
    pub fn poll_capacity(&self, context: &mut Context<'_>) -> Poll<()> {
        let sent = self.poll_sent(context);
        let mut body = self.body.lock();
        if sent.is_ready() || body.bytes <= BUFFERED_MAX {
            return Poll::Ready(());
        }
        if body.has_whole_response {
            ready!(body.poll_stalled(context));
            body.close();
            return Poll::Ready(());
        }
        Poll::Pending // the reader of the response has the timeout
    }

    /// Aborts the request: the client gets a response of Weir with this status.
    pub fn abort(&self, status: u16) {
        let mut body = self.body.lock();
        body.aborted_with = Some(status);
        body.close();
        self.reader.wake();
    }

    /// The headers are sent; `is_whole` if there is no body.
    pub(super) fn headers_sent(
        &self,
        stream: Option<SendStream<Bytes>>,
        is_whole: bool,
        timeout: Option<Duration>,
    ) {
        let mut body = self.body.lock();
        body.timeout = timeout.unwrap_or(Duration::MAX);
        body.stream = stream;
        (body.is_whole, body.is_ended) = (is_whole, is_whole);
    }

    /// Sends as much as the backend takes; ready when nothing is left.
    pub(super) fn poll_sent(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut body = self.body.lock();
        let before = body.bytes;
        let sent = body.poll_sent(context);
        if body.bytes != before {
            self.progress.fetch_add(1, Relaxed);
        }
        sent
    }

    /// Whether the response has been sent to the client in full. If not, the caller is woken when it is.
    pub(super) fn poll_over(&self, context: &mut Context<'_>) -> bool {
        self.reader.register(context.waker());
        self.body.lock().is_over
    }

    /// The status of the response that the client gets from Weir, if the request is aborted. If not, the
    /// caller is woken when it is.
    pub(super) fn poll_aborted_with(&self, context: &mut Context<'_>) -> Option<u16> {
        self.reader.register(context.waker());
        self.body.lock().aborted_with
    }

    /// Whether everything received was sent, and the client must send more.
    pub(super) fn waits_for_client(&self) -> bool {
        let body = self.body.lock();
        !body.is_whole && body.bytes == 0
    }

    /// Changes with each piece that is received or sent.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    /// The response is complete.
    pub(super) fn response_received(&self) {
        self.body.lock().has_whole_response = true;
    }

    /// Leaves the stream, with a reset if request or response is incomplete.
    pub(super) fn reset_unless_done(&self) {
        let mut body = self.body.lock();
        let is_done = body.is_ended && body.has_whole_response;
        if let Some(mut stream) = body.stream.take().filter(|_| !is_done) {
            stream.send_reset(Reason::CANCEL);
        }
        body.close();
    }
}

impl Body {
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(piece) = self.waiting.front_mut() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(()) };
            stream.reserve_capacity(piece.len());
            // `poll_capacity` does not report capacity that is there already.
            let capacity = match stream.capacity() {
                0 => ready!(stream.poll_capacity(context)),
                capacity => Some(Ok(capacity)),
            };
            let Some(Ok(capacity)) = capacity else {
                self.close();
                return Poll::Ready(());
            };
            let taken = piece.split_to(capacity.min(piece.len()));
            self.bytes -= taken.len();
            if piece.is_empty() {
                self.waiting.pop_front();
            }
            self.is_ended = self.is_whole && self.waiting.is_empty();
            if stream.send_data(taken, self.is_ended).is_err() {
                self.close();
            }
        }
        if let Some(stream) = &mut self.stream
            && self.is_whole
            && !mem::replace(&mut self.is_ended, true)
            && stream.send_data(Bytes::new(), true).is_err()
        {
            self.close();
        }
        Poll::Ready(())
    }

    /// Ready once the backend has taken nothing for the timeout.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (left, timeout) = (self.bytes, self.timeout);
        let since = self.stalled.take().filter(|(then, _)| *then == left);
        let (_, stalled) = self
            .stalled
            .insert(since.unwrap_or_else(|| (left, Box::pin(tokio::time::sleep(timeout)))));
        stalled.as_mut().poll(context)
    }

    /// Nothing more is sent.
    fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
        self.bytes = 0;
    }
}

/// Pingora writes the pieces of a body to it.
pub(super) struct RequestBodyWriter {
    pub(super) body: Arc<RequestBody>,
    /// How long a backend may take nothing after its response.
    pub(super) timeout: Option<Duration>,
}

impl RequestBodyWriter {
    /// Sends as much as the backend takes now.
    async fn send(&self) {
        std::future::poll_fn(|context| {
            let _left = self.body.poll_sent(context);
            Poll::Ready(())
        })
        .await;
    }
}

#[async_trait]
impl BodyWrite for RequestBodyWriter {
    async fn write_all_buf(&mut self, data: &mut Bytes) -> Result<()> {
        if data.is_empty() {
            return Ok(()); // no capacity is reported for an empty piece
        }
        {
            let mut body = self.body.body.lock();
            if body.is_closed {
                return Error::e_explain(
                    ErrorType::WriteError,
                    "the request body can no longer be sent",
                );
            }
            self.body.progress.fetch_add(1, Relaxed);
            body.bytes += data.len();
            body.waiting.push_back(mem::take(data));
        }
        self.send().await;
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.body.body.lock().is_whole = true;
        self.send().await;
        Ok(())
    }

    /// The client has the response. The rest of its request is still sent to the backend.
    async fn cleanup(&mut self) -> Result<()> {
        self.body.body.lock().is_over = true;
        self.body.reader.wake();
        let sent = std::future::poll_fn(|context| self.body.poll_sent(context));
        let timeout = self.timeout.unwrap_or(Duration::MAX);
        if tokio::time::timeout(timeout, sent).await.is_err() {
            log::debug!(
                "request body not sent in full: the backend has responded and reads no more"
            );
        }
        Ok(())
    }

    fn upgrade_body_writer(&mut self) {}
}
