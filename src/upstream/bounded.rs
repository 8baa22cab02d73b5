//! A connection to an HTTP/1 backend that is read in small pieces.
//!
//! Between a backend and a client that does not read, Pingora holds up to ten pieces of a response:
//! four in a queue, one for which the queue has no room, and five that are being written. It reads up to
//! 64 KiB at once, which makes 640 KiB for each response that is not taken.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{GetProxyDigest, Peek, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::delegate::delegate;

/// The most that one read brings, in bytes: as much as a TLS record has. Smaller pieces would cost a
/// large download more time in queues than they save.
const PIECE: u64 = 16 * 1024;

/// A stream to a backend.
pub(super) struct Bounded {
    inner: Stream,
}

impl Bounded {
    pub(super) fn new(inner: Stream) -> Self {
        Self { inner }
    }
}

impl fmt::Debug for Bounded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Bounded").field(&self.inner).finish()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = (&mut self.get_mut().inner).take(PIECE);
        Pin::new(&mut piece).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
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
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

delegate!(Bounded);

impl GetProxyDigest for Bounded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

#[async_trait]
impl Peek for Bounded {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buffer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_read_brings_a_piece_and_no_more() {
        let bytes = vec![7; 100_000];
        let mut stream = Bounded::new(Box::new(io::Cursor::new(bytes)));
        let mut buffer = vec![0; 65_536];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 16_384);
        assert_eq!(stream.read(&mut buffer[..100]).await.unwrap(), 100);
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 100_000 - 16_484);
    }
}
