//! An exchange that is upgraded to a WebSocket: the client asks for it, and the backend accepts
//! with 101. From then on the request's deadline does not apply; only the idle timeout or a drain
//! ends it.

use crate::runtime::tunnels::TunnelGuard;
use crate::time::Timestamp;

/// An open tunnel (upgraded connection).
#[derive(Debug)]
pub(super) struct Tunnel {
    /// When it was upgraded.
    pub(super) since: Timestamp,
    /// Counts it, until it is closed.
    pub(super) counted: Option<TunnelGuard>,
}

impl Tunnel {
    /// The tunnel is closed, and is not counted from now on.
    pub(super) fn ended(&mut self) {
        self.counted = None;
    }
}
