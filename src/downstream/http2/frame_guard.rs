//! The stream below an HTTP/2 connection. It counts frames, to detect floods.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{GetProxyDigest, Peek, Stream};
use tokio::io::{AsyncRead, ReadBuf};

use crate::clock::Clock;
use crate::delegate::{delegate, delegate_write};
use crate::downstream::connection_state::ConnectionState;
use crate::policy::frame_budget::{FrameBudget, FrameViolation};

/// Signals between this stream and the connection above it.
#[derive(Default)]
pub(crate) struct FrameSignals {
    /// The client has exceeded the frame budget. Weir reads nothing further.
    pub(crate) flood_detected: AtomicBool,
    /// The connection has ended, and not by force.
    pub(crate) closed_cleanly: AtomicBool,
}

/// The stream of an HTTP/2 client.
pub(crate) struct FrameGuardIo {
    inner: Stream,
    frames: FrameBudget,
    signals: Arc<FrameSignals>,
    clock: Clock,
    state: Arc<ConnectionState>,
}

impl FrameGuardIo {
    pub(crate) fn new(
        inner: Stream,
        signals: Arc<FrameSignals>,
        clock: Clock,
        state: &Arc<ConnectionState>,
    ) -> Self {
        let state = Arc::clone(state);
        Self { inner, frames: FrameBudget::default(), signals, clock, state }
    }

    /// Writes, and counts what was sent.
    fn write(
        &mut self,
        poll: impl FnOnce(&mut Self) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let polled = poll(self);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.frames.sent(bytes);
        }
        polled
    }
}

impl Drop for FrameGuardIo {
    /// After an orderly end, further data of the client would cause a reset, and a reset discards
    /// the last responses.
    fn drop(&mut self) {
        if self.signals.closed_cleanly.load(Relaxed) {
            let nothing = Box::new(io::Cursor::new(Vec::<u8>::new()));
            self.state.park_for_linger(std::mem::replace(&mut self.inner, nothing));
        }
    }
}

impl fmt::Debug for FrameGuardIo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FrameGuardIo").finish_non_exhaustive()
    }
}

impl AsyncRead for FrameGuardIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.signals.flood_detected.load(Relaxed) {
            return Poll::Pending; // the accept loop sees the signal, and closes the connection
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
                this.signals.flood_detected.store(true, Relaxed);
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

delegate_write!(FrameGuardIo, write: write);

delegate!(FrameGuardIo);

impl GetProxyDigest for FrameGuardIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl Peek for FrameGuardIo {}
