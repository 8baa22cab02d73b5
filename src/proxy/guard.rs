//! The stream below Pingora: it tells the line what happens and carries out its verdict.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::line::{Line, Verdict};
use super::{answer, connection};
use crate::clock::Clock;
use crate::exchange::refusal::Refusal;
use crate::http::request_id;

/// A client's stream, watched.
pub(super) struct GuardedStream {
    inner: Stream,
    line: Arc<Line>,
    digest: Option<Arc<ProxyDigest>>,
    clock: Clock,
}

impl GuardedStream {
    pub(super) fn new(inner: Stream, line: Arc<Line>, clock: Clock) -> Self {
        let digest = connection::digest(&line);
        Self { inner, line, digest, clock }
    }

    /// Answers for Pingora, which has no request to answer. The write buffer is empty at this point
    /// and takes the few bytes at once; if it did not, the client would be cut without them.
    fn refuse(&mut self, refusal: Refusal, context: &mut Context<'_>) {
        let id = request_id::from_roll(fastrand::u128(..));
        if !self.line.refuse(refusal, id) {
            return;
        }
        let answer = answer::unasked(refusal, id);
        let written = Pin::new(&mut self.inner).poll_write(context, answer.as_bytes());
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        log::debug!(
            "refused: peer={} written={written:?} flushed={flushed:?}",
            self.line.connection.peer
        );
    }
}

impl fmt::Debug for GuardedStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardedStream")
            .field("peer", &self.line.connection.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.line.verdict() {
            Verdict::Open => {}
            Verdict::Close => return Poll::Ready(Ok(())),
            Verdict::HeadTimeout => {
                this.refuse(Refusal::SlowClient, context);
                return Poll::Ready(Ok(()));
            }
            Verdict::PastDeadline => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        this.line.read_pending(polled.is_pending());
        let read = buffer.filled().len().saturating_sub(before);
        if read > 0 {
            this.line.bytes_read(u64::try_from(read).unwrap_or(u64::MAX), || this.clock.now());
        }
        polled
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.line.is_busy() {
            return Pin::new(&mut this.inner).poll_write(context, bytes);
        }
        // Before the first hook of a request, only Pingora's own 400 can come.
        this.refuse(Refusal::BadRequest, context);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.line.is_busy() {
            return Pin::new(&mut this.inner).poll_write_vectored(context, pieces);
        }
        this.refuse(Refusal::BadRequest, context);
        Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for GuardedStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for GuardedStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for GuardedStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for GuardedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for GuardedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone() // it leads to the line
    }
}

impl GetSocketDigest for GuardedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for GuardedStream {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}
