//! The stream below an HTTP/2 connection: it counts frames.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{GetProxyDigest, Peek, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::downstream::connection_state::Line;
use crate::policy::frame_budget::{FrameBudget, FrameViolation};
use crate::upstream::delegate::delegate;

/// What the stream and the connection above it tell each other.
#[derive(Default)]
pub(crate) struct Fate {
    /// The client has sent more than it may. Nothing is read from then on.
    pub(crate) flooded: AtomicBool,
    /// The connection has ended, and not by force.
    pub(crate) is_over: AtomicBool,
}

/// A client's stream that speaks HTTP/2.
pub(crate) struct FramedStream {
    inner: Stream,
    frames: FrameBudget,
    fate: Arc<Fate>,
    clock: Clock,
    line: Arc<Line>,
}

impl FramedStream {
    pub(crate) fn new(inner: Stream, fate: Arc<Fate>, clock: Clock, line: &Arc<Line>) -> Self {
        let line = Arc::clone(line);
        Self { inner, frames: FrameBudget::default(), fate, clock, line }
    }

    fn sent(&mut self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.frames.sent(*bytes);
        }
    }
}

impl Drop for FramedStream {
    /// What a client still sends to a connection that has ended in order would be answered by a reset,
    /// which takes the last answers away.
    fn drop(&mut self) {
        if self.fate.is_over.load(Relaxed) {
            let nothing = Box::new(io::Cursor::new(Vec::<u8>::new()));
            self.line.leave(std::mem::replace(&mut self.inner, nothing));
        }
    }
}

impl fmt::Debug for FramedStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FramedStream").finish_non_exhaustive()
    }
}

impl AsyncRead for FramedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.fate.flooded.load(Relaxed) {
            return Poll::Pending; // the accept loop knows, and ends it
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return polled;
        }
        match this.frames.received(read, this.clock.now()) {
            Ok(()) => polled,
            Err(FrameViolation::Flood) => {
                this.fate.flooded.store(true, Relaxed);
                buffer.set_filled(before);
                Poll::Pending
            }
            Err(offence @ FrameViolation::NoSettings) => {
                buffer.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, offence)))
            }
        }
    }
}

impl AsyncWrite for FramedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.sent(&polled);
        polled
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
        let polled = Pin::new(&mut this.inner).poll_write_vectored(context, pieces);
        this.sent(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

delegate!(FramedStream);

impl GetProxyDigest for FramedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl Peek for FramedStream {}
