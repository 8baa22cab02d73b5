//! What is counted of client connections before and beside their requests.

use prometheus::{IntCounterVec, IntGauge, Registry, Result};

use super::{counters, gauge};

/// Counted by whoever accepts connections.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    /// To be kept at the number of open client connections.
    pub open: IntGauge, // lb_downstream_connections
    /// Those that came to nothing before their first request, out of a closed set of reasons.
    pub failures: IntCounterVec, // lb_connection_failures_total{reason}
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            open: gauge(
                registry,
                ("lb_downstream_connections", "Client connections that are open."),
            )?,
            failures: counters(
                registry,
                (
                    "lb_connection_failures_total",
                    "Client connections that came to nothing before their first request.",
                ),
                &["reason"],
            )?,
        })
    }
}
