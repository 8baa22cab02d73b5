//! What all listeners share: the limits of client connections and the handler of their requests.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::http::v2::server::H2Options;
use tokio::sync::Semaphore;

use super::accept_error::AcceptErrorReporter;
use super::connection_info::ConnectionInfo;
use super::connection_state::{ConnectionState, DownstreamTimeouts};
use super::handler::SessionHandler;
use super::http2_settings;
use super::stalled::Stalled;
use super::tracker::{ConnectionTracker, PerClientPermit};
use crate::clock::Clock;
use crate::config::{HalfClosed, Http2};
use crate::exchange::refusal::{Abort, Refusal};
use crate::http::scan::Limits as HeadLimits;
use crate::metrics::ConnectionMetrics;
use crate::policy::transfer_rate::MinTransferRate;

/// How long the rest of a rejected request body is read before the connection is closed.
pub(crate) const BODY_DRAIN: Duration = Duration::from_secs(5);

/// How long connections that are closed by force may take to be logged.
const ABORT_MAX: Duration = Duration::from_secs(2);

/// The limits of client connections.
#[derive(Debug, Clone, Copy)]
pub struct DownstreamLimits {
    /// Open client connections.
    pub connections: usize,
    /// Rejected connections that are sent a response at the same time. Further ones are closed
    /// without a response.
    pub rejected: usize,
    /// Open connections of one client.
    pub per_client: usize,
    /// Size and number of the request headers.
    pub head: HeadLimits,
    /// Streams and windows of an HTTP/2 connection.
    pub http2: Http2,
    /// The minimum rate at which a client sends a body and reads a response.
    pub min_rate: Option<MinTransferRate>,
    /// What to do with a request whose client closes its side of the connection.
    pub half_closed: HalfClosed,
    /// The timeouts of a connection.
    pub timeouts: DownstreamTimeouts,
    /// What unread responses and upgraded connections may hold, in bytes.
    pub response_buffers: Option<u64>,
    /// How long connections may take to finish after accepting has stopped.
    pub drain: Duration,
}

/// Serves client connections, whichever listener accepted them.
pub struct DownstreamServer<H> {
    pub(crate) handler: H,
    pub(crate) clock: Clock,
    pub(crate) connections: Arc<ConnectionTracker>,
    pub(crate) failures: AcceptErrorReporter,
    pub(crate) limits: DownstreamLimits,
    pub(crate) http2: H2Options,
    pub(crate) stalled: Arc<Stalled<ConnectionState>>,
    /// Rejected connections are no longer counted as connections, so they have a limit of their own.
    pub(crate) reject_permits: Semaphore,
}

impl<H: SessionHandler> DownstreamServer<H> {
    /// Serves requests with `handler`. Connections are counted in `metrics`.
    #[must_use]
    pub fn new(
        handler: H,
        clock: Clock,
        connections: Arc<ConnectionTracker>,
        metrics: &ConnectionMetrics,
        limits: DownstreamLimits,
    ) -> Self {
        Self {
            handler,
            clock,
            connections,
            failures: AcceptErrorReporter::new(&metrics.failures, clock),
            http2: http2_settings::options(&limits.http2, &limits.head),
            stalled: Stalled::new(limits.response_buffers, clock, metrics),
            reject_permits: Semaphore::new(limits.rejected),
            limits,
        }
    }

    /// The drain's deadline has passed. Upgraded connections have one of their own, which their
    /// states watch.
    pub(crate) async fn drain_tunnels(&self) {
        let (upgraded, others) = self.connections.upgraded();
        if others > 0 {
            log::warn!("drain deadline passed: connections={others}");
        }
        self.connections.force_close_requests(self.clock.now(), Abort::DrainTimeout);
        let timeouts = &self.limits.timeouts;
        let longer = if upgraded > 0 { timeouts.tunnel_drain } else { Duration::ZERO };
        let longer = longer.saturating_sub(self.limits.drain) + ABORT_MAX;
        if tokio::time::timeout(longer, self.connections.all_closed()).await.is_err() {
            log::warn!("connections did not end: connections={}", self.connections.open());
        }
    }

    /// A permit among the connections of the same client. A trusted proxy carries many clients, so
    /// it needs none.
    pub(crate) fn per_client(
        &self,
        connection: &ConnectionInfo,
    ) -> Result<Option<PerClientPermit>, Refusal> {
        let (client, max) = (connection.client_ip(), self.limits.per_client);
        if max == usize::MAX || self.handler.is_trusted_proxy(client) {
            return Ok(None);
        }
        let permit = self.connections.try_acquire_for(client, max);
        permit.map(Some).ok_or(Refusal::TooManyConnectionsPerClient)
    }
}
