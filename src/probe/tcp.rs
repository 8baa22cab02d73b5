//! TCP health check: connects, with a TLS handshake if the backend uses TLS.

use async_trait::async_trait;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_error::Result;
use pingora_load_balancing as lb;
use pingora_load_balancing::health_check::HealthCheck;

use crate::probe::EACH_RESULT;
use crate::probe::target::ProbeTarget;

/// Connects, and closes the connection at once.
pub(super) struct TcpProbe {
    connector: TransportConnector,
}

impl TcpProbe {
    pub(super) fn new(options: ConnectorOptions) -> Self {
        Self { connector: TransportConnector::new(Some(options)) }
    }
}

#[async_trait]
impl HealthCheck for TcpProbe {
    async fn check(&self, backend: &lb::Backend) -> Result<()> {
        // The caller applies a timeout to the whole probe.
        self.connector.new_stream(&*ProbeTarget::of(backend)?.peer).await.map(drop)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        EACH_RESULT
    }
}
