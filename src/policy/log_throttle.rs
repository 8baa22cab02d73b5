//! Limits how often the same event is logged.
//!
//! An event that a client can cause at any rate must not fill a disk. The first few are logged at
//! once, then one a minute. Each log line contains the number of events suppressed before it.

use std::num::NonZeroU32;
use std::time::Duration;

use super::bucket::{Rate, TokenBucket};
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::time::Timestamp;

/// How many events are logged at once.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
/// The interval between further ones.
const EVERY: Duration = Duration::from_secs(60);

/// The throttle of one kind of event.
#[derive(Debug, Default)]
pub struct LogThrottle {
    bucket: TokenBucket,
    suppressed: AtomicU64,
}

impl LogThrottle {
    /// Whether to log the event now; if so, the number of events suppressed since the last one.
    pub fn next(&self, now: Timestamp) -> Option<u64> {
        match self.bucket.take(Rate::of(EVERY, BURST), now) {
            Ok(()) => Some(self.suppressed.swap(0, Relaxed)),
            Err(_later) => {
                self.suppressed.fetch_add(1, Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn five_are_logged_at_once_then_one_a_minute_with_the_suppressed_count() {
        let throttle = LogThrottle::default();
        let results: Vec<_> = (0..12).map(|_| throttle.next(at(0))).collect();
        assert_eq!(results, [[Some(0); 5].as_slice(), &[None; 7]].concat());
        assert_eq!(throttle.next(at(59)), None);
        assert_eq!(throttle.next(at(60)), Some(8));
        assert_eq!(throttle.next(at(60)), None);
        assert_eq!(throttle.next(at(1000)), Some(1));
        assert_eq!(throttle.next(at(1000)), Some(0));
    }
}
