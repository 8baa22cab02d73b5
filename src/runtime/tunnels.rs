//! The tunnels of a pool, counted.

use std::sync::Arc;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many tunnels a pool has open.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: Arc<AtomicU64>,
}

impl Tunnels {
    /// One more, until it is dropped.
    #[must_use]
    pub fn enter(&self) -> Tunnel {
        self.open.fetch_add(1, Relaxed);
        Tunnel { open: Arc::clone(&self.open) }
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

/// One open tunnel. Dropping it is the only way to end the count.
#[derive(Debug)]
pub struct Tunnel {
    open: Arc<AtomicU64>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_is_the_number_of_live_tunnels() {
        let tunnels = Tunnels::default();
        let (one, two) = (tunnels.enter(), tunnels.enter());
        assert_eq!(tunnels.open(), 2);
        drop(one);
        assert_eq!(tunnels.open(), 1);
        drop(two);
        assert_eq!(tunnels.open(), 0);
    }
}
