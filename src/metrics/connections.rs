//! What is counted of client connections before and beside their requests.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, Result};

use super::{counter, counters, gauge, gauges};

/// Counted by whoever accepts connections.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    /// To be kept at the number of open client connections.
    pub open: IntGauge, // lb_downstream_connections
    /// To be kept at the number of responses that wait for their clients.
    pub stalled: IntGauge, // lb_stalled_responses
    /// Of those, how many were ended because there were too many.
    pub stalled_ended: IntCounter, // lb_stalled_responses_ended_total
    /// Those that came to nothing before their first request, out of a closed set of reasons.
    pub failures: IntCounterVec, // lb_connection_failures_total{reason}
    /// When each of our certificates expires, by its file.
    pub certificate_expiry: IntGaugeVec, // lb_certificate_expiry_timestamp_seconds{certificate}
    /// Whether what is in a file for TLS cannot be used, by its path.
    pub certificate_broken: IntGaugeVec, // lb_certificate_broken{certificate}
    /// Whether there is nothing to use in its place either.
    pub certificate_missing: IntGaugeVec, // lb_certificate_missing{certificate}
    /// Certificate files that changed while we ran, by what came of it: `done` or `refused`.
    pub certificate_renewals: IntCounterVec, // lb_certificate_renewals_total{outcome}
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            open: gauge(
                registry,
                ("lb_downstream_connections", "Client connections that are open."),
            )?,
            stalled: gauge(
                registry,
                ("lb_stalled_responses", "Responses and tunnels that wait to be read."),
            )?,
            stalled_ended: counter(
                registry,
                (
                    "lb_stalled_responses_ended_total",
                    "Responses and tunnels that were ended because too much of them was not read.",
                ),
            )?,
            failures: counters(
                registry,
                (
                    "lb_connection_failures_total",
                    "Client connections that came to nothing before their first request.",
                ),
                &["reason"],
            )?,
            certificate_expiry: gauges(
                registry,
                (
                    "lb_certificate_expiry_timestamp_seconds",
                    "When a certificate of ours expires, in Unix time.",
                ),
                &["certificate"],
            )?,
            certificate_broken: gauges(
                registry,
                (
                    "lb_certificate_broken",
                    "Whether what is in a certificate's file cannot be used.",
                ),
                &["certificate"],
            )?,
            certificate_missing: gauges(
                registry,
                (
                    "lb_certificate_missing",
                    "Whether there is nothing to use in place of a broken certificate.",
                ),
                &["certificate"],
            )?,
            certificate_renewals: certificate_renewals(registry)?,
        })
    }
}

/// Both series exist from the start. If the task that counts made them, a scrape after a reload could
/// come before it, and a series that was there would be gone.
fn certificate_renewals(registry: &Registry) -> Result<IntCounterVec> {
    let help = "Certificate files that changed while we ran, by what came of it.";
    let renewals = counters(registry, ("lb_certificate_renewals_total", help), &["outcome"])?;
    for outcome in ["done", "refused"] {
        renewals.get_metric_with_label_values(&[outcome])?;
    }
    Ok(renewals)
}
