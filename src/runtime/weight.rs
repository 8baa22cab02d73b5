//! The effective weight of one backend: its slow start, and what an operator has set. `balancing`
//! calculates it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::operator::WeightPercent;
use crate::policy::slow_start::{Ramp, RampState, WeightShare};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use crate::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
use crate::time::Timestamp;

/// When weights that do not change are calculated.
const NEVER: u64 = u64::MAX;
/// The thousandths of a unit in one per cent of it.
const THOUSANDTHS_PER_PERCENT: u64 = 10;

/// When the weights of a pool are calculated.
#[derive(Debug, Clone)]
pub struct WeightSchedule {
    /// The time in nanoseconds.
    due_ns: Arc<AtomicU64>,
}

/// The weight of one backend.
#[derive(Debug)]
pub struct BackendWeight {
    /// The effective weight.
    thousandths: AtomicU32,
    /// The part of the configured weight that an operator has set.
    percent: AtomicU16,
    slow_start: Option<SlowStart>,
}

/// Slow start of one backend.
#[derive(Debug)]
struct SlowStart {
    window: Duration,
    ramp: Mutex<Option<Ramp>>,
    schedule: WeightSchedule,
}

impl Default for WeightSchedule {
    /// Due.
    fn default() -> Self {
        Self { due_ns: Arc::new(AtomicU64::new(0)) }
    }
}

impl WeightSchedule {
    /// The weights have to be calculated before the next pick. The calculation sees what was changed
    /// before this call.
    pub fn mark_due(&self) {
        self.due_ns.store(0, Release);
    }

    /// Whether no weight changes by itself.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.due_ns.load(Relaxed) == NEVER
    }

    /// Whether the weights have to be calculated. Then this thread does it, and they are due again after
    /// `every`; returns that time.
    #[must_use]
    pub(super) fn claim(&self, every: Duration, now: Timestamp) -> Option<Timestamp> {
        let due = self.due_ns.load(Relaxed);
        if now.as_nanos() < due {
            return None;
        }
        let next = now + every;
        self.due_ns.compare_exchange(due, next.as_nanos(), AcqRel, Relaxed).ok()?;
        Some(next)
    }

    /// The same, whether they are due or not.
    #[must_use]
    pub(super) fn claim_now(&self, every: Duration, now: Timestamp) -> Timestamp {
        let next = now + every;
        self.due_ns.swap(next.as_nanos(), AcqRel);
        next
    }

    /// The weights are calculated. If they are steady, that need not be done again until something
    /// happens. `next` is what [`Self::claim`] has returned: if something has happened since then, or
    /// another thread has calculated them, this thread may have set old values, and they are due.
    pub(super) fn calculated(&self, next: Timestamp, is_steady: bool) {
        let (claimed, steady) = (next.as_nanos(), if is_steady { NEVER } else { next.as_nanos() });
        if self.due_ns.compare_exchange(claimed, steady, AcqRel, Relaxed).is_err() {
            self.mark_due();
        }
    }
}

impl Default for BackendWeight {
    /// One, without slow start.
    fn default() -> Self {
        Self {
            thousandths: AtomicU32::new(WeightShare::FULL.thousandths()),
            percent: AtomicU16::new(WeightPercent::default().get()),
            slow_start: None,
        }
    }
}

impl BackendWeight {
    /// With slow start over this time, in a pool with this schedule.
    #[must_use]
    pub fn with_slow_start(window: Duration, schedule: &WeightSchedule) -> Self {
        let ramp = Mutex::new(None);
        let slow_start = SlowStart { window, ramp, schedule: schedule.clone() };
        Self { slow_start: Some(slow_start), ..Self::default() }
    }

    /// The effective weight is the full one, until it is calculated.
    pub(super) fn set_configured(&self, weight: NonZeroU32) {
        self.set(self.full(weight));
    }

    /// Sets what part of the configured weight an operator wants. Returns whether that is new.
    #[must_use]
    pub(super) fn set_operator_percent(&self, percent: WeightPercent) -> bool {
        self.percent.swap(percent.get(), Relaxed) != percent.get()
    }

    /// The weight without slow start, for this configured one: in thousandths of a unit.
    pub(super) fn full(&self, configured: NonZeroU32) -> u32 {
        let percent = u64::from(self.percent.load(Relaxed));
        let full = u64::from(configured.get()) * percent * THOUSANDTHS_PER_PERCENT;
        u32::try_from(full).unwrap_or(u32::MAX)
    }

    /// Sets the effective weight.
    pub(super) fn set(&self, thousandths: u32) {
        self.thousandths.store(thousandths, Relaxed);
    }

    /// The effective weight, in thousandths of a unit.
    #[must_use]
    pub fn thousandths(&self) -> u32 {
        self.thousandths.load(Relaxed)
    }

    /// The effective weight, in units.
    #[must_use]
    pub fn units(&self) -> f64 {
        f64::from(self.thousandths()) / f64::from(WeightShare::FULL.thousandths())
    }

    /// The backend gets requests from now on, after it got none: it starts slowly.
    pub fn begin_slow_start(&self, now: Timestamp) {
        if let Some(slow_start) = &self.slow_start {
            slow_start.set(Some(Ramp::new(slow_start.window, now)));
        }
    }

    /// Whether it starts slowly.
    #[must_use]
    pub fn is_ramping(&self) -> bool {
        self.slow_start.as_ref().is_some_and(|slow_start| slow_start.ramp.lock().is_some())
    }

    /// The backend has responded after `took`; `typical` is the median of the pool.
    pub(super) fn responded(&self, took: Duration, typical: Duration, now: Timestamp) {
        let Some(slow_start) = &self.slow_start else { return };
        if !slow_start.schedule.is_steady()
            && let Some(ramp) = &mut *slow_start.ramp.lock()
        {
            ramp.responded(took, typical, now);
        }
    }

    /// Its part of the configured weight.
    pub(super) fn share(&self, now: Timestamp) -> WeightShare {
        let Some(slow_start) = &self.slow_start else { return WeightShare::FULL };
        let mut ramp = slow_start.ramp.lock();
        let share = ramp.as_ref().and_then(|ramp| ramp.share(now));
        if share.is_none() {
            *ramp = None;
        }
        share.unwrap_or(WeightShare::FULL)
    }

    /// Its slow start for the next worker.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> Option<RampState> {
        let ramp = self.slow_start.as_ref()?.ramp.lock();
        ramp.as_ref().filter(|ramp| ramp.share(now).is_some()).map(|ramp| ramp.export(now))
    }

    /// Continues with the slow start that another worker exported `age` before `now`.
    pub fn import(&self, state: RampState, age: Duration, now: Timestamp) {
        if let Some(slow_start) = &self.slow_start {
            slow_start.set(Some(Ramp::import(slow_start.window, state, age, now)));
        }
    }
}

impl SlowStart {
    fn set(&self, ramp: Option<Ramp>) {
        *self.ramp.lock() = ramp;
        self.schedule.mark_due();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(20);

    #[test]
    fn weights_that_have_changed_while_they_were_calculated_are_calculated_again() {
        let schedule = WeightSchedule::default();
        let next = schedule.claim(EVERY, Timestamp::ZERO).unwrap();
        schedule.mark_due();
        schedule.calculated(next, true);
        let next = schedule.claim(EVERY, Timestamp::ZERO).unwrap();
        schedule.calculated(next, true);
        assert!(schedule.is_steady());
    }

    #[test]
    fn the_slower_of_two_threads_does_not_leave_its_old_values() {
        let schedule = WeightSchedule::default();
        let slow = schedule.claim(EVERY, Timestamp::ZERO).unwrap();
        let fast = schedule.claim_now(EVERY, Timestamp::ZERO + EVERY);
        schedule.calculated(fast, true);
        assert!(schedule.is_steady());
        schedule.calculated(slow, true);
        assert!(schedule.claim(EVERY, Timestamp::ZERO).is_some());
    }
}
