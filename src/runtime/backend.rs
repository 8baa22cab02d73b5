//! One server, and the requests that are in flight to it.
//!
//! A backend outlives the snapshot that made it: what is known of it (health, requests in
//! flight, counts) belongs to the address, not to the version of the file. Its weight is not
//! here: a new weight does not make a new backend.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HealthCheck;
use crate::policy::hysteresis::{Hysteresis, Standing};
use crate::runtime::endpoint::{Change, Endpoint};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::time::Timestamp;

/// One server of one pool.
#[derive(Debug)]
pub struct Backend {
    /// The address as the file has it: what metrics, status and logs call it.
    pub label: Arc<str>,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// A hash of the label, the same in every process.
    pub identity: u64,
    /// How it is spoken to.
    pub speech: Speech,
    healthy: AtomicBool,
    in_flight: AtomicU64,
    /// Requests that other workers have in flight, as they last reported.
    elsewhere: AtomicU64,
    attempts: AtomicU64,
    failures: AtomicU64,
    checkup: Mutex<Checkup>,
}

/// How a backend is spoken to. Where that is another way, it is another server: what was known of
/// the one says nothing of the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speech {
    /// Over TLS.
    pub tls: bool,
    /// A hash of everything else that decides who answers.
    pub details: u64,
}

/// What the probes have found.
#[derive(Debug, Clone)]
struct Checkup {
    /// `None` if nobody probes this backend.
    hysteresis: Option<Hysteresis>,
    last_checked: Option<Moment>,
    last_error: Option<String>,
}

/// What is known of a backend's health, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes requests.
    pub healthy: bool,
    /// Whether a probe has ever reported, or none is configured.
    pub known: bool,
    /// When the last probe ended.
    pub last_checked: Option<Moment>,
    /// Why the last failed probe or attempt failed.
    pub last_error: Option<String>,
}

/// A moment that may lie before the clock's start, as what another process saw does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// A moment of this clock,
    pub at: Timestamp,
    /// and how long before it.
    pub earlier: Duration,
}

impl Moment {
    /// How long ago it was.
    #[must_use]
    pub fn ago(self, now: Timestamp) -> Duration {
        now.since(self.at).saturating_add(self.earlier)
    }
}

/// What a successor is told of a backend's health, with times as durations: it has another clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// `None` if no probe has ever reported, or nobody probes it.
    pub standing: Option<Standing>,
    /// How long ago the last probe ended.
    pub checked_ago: Option<Duration>,
    /// Why the last failed probe or attempt failed.
    pub last_error: Option<String>,
}

impl Backend {
    /// A backend that has served nothing. With a health check it takes no request before its
    /// first probe has passed; without one it counts as healthy. As long as its name has no
    /// address it takes none either way.
    #[must_use]
    pub fn new(label: &str, endpoint: Endpoint, health_check: Option<&HealthCheck>) -> Self {
        let hysteresis =
            health_check.map(|check| Hysteresis::new(check.healthy_after, check.unhealthy_after));
        Self {
            label: label.into(),
            identity: xxh3_64(label.as_bytes()),
            speech: Speech::default(),
            healthy: AtomicBool::new(hysteresis.is_none() && endpoint.address().is_some()),
            endpoint,
            in_flight: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            checkup: Mutex::new(Checkup { hysteresis, last_checked: None, last_error: None }),
        }
    }

    /// The same, spoken to like this.
    #[must_use]
    pub fn spoken_to(mut self, speech: Speech) -> Self {
        self.speech = speech;
        self
    }

    /// Its URL, as the file has it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.speech.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.label)
    }

    /// Where to connect; `None` as long as its name has no address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.address()
    }

    /// Records the address that its name has. A backend without health checks that gets its first
    /// address takes requests from now on.
    pub fn resolved(&self, address: SocketAddr) -> Change {
        let checkup = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        let change = self.endpoint.found(address);
        if change == Change::First && checkup.hysteresis.is_none() {
            self.healthy.store(true, Relaxed);
        }
        change
    }

    /// Whether it takes requests.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    /// Whether its last health check passed, and it is only some passes short of being healthy.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        let checkup = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = checkup.hysteresis.as_ref().and_then(Hysteresis::standing);
        standing.is_some_and(|standing| !standing.healthy && standing.run > 0)
    }

    /// Requests sent to it and not yet finished: the number of live leases.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Requests in flight to it, those of workers that drain included: how busy it is.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.in_flight().saturating_add(self.elsewhere.load(Relaxed))
    }

    /// Sets how many requests other workers have in flight.
    pub fn set_elsewhere(&self, requests: u64) {
        self.elsewhere.store(requests, Relaxed);
    }

    /// Attempts made at it.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Relaxed)
    }

    /// Attempts at it that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Counts an attempt that failed, with the reason for the operator.
    pub fn attempt_failed(&self, reason: &str) {
        self.failures.fetch_add(1, Relaxed);
        let mut checkup = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        checkup.last_error = Some(reason.to_owned());
    }

    /// Takes in the result of a probe that ended at `now`. `Some` is the new health, if it
    /// changed.
    pub fn probed(&self, result: Result<(), String>, now: Timestamp) -> Option<bool> {
        let mut checkup = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = result.is_ok();
        checkup.last_checked = Some(Moment { at: now, earlier: Duration::ZERO });
        if let Err(reason) = result {
            checkup.last_error = Some(reason);
        }
        let flipped = checkup.hysteresis.as_mut()?.observe(passed);
        if let Some(healthy) = flipped {
            self.healthy.store(healthy, Relaxed);
        }
        flipped
    }

    /// What is known of its health.
    #[must_use]
    pub fn health(&self) -> Health {
        let checkup = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        Health {
            healthy: self.is_healthy(),
            known: checkup.hysteresis.as_ref().is_none_or(Hysteresis::is_known),
            last_checked: checkup.last_checked,
            last_error: checkup.last_error.clone().or_else(|| self.endpoint.failure()),
        }
    }
}

impl Backend {
    /// What a successor should know of its health.
    #[must_use]
    pub fn known(&self, now: Timestamp) -> Known {
        let checkup = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        Known {
            standing: checkup.hysteresis.as_ref().and_then(Hysteresis::standing),
            checked_ago: checkup.last_checked.map(|moment| moment.ago(now)),
            last_error: checkup.last_error.clone(),
        }
    }

    /// Goes on from what a predecessor knows at `now`, with what our own probes have found since we
    /// began (see [`Hysteresis::resume`]). A backend without health checks here stays healthy; one
    /// without them there stays unknown until it passes. `Some` is the new health, if neither the
    /// predecessor nor we had found it so before.
    pub fn resume(&self, known: &Known, now: Timestamp) -> Option<bool> {
        let mut guard = self.checkup.lock().unwrap_or_else(PoisonError::into_inner);
        let checkup = &mut *guard;
        if checkup.last_error.is_none() {
            checkup.last_error.clone_from(&known.last_error);
        }
        let (Some(hysteresis), Some(standing)) = (&mut checkup.hysteresis, known.standing) else {
            return None;
        };
        if !hysteresis.has_own_results() {
            checkup.last_checked = known.checked_ago.map(|ago| Moment { at: now, earlier: ago });
        }
        let before = hysteresis.is_healthy();
        hysteresis.resume(standing);
        let healthy = hysteresis.is_healthy();
        self.healthy.store(healthy, Relaxed);
        (healthy != before && healthy != standing.healthy).then_some(healthy)
    }

    /// Adds what others have counted for it.
    pub fn add_counts(&self, attempts: u64, failures: u64) {
        self.attempts.fetch_add(attempts, Relaxed);
        self.failures.fetch_add(failures, Relaxed);
    }
}

/// A backend in a pool, with its share.
#[derive(Debug, Clone)]
pub struct Member {
    /// The server.
    pub backend: Arc<Backend>,
    /// Its share relative to the others.
    pub weight: NonZeroU32,
}

/// One request in flight to one backend.
///
/// Dropping the lease is the only way to give it back, so a cancelled request, a panic and an
/// early return all give it back.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// Counts one more request in flight, until the lease is dropped.
    #[must_use]
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, Relaxed);
        backend.attempts.fetch_add(1, Relaxed);
        Self { backend }
    }

    /// Gives it back, as if nothing had been attempted.
    pub fn cancel(self) {
        self.backend.attempts.fetch_sub(1, Relaxed);
    }

    /// Whose lease it is.
    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.backend.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a lease was given back twice");
    }
}

#[cfg(test)]
mod tests {
    use std::panic;
    use std::time::Duration;

    use super::*;
    use crate::config::Probe;
    use crate::runtime::endpoint::Lookup;

    fn unprobed() -> Arc<Backend> {
        let endpoint = Endpoint::fixed("127.0.0.1:1".parse().unwrap());
        Arc::new(Backend::new("127.0.0.1:1", endpoint, None))
    }

    fn probed() -> Backend {
        let two = NonZeroU32::new(2).unwrap();
        let check = HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: two,
            healthy_after: two,
        };
        let endpoint = Endpoint::fixed("127.0.0.1:1".parse().unwrap());
        Backend::new("127.0.0.1:1", endpoint, Some(&check))
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
    fn a_panicking_request_gives_its_lease_back() {
        let backend = unprobed();
        let inside = backend.clone();
        let caught = panic::catch_unwind(move || {
            let _lease = Lease::new(inside);
            panic!("a request that goes wrong");
        });
        assert!(caught.is_err());
        assert_eq!(backend.in_flight(), 0);
    }

    #[test]
    fn a_backend_nobody_probes_counts_as_healthy() {
        assert!(unprobed().is_healthy());
        assert!(unprobed().health().known);
    }

    #[test]
    fn a_probed_backend_takes_nothing_before_its_first_pass() {
        let backend = probed();
        assert!(!backend.is_healthy());
        assert_eq!(backend.probed(Ok(()), Timestamp::ZERO), Some(true));
        assert!(backend.is_healthy());
    }

    #[test]
    fn a_backend_whose_name_has_no_address_takes_nothing_until_it_has_one() {
        let nowhere = || Endpoint::named("web", 80, Lookup::Failed("no such name".to_owned()));
        let unchecked = Backend::new("web:80", nowhere(), None);
        assert!(!unchecked.is_healthy());
        assert_eq!(unchecked.health().last_error.as_deref(), Some("no such name"));
        let address = "10.0.0.1:80".parse().unwrap();
        assert_eq!(unchecked.resolved(address), Change::First);
        assert!(unchecked.is_healthy());
        assert_eq!((unchecked.address(), unchecked.health().last_error), (Some(address), None));
    }

    #[test]
    fn one_failed_probe_is_remembered_but_does_not_flip() {
        let backend = probed();
        backend.probed(Ok(()), Timestamp::ZERO);
        let now = Timestamp::from_nanos(9);
        assert_eq!(backend.probed(Err("refused".into()), now), None);
        assert!(backend.is_healthy());
        assert_eq!(backend.health().last_error.as_deref(), Some("refused"));
        assert_eq!(backend.health().last_checked.unwrap().at, now);
        assert_eq!(backend.probed(Err("refused".into()), now), Some(false));
    }
}
