//! Graceful shutdown.

use std::num::NonZeroUsize;
use std::time::Duration;

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long to go on accepting after `/readyz` has turned 503.
    pub pre_stop: Duration,
    /// How long what is in flight may take to finish.
    pub drain: Duration,
    /// How long tunnels may go on meanwhile.
    pub tunnels: Duration,
    /// How many workers may drain at once.
    pub draining_workers: NonZeroUsize,
}

impl Shutdown {
    /// How long a worker that drains may take.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.drain.max(self.tunnels)
    }
}
