//! SIGTERM. All other signals except SIGCHLD are blocked: they are for the supervisor, which sends
//! orders over the link.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that stops a worker.
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
