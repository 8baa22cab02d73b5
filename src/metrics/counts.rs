//! The counts that a worker passes on to its successor.
//!
//! A new worker starts its own counters at zero, so every total would fall at each reload.
//! Therefore the counts of former workers are kept in a separate layer ([`Metrics::import`]) and
//! added when metrics are gathered. The layer identifies series by name and labels only. So it
//! covers every counter and histogram in the registry, including future ones. Gauges show current
//! state and are never inherited.
//!
//! Series of pools and backends that are not in the configuration are dropped; otherwise every
//! reload could leave some behind. The totals of `/status` keep their counts.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::MetricFamily;
use serde::{Deserialize, Serialize};

use crate::metrics::family::{Family, Labels, Series, bits, is_counted};
use crate::metrics::{Metrics, deprecated};
use crate::runtime::in_flight::InFlight;
use crate::runtime::snapshot::Snapshot;

/// Counts up to some moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    families: BTreeMap<String, Family>,
    pub(super) sums: Sums,
    backends: Vec<BackendCounts>,
    /// The requests in flight now. They are not added up: the last report replaces the one before.
    in_flight: Vec<InFlight>,
}

/// The inputs of the totals of `/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sums {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    #[serde(rename = "declined")]
    pub(super) client_errors: u64,
    pub(super) retries: u64,
    pub(super) rate_limited: u64,
    pub(super) durations: u64,
    #[serde(with = "bits")]
    pub(super) seconds: f64,
}

/// Counts of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct BackendCounts {
    pool: String,
    backend: String,
    attempts: u64,
    failures: u64,
}

impl Counts {
    /// The worker's requests in flight at the time of the report.
    #[must_use]
    pub fn in_flight(&self) -> &[InFlight] {
        &self.in_flight
    }

    /// Whether nothing was counted. Requests in flight are no count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.families.is_empty() && self.backends.is_empty() && self.sums == Sums::default()
    }

    /// Clears the requests in flight, after the worker has exited.
    pub fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// The counts added since `earlier`, a report of the same worker.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut families = BTreeMap::new();
        for (name, family) in &self.families {
            let before = earlier.families.get(name);
            let mut series = BTreeMap::new();
            for (labels, value) in &family.series.0 {
                let before = before.and_then(|before| before.series.0.get(labels));
                let new = before.map_or_else(|| value.clone(), |before| value.minus(before));
                if !new.is_zero() {
                    series.insert(labels.clone(), new);
                }
            }
            if !series.is_empty() {
                families.insert(name.clone(), Family { series: Series(series), ..family.clone() });
            }
        }
        let before = earlier.backends.iter().map(|one| ((&one.pool, &one.backend), one));
        let before: BTreeMap<_, _> = before.collect();
        let backends = self.backends.iter().map(|now| {
            let before = before.get(&(&now.pool, &now.backend));
            let (attempts, failures) = before.map_or((0, 0), |one| (one.attempts, one.failures));
            BackendCounts {
                attempts: now.attempts.saturating_sub(attempts),
                failures: now.failures.saturating_sub(failures),
                ..now.clone()
            }
        });
        let backends = backends.filter(|one| one.attempts > 0 || one.failures > 0).collect();
        let in_flight = self.in_flight.clone();
        Self { families, sums: self.sums.minus(&earlier.sums), backends, in_flight }
    }

    /// Drops the series of a backend.
    pub(super) fn forget_backend(&mut self, pool: &str, backend: &str) {
        let has = |labels: &Labels, name: &str, value: &str| {
            labels.iter().any(|(label, of)| label == name && of == value)
        };
        for family in self.families.values_mut() {
            family.series.0.retain(|labels, _| {
                !(has(labels, "pool", pool) && has(labels, "backend", backend))
            });
        }
    }

    /// The counters and histograms of these families.
    pub(super) fn of(gathered: &[MetricFamily], sums: Sums) -> Self {
        let families = gathered.iter().filter(|family| is_counted(family));
        let families = families.map(|family| (family.name().to_owned(), Family::read(family)));
        Self { families: families.collect(), sums, backends: Vec::new(), in_flight: Vec::new() }
    }
}

impl Metrics {
    /// All counts so far, of this worker and of those it has inherited from.
    #[must_use]
    pub fn export(&self, snapshot: &Snapshot) -> Counts {
        let mut counts = Counts::of(&self.counted(), self.sums());
        counts.in_flight = InFlight::of(snapshot);
        for pool in &snapshot.pools {
            counts.backends.extend(pool.members.iter().map(|member| BackendCounts {
                pool: pool.name.to_string(),
                backend: member.backend.label.to_string(),
                attempts: member.backend.attempts(),
                failures: member.backend.failures(),
            }));
        }
        counts
    }

    /// Adds the counts of another worker. Each count may be added once: first all of
    /// [`Self::export`], later the [difference](Counts::since).
    pub fn import(&self, counts: &Counts, snapshot: &Snapshot) {
        if *counts == Counts::default() {
            return;
        }
        let targets = Targets::of(snapshot);
        let own = Counts::of(&self.registry.gather(), Sums::default());
        {
            let mut inherited = self.inherited.lock();
            inherited.sums.add(&counts.sums);
            for (name, theirs) in &counts.families {
                let known = own.families.get(name).or_else(|| inherited.families.get(name));
                if known.is_some_and(|known| known.kind() != theirs.kind()) {
                    log::warn!("a metric whose type has changed is not inherited: name={name}");
                    continue;
                }
                // A worker of another version may use other buckets.
                let rebucketed = known
                    .filter(|known| known.bounds != theirs.bounds)
                    .map(|known| theirs.with_bounds(&known.bounds));
                let theirs = rebucketed.as_ref().unwrap_or(theirs);
                let empty = || Family { series: Series::default(), ..theirs.clone() };
                let ours = inherited.families.entry(name.clone()).or_insert_with(empty);
                for (labels, value) in theirs.series.0.iter().filter(|one| targets.has(one.0)) {
                    ours.series.0.entry(labels.clone()).or_default().add(value);
                }
            }
        }
        let before = counts.backends.iter().map(|one| ((&*one.pool, &*one.backend), one));
        let before: BTreeMap<_, _> = before.collect();
        for pool in &snapshot.pools {
            for backend in pool.members.iter().map(|member| &member.backend) {
                if let Some(counted) = before.get(&(pool.name.as_str(), &*backend.label)) {
                    backend.add_counts(counted.attempts, counted.failures);
                }
            }
        }
    }

    /// All metrics for exposition: own ones, inherited ones, and the supervisor's.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.counted();
        for family in self.supervisor_families() {
            match families.iter_mut().find(|own| own.name() == family.name()) {
                Some(own) => own.mut_metric().extend_from_slice(family.get_metric()),
                None => families.push(family),
            }
        }
        families.extend(deprecated::copies(&families));
        families.sort_by(|one, other| one.name().cmp(other.name()));
        families
    }

    /// The inputs of the totals of `/status`, inherited and own.
    pub(super) fn sums(&self) -> Sums {
        let table = self.series.table();
        let (seconds, durations) = table.durations();
        let mut sums = Sums {
            succeeded: self.succeeded.load(Relaxed),
            failed: self.failed.load(Relaxed),
            client_errors: self.client_errors.load(Relaxed),
            retries: table.retries(),
            rate_limited: self.limits.rate_limited(),
            durations,
            seconds,
        };
        sums.add(&self.inherited.lock().sums);
        sums
    }

    /// The own metrics, with the inherited counts added.
    fn counted(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        let inherited = self.inherited.lock();
        for (name, layer) in inherited.families.iter().filter(|(_, one)| !one.series.0.is_empty()) {
            match families.iter_mut().find(|family| family.name() == name) {
                Some(own) => layer.add_to(own),
                None => families.push(layer.show(name)),
            }
        }
        families
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.client_errors += other.client_errors;
        self.retries += other.retries;
        self.rate_limited += other.rate_limited;
        self.durations += other.durations;
        self.seconds += other.seconds;
    }

    fn minus(&self, earlier: &Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_sub(earlier.succeeded),
            failed: self.failed.saturating_sub(earlier.failed),
            client_errors: self.client_errors.saturating_sub(earlier.client_errors),
            retries: self.retries.saturating_sub(earlier.retries),
            rate_limited: self.rate_limited.saturating_sub(earlier.rate_limited),
            durations: self.durations.saturating_sub(earlier.durations),
            seconds: (self.seconds - earlier.seconds).max(0.0),
        }
    }
}

/// The pools and backends of a configuration.
struct Targets<'a> {
    pools: HashSet<&'a str>,
    backends: HashSet<(&'a str, &'a str)>,
}

impl<'a> Targets<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let backends = snapshot.pools.iter().flat_map(|pool| {
            let name = pool.name.as_str();
            pool.members.iter().map(move |member| (name, &*member.backend.label))
        });
        Self {
            pools: snapshot.pools.iter().map(|pool| pool.name.as_str()).collect(),
            backends: backends.collect(),
        }
    }

    /// Whether a series belongs to no pool, or to one of these pools and backends.
    fn has(&self, labels: &Labels) -> bool {
        let label = |wanted: &str| {
            let found = labels.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| value.as_str())
        };
        match (label("pool"), label("backend")) {
            ("", _) => true,
            (pool, "") => self.pools.contains(pool),
            target => self.backends.contains(&target),
        }
    }
}
