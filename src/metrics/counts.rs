//! What was counted, as a successor takes it over.
//!
//! A new worker starts its counters at zero, and everybody who reads them would see totals fall at
//! every reload. So what others have counted lies in a layer of its own ([`Metrics::inherit`]) and
//! is added when somebody looks. The layer knows series by name and labels alone: it covers every
//! counter and histogram of the registry, those included that nobody has thought of yet. Gauges
//! say what is, so they are never inherited.
//!
//! Series of pools and backends that the configuration no longer has are dropped, or else every
//! reload would leave some behind for ever; the totals of `/status` keep them.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use prometheus::IntCounter;
use prometheus::proto::MetricFamily;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::metrics::family::{Family, Labels, Series, bits, is_counted};
use crate::runtime::in_flight::InFlight;
use crate::runtime::snapshot::Snapshot;

/// What was counted up to some moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    families: BTreeMap<String, Family>,
    pub(super) sums: Sums,
    backends: Vec<BackendCounts>,
    /// What is in flight now. It is not added up: the last report counts.
    in_flight: Vec<InFlight>,
}

/// What the totals of `/status` are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sums {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) declined: u64,
    pub(super) retries: u64,
    pub(super) rate_limited: u64,
    pub(super) durations: u64,
    #[serde(with = "bits")]
    pub(super) seconds: f64,
}

/// What a backend has counted by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct BackendCounts {
    pool: String,
    backend: String,
    attempts: u64,
    failures: u64,
}

impl Counts {
    /// What the worker had in flight when it counted.
    #[must_use]
    pub fn in_flight(&self) -> &[InFlight] {
        &self.in_flight
    }

    /// The worker is gone, and its requests with it.
    pub fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// What came to it since `earlier`, which the same worker has counted.
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

    /// The counters and histograms of these families.
    pub(super) fn of(gathered: &[MetricFamily], sums: Sums) -> Self {
        let families = gathered.iter().filter(|family| is_counted(family));
        let families = families.map(|family| (family.name().to_owned(), Family::read(family)));
        Self { families: families.collect(), sums, backends: Vec::new(), in_flight: Vec::new() }
    }
}

impl Metrics {
    /// Everything that was counted so far, by this worker and by those that it has inherited from.
    #[must_use]
    pub fn counts(&self, snapshot: &Snapshot) -> Counts {
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

    /// Adds what another worker has counted. Each count may come once: at first all of
    /// [`Self::counts`], then what came [since](Counts::since).
    pub fn inherit(&self, counts: &Counts, snapshot: &Snapshot) {
        if *counts == Counts::default() {
            return;
        }
        let places = Places::of(snapshot);
        let own = Counts::of(&self.registry.gather(), Sums::default());
        {
            let mut inherited = self.inherited.lock();
            inherited.sums.add(&counts.sums);
            for (name, theirs) in &counts.families {
                let known = own.families.get(name).or_else(|| inherited.families.get(name));
                if known.is_some_and(|known| known.kind() != theirs.kind()) {
                    log::warn!(
                        "a metric that has become another kind is not inherited: name={name}"
                    );
                    continue;
                }
                // A worker of another version may have other buckets.
                let rebucketed = known
                    .filter(|known| known.bounds != theirs.bounds)
                    .map(|known| theirs.with_bounds(&known.bounds));
                let theirs = rebucketed.as_ref().unwrap_or(theirs);
                let empty = || Family { series: Series::default(), ..theirs.clone() };
                let ours = inherited.families.entry(name.clone()).or_insert_with(empty);
                for (labels, value) in theirs.series.0.iter().filter(|one| places.has(one.0)) {
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

    /// Every metric as it is to be shown: our own, what was inherited, and the supervisor's.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.counted();
        for family in self.supervisors_families() {
            match families.iter_mut().find(|own| own.name() == family.name()) {
                Some(own) => own.mut_metric().extend_from_slice(family.get_metric()),
                None => families.push(family),
            }
        }
        families.sort_by(|one, other| one.name().cmp(other.name()));
        families
    }

    /// What the totals of `/status` are made of, inherited and own.
    pub(super) fn sums(&self) -> Sums {
        let (seconds, durations) = self.table.durations();
        let mut sums = Sums {
            succeeded: self.succeeded.load(Relaxed),
            failed: self.failed.load(Relaxed),
            declined: self.declined.load(Relaxed),
            retries: self.table.retries(),
            rate_limited: self.rate_limited.iter().map(IntCounter::get).sum(),
            durations,
            seconds,
        };
        sums.add(&self.inherited.lock().sums);
        sums
    }

    /// Our own metrics, with what was inherited added.
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
        self.declined += other.declined;
        self.retries += other.retries;
        self.rate_limited += other.rate_limited;
        self.durations += other.durations;
        self.seconds += other.seconds;
    }

    fn minus(&self, earlier: &Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_sub(earlier.succeeded),
            failed: self.failed.saturating_sub(earlier.failed),
            declined: self.declined.saturating_sub(earlier.declined),
            retries: self.retries.saturating_sub(earlier.retries),
            rate_limited: self.rate_limited.saturating_sub(earlier.rate_limited),
            durations: self.durations.saturating_sub(earlier.durations),
            seconds: (self.seconds - earlier.seconds).max(0.0),
        }
    }
}

/// Where a configuration lets requests be answered.
struct Places<'a> {
    pools: HashSet<&'a str>,
    backends: HashSet<(&'a str, &'a str)>,
}

impl<'a> Places<'a> {
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

    /// Whether a series belongs to no place at all, or to one of these.
    fn has(&self, labels: &Labels) -> bool {
        let label = |wanted: &str| {
            let found = labels.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| value.as_str())
        };
        match (label("pool"), label("backend")) {
            ("", _) => true,
            (pool, "") => self.pools.contains(pool),
            place => self.backends.contains(&place),
        }
    }
}
