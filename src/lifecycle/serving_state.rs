//! Whether a worker accepts requests or drains: one fact, which its owner sets and others read.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Whether a worker accepts requests or drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServingState {
    /// It does not accept connections yet.
    Starting,
    /// It accepts connections.
    Accepting,
    /// The service stops: it still accepts connections, but reports that it is not ready.
    PreStop,
    /// It drains because the service stops.
    DrainingStopped,
    /// It drains, and another worker may serve: readiness is for that one to report.
    DrainingReplaced,
}

/// The state of a worker, for all its threads. Only the life cycle of the worker sets it.
#[derive(Debug, Default)]
pub struct SharedServingState(AtomicU8);

impl SharedServingState {
    /// Sets the state.
    pub fn set(&self, state: ServingState) {
        let state = match state {
            ServingState::Starting => STARTING,
            ServingState::Accepting => ACCEPTING,
            ServingState::PreStop => PRE_STOP,
            ServingState::DrainingStopped => DRAINING_STOPPED,
            ServingState::DrainingReplaced => DRAINING_REPLACED,
        };
        self.0.store(state, Relaxed);
    }

    /// Whether connections are accepted, or were until the drain began.
    #[must_use]
    pub fn has_accepted(&self) -> bool {
        self.0.load(Relaxed) >= ACCEPTING
    }

    /// Whether connections are closed after their current request.
    #[must_use]
    pub fn closes_connections(&self) -> bool {
        self.0.load(Relaxed) >= DRAINING_STOPPED
    }

    /// Whether the service stops, so that clients should use another instance.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        matches!(self.0.load(Relaxed), PRE_STOP | DRAINING_STOPPED)
    }
}

const STARTING: u8 = 0;
const ACCEPTING: u8 = 1;
const PRE_STOP: u8 = 2;
const DRAINING_STOPPED: u8 = 3;
const DRAINING_REPLACED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_close_while_it_drains_and_readiness_fails_while_the_service_stops() {
        let shared = SharedServingState::default();
        for (state, has_accepted, closes, is_stopping) in [
            (ServingState::Starting, false, false, false),
            (ServingState::Accepting, true, false, false),
            (ServingState::PreStop, true, false, true),
            (ServingState::DrainingStopped, true, true, true),
            (ServingState::DrainingReplaced, true, true, false),
        ] {
            shared.set(state);
            assert_eq!(shared.has_accepted(), has_accepted, "{state:?}");
            assert_eq!(shared.closes_connections(), closes, "{state:?}");
            assert_eq!(shared.is_stopping(), is_stopping, "{state:?}");
        }
    }
}
