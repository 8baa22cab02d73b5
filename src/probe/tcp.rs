//! Does it accept a connection, and shake hands if it speaks TLS?
//!
//! The TCP check of `pingora-load-balancing` cannot show a certificate, and its connector looks for
//! the system's roots by itself. This one is over a connector of ours.

use async_trait::async_trait;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::upstreams::peer::HttpPeer;

use crate::probe::{Failure, Probe, explain};
use crate::runtime::backend::Backend;

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
impl Probe for TcpProbe {
    async fn probe(&self, _: &Backend, peer: &HttpPeer) -> Result<(), Failure> {
        // The whole probe has a deadline, whoever calls it.
        self.connector.new_stream(peer).await.map(drop).map_err(|error| explain(&error))
    }
}
