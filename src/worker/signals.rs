//! The signal that says stop. All others are blocked: they are for the supervisor, which says over
//! the link what to do.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that says stop.
pub(super) struct Signals {
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        self.terminate.recv().await;
    }
}
