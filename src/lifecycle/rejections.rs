//! Why the last upgrade and the last reload were rejected.

use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

/// A reload that was rejected, with none done since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedReload {
    /// How long ago that was.
    pub age: Duration,
    /// The first problem. The log and the client of the reload have all.
    pub problem: Arc<str>,
    /// Whether there are more problems.
    pub has_others: bool,
}

/// What is known of rejections. Each is the last of its kind.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    /// Why an upgrade was rejected.
    pub(super) upgrade: Option<String>,
    reload: Option<RejectedReload>,
    /// When the age of `reload` was set.
    reload_noted_at: Timestamp,
}

impl Rejections {
    /// The rejections that another image of this supervisor has left.
    pub(super) fn restore(reload: Option<RejectedReload>, now: Timestamp) -> Self {
        Self { upgrade: None, reload, reload_noted_at: now }
    }

    /// `why` has a problem on each line.
    pub(super) fn record_reload(&mut self, why: &str, now: Timestamp) {
        let (problem, others) = why.split_once('\n').unwrap_or((why, ""));
        self.reload = Some(RejectedReload {
            age: Duration::ZERO,
            problem: problem.into(),
            has_others: !others.is_empty(),
        });
        self.reload_noted_at = now;
    }

    /// A reload is done, which makes the rejection history.
    pub(super) fn clear_reload(&mut self) {
        self.reload = None;
    }

    /// The rejected reload, as it is now.
    pub(super) fn reload(&self, now: Timestamp) -> Option<RejectedReload> {
        let reload = self.reload.clone()?;
        Some(RejectedReload { age: reload.age + now.since(self.reload_noted_at), ..reload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_problem_is_kept_and_whether_there_are_others() {
        let mut rejections = Rejections::default();
        let mut kept = |why: &str| {
            rejections.record_reload(why, at(1));
            let kept = rejections.reload(at(1)).unwrap();
            (kept.problem.to_string(), kept.has_others)
        };
        assert_eq!(kept("1:1: one\n2:1: two\n3:1: three"), ("1:1: one".to_owned(), true));
        assert_eq!(kept("the port is in use"), ("the port is in use".to_owned(), false));
        rejections.clear_reload();
        assert_eq!(rejections.reload(at(2)), None);
    }

    #[test]
    fn its_age_goes_on_in_the_next_image_whose_clock_starts_anew() {
        let mut rejections = Rejections::default();
        rejections.record_reload("wrong", at(100));
        let left = rejections.reload(at(107));
        assert_eq!(left.as_ref().unwrap().age, Duration::from_secs(7));
        let restored = Rejections::restore(left, at(1));
        assert_eq!(restored.reload(at(4)).unwrap().age, Duration::from_secs(10));
    }
}
