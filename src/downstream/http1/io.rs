//! The stream between Pingora and an HTTP/1 client.
//!
//! It records in the connection's state what is read and written, checks every byte against the
//! grammar of HTTP/1, and ends the connection once there is a reason to close it. Pingora learns of
//! that by a failed read or write.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::{fmt, io};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{GetProxyDigest, Peek, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::delegate::delegate;
use crate::downstream::connection_state::{CloseReason, ConnectionState, Direction};
use crate::downstream::early_refusal::{EarlyRefusal, text_of_line};
use crate::downstream::http1::eager::EagerStream;
use crate::downstream::min_rate::MinRateGuard;
use crate::downstream::reply;
use crate::downstream::session_ext;
use crate::exchange::refusal::Refusal;
use crate::http::scan::{FramingError, MessagePart, Scanner};
use crate::policy::transfer_rate::MinTransferRate;
use crate::sockets;
use crate::upstream::bounded::PIECE;

/// The HTTP/1 stream of a client.
pub(crate) struct Http1Io {
    inner: Stream,
    state: Arc<ConnectionState>,
    digest: Option<Arc<ProxyDigest>>,
    clock: Clock,
    /// Checks what is read; `None` once the connection is upgraded.
    scanner: Option<Scanner>,
    /// The violation from which on the bytes are not HTTP.
    broken: Option<FramingError>,
    /// The last request line whose headers are incomplete, for the log.
    request_line: String,
    /// `None` if there is no minimum rate.
    min_rate: Option<MinRateGuard>,
    /// A byte that was read before there was a session.
    peeked: Option<u8>,
    /// Pingora has shut it down, which it does only after a complete response.
    is_shut: bool,
}

impl Http1Io {
    pub(crate) fn new(
        inner: Stream,
        state: Arc<ConnectionState>,
        clock: Clock,
        scanner: Option<Scanner>,
        rate: Option<MinTransferRate>,
    ) -> Self {
        let min_rate = rate.map(|rate| MinRateGuard::new(rate, clock));
        let digest = session_ext::attach_state(&state);
        Self {
            inner: EagerStream::over(inner),
            state,
            digest,
            clock,
            scanner,
            broken: None,
            request_line: String::new(),
            min_rate,
            peeked: None,
            is_shut: false,
        }
    }

    /// Waits for the first byte of a request. Returns `false` if the connection ends instead. A session
    /// of Pingora takes several times the memory of an idle connection, so it is made only after this.
    pub(crate) async fn wait_readable(&mut self) -> bool {
        let mut byte = [0];
        let read = poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut byte);
            if self.state.close_reason().is_some() {
                return Pin::new(&mut *self).poll_read(context, &mut buffer).map_ok(|()| 0);
            }
            let polled = Pin::new(&mut self.inner).poll_read(context, &mut buffer);
            polled.map_ok(|()| buffer.filled().len())
        });
        match read.await {
            Ok(0) => false,
            Ok(_) => {
                let [byte] = byte;
                self.peeked = Some(byte);
                true
            }
            Err(error) => {
                log::debug!("client disconnected: error=\"{error}\"");
                false
            }
        }
    }

    /// Whether the client has sent bytes that are not HTTP. No further request can follow them.
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Reads after the byte that was read early.
    fn read_on(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let peeked = if buffer.remaining() > 0 { self.peeked.take() } else { None };
        buffer.put_slice(peeked.as_slice());
        let polled = match self.scanner {
            Some(_) => Pin::new(&mut self.inner).poll_read(context, buffer),
            // Small pieces for an upgraded connection: several may wait while its backend does not
            // read.
            None => Pin::new(&mut (&mut self.inner).take(PIECE)).poll_read(context, buffer),
        };
        // With a byte in the buffer the read is ready; an error comes again with the next read.
        if peeked.is_some() { Poll::Ready(Ok(())) } else { polled }
    }

    /// Sends a response for Pingora, which has no request. The write buffer is empty here and takes
    /// the few bytes at once. If it did not, the connection would be closed without a response.
    fn refuse(&mut self, refusal: Refusal, context: &mut Context<'_>) {
        if self.state.early_refusal().is_some() {
            return;
        }
        let mut early = EarlyRefusal::new(refusal, std::mem::take(&mut self.request_line));
        let reply = reply::raw_http1_reply(refusal, early.id.as_str(), early.is_head());
        let written = Pin::new(&mut self.inner).poll_write(context, reply.as_bytes());
        if let Poll::Ready(Ok(written)) = written {
            early.bytes_out = reply.body_bytes(written);
        }
        self.state.set_early_refusal(early);
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        log::debug!(
            "refused: peer={} written={written:?} flushed={flushed:?}",
            self.state.connection.peer
        );
    }

    /// Checks what was read after `before`, and removes what Pingora must not see.
    fn scan(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if self.state.is_upgraded() {
            self.scanner = None;
        }
        let Some(scanner) = &mut self.scanner else { return };
        let read = buffer.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return;
        }
        let fed = scanner.feed(read);
        let line_at = fed.as_ref().map_or_else(|broken| broken.line_at, |unfinished| *unfinished);
        if let Some(state) = line_at.and_then(|at| read.get(at..)) {
            self.request_line = text_of_line(state);
        } else if scanner.is_between() {
            self.request_line.clear(); // the headers are complete
        }
        self.state.add_target_changes(
            scanner.change(buffer.filled_mut().get_mut(before..).unwrap_or_default()),
        );
        if let Err(broken) = fed {
            buffer.set_filled(before + broken.valid_prefix);
            self.broken = Some(broken);
        }
        self.state.bytes_read(scanner.begun(), || self.clock.now());
    }

    /// The result of a read after the client has sent bytes that are not HTTP.
    fn reject(&mut self, broken: FramingError, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_served = self.state.requests_served() == broken.message;
        match (self.state.is_in_request(), broken.part) {
            // It was sent before the 101, so it cannot be meant for the upgraded connection.
            (true, _) if self.state.is_upgraded() => Poll::Ready(Ok(())),
            // Earlier requests are served first. The same task reads again after them, so no waker
            // is needed.
            (true, _) if !is_served => Poll::Pending,
            // Otherwise Pingora would wait for the end of a body that cannot come.
            (true, MessagePart::Body) => {
                self.state.set_violation(broken.violation);
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
            (true, MessagePart::Head) => Poll::Pending,
            (false, _) => {
                self.state.set_violation(broken.violation);
                self.refuse(broken.violation.into(), context);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether the body must not be read now, because too much of it waits for the backend.
    fn is_held_back(&mut self, context: &mut Context<'_>) -> bool {
        let is_body =
            self.state.is_in_request() && self.scanner.as_ref().is_some_and(|it| !it.is_between());
        if !is_body || self.state.poll_body_capacity(context).is_ready() {
            return false;
        }
        self.state.set_waiting_for_client(false);
        self.time_read(Poll::Ready(0));
        let _error = Pin::new(&mut self.inner).poll_flush(context); // no read flushes it now
        true
    }

    /// Applies the minimum rate to a request body. Between requests, only the state's timeouts
    /// apply.
    fn time_read(&mut self, polled: Poll<usize>) {
        let Some(scanner) = self.scanner.as_ref().filter(|_| !self.state.is_upgraded()) else {
            return;
        };
        let is_body = self.state.is_in_request() && scanner.begun() == self.state.requests_served();
        if let Some(min_rate) = self.min_rate.as_mut().filter(|_| is_body) {
            // The end of a body is not a stall.
            let polled = if scanner.is_between() { Poll::Ready(0) } else { polled };
            min_rate.on_transfer(&self.state, Direction::Read, polled);
        }
    }

    /// Writes, and applies the minimum rate to the response. Writes to a client that is too slow
    /// fail. Request data for an HTTP/2 backend is still sent meanwhile.
    fn timed_write(
        &mut self,
        context: &mut Context<'_>,
        piece: &[u8],
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.state.must_fail_writes() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = write(Pin::new(&mut self.inner), context);
        self.state.response.set_unread(written.is_pending());
        if let Poll::Ready(Ok(bytes @ 1..)) = written {
            self.state.response.wrote(piece, bytes);
        }
        if written.is_pending() {
            let _left = self.state.poll_body_capacity(context);
        }
        self.state.set_waiting_for_reader(written.is_pending());
        if let Some(min_rate) = self.min_rate.as_mut().filter(|_| !self.state.is_upgraded()) {
            let moved = match &written {
                Poll::Pending => Poll::Pending,
                Poll::Ready(written) => Poll::Ready(*written.as_ref().unwrap_or(&0)),
            };
            min_rate.on_transfer(&self.state, Direction::Write, moved);
        }
        written
    }

    /// Whether the client may have sent, or still send, data that is not going to be read.
    fn has_unread_input(&self) -> bool {
        let is_whole = self.scanner.as_ref().is_none_or(Scanner::is_between);
        // After a panic a response follows, unless one has started.
        let is_owed = std::thread::panicking() && !self.state.response.has_started();
        !is_whole || self.broken.is_some() || self.state.early_refusal().is_some() || is_owed
    }
}

impl Drop for Http1Io {
    fn drop(&mut self) {
        self.state.set_waiting_for_reader(false);
        let has_begun = self.state.response.has_started();
        if self.state.is_until_closed.load(Relaxed) && has_begun && !self.is_shut {
            // A normal close would mark the response as complete.
            let reset = sockets::reset(self.inner.id());
            log::debug!("response aborted: peer={} reset={reset:?}", self.state.connection.peer);
        } else if self.has_unread_input() {
            let nothing = Box::new(io::Cursor::new(Vec::<u8>::new()));
            self.state.park_for_linger(std::mem::replace(&mut self.inner, nothing));
        }
    }
}

impl fmt::Debug for Http1Io {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Http1Io")
            .field("peer", &self.state.connection.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Http1Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state.close_reason() {
            None => {}
            Some(CloseReason::Idle) => {
                // Over TLS, a close without `close_notify` could be an attacker's. It is not waited
                // for.
                let ended = Pin::new(&mut this.inner).poll_shutdown(context);
                log::debug!(
                    "idle connection closed: peer={} ended={ended:?}",
                    this.state.connection.peer
                );
                return Poll::Ready(Ok(()));
            }
            Some(CloseReason::HeaderTimeout) => {
                this.refuse(Refusal::ClientTimeout, context);
                return Poll::Ready(Ok(()));
            }
            Some(CloseReason::RequestTimeout | CloseReason::WriteTimeout | CloseReason::Forced) => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        if let Some(broken) = this.broken {
            return this.reject(broken, context);
        }
        if this.is_held_back(context) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = this.read_on(context, buffer);
        this.state.set_waiting_for_client(polled.is_pending());
        this.scan(buffer, before);
        let read = buffer.filled().len() - before;
        let is_end = read == 0 && matches!(polled, Poll::Ready(Ok(())));
        if is_end && this.state.input_ended() {
            this.state.set_waiting_for_client(false);
            return Poll::Pending;
        }
        this.time_read(if polled.is_pending() { Poll::Pending } else { Poll::Ready(read) });
        match this.broken {
            // Nothing valid was read, and an empty read would mean the end of the connection.
            Some(broken) if buffer.filled().len() == before => this.reject(broken, context),
            _ => polled,
        }
    }
}

impl AsyncWrite for Http1Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.state.is_in_request() {
            return this
                .timed_write(context, bytes, |inner, context| inner.poll_write(context, bytes));
        }
        // Before the first hook, only Pingora's own 400 can be written.
        this.refuse(Refusal::BadRequest, context);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = |inner: Pin<&mut Stream>, context: &mut Context<'_>| {
            inner.poll_flush(context).map_ok(|()| 0)
        };
        self.get_mut().timed_write(context, &[], flush).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.state.is_in_request() {
            let first = pieces.first().map_or(&[][..], |piece| piece);
            return this.timed_write(context, first, |inner, context| {
                inner.poll_write_vectored(context, pieces)
            });
        }
        this.refuse(Refusal::BadRequest, context);
        Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

delegate!(Http1Io);

impl GetProxyDigest for Http1Io {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone() // it leads to the connection's state
    }
}

#[async_trait]
impl Peek for Http1Io {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}
