//! The admin port of a worker: when it responds, and when another worker does.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::{WorkerError, rlimit_of_files, system};
use crate::admin::{Admin, Pages, Server, ServerLimits};

/// The admin port of a worker.
#[derive(Default)]
pub(super) struct AdminPort {
    pages: Arc<Pages>,
    socket: Option<TcpListener>,
    server: Option<Server>,
}

impl AdminPort {
    pub(super) fn new(socket: Option<TcpListener>) -> Self {
        Self { socket, ..Self::default() }
    }

    /// Answers from now on: that the worker starts, until it [serves](Self::begin).
    pub(super) fn start(&mut self) -> io::Result<()> {
        if let Some(socket) = self.socket.take() {
            self.server = Some(Server::start(socket, Arc::clone(&self.pages), bounds())?);
        }
        Ok(())
    }

    /// The worker takes over. If it is alone, its pages say until [`Self::begin`] that it starts: once
    /// `/readyz` is 200, `weir status` must not report that no worker serves.
    pub(super) fn take_over(&mut self, admin: &Arc<Admin>) -> Result<(), WorkerError> {
        if self.server.is_none() { self.begin(admin) } else { Ok(()) }
    }

    /// The supervisor has noted that the worker serves. Every further call does nothing.
    pub(super) fn begin(&mut self, admin: &Arc<Admin>) -> Result<(), WorkerError> {
        self.pages.begin(Arc::clone(admin));
        self.start().map_err(system("serve the admin port"))
    }

    /// Another worker may be taking over.
    pub(super) fn close(&self) {
        if let Some(server) = &self.server {
            server.close();
        }
    }

    /// The other worker failed.
    pub(super) fn open(&self) {
        if let Some(server) = &self.server {
            server.open();
        }
    }

    /// The other worker serves.
    pub(super) fn retire(&self) {
        if let Some(server) = &self.server {
            server.retire();
        }
    }

    /// The process ends.
    pub(super) fn stop(self, timeout: Duration) {
        if let Some(server) = self.server {
            server.stop(timeout);
        }
    }
}

/// The usual bounds; where there are few descriptors, at most an eighth of them is kept.
fn bounds() -> ServerLimits {
    let usual = ServerLimits::default();
    let eighth = usize::try_from(rlimit_of_files() / 8).unwrap_or(usize::MAX);
    ServerLimits { descriptors: usual.descriptors.min(eighth), ..usual }
}
