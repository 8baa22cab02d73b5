//! One server, and the requests in flight to it.
//!
//! A backend outlives the snapshot that created it: its health, requests in flight and counts
//! belong to the address, not to the version of the configuration. Its weight is not here: a new
//! weight does not make a new backend.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HealthCheck;
use crate::policy::hysteresis::Hysteresis;
use crate::policy::operator::{BackendOverride, OperatorMode};
use crate::runtime::circuit::Circuit;
use crate::runtime::endpoint::{Change, Endpoint};
pub use crate::runtime::health_state::{HealthState, PastInstant};
use crate::runtime::ids::EntryId;
pub use crate::runtime::standing::Eligibility;
use crate::runtime::standing::{Standing, Standpoint};
use crate::runtime::weight::BackendWeight;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::time::Timestamp;

/// One server of one pool.
#[derive(Debug)]
pub struct Backend {
    /// The address as written in the configuration: its name in metrics, status and logs.
    pub label: Arc<str>,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// A hash of the label, the same in every process.
    pub identity: u64,
    /// Where it comes from.
    pub origin: BackendOrigin,
    /// How to connect to it.
    pub transport: TransportKey,
    standing: Standing,
    pub(super) in_flight: AtomicU64,
    /// Requests in flight of other workers, as last reported.
    other_workers: AtomicU64,
    pub(super) counts: AttemptCounts,
    probes: Mutex<ProbeRecord>,
    /// What is known of it by its requests.
    pub circuit: Circuit,
    /// Its effective weight.
    pub weight: BackendWeight,
}

/// The attempts at a backend.
#[derive(Debug, Default)]
pub(super) struct AttemptCounts {
    pub(super) attempts: AtomicU64,
    failures: AtomicU64,
}

/// Where a backend comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendOrigin {
    /// The entry of the configuration.
    pub entry: EntryId,
    /// The name that its certificate must have, if that is not the same for the whole entry.
    pub own_name: Option<Box<str>>,
}

/// How to connect to a backend. A different transport means a different server: the health of the
/// one does not apply to the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportKey {
    /// Whether it uses TLS.
    pub tls: bool,
    /// A hash of everything else that determines the server.
    #[serde(rename = "details")]
    pub fingerprint: u64,
}

/// The results of the probes.
#[derive(Debug, Clone, Default)]
struct ProbeRecord {
    /// `None` if the backend has no health check.
    hysteresis: Option<Hysteresis>,
    last_checked: Option<PastInstant>,
    last_error: Option<String>,
    /// What was imported last.
    imported: Option<HealthState>,
    /// The last change of health since then by own probes, which is in the log.
    logged: Option<bool>,
}

/// A backend's health at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it gets requests.
    pub healthy: bool,
    /// Whether a probe has ever reported, or none is configured.
    pub known: bool,
    /// When the last probe ended.
    pub last_checked: Option<PastInstant>,
    /// Why the last failed probe or attempt failed.
    pub last_error: Option<String>,
}

impl Backend {
    /// A backend without any requests yet. With a health check it gets no request before its first
    /// probe has passed; without one it counts as healthy. While its host name is unresolved it
    /// gets none in either case.
    #[must_use]
    pub fn new(label: &str, endpoint: Endpoint, health_check: Option<&HealthCheck>) -> Self {
        let hysteresis =
            health_check.map(|check| Hysteresis::new(check.healthy_after, check.unhealthy_after));
        Self {
            label: label.into(),
            identity: xxh3_64(label.as_bytes()),
            origin: BackendOrigin::default(),
            transport: TransportKey::default(),
            standing: Standing::new(hysteresis.is_none() && endpoint.address().is_some()),
            endpoint,
            in_flight: AtomicU64::new(0),
            other_workers: AtomicU64::new(0),
            counts: AttemptCounts::default(),
            probes: Mutex::new(ProbeRecord { hysteresis, ..ProbeRecord::default() }),
            circuit: Circuit::default(),
            weight: BackendWeight::default(),
        }
    }

    /// Sets how to connect to it.
    #[must_use]
    pub fn with_transport(mut self, transport: TransportKey) -> Self {
        self.transport = transport;
        self
    }

    /// Sets the name that its certificate must have.
    #[must_use]
    pub fn with_own_name(mut self, name: Option<&str>) -> Self {
        self.origin.own_name = name.map(Into::into);
        self
    }

    /// Sets the entry of the configuration that it comes from.
    #[must_use]
    pub fn with_entry(mut self, entry: EntryId) -> Self {
        self.origin.entry = entry;
        self
    }

    /// Sets its weight, which starts slowly if it is configured so.
    #[must_use]
    pub fn with_weight(mut self, weight: BackendWeight) -> Self {
        self.weight = weight;
        self
    }

    /// Its URL, as written in the configuration.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.transport.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.label)
    }

    /// Where to connect; `None` while its host name is unresolved.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.address()
    }

    /// Records the address of its host name. A backend without health checks gets requests once it
    /// has its first address.
    pub fn resolved(&self, address: SocketAddr) -> Change {
        let probes = self.probes.lock();
        let change = self.endpoint.found(address);
        if change == Change::First && probes.hysteresis.is_none() {
            self.set_healthy(true);
        }
        change
    }

    /// Whether its health checks pass.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.standing.is_healthy()
    }

    /// Whether its health checks pass, and no operator keeps requests away from it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.standing.get() == Standpoint::Available
    }

    /// How an operator keeps requests away from it, if one does.
    #[must_use]
    pub fn operator_mode(&self) -> Option<OperatorMode> {
        match self.standing.get() {
            Standpoint::TakenOut(mode) => Some(mode),
            Standpoint::Available | Standpoint::Unhealthy => None,
        }
    }

    /// Applies what operators have set on it; `None`: nothing. Its health checks go on. One that was out
    /// starts slowly. Returns whether its weight is a new one, which has to be calculated.
    pub(super) fn apply_override(&self, set: Option<&BackendOverride>, now: Timestamp) -> bool {
        let mode = set.and_then(|set| set.mode.as_ref()).map(|mode| mode.value);
        let was_out = self.standing.set_operator_mode(mode);
        if was_out && mode.is_none() {
            self.weight.begin_slow_start(now);
        }
        let percent = set.and_then(|set| set.weight.as_ref()).map(|weight| weight.value);
        self.weight.set_operator_percent(percent.unwrap_or_default())
    }

    /// Whether it gets requests.
    #[must_use]
    pub fn eligibility(&self) -> Eligibility {
        match self.standing.get() {
            Standpoint::Available if self.circuit.keeps_out() => Eligibility::KeptOut,
            Standpoint::Available => Eligibility::Eligible,
            Standpoint::Unhealthy => Eligibility::Unhealthy,
            Standpoint::TakenOut(mode) => Eligibility::TakenOut(mode),
        }
    }

    fn set_healthy(&self, healthy: bool) {
        self.standing.set_healthy(healthy);
    }

    /// Whether its last health check passed, but it needs further passes to be healthy, and no operator
    /// keeps requests away from it.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        if self.operator_mode().is_some() {
            return false;
        }
        let probes = self.probes.lock();
        let standing = probes.hysteresis.as_ref().and_then(Hysteresis::export);
        standing.is_some_and(|standing| !standing.healthy && standing.run > 0)
    }

    /// Requests sent to it and not yet finished: the number of live leases.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Requests in flight to it, including those of draining workers, and its last failures: a
    /// backend that fails at once would attract most requests otherwise.
    #[must_use]
    pub fn load(&self, now: Timestamp) -> u64 {
        let other_workers = self.other_workers.load(Relaxed);
        self.in_flight().saturating_add(other_workers).saturating_add(self.circuit.penalty(now))
    }

    /// Requests in flight of other workers, as last reported.
    #[must_use]
    pub fn other_workers(&self) -> u64 {
        self.other_workers.load(Relaxed)
    }

    /// Sets the requests in flight of other workers.
    pub fn set_other_workers(&self, requests: u64) {
        self.other_workers.store(requests, Relaxed);
    }

    /// The number of attempts.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.counts.attempts.load(Relaxed)
    }

    /// The number of failed attempts.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Relaxed)
    }

    /// Counts a failed attempt, with the reason for the operator.
    pub fn attempt_failed(&self, reason: &str) {
        self.counts.failures.fetch_add(1, Relaxed);
        let mut probes = self.probes.lock();
        probes.last_error = Some(reason.to_owned());
    }

    /// Processes the result of a probe that ended at `now`. `Some` is the new health, if it
    /// changed.
    pub fn probed(&self, result: Result<(), String>, now: Timestamp) -> Option<bool> {
        let mut probes = self.probes.lock();
        let passed = result.is_ok();
        probes.last_checked = Some(PastInstant { at: now, earlier: Duration::ZERO });
        if let Err(reason) = result {
            probes.last_error = Some(reason);
        }
        let hysteresis = probes.hysteresis.as_mut()?;
        let was_known = hysteresis.is_known();
        let flipped = hysteresis.observe(passed);
        if let Some(healthy) = flipped {
            // One whose first health check passes has not recovered, unless it is new in its pool.
            if healthy && (was_known || self.weight.is_ramping()) {
                self.weight.begin_slow_start(now);
            }
            self.set_healthy(healthy);
            probes.logged = flipped;
        }
        flipped
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> Health {
        let probes = self.probes.lock();
        Health {
            healthy: self.is_healthy(),
            known: probes.hysteresis.as_ref().is_none_or(Hysteresis::is_known),
            last_checked: probes.last_checked,
            last_error: probes.last_error.clone().or_else(|| self.endpoint.failure()),
        }
    }
}

impl Backend {
    /// Its health for the next worker.
    #[must_use]
    pub fn export_health(&self, now: Timestamp) -> HealthState {
        let probes = self.probes.lock();
        HealthState {
            standing: probes.hysteresis.as_ref().and_then(Hysteresis::export),
            checked_ago: probes.last_checked.map(|instant| instant.ago(now)),
            last_error: probes.last_error.clone(),
        }
    }

    /// Imports the health that the previous worker exported at that instant, and combines it with the results
    /// of own probes since the start (see [`Hysteresis::import`]). If that is what was imported at the
    /// start, the previous worker has died since, and all results of own probes are newer. A backend
    /// without health checks here stays healthy; one without them there stays unknown until it passes.
    /// `Some` is the new health, if the log does not have it: neither this worker nor, as far as is
    /// known, the previous one has determined it last.
    pub fn import_health(&self, known: &HealthState, exported: PastInstant) -> Option<bool> {
        let mut guard = self.probes.lock();
        let probes = &mut *guard;
        if probes.imported.as_ref() == Some(known) {
            return None;
        }
        probes.imported = Some(known.clone());
        if probes.last_error.is_none() {
            probes.last_error.clone_from(&known.last_error);
        }
        let (Some(hysteresis), Some(standing)) = (&mut probes.hysteresis, known.standing) else {
            return None;
        };
        if !hysteresis.has_own_results() {
            let at =
                |ago| PastInstant { earlier: exported.earlier.saturating_add(ago), ..exported };
            probes.last_checked = known.checked_ago.map(at);
        }
        let before = hysteresis.is_healthy();
        hysteresis.import(standing);
        let healthy = hysteresis.is_healthy();
        self.set_healthy(healthy);
        let is_logged = match probes.logged.take() {
            Some(logged) => healthy == logged,
            None => healthy == before || healthy == standing.healthy,
        };
        (!is_logged).then_some(healthy)
    }

    /// Adds the counts of other workers.
    pub fn add_counts(&self, attempts: u64, failures: u64) {
        self.counts.attempts.fetch_add(attempts, Relaxed);
        self.counts.failures.fetch_add(failures, Relaxed);
    }
}

/// A backend in a pool, with its weight.
#[derive(Debug, Clone)]
pub struct Member {
    /// The server.
    pub backend: Arc<Backend>,
    /// Its share relative to the others.
    pub weight: NonZeroU32,
    /// Maximum number of requests in flight; `None`: no limit.
    pub max_requests: Option<NonZeroU32>,
}

impl Member {
    /// Whether it has a place for another request.
    #[must_use]
    pub fn has_place(&self) -> bool {
        let in_flight = || self.backend.in_flight().saturating_add(self.backend.other_workers());
        self.max_requests.is_none_or(|max| in_flight() < u64::from(max.get()))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::runtime::endpoint::Lookup;

    fn unprobed() -> Arc<Backend> {
        let endpoint = Endpoint::fixed("127.0.0.1:1".parse().unwrap());
        Arc::new(Backend::new("127.0.0.1:1", endpoint, None))
    }

    fn probed() -> Backend {
        let endpoint = Endpoint::fixed("127.0.0.1:1".parse().unwrap());
        Backend::new("127.0.0.1:1", endpoint, Some(&HealthCheck::default()))
    }

    #[test]
    fn a_backend_without_health_checks_counts_as_healthy() {
        assert!(unprobed().is_healthy());
        assert!(unprobed().health().known);
    }

    #[test]
    fn a_probed_backend_gets_nothing_before_its_first_pass() {
        let backend = probed();
        assert!(!backend.is_healthy());
        assert_eq!(backend.probed(Ok(()), Timestamp::ZERO), Some(true));
        assert!(backend.is_healthy());
    }

    #[test]
    fn a_backend_gets_nothing_until_its_host_name_is_resolved() {
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
