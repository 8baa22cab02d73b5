//! Does it accept a connection?

use async_trait::async_trait;
use pingora_load_balancing as lb;
use pingora_load_balancing::health_check::{HealthCheck as _, TcpHealthCheck};

use crate::probe::{Failure, Probe, explain};
use crate::runtime::backend::Backend;

/// Connects, and closes the connection at once.
pub(super) struct TcpProbe {
    check: Box<TcpHealthCheck>,
}

impl TcpProbe {
    pub(super) fn new() -> Self {
        let mut check = TcpHealthCheck::new();
        // The whole probe has a deadline, whoever calls it.
        check.peer_template.options.connection_timeout = None;
        Self { check }
    }
}

#[async_trait]
impl Probe for TcpProbe {
    async fn probe(&self, backend: &Backend) -> Result<(), Failure> {
        let target = lb::Backend::new(&backend.address.to_string());
        let target = target.map_err(|error| explain(&error))?;
        self.check.check(&target).await.map_err(|error| explain(&error))
    }
}
