//! Resolves the host names of backends. Every wait for a DNS server has a timeout.
//!
//! The C library does the lookups (`getaddrinfo`), because it reads `/etc/hosts`, search domains and
//! everything else that an operator has configured. A call can block for half a minute while no DNS
//! server responds, and it cannot be cancelled. So each call has its own thread, at most `LOOKUPS_MAX`
//! run at the same time, and the caller stops waiting after a timeout.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::config::{BackendAddress, Config, ConfigBuilder, Problem};
use crate::name::PoolName;
use crate::runtime::backend::Backend;
use crate::runtime::endpoint::{Change, KnownName, Lookup};
use crate::runtime::snapshot::Snapshot;

/// The timeout of a lookup.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same at the start of a worker, for a name that its predecessor had resolved: a worker that
/// replaces a crashed one can use the last known address, and must not wait long.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of concurrent lookups.
const LOOKUPS_MAX: usize = 64;
/// The wait before a failed lookup is retried; doubled each time up to the longest, ± 20 %.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

const NO_ADDRESS: &str = "the name has no address";

/// The addresses of a name, or the reason of the failure.
type Resolution = Result<Vec<IpAddr>, String>;

/// The results for every host name of a configuration.
#[derive(Debug, Default)]
pub struct ResolvedNames {
    results: HashMap<String, Resolution>,
    used: HashMap<(String, u16), SocketAddr>,
}

impl ResolvedNames {
    /// Resolves every host name of a configuration, concurrently, within a few seconds. `known` has the
    /// results of the predecessor. Blocks the caller.
    #[must_use]
    pub fn look_up(config: &Config, known: &[KnownName]) -> Self {
        let hosts: BTreeSet<&str> = known.iter().map(|known| known.host.as_str()).collect();
        let timeout = |host: &str| if hosts.contains(host) { KNOWN_TIMEOUT } else { TIMEOUT };
        let names = names(config).map(|(host, _)| (host.to_owned(), timeout(host)));
        let used = known
            .iter()
            .filter_map(|known| Some(((known.host.clone(), known.port), known.address?)));
        Self { results: look_up_all(names.collect()), used: used.collect() }
    }

    /// The result for a host name. An address that is in use is kept as long as the name has it.
    #[must_use]
    pub fn lookup(&self, host: &str, port: u16) -> Lookup {
        let used = self.used.get(&(host.to_owned(), port)).copied();
        match (self.results.get(host), used) {
            (Some(Ok(found)), _) => match choose(found, used.map(|used| used.ip())) {
                Some(address) => Lookup::Found(SocketAddr::new(address, port)),
                None => Lookup::Failed(NO_ADDRESS.to_owned()),
            },
            (Some(Err(why)), Some(used)) => Lookup::Stale(used, why.clone()),
            (Some(Err(why)), None) => Lookup::Failed(why.clone()),
            (None, _) => Lookup::Failed("the name was not looked up".to_owned()),
        }
    }
}

/// Resolves every host name of a configuration and adds a warning for each failure.
pub fn check_names(builder: &mut ConfigBuilder) {
    let looked_up = ResolvedNames::look_up(builder.config(), &[]);
    let backends = builder.config().pools.iter().flat_map(|pool| &pool.backends);
    let warnings: Vec<Problem> = backends
        .filter_map(|backend| {
            let BackendAddress::Name(host, port) = &backend.address else { return None };
            let (Lookup::Failed(why) | Lookup::Stale(_, why)) = looked_up.lookup(host, *port)
            else {
                return None;
            };
            Some(Problem {
                at: backend.defined_at.0,
                what: format!(
                    "the name of the backend `{host}:{port}` could not be resolved: {why}"
                ),
                help: Some("it gets no requests until its name resolves".to_owned()),
            })
        })
        .collect();
    warnings.into_iter().for_each(|warning| builder.warn(warning));
}

fn names(config: &Config) -> impl Iterator<Item = (&str, u16)> {
    let backends = config.pools.iter().flat_map(|pool| &pool.backends);
    backends.filter_map(|backend| match &backend.address {
        BackendAddress::Name(host, port) => Some((host.as_str(), *port)),
        BackendAddress::Socket(_) => None,
    })
}

/// Resolves these names, each with its timeout.
fn look_up_all(names: BTreeMap<String, Duration>) -> HashMap<String, Resolution> {
    if names.is_empty() {
        return HashMap::new();
    }
    let failed = |why: &str| {
        names.keys().map(|name| (name.clone(), Err(why.to_owned()))).collect::<HashMap<_, _>>()
    };
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_time().build() else {
        return failed("no thread could be started");
    };
    let mut results = failed("the lookup itself failed");
    let lookups = Lookups::default();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (name, limit) in names {
            let lookups = lookups.clone();
            tasks.spawn(async move { (name.clone(), lookups.look_up(name, limit).await) });
        }
        while let Some(ended) = tasks.join_next().await {
            results.extend(ended);
        }
    });
    // Lookups that exceeded their timeout end by themselves.
    runtime.shutdown_background();
    results
}

/// Limits concurrent lookups. A lookup that timed out counts until its call has returned.
#[derive(Debug, Clone)]
struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Lookups {
    async fn look_up(&self, name: String, limit: Duration) -> Resolution {
        let permit = Arc::clone(&self.0).acquire_owned();
        let lookup = async {
            let permit = permit.await;
            let ended = spawn_blocking(move || {
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect())
            });
            match ended.await {
                Ok(found) => found.map_err(|error| error.to_string()),
                Err(_panicked) => Err("the lookup itself failed".to_owned()),
            }
        };
        let timed_out =
            |_| Err(format!("no response within {}", humantime::format_duration(limit)));
        timeout(limit, lookup).await.unwrap_or_else(timed_out)
    }
}

/// The address in use if the name still has it; else the first IPv4 address, else the first. Backends
/// that listen on one protocol only usually listen on IPv4.
fn choose(found: &[IpAddr], used: Option<IpAddr>) -> Option<IpAddr> {
    let used = used.filter(|used| found.contains(used));
    used.or_else(|| found.iter().find(|address| address.is_ipv4()).copied())
        .or_else(|| found.first().copied())
}

/// Retries the lookups that failed at the start, until each name has an address.
#[derive(Debug)]
pub struct Resolver {
    snapshot: Arc<Snapshot>,
    /// Notified when a backend gets its address.
    resolved: Arc<watch::Sender<()>>,
}

impl Resolver {
    /// Creates it for the backends of the current snapshot.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, resolved: Arc::new(watch::Sender::new(())) }
    }

    /// Returns a receiver that is notified whenever a backend gets its address.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.resolved.subscribe()
    }

    /// Logs every failed lookup once.
    pub fn warn(&self) {
        for Named { pool, backend } in self.failed() {
            let (label, why) = (&backend.label, backend.endpoint.failure().unwrap_or_default());
            let effect = match backend.address() {
                Some(address) => format!("its last known address is used: {address}"),
                None => "it gets no requests until its name resolves".to_owned(),
            };
            log::warn!("name lookup failed: pool={pool} backend={label} error=\"{why}\"; {effect}");
        }
    }

    /// The backends whose last lookup failed.
    fn failed(&self) -> Vec<Named> {
        let mut failed = Vec::new();
        for pool in &self.snapshot.pools {
            let backends = pool.members.iter().map(|member| &member.backend);
            let backends = backends.filter(|backend| backend.endpoint.failure().is_some());
            failed.extend(
                backends
                    .map(|backend| Named { pool: pool.name.clone(), backend: Arc::clone(backend) }),
            );
        }
        failed
    }
}

#[async_trait]
impl BackgroundService for Resolver {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut by_host: BTreeMap<String, Vec<Named>> = BTreeMap::new();
        for named in self.failed() {
            if let Some((host, _)) = named.backend.endpoint.host() {
                by_host.entry(host.to_owned()).or_default().push(named);
            }
        }
        let (lookups, mut searches) = (Lookups::default(), JoinSet::new());
        for (host, backends) in by_host {
            let (lookups, resolved) = (lookups.clone(), Arc::clone(&self.resolved));
            searches.spawn(Search { host, backends, lookups, resolved }.run());
        }
        // Dropping the tasks cancels them.
        shutdown.wait_for(|stop| *stop).await.ok();
    }
}

/// A backend with a host name, and its pool.
struct Named {
    pool: PoolName,
    backend: Arc<Backend>,
}

/// Retries one name until it has an address.
struct Search {
    host: String,
    /// All backends with this name.
    backends: Vec<Named>,
    lookups: Lookups,
    resolved: Arc<watch::Sender<()>>,
}

impl Search {
    async fn run(self) {
        let mut wait = RETRY_MIN;
        loop {
            sleep(wait.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
            wait = (wait * 2).min(RETRY_MAX);
            match self.lookups.look_up(self.host.clone(), TIMEOUT).await {
                Ok(found) if !found.is_empty() => {
                    self.backends.iter().for_each(|backend| backend.found(&found));
                    self.resolved.send_replace(());
                    return;
                }
                Ok(_) => self.failed(NO_ADDRESS),
                Err(why) => self.failed(&why),
            }
        }
    }

    fn failed(&self, why: &str) {
        for Named { pool, backend } in &self.backends {
            let label = &backend.label;
            log::debug!("name lookup failed: pool={pool} backend={label} error=\"{why}\"");
            backend.endpoint.failed(why);
        }
    }
}

impl Named {
    fn found(&self, found: &[IpAddr]) {
        let Self { pool, backend } = self;
        let Some((_, port)) = backend.endpoint.host() else { return };
        let used = backend.address().map(|address| address.ip());
        let Some(address) = choose(found, used) else { return };
        let (label, address) = (&backend.label, SocketAddr::new(address, port));
        match backend.resolved(address) {
            Change::Same | Change::First => {
                log::info!("name resolved: pool={pool} backend={label} address={address}");
            }
            Change::Moved { used } => log::warn!(
                "name resolved: pool={pool} backend={label} address={address}; {used} stays in use \
                 (help: `weir reload` uses the new address)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_in_use_is_preferred_then_an_ipv4_address() {
        let found = [ip("2001:db8::1"), ip("10.0.0.1"), ip("10.0.0.2")];
        assert_eq!(choose(&found, None), Some(ip("10.0.0.1")));
        assert_eq!(choose(&found, Some(ip("10.0.0.2"))), Some(ip("10.0.0.2")));
        assert_eq!(choose(&found, Some(ip("10.0.0.9"))), Some(ip("10.0.0.1")));
        assert_eq!(choose(&found[..1], None), Some(ip("2001:db8::1")));
        assert_eq!(choose(&[], Some(ip("10.0.0.1"))), None);
    }

    #[test]
    fn a_failed_lookup_leaves_the_last_known_address() {
        let (host, used): (_, SocketAddr) = ("web".to_owned(), "10.0.0.1:80".parse().unwrap());
        let mut names = ResolvedNames::default();
        names.results.insert(host.clone(), Err("no such name".to_owned()));
        assert_eq!(names.lookup("web", 80), Lookup::Failed("no such name".to_owned()));
        names.used.insert((host, 80), used);
        assert_eq!(names.lookup("web", 80), Lookup::Stale(used, "no such name".to_owned()));
        assert_eq!(names.lookup("web", 81), Lookup::Failed("no such name".to_owned()));
    }

    #[test]
    fn names_are_resolved_by_the_system() {
        let names = BTreeMap::from([("localhost".to_owned(), TIMEOUT)]);
        let results = look_up_all(names);
        let found = results["localhost"].as_ref().unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_name_is_looked_up_once_for_all_its_ports() {
        let config = config::load(
            Some(
                b"pools:\n  - {name: a, backends: [http://localhost:1, http://10.0.0.1:2]}\n  \
                  - {name: b, backends: [http://localhost:3]}\nroutes: [{path: /a, pool: a}, {pool: b}]",
            ),
            &config::Overrides::default(),
        );
        let config = config.unwrap();
        let named: Vec<_> = names(&config).collect();
        assert_eq!(named, [("localhost", 1), ("localhost", 3)]);
        let found = ResolvedNames::look_up(&config, &[]);
        assert_eq!(found.results.len(), 1);
        assert!(
            matches!(found.lookup("localhost", 3), Lookup::Found(address) if address.port() == 3)
        );
    }
}
