//! Metrics that are still exported under their old names.
//!
//! Each copy is made at a scrape from the family with the new name. So the old name costs requests
//! nothing, and the two can never differ.

use prometheus::proto::MetricFamily;

/// The old and the new name of each renamed gauge.
const RENAMED: [(&str, &str); 3] = [
    ("lb_active_connections", "lb_backend_in_flight_requests"),
    ("lb_certificate_broken", "lb_certificate_reload_failed"),
    ("lb_certificate_missing", "lb_certificate_unavailable"),
];

/// A copy of each renamed family under its old name.
pub(super) fn copies(families: &[MetricFamily]) -> Vec<MetricFamily> {
    let copies = RENAMED.iter().filter_map(|(old, new)| {
        let mut family = families.iter().find(|family| family.name() == *new)?.clone();
        family.set_name((*old).to_owned());
        family.set_help(format!("Deprecated, will be removed: use {new}."));
        Some(family)
    });
    copies.collect()
}
