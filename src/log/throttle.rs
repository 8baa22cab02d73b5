//! Throttles lines that clients or backends can cause at any rate.
//!
//! A line of a dependency often reports an action of a client or a backend, and a request may cause
//! a panic. Each place in the code that logs such lines is one kind. The first few lines of a kind
//! are logged, then one a minute with the number of suppressed ones. Weir's own lines are not
//! throttled here: a place where a client can cause one has its own [`LogThrottle`].

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use log::{Level, Record};
use parking_lot::Mutex;

use crate::policy::log_throttle::LogThrottle;
use crate::time::Timestamp;

/// The target of panic messages.
pub(super) const PANIC: &str = "weir::panic";
/// Prefix of the targets that are not throttled.
const OURS: &str = "weir";
/// Maximum number of kinds; all further ones share one.
const KINDS_MAX: usize = 1024;

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Log it; `suppressed` lines of its kind before it were not logged.
    Log { suppressed: u64 },
    /// Do not log it.
    Suppress,
}

/// The state of each kind.
#[derive(Default)]
pub(super) struct Throttle {
    kinds: Mutex<HashMap<u64, LogThrottle>>,
}

impl Throttle {
    pub(super) fn decide(&self, record: &Record<'_>, now: Timestamp) -> Decision {
        if !is_throttled(record) {
            return Decision::Log { suppressed: 0 };
        }
        let mut kinds = self.kinds.lock();
        let kind = kind(record);
        let is_known = kinds.contains_key(&kind) || kinds.len() < KINDS_MAX;
        let kind = if is_known { kind } else { 0 };
        match kinds.entry(kind).or_default().next(now) {
            Some(suppressed) => Decision::Log { suppressed },
            None => Decision::Suppress,
        }
    }
}

/// Debug and trace lines are not throttled: they are enabled to see every line.
fn is_throttled(record: &Record<'_>) -> bool {
    let target = record.target();
    let is_ours = target == OURS || target.starts_with("weir::");
    record.level() <= Level::Info && (!is_ours || target == PANIC)
}

/// The place in the code.
fn kind(record: &Record<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.target(), record.file(), record.line()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn decide(throttle: &Throttle, (target, line): (&str, u32), level: Level, at: u64) -> Decision {
        let now = Timestamp::ZERO + Duration::from_secs(at);
        let mut record = Record::builder();
        record.target(target).level(level).file(Some("src/it.rs")).line(Some(line));
        throttle.decide(&record.build(), now)
    }

    const LOGGED: Decision = Decision::Log { suppressed: 0 };

    #[test]
    fn each_place_in_a_dependency_is_throttled_separately() {
        let throttle = Throttle::default();
        let (one, other) = (("pingora_core", 1), ("pingora_core", 2));
        for _ in 0..5 {
            assert_eq!(decide(&throttle, one, Level::Error, 0), LOGGED);
        }
        for _ in 0..7 {
            assert_eq!(decide(&throttle, one, Level::Error, 0), Decision::Suppress);
        }
        assert_eq!(decide(&throttle, other, Level::Error, 0), LOGGED);
        assert_eq!(decide(&throttle, one, Level::Error, 60), Decision::Log { suppressed: 7 });
    }

    #[test]
    fn panics_are_throttled_and_other_own_lines_are_not() {
        let throttle = Throttle::default();
        let panics = (0..9).map(|_| decide(&throttle, (PANIC, 1), Level::Error, 0));
        assert_eq!(panics.filter(|it| *it == LOGGED).count(), 5);
        let ours = (0..9).map(|_| decide(&throttle, ("weir::probe", 1), Level::Warn, 0));
        assert_eq!(ours.filter(|it| *it == LOGGED).count(), 9);
    }

    #[test]
    fn debug_lines_are_never_throttled() {
        let throttle = Throttle::default();
        let lines = (0..9).map(|_| decide(&throttle, ("pingora_core", 1), Level::Debug, 0));
        assert_eq!(lines.filter(|it| *it == LOGGED).count(), 9);
    }

    #[test]
    fn endless_kinds_take_bounded_memory() {
        let throttle = Throttle::default();
        for line in 0..5000 {
            decide(&throttle, ("other", line), Level::Error, 0);
        }
        assert!(throttle.kinds.lock().len() <= KINDS_MAX + 1);
    }
}
