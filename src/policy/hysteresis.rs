//! Health with hysteresis: several equal results in a row are needed to change the state.
//!
//! ```text
//!                    first result fails
//!             ┌────────── Unknown ──────────┐ first result passes
//!             ▼                             ▼
//!         Unhealthy ───────────────────▶ Healthy
//!             ▲      `rise` passes in a row │
//!             └─────────────────────────────┘
//!                   `fall` failures in a row
//! ```
//!
//! The very first result decides at once: at a start, waiting for `rise` passes would keep a whole
//! pool out of service for many intervals, and there is no former state to protect. Unknown counts
//! as unhealthy.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The health of one backend according to its probes.
#[derive(Debug, Clone)]
pub struct Hysteresis {
    rise: NonZeroU32,
    fall: NonZeroU32,
    state: StreakState,
    own: Own,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreakState {
    Unknown,
    Healthy { failures: u32 },
    Unhealthy { passes: u32 },
}

/// The results since the start, or since the state was last imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    None,
    /// Only passes, or only failures, this many.
    Same {
        pass: bool,
        times: u32,
    },
    Mixed,
}

/// The result of all probes so far, independent of `rise` and `fall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStreak {
    /// Whether it counts as healthy.
    pub healthy: bool,
    /// The number of results in a row against that.
    pub run: u32,
}

impl Hysteresis {
    /// Starts as unknown. Later, `rise` passes in a row make it healthy, `fall` failures in a row
    /// unhealthy.
    #[must_use]
    pub const fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise, fall, state: StreakState::Unknown, own: Own::None }
    }

    /// Processes one result; `Some(healthy)` if it changes the state.
    pub fn observe(&mut self, pass: bool) -> Option<bool> {
        self.own = match self.own {
            Own::None => Own::Same { pass, times: 1 },
            Own::Same { pass: before, times } if before == pass => {
                Own::Same { pass, times: times.saturating_add(1) }
            }
            Own::Same { .. } | Own::Mixed => Own::Mixed,
        };
        let was = self.state;
        self.state = match (was, pass) {
            (StreakState::Unknown | StreakState::Healthy { .. }, true) => {
                StreakState::Healthy { failures: 0 }
            }
            (StreakState::Unknown | StreakState::Unhealthy { .. }, false) => {
                StreakState::Unhealthy { passes: 0 }
            }
            (StreakState::Healthy { failures }, false) if failures + 1 < self.fall.get() => {
                StreakState::Healthy { failures: failures + 1 }
            }
            (StreakState::Healthy { .. }, false) => StreakState::Unhealthy { passes: 0 },
            (StreakState::Unhealthy { passes }, true) if passes + 1 < self.rise.get() => {
                StreakState::Unhealthy { passes: passes + 1 }
            }
            (StreakState::Unhealthy { .. }, true) => StreakState::Healthy { failures: 0 },
        };
        let decided = match (was, self.state) {
            (StreakState::Unknown, _)
            | (StreakState::Healthy { .. }, StreakState::Unhealthy { .. })
            | (StreakState::Unhealthy { .. }, StreakState::Healthy { .. }) => true,
            (StreakState::Healthy { .. } | StreakState::Unhealthy { .. }, _) => false,
        };
        decided.then_some(self.is_healthy())
    }

    /// Whether it counts as healthy.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        matches!(self.state, StreakState::Healthy { .. })
    }

    /// Whether there was any result.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        !matches!(self.state, StreakState::Unknown)
    }

    /// The current streak; `None` if there was no result.
    #[must_use]
    pub const fn export(&self) -> Option<HealthStreak> {
        if !self.is_known() {
            return None;
        }
        Some(HealthStreak { healthy: self.is_healthy(), run: self.run() })
    }

    /// Whether there was a result since the start, or since the state was last imported.
    #[must_use]
    pub const fn has_own_results(&self) -> bool {
        !matches!(self.own, Own::None)
    }

    /// Continues from another one's state. Own results since the start are counted after the other
    /// one's: failures in a row that both have seen can make it unhealthy. Passes alone never make
    /// it healthy here, because they may be older than a failure that the other one has seen. If it
    /// is healthy and the other one unhealthy, they do not count at all.
    pub fn import(&mut self, standing: HealthStreak) {
        let is_contradicted = self.is_healthy() && !standing.healthy;
        match self.own {
            Own::Same { pass: false, times } => {
                self.stand(standing);
                for _ in 0..times.min(self.fall.get()) {
                    self.observe(false);
                }
            }
            Own::Same { pass: true, times } if !is_contradicted => {
                let passes = standing.run.saturating_add(times);
                let run = if standing.healthy { 0 } else { passes };
                self.stand(HealthStreak { run, ..standing });
            }
            Own::Mixed if !is_contradicted => {}
            Own::None | Own::Same { .. } | Own::Mixed => self.stand(standing),
        }
        self.own = Own::None;
    }

    /// Sets the state of another one. With a lower `rise` or `fall` here, its streak may already be
    /// long enough. It is reduced to one less, because only a result changes the state; the next
    /// one does.
    fn stand(&mut self, standing: HealthStreak) {
        let needed = if standing.healthy { self.fall } else { self.rise };
        let run = standing.run.min(needed.get() - 1);
        self.state = if standing.healthy {
            StreakState::Healthy { failures: run }
        } else {
            StreakState::Unhealthy { passes: run }
        };
    }

    /// The number of results in a row against the current state.
    #[must_use]
    pub const fn run(&self) -> u32 {
        match self.state {
            StreakState::Unknown => 0,
            StreakState::Healthy { failures } => failures,
            StreakState::Unhealthy { passes } => passes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two passes to rise, three failures to fall.
    fn hysteresis() -> Hysteresis {
        Hysteresis::new(NonZeroU32::new(2).unwrap(), NonZeroU32::new(3).unwrap())
    }

    fn after(results: &[bool]) -> Hysteresis {
        let mut hysteresis = hysteresis();
        for &pass in results {
            hysteresis.observe(pass);
        }
        hysteresis
    }

    #[test]
    fn unknown_counts_as_unhealthy() {
        assert!(!hysteresis().is_healthy());
        assert!(!hysteresis().is_known());
        assert_eq!(hysteresis().run(), 0);
    }

    #[test]
    fn the_first_pass_admits_at_once() {
        let mut hysteresis = hysteresis();
        assert_eq!(hysteresis.observe(true), Some(true));
        assert!(hysteresis.is_healthy());
        assert!(hysteresis.is_known());
    }

    #[test]
    fn the_first_failure_decides_at_once() {
        let mut hysteresis = hysteresis();
        assert_eq!(hysteresis.observe(false), Some(false));
        assert!(!hysteresis.is_healthy());
        assert!(hysteresis.is_known());
    }

    #[test]
    fn it_falls_with_the_third_failure_in_a_row() {
        let mut hysteresis = after(&[true]);
        assert_eq!(hysteresis.observe(false), None);
        assert_eq!(hysteresis.observe(false), None);
        assert!(hysteresis.is_healthy(), "two failures are not three");
        assert_eq!(hysteresis.observe(false), Some(false));
        assert!(!hysteresis.is_healthy());
    }

    #[test]
    fn it_rises_with_the_second_pass_in_a_row() {
        let mut hysteresis = after(&[false]);
        assert_eq!(hysteresis.observe(true), None);
        assert!(!hysteresis.is_healthy(), "one pass is not two");
        assert_eq!(hysteresis.observe(true), Some(true));
    }

    #[test]
    fn a_pass_in_between_restarts_the_fall() {
        let mut hysteresis = after(&[true, false, false, true, false, false]);
        assert!(hysteresis.is_healthy());
        assert_eq!(hysteresis.observe(false), Some(false));
    }

    #[test]
    fn a_failure_in_between_restarts_the_rise() {
        let mut hysteresis = after(&[false, true, false]);
        assert_eq!(hysteresis.observe(true), None);
        assert_eq!(hysteresis.observe(true), Some(true));
    }

    #[test]
    fn further_equal_results_change_nothing() {
        assert_eq!(after(&[true]).observe(true), None);
        assert_eq!(after(&[false]).observe(false), None);
    }

    #[test]
    fn the_run_counts_results_against_the_state() {
        assert_eq!(after(&[true, false, false]).run(), 2);
        assert_eq!(after(&[true, false, false, true]).run(), 0);
        assert_eq!(after(&[true, false, false, false]).run(), 0);
        assert_eq!(after(&[false, true]).run(), 1);
    }

    /// A new one with the same numbers that has imported the state after `results`.
    fn resumed(results: &[bool]) -> Hysteresis {
        let mut hysteresis = hysteresis();
        hysteresis.import(after(results).export().unwrap());
        hysteresis
    }

    #[test]
    fn without_results_there_is_no_streak() {
        assert_eq!(hysteresis().export(), None);
    }

    #[test]
    fn a_fall_continues_after_an_import() {
        let mut hysteresis = resumed(&[true, false]);
        assert!(hysteresis.is_healthy());
        assert_eq!(hysteresis.observe(false), None);
        assert_eq!(hysteresis.observe(false), Some(false));
    }

    #[test]
    fn a_rise_continues_after_an_import() {
        let mut hysteresis = resumed(&[false, true]);
        assert!(!hysteresis.is_healthy());
        assert_eq!(hysteresis.observe(true), Some(true));
    }

    #[test]
    fn a_run_beyond_a_lower_fall_decides_with_the_next_failure_and_not_before() {
        let mut hysteresis = Hysteresis::new(NonZeroU32::MIN, NonZeroU32::new(2).unwrap());
        hysteresis.import(HealthStreak { healthy: true, run: 7 });
        assert!(hysteresis.is_healthy());
        assert_eq!(hysteresis.run(), 1);
        assert_eq!(hysteresis.observe(false), Some(false));
    }

    /// One that has imported `early`, has seen `own` itself, and then imports `late`.
    fn taken_over(early: &[bool], own: &[bool], late: &[bool]) -> Hysteresis {
        let mut hysteresis = resumed(early);
        for &pass in own {
            hysteresis.observe(pass);
        }
        hysteresis.import(after(late).export().unwrap());
        hysteresis
    }

    #[test]
    fn without_own_results_the_last_imported_state_counts() {
        let healed = taken_over(&[false, true], &[], &[false, true, true]);
        assert!(healed.is_healthy());
        let failing = taken_over(&[true], &[], &[true, false, false]);
        assert_eq!((failing.is_healthy(), failing.run()), (true, 2));
    }

    #[test]
    fn own_failures_are_counted_after_those_of_the_other() {
        let failing = taken_over(&[true], &[false], &[true, false]);
        assert_eq!((failing.is_healthy(), failing.run()), (true, 2));
        let fallen = taken_over(&[true], &[false], &[true, false, false]);
        assert!(!fallen.is_healthy(), "three in a row");
        let never_known = {
            let mut hysteresis = hysteresis();
            hysteresis.observe(false);
            hysteresis.import(after(&[true]).export().unwrap());
            hysteresis
        };
        assert_eq!((never_known.is_healthy(), never_known.run()), (true, 1));
    }

    #[test]
    fn own_passes_end_a_run_of_failures_but_not_an_outage() {
        assert_eq!(taken_over(&[true], &[true], &[true, false, false]).run(), 0);
        let fallen = taken_over(&[true], &[true, true], &[true, false, false, false]);
        assert_eq!((fallen.is_healthy(), fallen.run()), (false, 0), "they may be older");
        let mut rising = taken_over(&[false], &[true], &[false, true]);
        assert_eq!((rising.is_healthy(), rising.run()), (false, 1));
        assert_eq!(rising.observe(true), Some(true));
    }

    #[test]
    fn mixed_own_results_decide_but_do_not_end_an_outage() {
        assert_eq!(taken_over(&[true], &[true, false], &[true, false, false]).run(), 1);
        let fallen = [true, false, false, false];
        assert!(!taken_over(&[true], &[false, true], &fallen).is_healthy());
        assert!(!taken_over(&[true], &[true, false, false, false], &[true]).is_healthy());
    }

    #[test]
    fn with_one_and_one_every_result_decides() {
        let mut hysteresis = Hysteresis::new(NonZeroU32::MIN, NonZeroU32::MIN);
        assert_eq!(hysteresis.observe(true), Some(true));
        assert_eq!(hysteresis.observe(false), Some(false));
        assert_eq!(hysteresis.observe(true), Some(true));
    }
}
