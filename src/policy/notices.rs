//! How often the log tells of the same thing.
//!
//! What a client can bring about as often as it likes must not fill a disk. The first few are told at
//! once, then one a minute; each says how many were not told before it.

use std::num::NonZeroU32;
use std::time::Duration;

use super::bucket::{Rate, TokenBucket};
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::time::Timestamp;

/// So many are told at once.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
/// Then one each.
const EVERY: Duration = Duration::from_secs(60);

/// The notices of one thing.
#[derive(Debug, Default)]
pub struct Notices {
    bucket: TokenBucket,
    untold: AtomicU64,
}

impl Notices {
    /// Whether to tell of it now, and if so, of how many it was not told since the last time.
    pub fn next(&self, now: Timestamp) -> Option<u64> {
        match self.bucket.take(Rate::of(EVERY, BURST), now) {
            Ok(()) => Some(self.untold.swap(0, Relaxed)),
            Err(_later) => {
                self.untold.fetch_add(1, Relaxed);
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
    fn five_are_told_at_once_then_one_a_minute_that_says_how_many_were_not() {
        let notices = Notices::default();
        let told: Vec<_> = (0..12).map(|_| notices.next(at(0))).collect();
        assert_eq!(told, [[Some(0); 5].as_slice(), &[None; 7]].concat());
        assert_eq!(notices.next(at(59)), None);
        assert_eq!(notices.next(at(60)), Some(8));
        assert_eq!(notices.next(at(60)), None);
        assert_eq!(notices.next(at(1000)), Some(1));
        assert_eq!(notices.next(at(1000)), Some(0));
    }
}
