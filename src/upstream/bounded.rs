//! A connection to an HTTP/1 backend that is read in small pieces.
//!
//! Between a backend and a client that does not read, Pingora holds up to ten pieces of a response:
//! four in a queue, one for which the queue has no room, and five that are being written. It reads up to
//! 64 KiB at once, which makes 640 KiB for each response that is not read. So a response begins in small
//! pieces. Once its client has read some of it, larger ones follow: each piece costs reads, writes and
//! wake-ups, and a large download in small pieces costs up to two thirds more CPU time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{Digest, GetProxyDigest, Peek, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::delegate::{delegate, delegate_write};

/// The largest read at the beginning of a response, in bytes: the size of a TLS record.
pub const PIECE: u64 = 16 * 1024;

/// The largest read later, in bytes; also the size of Pingora's own reads.
pub const PIECE_GROWN: u64 = 64 * 1024;

/// This many bytes of a response are read in small pieces: more than sockets and queues can hold of a
/// response that the client does not read at all.
const GROWN_AFTER: u64 = 512 * 1024;

/// Called with each write: the argument is whether the write waits for the backend to read. Returns
/// whether the connection may continue.
type Watcher = Box<dyn Fn(bool) -> bool + Send + Sync>;

/// The state of an HTTP/1 connection to a backend that is shared with the owner of the request.
#[derive(Default)]
pub struct Http1State {
    watcher: OnceLock<Watcher>,
    is_grown: AtomicBool,
}

impl Http1State {
    /// The state of this connection, if it is an HTTP/1 connection.
    #[must_use]
    pub fn of(connection: &Digest) -> Option<&Arc<Self>> {
        connection.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Whether the current response is read in large pieces.
    #[must_use]
    pub fn is_grown(&self) -> bool {
        self.is_grown.load(Relaxed)
    }

    /// Calls `watcher` with each write from now on, with whether the write waits for the backend to read.
    /// Once it returns `false`, this and every further write and read fails. Only the first watcher counts.
    pub fn watch(&self, watcher: impl Fn(bool) -> bool + Send + Sync + 'static) {
        self.watcher.get_or_init(|| Box::new(watcher));
    }
}

impl fmt::Debug for Http1State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Http1State")
            .field("watched", &self.watcher.get().is_some())
            .finish()
    }
}

/// A connection to an HTTP/1 backend.
pub(super) struct Bounded {
    inner: Stream,
    state: Arc<Http1State>,
    digest: Option<Arc<ProxyDigest>>,
    /// The watcher has ended it.
    is_ended: bool,
    /// Bytes read since the last write: those of the current response.
    read: u64,
}

impl Bounded {
    pub(super) fn new(inner: Stream) -> Self {
        let state = Arc::<Http1State>::default();
        // Pingora's digest is for the response to CONNECT, so it needs one.
        let head = ResponseHeader::build(StatusCode::OK, Some(0)).ok();
        let digest = head.map(|head| {
            Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(Arc::clone(&state)))))
        });
        Self { inner, state, digest, is_ended: false, read: 0 }
    }

    /// Writes a part of a request, whose response begins in small pieces again.
    fn write(
        &mut self,
        poll: impl FnOnce(&mut Self) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.read = 0;
        self.state.is_grown.store(false, Relaxed);
        self.watched(poll)
    }

    /// Writes or flushes, unless the watcher has ended the connection, and asks it whether the
    /// connection may continue.
    fn watched<T>(
        &mut self,
        poll: impl FnOnce(&mut Self) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.is_ended {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = poll(self);
        match self.state.watcher.get() {
            Some(watcher) if !watcher(written.is_pending()) => {
                self.is_ended = true;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => written,
        }
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
        let this = self.get_mut();
        if this.is_ended {
            // Pingora continues to read when it cannot write.
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let polled = if this.state.is_grown() {
            Pin::new(&mut this.inner).poll_read(context, buffer)
        } else {
            let mut piece = (&mut this.inner).take(PIECE);
            Pin::new(&mut piece).poll_read(context, buffer)
        };
        let read = buffer.filled().len().saturating_sub(before);
        this.read = this.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        // The watcher of a tunnel counts what is held, and assumes small pieces.
        if this.read >= GROWN_AFTER && this.state.watcher.get().is_none() {
            this.state.is_grown.store(true, Relaxed);
        }
        polled
    }
}

delegate_write!(Bounded, write: write, flush: watched);

delegate!(Bounded);

impl GetProxyDigest for Bounded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone() // contains `Http1State`
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
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_watcher_of_the_writes_can_end_the_connection() {
        let mut stream = Bounded::new(Box::new(io::Cursor::new(Vec::new())));
        let digest = Digest { proxy_digest: stream.get_proxy_digest(), ..Digest::default() };
        let writes = Arc::clone(Http1State::of(&digest).unwrap());
        stream.write_all(b"before").await.unwrap();
        let (may_go_on, pending) =
            (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let (asked, seen) = (Arc::clone(&may_go_on), Arc::clone(&pending));
        writes.watch(move |is_pending| {
            seen.store(is_pending, Relaxed);
            asked.load(Relaxed)
        });
        stream.write_all(b"watched").await.unwrap();
        assert!(!pending.load(Relaxed));
        may_go_on.store(false, Relaxed);
        let error = stream.write_all(b"after").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::TimedOut,
            "an end of file would look like the backend's"
        );
    }

    #[tokio::test]
    async fn nothing_is_written_once_the_watcher_has_ended_the_connection() {
        let (ours, mut backend) = tokio::io::duplex(64);
        let mut stream = Bounded::new(Box::new(ours));
        let digest = Digest { proxy_digest: stream.get_proxy_digest(), ..Digest::default() };
        Http1State::of(&digest).unwrap().watch(|_is_pending| false);
        stream.write_all(b"first").await.unwrap_err();
        stream.write_all(b"second").await.unwrap_err();
        stream.flush().await.unwrap_err();
        drop(stream);
        let mut received = Vec::new();
        backend.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"first");
    }

    #[tokio::test]
    async fn a_read_returns_one_piece_at_most() {
        let bytes = vec![7; 100_000];
        let mut stream = Bounded::new(Box::new(io::Cursor::new(bytes)));
        let mut buffer = vec![0; 65_536];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 16_384);
        assert_eq!(stream.read(&mut buffer[..100]).await.unwrap(), 100);
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 100_000 - 16_484);
    }
}
