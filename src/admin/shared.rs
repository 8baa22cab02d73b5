//! What the server of the admin port and its connections share.

use std::sync::Arc;
use std::time::Duration;

use super::Pages;
use super::table::ConnectionTable;
use crate::descriptors::Reserve;

/// Limits of the admin port.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// The maximum number of connections.
    pub connections: usize,
    /// Descriptors reserved at the start, so that they are available when all others are in use.
    pub descriptors: usize,
    /// Time for the headers of a request, from their first byte.
    pub head: Duration,
    /// Time between two requests of a connection. Longer than any usual scrape interval.
    pub idle: Duration,
    /// Time for a client to read a response.
    pub write: Duration,
    /// Time for a request in progress when another worker takes over.
    pub grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            descriptors: 72,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(1),
        }
    }
}

/// The state of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum ServerPhase {
    /// Accepts connections, with keep-alive.
    Open,
    /// Another worker may take over: each connection gets at most one more response.
    Closing,
    /// Another worker serves: the same, and the listening socket is closed.
    Retired,
    /// The process exits: the same, without waiting for requests.
    Ended,
}

/// State shared by all connections.
pub(super) struct ServerState {
    pub(super) pages: Arc<Pages>,
    pub(super) bounds: ServerLimits,
    pub(super) table: Arc<ConnectionTable>,
    pub(super) reserve: Reserve,
}

impl ServerState {
    pub(super) fn new(pages: Arc<Pages>, bounds: ServerLimits) -> Self {
        let reserve = Reserve::new(bounds.descriptors);
        Self { pages, bounds, table: ConnectionTable::new(bounds.connections), reserve }
    }
}
