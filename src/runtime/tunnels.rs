//! Counts the open tunnels (upgraded connections) of a pool.

use std::sync::Arc;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of open tunnels of a pool.
#[derive(Debug, Default)]
pub struct TunnelGauge {
    open: Arc<AtomicU64>,
}

impl TunnelGauge {
    /// Counts one more, until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> TunnelGuard {
        self.open.fetch_add(1, Relaxed);
        TunnelGuard { open: Arc::clone(&self.open) }
    }

    /// The number of open tunnels.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

/// One open tunnel. Only dropping it ends the count.
#[derive(Debug)]
pub struct TunnelGuard {
    open: Arc<AtomicU64>,
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_is_the_number_of_live_tunnels() {
        let tunnels = TunnelGauge::default();
        let (one, two) = (tunnels.enter(), tunnels.enter());
        assert_eq!(tunnels.open(), 2);
        drop(one);
        assert_eq!(tunnels.open(), 1);
        drop(two);
        assert_eq!(tunnels.open(), 0);
    }
}
