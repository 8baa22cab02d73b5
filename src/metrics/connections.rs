//! Metrics of client connections, before and besides their requests.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, Result};

use super::register::{counter, counters, gauge, gauges};

/// Updated by the code that accepts connections.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    /// The number of open client connections.
    pub open: IntGauge, // lb_downstream_connections
    /// The number of responses and WebSockets that wait to be read.
    pub stalled: IntGauge, // lb_stalled_responses
    /// Of those, how many were aborted because too much of their data was unread.
    pub stalled_ended: IntCounter, // lb_stalled_responses_ended_total
    /// Connections that failed before their first request, by a closed set of reasons.
    pub failures: IntCounterVec, // lb_connection_failures_total{reason}
    /// When each certificate expires, by its file.
    pub certificate_expiry: IntGaugeVec, // lb_certificate_expiry_timestamp_seconds{certificate}
    /// Whether the current contents of a TLS file cannot be used, by its path.
    pub certificate_reload_failed: IntGaugeVec, // lb_certificate_reload_failed{certificate}
    /// Whether there are no last good contents either.
    pub certificate_unavailable: IntGaugeVec, // lb_certificate_unavailable{certificate}
    /// Changes of certificate files while running, by outcome: `done` or `failed`.
    pub certificate_renewals: IntCounterVec, // lb_certificate_renewals_total{outcome}
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            open: gauge(registry, ("lb_downstream_connections", "Open client connections."))?,
            stalled: gauge(
                registry,
                ("lb_stalled_responses", "Responses and WebSockets that wait to be read."),
            )?,
            stalled_ended: counter(
                registry,
                (
                    "lb_stalled_responses_ended_total",
                    "Responses and WebSockets aborted because too much of their data was unread.",
                ),
            )?,
            failures: counters(
                registry,
                (
                    "lb_connection_failures_total",
                    "Client connections that failed before their first request.",
                ),
                &["reason"],
            )?,
            certificate_expiry: gauges(
                registry,
                (
                    "lb_certificate_expiry_timestamp_seconds",
                    "When a certificate expires, in Unix time.",
                ),
                &["certificate"],
            )?,
            certificate_reload_failed: gauges(
                registry,
                (
                    "lb_certificate_reload_failed",
                    "Whether the current contents of a certificate file cannot be used.",
                ),
                &["certificate"],
            )?,
            certificate_unavailable: gauges(
                registry,
                (
                    "lb_certificate_unavailable",
                    "Whether a certificate file cannot be used and no last good contents are known.",
                ),
                &["certificate"],
            )?,
            certificate_renewals: certificate_renewals(registry)?,
        })
    }
}

/// Creates both series at the start. If the task that counts created them, a scrape after a reload
/// could come first, and would miss a series that existed before.
fn certificate_renewals(registry: &Registry) -> Result<IntCounterVec> {
    let help = "Changes of certificate files while running, by outcome.";
    let renewals = counters(registry, ("lb_certificate_renewals_total", help), &["outcome"])?;
    for outcome in ["done", "failed"] {
        renewals.get_metric_with_label_values(&[outcome])?;
    }
    Ok(renewals)
}
