//! A stream that flushes when a read returns `Pending`.
//!
//! Pingora buffers the headers of a response with a length until the buffer is full or the response
//! complete. A client saw nothing of a response that paused, not even its headers. When Pingora has
//! nothing else to do, it reads from the client. So a read that returns `Pending` is the moment to
//! flush. Data that follows at once is in the buffer by then, and a short response still leaves in
//! one write.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{GetProxyDigest, Peek, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::delegate::{delegate, delegate_write};

/// An HTTP/1 stream of a client, above its write buffer.
pub(crate) struct EagerStream {
    inner: Stream,
    /// Something was written since the last flush.
    is_unflushed: bool,
}

impl EagerStream {
    pub(crate) fn over(inner: Stream) -> Stream {
        Box::new(Self { inner, is_unflushed: false })
    }

    fn write(
        &mut self,
        poll: impl FnOnce(&mut Self) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.is_unflushed = true;
        poll(self)
    }

    fn flush(
        &mut self,
        poll: impl FnOnce(&mut Self) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let flushed = poll(self);
        self.is_unflushed = flushed.is_pending();
        flushed
    }
}

impl fmt::Debug for EagerStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EagerStream").finish_non_exhaustive()
    }
}

impl AsyncRead for EagerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if polled.is_pending() && self.is_unflushed {
            // The next write reports the same error.
            let _error = self.poll_flush(context);
        }
        polled
    }
}

delegate_write!(EagerStream, write: write, flush: flush);

delegate!(EagerStream);

impl GetProxyDigest for EagerStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

#[async_trait]
impl Peek for EagerStream {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}
