//! The effective weight of one backend, and its slow start. `balancing` calculates it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::slow_start::{Ramp, RampState, WeightShare};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::time::Timestamp;

/// When weights that do not change are calculated.
const NEVER: u64 = u64::MAX;

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
    /// The weights have to be calculated before the next pick.
    pub fn mark_due(&self) {
        self.due_ns.store(0, Relaxed);
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
        self.due_ns.compare_exchange(due, next.as_nanos(), Relaxed, Relaxed).ok()?;
        Some(next)
    }

    /// Until something happens, the weights need not be calculated. `next` is what [`Self::claim`] has
    /// returned: if a backend has begun to start slowly since then, they are due.
    pub(super) fn settle(&self, next: Timestamp) {
        self.due_ns.compare_exchange(next.as_nanos(), NEVER, Relaxed, Relaxed).ok();
    }
}

impl Default for BackendWeight {
    /// One, without slow start.
    fn default() -> Self {
        Self { thousandths: AtomicU32::new(WeightShare::FULL.thousandths()), slow_start: None }
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

    /// The effective weight is the configured one, until it is calculated.
    pub(super) fn set_configured(&self, weight: NonZeroU32) {
        self.set(weight.get().saturating_mul(WeightShare::FULL.thousandths()));
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
