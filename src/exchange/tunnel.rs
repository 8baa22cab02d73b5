//! An exchange that is upgraded to a WebSocket: the client asks for it, and the backend accepts
//! with 101. From then on the request's deadline does not apply; only the idle timeout or a drain
//! ends it.

use std::time::Duration;

use crate::exchange::event::Event;
use crate::exchange::{Exchange, Target};
use crate::runtime::tunnels;
use crate::time::Timestamp;

/// An open tunnel (upgraded connection).
#[derive(Debug)]
pub(super) struct Tunnel {
    since: Timestamp,
    counted: Option<tunnels::TunnelGuard>,
}

impl Tunnel {
    /// The tunnel is closed, and is not counted from now on.
    pub(super) fn ended(&mut self) {
        self.counted = None;
    }
}

impl Exchange {
    /// Whether the client asks for an upgrade.
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.wants_upgrade
    }

    /// The deadline for the backend to accept the upgrade. The connection itself is made with the
    /// idle timeout of a tunnel, which would be too long for this.
    #[must_use]
    pub fn upgrade_deadline(&self, target: &Target, now: Timestamp) -> Timestamp {
        let patience = target.backoff + target.connect_timeout + target.response_timeout;
        self.deadline.min(now + patience)
    }

    /// The deadline for the next part of a response that is not an upgrade: the response timeout,
    /// and the same time again for the client to read the part before it.
    #[must_use]
    pub fn body_deadline(&self, now: Timestamp) -> Timestamp {
        let pool = self.current_pool(&self.snapshot);
        let silence = pool.map_or(Duration::ZERO, |pool| pool.timeouts.response);
        self.deadline.min(now + silence * 2)
    }

    /// The backend has accepted the upgrade. Returns the idle timeout.
    pub fn upgraded(&mut self, now: Timestamp) -> Duration {
        self.last_event = now;
        self.first_byte.get_or_insert(now);
        self.deadline = Timestamp::MAX;
        let pool = self.current_pool(&self.snapshot);
        let silence = pool.map_or(Duration::ZERO, |pool| pool.timeouts.tunnel);
        self.tunnel = Some(Tunnel { since: now, counted: pool.map(|pool| pool.tunnels.enter()) });
        if let Some(pool) = self.pool {
            self.observer.observe(&Event::Upgraded { pool });
        }
        silence
    }

    /// When it was upgraded, if it was.
    #[must_use]
    pub fn tunnel_since(&self) -> Option<Timestamp> {
        self.tunnel.as_ref().map(|tunnel| tunnel.since)
    }
}
