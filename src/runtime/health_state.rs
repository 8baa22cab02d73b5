//! The health of a backend, as one worker passes it on to the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::hysteresis::HealthStreak;
use crate::time::Timestamp;

/// An instant that may lie before the start of the clock, as seen by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastInstant {
    /// An instant of this clock,
    pub at: Timestamp,
    /// and how long before it.
    pub earlier: Duration,
}

impl PastInstant {
    /// How long ago it was.
    #[must_use]
    pub fn ago(self, now: Timestamp) -> Duration {
        now.since(self.at).saturating_add(self.earlier)
    }
}

/// A backend's health for the next worker. Times are durations, because workers have different
/// clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    /// `None` if no probe has ever reported, or there is no health check.
    pub standing: Option<HealthStreak>,
    /// How long ago the last probe ended.
    pub checked_ago: Option<Duration>,
    /// Why the last failed probe or attempt failed.
    pub last_error: Option<String>,
}
