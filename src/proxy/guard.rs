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
use crate::clock::Clock;

/// What a client gets that did not send its head in time (RFC 9110 §15.5.9). It is written below
/// Pingora, which has no request to answer yet.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain\r\n\
Content-Length: 16\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nRequest Timeout\n";

/// A client's stream, watched.
pub(super) struct GuardedStream {
    inner: Stream,
    line: Arc<Line>,
    clock: Clock,
}

impl GuardedStream {
    pub(super) fn new(inner: Stream, line: Arc<Line>, clock: Clock) -> Self {
        Self { inner, line, clock }
    }

    /// The line of a stream that Pingora hands back.
    pub(super) fn line(stream: &Stream) -> Option<&Arc<Line>> {
        (**stream).as_any().downcast_ref::<Self>().map(|guarded| &guarded.line)
    }

    /// The socket's buffer is empty at this point, so the few bytes go out at once; if they do
    /// not, the client is cut without them.
    fn answer_timeout(&mut self, context: &mut Context<'_>) {
        let written = Pin::new(&mut self.inner).poll_write(context, REQUEST_TIMEOUT);
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        log::debug!("slow head: peer={:?} written={written:?} flushed={flushed:?}", self.line.peer);
    }
}

impl fmt::Debug for GuardedStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardedStream")
            .field("peer", &self.line.peer)
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
                this.answer_timeout(context);
                return Poll::Ready(Ok(()));
            }
            Verdict::PastDeadline => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.line.bytes_read(|| this.clock.now());
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
        this.line.bytes_written();
        Pin::new(&mut this.inner).poll_write(context, bytes)
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
        this.line.bytes_written();
        Pin::new(&mut this.inner).poll_write_vectored(context, pieces)
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
        self.inner.get_proxy_digest()
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
