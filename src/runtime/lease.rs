//! One request in flight to one backend.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::runtime::backend::{Backend, Member};
use crate::sync::atomic::Ordering::Relaxed;
use crate::time::Timestamp;

/// One request in flight to one backend.
///
/// Only dropping the lease releases it, so a cancelled request, a panic and an early return all
/// release it.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    /// When it began, if the time to the response headers is measured and they have not arrived.
    measured: Option<Timestamp>,
    /// Its place among the requests that could be moved to another backend.
    movable: Option<usize>,
    /// Whether it is a trial of the circuit breaker.
    trial: bool,
    /// Whether the circuit breaker has its result.
    judged: bool,
}

impl Lease {
    /// Counts one more request in flight, until the lease is dropped.
    #[must_use]
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, Relaxed);
        backend.counts.attempts.fetch_add(1, Relaxed);
        Self { backend, measured: None, movable: None, trial: false, judged: false }
    }

    /// The same if the member has a free place.
    #[must_use]
    pub fn at(member: &Member) -> Option<Self> {
        let backend = Arc::clone(&member.backend);
        match member.max_requests {
            None => Some(Self::new(backend)),
            Some(max) => Self::with_place(backend, max),
        }
    }

    /// The same if fewer than `max` requests are in flight, those of other workers included.
    #[must_use]
    pub fn with_place(backend: Arc<Backend>, max: NonZeroU32) -> Option<Self> {
        let max = u64::from(max.get()).saturating_sub(backend.other_workers());
        let one_more = |in_flight| (in_flight < max).then_some(in_flight + 1);
        backend.in_flight.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        backend.counts.attempts.fetch_add(1, Relaxed);
        Some(Self { backend, measured: None, movable: None, trial: false, judged: false })
    }

    /// Measures the time to the response headers.
    #[must_use]
    pub fn measured(mut self, now: Timestamp) -> Self {
        self.backend.circuit.begin(now);
        self.measured = Some(now);
        self
    }

    /// Of a trial that has begun; it ends with the lease.
    #[must_use]
    pub fn of_trial(mut self) -> Self {
        self.trial = true;
        self
    }

    /// Whether it is a trial of the circuit breaker.
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.trial
    }

    /// Whether the time to its response headers is measured, and they have not arrived.
    #[must_use]
    pub const fn is_measured(&self) -> bool {
        self.measured.is_some()
    }

    /// Wakes this waker each time the circuit breaker takes the backend out, until the response headers.
    pub fn wake_when_out(&mut self, waker: Waker) {
        self.stop_waking();
        self.movable = Some(self.backend.circuit.waiting.insert(waker));
    }

    fn stop_waking(&mut self) {
        if let Some(key) = self.movable.take() {
            self.backend.circuit.waiting.remove(key);
        }
    }

    /// Ends the measurement: the time since the start, if it was measured.
    pub fn stop_measuring(&mut self, now: Timestamp) -> Option<Duration> {
        self.stop_waking();
        let began = self.measured.take()?;
        self.backend.circuit.end();
        Some(now.since(began))
    }

    /// Whether the circuit breaker is to get this attempt's result: only once.
    pub const fn judge(&mut self) -> bool {
        !std::mem::replace(&mut self.judged, true)
    }

    /// Releases it, as if nothing had been attempted.
    pub fn cancel(self) {
        self.backend.counts.attempts.fetch_sub(1, Relaxed);
    }

    /// The backend of the lease.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.backend.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a lease was released twice");
        if self.measured.is_some() {
            self.backend.circuit.end();
        }
        if self.trial {
            self.backend.circuit.end_trial();
        }
        self.stop_waking();
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;
    use crate::runtime::endpoint::Endpoint;

    fn unprobed() -> Arc<Backend> {
        let endpoint = Endpoint::fixed("127.0.0.1:1".parse().unwrap());
        Arc::new(Backend::new("127.0.0.1:1", endpoint, None))
    }

    #[test]
    fn in_flight_is_the_number_of_live_leases() {
        let backend = unprobed();
        let first = Lease::new(backend.clone());
        let second = Lease::new(backend.clone());
        assert_eq!(backend.in_flight(), 2);
        drop(first);
        assert_eq!(backend.in_flight(), 1);
        drop(second);
        assert_eq!(backend.in_flight(), 0);
        assert_eq!(backend.attempts(), 2);
    }

    #[test]
    fn a_backend_has_as_many_places_as_max_requests_and_those_of_other_workers_count() {
        let (backend, max) = (unprobed(), NonZeroU32::new(2).unwrap());
        let first = Lease::with_place(backend.clone(), max).unwrap();
        let second = Lease::with_place(backend.clone(), max);
        assert!(second.is_some() && Lease::with_place(backend.clone(), max).is_none());
        drop(first);
        backend.set_other_workers(1);
        assert!(Lease::with_place(backend.clone(), max).is_none());
        backend.set_other_workers(0);
        assert!(Lease::with_place(backend.clone(), max).is_some());
        assert_eq!(backend.attempts(), 3, "only those that had a place");
    }

    #[test]
    fn a_panicking_request_releases_its_lease() {
        let backend = unprobed();
        let inside = backend.clone();
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(move || {
            let _lease = Lease::new(inside);
            panic!("a request that goes wrong");
        }));
        assert!(caught.is_err());
        assert_eq!(backend.in_flight(), 0);
    }
}
