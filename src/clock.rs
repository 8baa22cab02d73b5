//! The only place that reads the system's clocks.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use crate::time::Timestamp;

/// A monotonic clock that also provides wall clock time. Cheap to copy; all copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_wall: SystemTime,
}

impl Clock {
    /// The clock of this process. It starts at the first call.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn process() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(|| Self { start: Instant::now(), start_wall: SystemTime::now() })
    }

    /// The current time.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }

    /// Converts a timestamp of this clock to the runtime's type.
    #[must_use]
    pub fn instant(self, at: Timestamp) -> Instant {
        self.start + Duration::from_nanos(at.as_nanos())
    }

    /// The wall clock time at a timestamp of this clock. Adjustments of the wall clock since the start
    /// are ignored, so that these times never go backwards.
    #[must_use]
    pub fn wall(self, at: Timestamp) -> SystemTime {
        self.start_wall + Duration::from_nanos(at.as_nanos())
    }
}
