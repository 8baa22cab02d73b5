//! The only place that asks what time it is.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::time::Timestamp;

/// A monotonic clock that also knows the wall's time. Cheap to copy; all copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_wall: SystemTime,
}

impl Clock {
    /// This process's clock. Its start is the first call.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock that all others are told by")]
    pub fn process() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(|| Self { start: Instant::now(), start_wall: SystemTime::now() })
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }

    /// The runtime's word for a timestamp of this clock.
    #[must_use]
    pub fn instant(self, at: Timestamp) -> Instant {
        self.start + Duration::from_nanos(at.as_nanos())
    }

    /// The wall's time at a timestamp of this clock. Steps of the wall clock since the start are
    /// not in it, so that times taken from it stay in order.
    #[must_use]
    pub fn wall(self, at: Timestamp) -> SystemTime {
        self.start_wall + Duration::from_nanos(at.as_nanos())
    }
}
