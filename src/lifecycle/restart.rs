//! When a worker that died is replaced, and by which binary.

use std::time::Duration;

use crate::time::Timestamp;

/// The first wait before a worker that died is replaced. It doubles with each death of a worker that
/// was not stable. One that was stable is replaced at once.
const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait before a worker that died is replaced.
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A worker that lived this long was stable.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Which binary a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// The one on disk.
    OnDisk,
    /// The one that this process runs.
    Running,
    /// The one that the last worker ran, which is known to serve. Its file may have been removed.
    LastServed,
}

/// The restart of the worker that serves.
#[derive(Debug)]
pub(super) struct Restart {
    due: Option<Timestamp>,
    wait: Duration,
    binary: Binary,
}

impl Restart {
    /// Until a worker has served, replacements run `binary`.
    pub(super) const fn new(binary: Binary) -> Self {
        Self { due: None, wait: Duration::ZERO, binary }
    }

    pub(super) const fn due(&self) -> Option<Timestamp> {
        self.due
    }

    pub(super) const fn binary(&self) -> Binary {
        self.binary
    }

    /// A worker serves, so its binary is known to serve.
    pub(super) const fn keep_binary(&mut self) {
        self.binary = Binary::LastServed;
    }

    /// Takes the death of a worker that served into account, without scheduling anything.
    pub(super) fn worker_died(&mut self, lived: Duration) {
        if lived >= STABLE_AFTER {
            self.wait = Duration::ZERO;
        } else {
            self.back_off();
        }
    }

    /// A replacement could not serve: the next one runs another binary. The one on disk comes last,
    /// because it has not served yet.
    pub(super) const fn replacement_failed(&mut self) {
        self.binary = match self.binary {
            Binary::OnDisk | Binary::LastServed => Binary::Running,
            Binary::Running => Binary::OnDisk,
        };
    }

    /// Schedules a restart after the current wait.
    pub(super) fn schedule(&mut self, now: Timestamp) {
        self.due = Some(now + self.wait);
    }

    /// Schedules a restart after twice the current wait.
    pub(super) fn schedule_later(&mut self, now: Timestamp) {
        self.back_off();
        self.schedule(now);
    }

    pub(super) const fn cancel(&mut self) {
        self.due = None;
    }

    fn back_off(&mut self) {
        self.wait = (self.wait * 2).clamp(RESTART_BACKOFF_MIN, RESTART_BACKOFF_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(lives: &[Duration]) -> Vec<u128> {
        let mut restart = Restart::new(Binary::Running);
        let mut wait = |lived: &Duration| {
            restart.worker_died(*lived);
            restart.schedule(Timestamp::ZERO);
            restart.due().unwrap().since(Timestamp::ZERO).as_millis()
        };
        lives.iter().map(&mut wait).collect()
    }

    #[test]
    fn a_worker_that_was_stable_is_replaced_at_once() {
        assert_eq!(waits(&[STABLE_AFTER]), [0]);
    }

    #[test]
    fn workers_that_die_early_are_replaced_later_each_time_up_to_ten_seconds() {
        let early = [Duration::from_secs(1); 9];
        assert_eq!(waits(&early), [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn a_stable_worker_resets_the_wait() {
        let early = Duration::from_secs(1);
        assert_eq!(waits(&[early, early, STABLE_AFTER, early]), [100, 200, 0, 100]);
    }

    #[test]
    fn the_binary_on_disk_is_tried_after_those_that_are_known_to_run() {
        let mut restart = Restart::new(Binary::OnDisk);
        restart.keep_binary();
        let mut tried = vec![restart.binary()];
        for _ in 0..3 {
            restart.replacement_failed();
            tried.push(restart.binary());
        }
        let expected = [Binary::LastServed, Binary::Running, Binary::OnDisk, Binary::Running];
        assert_eq!(tried, expected);
    }
}
