//! An exchange that becomes a tunnel: the client asked to go on as WebSocket, and the backend
//! agreed (101). From then on no deadline of a request holds; only silence ends it, or a drain.

use std::time::Duration;

use crate::exchange::event::Event;
use crate::exchange::{Exchange, Target};
use crate::runtime::tunnels;
use crate::time::Timestamp;

/// What is known of an open tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    since: Timestamp,
    counted: Option<tunnels::TunnelGuard>,
}

impl Tunnel {
    /// It is over, and counted no more.
    pub(super) fn ended(&mut self) {
        self.counted = None;
    }
}

impl Exchange {
    /// Whether the client asks for a tunnel.
    #[must_use]
    pub fn wants_tunnel(&self) -> bool {
        self.asks_tunnel
    }

    /// By when the backend must have said whether it agrees to a tunnel. The connection itself is
    /// made with a tunnel's patience, which would be too much for that.
    #[must_use]
    pub fn agree_by(&self, target: &Target, now: Timestamp) -> Timestamp {
        let patience = target.backoff + target.connect_timeout + target.response_timeout;
        self.deadline.min(now + patience)
    }

    /// By when the next piece of an answer must have come that is no tunnel: its silence, and as
    /// long again for the client to take the piece before it.
    #[must_use]
    pub fn piece_by(&self, now: Timestamp) -> Timestamp {
        let pool = self.pool_in(&self.snapshot);
        let silence = pool.map_or(Duration::ZERO, |pool| pool.timeouts.response);
        self.deadline.min(now + silence * 2)
    }

    /// The backend has agreed: the exchange is a tunnel. How long it may be silent.
    pub fn tunnelled(&mut self, now: Timestamp) -> Duration {
        self.last_seen = now;
        self.first_byte.get_or_insert(now);
        self.deadline = Timestamp::MAX;
        let pool = self.pool_in(&self.snapshot);
        let silence = pool.map_or(Duration::ZERO, |pool| pool.timeouts.tunnel);
        self.tunnel = Some(Tunnel { since: now, counted: pool.map(|pool| pool.tunnels.enter()) });
        if let Some(pool) = self.pool {
            self.observer.observe(&Event::Tunnelled { pool });
        }
        silence
    }

    /// When it became a tunnel, if it did.
    #[must_use]
    pub fn tunnel_since(&self) -> Option<Timestamp> {
        self.tunnel.as_ref().map(|tunnel| tunnel.since)
    }
}
