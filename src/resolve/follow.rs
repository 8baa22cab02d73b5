//! Follows names while a worker runs: replaces the members of the pools when an answer has changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::client::{DnsClient, LookupFailure};
use super::repeat::{LookedUp, RepeatedLookup};
use super::source::{Answer, NameSource, SourceTarget};
use super::{Resolution, ResolvedNames, status};
use crate::clock::Clock;
use crate::current::{CurrentSnapshot, Serving};
use crate::exchange::event::Observer;
use crate::metrics::{Metrics, SnapshotMetrics};
use crate::name::PoolName;
use crate::runtime::backend::Backend;
use crate::runtime::ids::{EntryId, PoolId};
use crate::runtime::members::{FoundServer, MemberChange, change_members};
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// How long members that are gone stay at most while nothing else in their pool is healthy.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// How often it is checked whether they may go.
const HOLD_CHECK: Duration = Duration::from_millis(100);
/// How often backends that are gone are looked after: whether their requests have ended, and whether
/// their series may go.
const GONE_CHECK: Duration = Duration::from_secs(5);
/// How long the counters of a backend stay after it is gone and idle, so that they are scraped once more.
const SERIES_KEPT: Duration = Duration::from_secs(300);
/// Answers that wait to be used.
const ANSWERS_MAX: usize = 64;

/// What a follower works on.
#[derive(Clone)]
pub struct Followed {
    /// The snapshot that it replaces.
    pub current: Arc<CurrentSnapshot>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Makes the observer for a new snapshot.
    pub observe: Arc<dyn Fn(SnapshotMetrics) -> Arc<dyn Observer> + Send + Sync>,
    /// Reads the time.
    pub clock: Clock,
}

/// Follows every name of a configuration.
pub struct Follower {
    followed: Followed,
    sources: Vec<NameSource>,
    first: HashMap<super::Question, Resolution>,
    client: DnsClient,
    /// Notified when a backend gets its first address.
    resolved: Arc<watch::Sender<()>>,
}

impl Follower {
    /// Goes on with the results of the start.
    #[must_use]
    pub fn new(followed: Followed, names: ResolvedNames) -> Self {
        let ResolvedNames { sources, results, .. } = names;
        let follower = Self {
            followed,
            sources,
            first: results,
            client: DnsClient::default(),
            resolved: Arc::new(watch::Sender::new(())),
        };
        follower.report_start();
        follower
    }

    /// Returns a receiver that is notified whenever a backend gets its first address.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.resolved.subscribe()
    }

    /// Logs every failed lookup of the start once, and makes the status.
    fn report_start(&self) {
        let snapshot = self.followed.current.snapshot();
        let now = self.followed.clock.now();
        for source in &self.sources {
            let Some(result) = self.first.get(&source.question) else { continue };
            for target in &source.targets {
                let Some(pool) = snapshot.pools.get(target.pool) else { continue };
                if let Err(why) = result {
                    log_failed_start(pool, target, why);
                    self.followed.metrics.discovery_failed(&status::name(pool, target));
                }
                self.record(pool, target, result, now);
            }
        }
    }

    /// Shows the state of a source.
    fn record(&self, pool: &Pool, target: &SourceTarget, result: &Resolution, now: Timestamp) {
        status::record(&self.followed.current, pool, target, result, now);
        let backends = of_entry(pool, target.entry).count();
        let name = status::name(pool, target);
        self.followed.metrics.backends_discovered(pool.name.as_str(), &name, backends);
    }
}

fn log_failed_start(pool: &Pool, target: &SourceTarget, why: &LookupFailure) {
    let name = &pool.name;
    if !target.is_single {
        let (source, known) = (status::name(pool, target), of_entry(pool, target.entry).count());
        log::warn!(
            "name lookup failed: pool={name} source=\"{source}\" error=\"{why}\"; \
             its last known backends are used: {known}"
        );
        return;
    }
    for backend in of_entry(pool, target.entry) {
        let label = &backend.label;
        let effect = match backend.address() {
            Some(address) => format!("its last known address is used: {address}"),
            None => "it gets no requests until its name resolves".to_owned(),
        };
        log::warn!("name lookup failed: pool={name} backend={label} error=\"{why}\"; {effect}");
    }
}

fn of_entry(pool: &Pool, entry: EntryId) -> impl Iterator<Item = &Arc<Backend>> {
    let backends = pool.members.iter().map(|member| &member.backend);
    backends.filter(move |backend| backend.origin.entry == entry)
}

#[async_trait]
impl BackgroundService for Follower {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
        let mut lookups = JoinSet::new();
        for (position, source) in self.sources.iter().enumerate() {
            let first = self.first.get(&source.question).cloned();
            let client = self.client.clone();
            let clock = self.followed.clock;
            let repeated = RepeatedLookup { position, source: source.clone(), client, clock };
            lookups.spawn(repeated.run(first, answers.clone()));
        }
        let mut members = Members {
            follower: self,
            found: HashMap::new(),
            held: HashMap::new(),
            gone: Vec::new(),
        };
        let (mut held, mut gone) = (interval(HOLD_CHECK), interval(GONE_CHECK));
        loop {
            tokio::select! {
                // An error means that the sender is gone, which is also a stop. Dropping the tasks
                // ends them.
                _stop = shutdown.wait_for(|stop| *stop) => return,
                Some(looked_up) = answered.recv() => members.looked_up(&looked_up),
                _tick = held.tick(), if !members.held.is_empty() => members.release(),
                _tick = gone.tick() => members.forget(),
            }
        }
    }
}

/// An entry of a pool.
type SourceId = (PoolId, EntryId);

/// Changes the members of the pools.
struct Members<'a> {
    follower: &'a Follower,
    /// The last servers of each entry.
    found: HashMap<SourceId, Vec<FoundServer>>,
    /// Entries with members that are gone but stay, and since when.
    held: HashMap<SourceId, Timestamp>,
    gone: Vec<GoneBackend>,
}

/// A backend that is no longer a member.
struct GoneBackend {
    pool: PoolName,
    backend: Arc<Backend>,
    /// When it was last seen with a request in flight.
    busy: Timestamp,
}

impl Members<'_> {
    fn now(&self) -> Timestamp {
        self.follower.followed.clock.now()
    }

    fn looked_up(&mut self, looked_up: &LookedUp) {
        let Some(source) = self.follower.sources.get(looked_up.source) else { return };
        for target in &source.targets {
            let snapshot = self.follower.followed.current.snapshot();
            let Some(pool) = snapshot.pools.get(target.pool) else { continue };
            let before = status::last_error(&self.follower.followed.current, pool, target);
            match &looked_up.result {
                Ok(answer) => self.answered(pool, target, answer, before.is_some()),
                Err(why) if before.is_some() => {
                    log::debug!("name lookup failed: pool={} error=\"{why}\"", pool.name);
                    self.failed(pool, target, why, looked_up.is_used);
                }
                Err(why) => {
                    let (name, source) = (&pool.name, status::name(pool, target));
                    let next = looked_up.next.as_secs_f64();
                    log::warn!(
                        "name lookup failed: pool={name} source=\"{source}\" error=\"{why}\"; the last \
                         known backends stay, next lookup in {next:.1}s"
                    );
                    self.failed(pool, target, why, looked_up.is_used);
                }
            }
            let snapshot = self.follower.followed.current.snapshot();
            if let Some(pool) = snapshot.pools.get(target.pool) {
                self.follower.record(pool, target, &looked_up.result, self.now());
            }
        }
    }

    fn answered(&mut self, pool: &Pool, target: &SourceTarget, answer: &Answer, failed: bool) {
        let used = used_address(pool, target);
        let servers = target.servers(&answer.records, used);
        let (name, source) = (&pool.name, status::name(pool, target));
        let left_out = target.left_out(&answer.records);
        let id = (target.pool, target.entry);
        if left_out > 0 && self.found.get(&id) != Some(&servers) {
            log::warn!(
                "name has too many backends: pool={name} source=\"{source}\" left_out={left_out} (help: raise `backends_max`)"
            );
        }
        if target.is_single {
            self.single(pool, target, &servers, failed);
        } else if failed {
            log::info!("name resolved: pool={name} source=\"{source}\" backends={}", servers.len());
        }
        self.found.insert(id, servers);
        self.apply(id);
    }

    /// A backend with a host name gets its first address, or a new one.
    fn single(&self, pool: &Pool, target: &SourceTarget, servers: &[FoundServer], failed: bool) {
        let Some(server) = servers.first() else { return };
        let (name, address) = (&pool.name, server.address);
        for backend in of_entry(pool, target.entry) {
            let is_first = backend.address().is_none();
            if is_first || backend.address() == Some(address) {
                backend.resolved(address);
            }
            if is_first || failed {
                let label = &backend.label;
                log::info!("name resolved: pool={name} backend={label} address={address}");
            }
            if is_first {
                self.follower.resolved.send_replace(());
            }
        }
    }

    fn failed(&mut self, pool: &Pool, target: &SourceTarget, why: &LookupFailure, is_used: bool) {
        let source = status::name(pool, target);
        self.follower.followed.metrics.discovery_failed(&source);
        if target.is_single {
            let why = why.to_string();
            of_entry(pool, target.entry).for_each(|backend| backend.endpoint.failed(&why));
            return;
        }
        let id = (target.pool, target.entry);
        if is_used && self.found.insert(id, Vec::new()).is_none_or(|it| !it.is_empty()) {
            log::warn!("name lost its backends: pool={} source=\"{source}\"", pool.name);
            self.apply(id);
        }
    }

    /// Makes the servers that were found last the members of a pool.
    fn apply(&mut self, id: SourceId) {
        let now = self.now();
        let snapshot = self.follower.followed.current.snapshot();
        let (Some(pool), Some(found)) = (snapshot.pools.get(id.0), self.found.get(&id)) else {
            return;
        };
        let since = self.held.get(&id).copied();
        let may_hold = since.is_none_or(|since| now.since(since) < HOLD_MAX);
        let Some(change) = change_members(pool, id.1, found, may_hold, now) else {
            self.held.remove(&id);
            return;
        };
        match change.held {
            0 => drop(self.held.remove(&id)),
            _ => drop(self.held.entry(id).or_insert(now)),
        }
        if change.is_same_as(pool) {
            return;
        }
        if !pool.members.is_empty() {
            // A new backend beside others that already serve.
            change.added.iter().for_each(|backend| backend.weight.begin_slow_start(now));
        }
        let replaced =
            snapshot.with_members(|pool, _| (pool == id.0).then(|| change.members.clone()));
        self.replace(replaced);
        self.log(&pool.name, &status::entry_name(pool, id.1), &change);
        let gone = |backend: &Arc<Backend>| GoneBackend {
            pool: pool.name.clone(),
            backend: Arc::clone(backend),
            busy: now,
        };
        self.gone.extend(change.removed.iter().map(gone));
        for backend in &change.removed {
            let label = &backend.label;
            if !change.members.iter().any(|member| member.backend.label == *label) {
                self.follower.followed.metrics.remove_gauges(pool.name.as_str(), label);
            }
        }
        let added = |gone: &GoneBackend| {
            change.added.iter().any(|it| gone.pool == pool.name && it.label == gone.backend.label)
        };
        // Its series go on.
        self.gone.retain(|gone| !added(gone));
    }

    fn replace(&self, snapshot: Snapshot) {
        let Followed { current, metrics, observe, .. } = &self.follower.followed;
        if let Err(error) = metrics.follow(&snapshot) {
            log::error!("series of new backends not made: error=\"{error}\"");
        }
        let observer = observe(SnapshotMetrics::new(metrics));
        let snapshot = Arc::new(snapshot);
        // A new backend is never seen without what operators have set on it; and once more, in case
        // they have set something meanwhile.
        snapshot.apply_overrides(self.now());
        current.replace(Serving { snapshot: Arc::clone(&snapshot), observer });
        snapshot.apply_overrides(self.now());
    }

    fn log(&self, pool: &PoolName, source: &str, change: &MemberChange) {
        for backend in &change.added {
            let (label, address) = (&backend.label, backend.address());
            let address = address.map_or_else(String::new, |address| address.to_string());
            log::info!(
                "backend added: pool={pool} backend={label} address={address} source=\"{source}\""
            );
        }
        for backend in &change.removed {
            let (label, in_flight) = (&backend.label, backend.in_flight());
            let address = backend.address().map_or_else(String::new, |address| address.to_string());
            log::info!(
                "backend removed: pool={pool} backend={label} address={address} \
                 source=\"{source}\" in_flight={in_flight}"
            );
        }
    }

    /// Lets members go that were held, if they may.
    fn release(&mut self) {
        let held: Vec<_> = self.held.keys().copied().collect();
        for id in held {
            self.apply(id);
        }
    }

    /// Forgets backends that are gone.
    fn forget(&mut self) {
        let now = self.now();
        let metrics = &self.follower.followed.metrics;
        self.gone.retain_mut(|gone| {
            if gone.backend.in_flight() > 0 {
                gone.busy = now;
            }
            let is_kept = now.since(gone.busy) < SERIES_KEPT;
            if !is_kept {
                metrics.forget_backend(gone.pool.as_str(), &gone.backend.label);
            }
            is_kept
        });
    }
}

/// The address in use of a backend with a host name.
fn used_address(pool: &Pool, target: &SourceTarget) -> Option<IpAddr> {
    of_entry(pool, target.entry).find_map(|backend| Some(backend.address()?.ip()))
}
