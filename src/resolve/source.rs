//! The names and files that give the backends of a configuration, and the backends that use each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::client::{DnsClient, HostAddresses, LookupFailure};
use super::file;
use super::message::RecordValue;
use crate::config::{AddressFamily, BackendAddress, Config, DiscoveryFrom};
use crate::policy::refresh::RefreshBounds;
use crate::runtime::ids::{EntryId, PoolId};
use crate::runtime::members::FoundServer;

/// How often a file is read: as the configuration file is.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two reads that must agree.
const SETTLED: Duration = Duration::from_millis(50);
/// The weight of a record, at most: that of a backend in the configuration.
const WEIGHT_MAX: u64 = 1000;

/// One question, asked once for all backends that need its answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Question {
    /// The addresses of a host name.
    Host(String, AddressFamily),
    /// The servers of a service.
    Service(String),
    /// The lines of a file.
    File(PathBuf),
}

/// An entry of a pool that uses an answer.
#[derive(Debug, Clone)]
pub(super) struct SourceTarget {
    pub(super) pool: PoolId,
    pub(super) entry: EntryId,
    port: u16,
    weight: NonZeroU32,
    backends_max: usize,
    /// Whether it is one backend, whatever number of addresses its name has.
    pub(super) is_single: bool,
    /// The name that all certificates must have, instead of that of each server.
    server_name: Option<String>,
    /// Whether only servers with a name in the source use TLS: those of a file.
    is_file: bool,
    /// Whether each server's own name counts.
    own_names: bool,
}

/// A question and its users.
#[derive(Debug, Clone)]
pub(super) struct NameSource {
    pub(super) question: Question,
    pub(super) bounds: RefreshBounds,
    pub(super) targets: Vec<SourceTarget>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) records: Records,
    pub(super) ttl: Duration,
    pub(super) by: String,
}

/// What an answer contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Records {
    /// HostAddresses of a host, without a port.
    Addresses(Vec<IpAddr>),
    /// Servers, each with its port, weight and, with TLS, its name.
    Servers(Vec<FoundServer>),
}

/// The sources of a configuration.
pub(super) fn sources(config: &Config) -> Vec<NameSource> {
    let mut found: BTreeMap<Question, NameSource> = BTreeMap::new();
    for (pool_id, pool) in config.pools.iter().enumerate() {
        for (entry, backend) in pool.backends.iter().enumerate() {
            let (question, port, bounds, backends_max) = match &backend.address {
                BackendAddress::Socket(_) => continue,
                BackendAddress::Name(host, port) => {
                    let question = Question::Host(host.clone(), AddressFamily::Any);
                    (question, *port, RefreshBounds::default(), 1)
                }
                BackendAddress::Discovered(it) => {
                    let (question, port) = match &it.from {
                        DiscoveryFrom::Dns(host, port) => {
                            (Question::Host(host.clone(), it.family), *port)
                        }
                        DiscoveryFrom::Srv(name) => (Question::Service(name.clone()), 0),
                        DiscoveryFrom::File(file) => (Question::File(file.path.clone()), 0),
                    };
                    (question, port, it.refresh, it.backends_max)
                }
            };
            let target = SourceTarget {
                pool: PoolId::new(pool_id),
                entry: EntryId::new(entry),
                port,
                weight: backend.weight,
                backends_max,
                is_single: matches!(backend.address, BackendAddress::Name(..)),
                is_file: backend.is_from_file(),
                own_names: matches!(
                    &backend.address,
                    BackendAddress::Discovered(it) if it.own_names
                ) && backend.may_use_tls(),
                server_name: backend.server_name.clone(),
            };
            let source = found.entry(question.clone()).or_insert_with(|| NameSource {
                question,
                bounds,
                targets: Vec::new(),
            });
            source.bounds.min = source.bounds.min.min(bounds.min);
            source.bounds.max = source.bounds.max.min(bounds.max);
            source.targets.push(target);
        }
    }
    found.into_values().collect()
}

impl Question {
    /// Asks it, within `limit`. `last` is the last good answer.
    pub(super) async fn ask(
        &self,
        client: &DnsClient,
        last: Option<&Answer>,
        limit: Duration,
    ) -> Result<Answer, LookupFailure> {
        match self {
            Self::Host(host, family) => {
                let addresses = client.addresses(host, *family, limit).await?;
                Ok(with_missing(addresses, last))
            }
            Self::Service(name) => service(client, name, limit).await,
            Self::File(path) => lines(path).await,
        }
    }
}

/// The lines of a file. What is being written is not used in the middle, so two reads must agree.
async fn lines(path: &Path) -> Result<Answer, LookupFailure> {
    let read = || {
        let path = path.to_owned();
        spawn_blocking(move || file::read(&path))
    };
    let failed = |why: &str| LookupFailure::Failed(why.to_owned());
    let first = read().await.map_err(|_panicked| failed("it cannot be read"))?;
    sleep(SETTLED).await;
    let servers = read().await.map_err(|_panicked| failed("it cannot be read"))?;
    if servers != first {
        return Err(failed("it is being written"));
    }
    let servers = servers.map_err(LookupFailure::Failed)?;
    if servers.is_empty() {
        return Err(LookupFailure::Empty);
    }
    let by = "the file".to_owned();
    Ok(Answer { records: Records::Servers(servers), ttl: FILE_INTERVAL, by })
}

/// If only one of both families could be looked up, the addresses of the other one are the last known.
fn with_missing(addresses: HostAddresses, last: Option<&Answer>) -> Answer {
    let HostAddresses { mut found, ttl, missing, by } = addresses;
    if let Some((family, why)) = missing {
        log::debug!("name lookup incomplete: error=\"{why}\"");
        if let Some(Answer { records: Records::Addresses(known), .. }) = last {
            found.extend(known.iter().filter(|ip| family.has(**ip)));
        }
    }
    found.sort_unstable();
    found.dedup();
    Answer { records: Records::Addresses(found), ttl, by }
}

/// The servers of the records with the lowest priority, each at every address of its name.
async fn service(client: &DnsClient, name: &str, limit: Duration) -> Result<Answer, LookupFailure> {
    let answer = client.servers(name, limit).await?;
    let (mut ttl, mut servers) = (answer.ttl, Vec::new());
    for (target, port, weight) in of_best_priority(answer.found) {
        let addresses = match client.addresses(&target, AddressFamily::Any, limit).await {
            Ok(addresses) => addresses,
            Err(LookupFailure::Empty) => continue,
            // A part of the servers must not pass for all of them.
            Err(failed) => return Err(failed),
        };
        ttl = ttl.min(addresses.ttl);
        let server_name = Some(target.trim_end_matches('.').to_owned());
        servers.extend(addresses.found.into_iter().map(|ip| FoundServer {
            address: SocketAddr::new(ip, port),
            weight,
            server_name: server_name.clone(),
        }));
    }
    if servers.is_empty() {
        return Err(LookupFailure::Empty);
    }
    Ok(Answer { records: Records::Servers(servers), ttl, by: answer.by })
}

/// SourceTarget, port and weight of the records that are used. Weights above the largest of a backend are
/// scaled down; a weight of 0 is the smallest.
fn of_best_priority(records: Vec<RecordValue>) -> Vec<(String, u16, NonZeroU32)> {
    let mut servers: Vec<(u16, String, u16, u16)> = records
        .into_iter()
        .filter_map(|record| match record {
            RecordValue::Server { priority, weight, port, target } => {
                Some((priority, target, port, weight))
            }
            RecordValue::Address(_) => None,
        })
        // A target `.` says that there is no such service (RFC 2782).
        .filter(|(_, target, ..)| target != "." && !target.is_empty())
        .collect();
    let best = servers.iter().map(|server| server.0).min();
    servers.retain(|server| Some(server.0) == best);
    servers.sort();
    let largest = servers.iter().map(|server| u64::from(server.3)).max().unwrap_or(0);
    let scaled = |weight: u16| {
        let weight = u64::from(weight);
        let weight = if largest > WEIGHT_MAX { weight * WEIGHT_MAX / largest } else { weight };
        u32::try_from(weight).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    };
    servers.into_iter().map(|(_, target, port, weight)| (target, port, scaled(weight))).collect()
}

impl SourceTarget {
    /// The servers that an answer means here. `used` is the address in use of a single backend, which
    /// it keeps as long as its name has it.
    pub(super) fn servers(&self, records: &Records, used: Option<IpAddr>) -> Vec<FoundServer> {
        let server = |ip: IpAddr| FoundServer {
            address: SocketAddr::new(ip, self.port),
            weight: self.weight,
            server_name: None,
        };
        match records {
            Records::Addresses(found) if self.is_single => {
                choose(found, used).map(server).into_iter().collect()
            }
            Records::Addresses(found) => {
                found.iter().take(self.backends_max).map(|ip| server(*ip)).collect()
            }
            Records::Servers(servers) => {
                let servers = servers.iter().take(self.backends_max).cloned();
                servers.map(|server| self.named(server)).collect()
            }
        }
    }

    /// A server with the name that its certificate must have, if that differs from server to server.
    fn named(&self, mut server: FoundServer) -> FoundServer {
        if !self.own_names {
            let uses_tls = self.is_file && server.server_name.is_some();
            server.server_name = self.server_name.clone().filter(|_| uses_tls);
        }
        server
    }

    /// How many servers of an answer are left out.
    pub(super) fn left_out(&self, records: &Records) -> usize {
        let count = match records {
            Records::Addresses(found) => found.len(),
            Records::Servers(servers) => servers.len(),
        };
        if self.is_single { 0 } else { count.saturating_sub(self.backends_max) }
    }
}

/// The address in use if the name still has it; else the first IPv4 address, else the first. Backends
/// that listen on one protocol only usually listen on IPv4.
pub(super) fn choose(found: &[IpAddr], used: Option<IpAddr>) -> Option<IpAddr> {
    let used = used.filter(|used| found.contains(used));
    used.or_else(|| found.iter().find(|address| address.is_ipv4()).copied())
        .or_else(|| found.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn record(priority: u16, weight: u16, target: &str) -> RecordValue {
        RecordValue::Server { priority, weight, port: 80, target: target.to_owned() }
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
    fn only_records_of_the_lowest_priority_are_used_and_large_weights_are_scaled() {
        let found = of_best_priority(vec![
            record(20, 9, "c"),
            record(10, 0, "a"),
            record(10, 50_000, "b"),
            record(0, 1, "."),
        ]);
        let found: Vec<_> = found.iter().map(|it| (it.0.as_str(), it.2.get())).collect();
        assert_eq!(found, [("a", 1), ("b", 1000)]);
    }

    #[test]
    fn a_family_that_fails_keeps_its_last_known_addresses() {
        let all = vec![ip("10.0.0.1"), ip("2001:db8::1")];
        let last =
            Answer { records: Records::Addresses(all), ttl: Duration::ZERO, by: String::new() };
        let missing = Some((AddressFamily::Ipv6, "refused".to_owned()));
        let addresses =
            HostAddresses { found: vec![ip("10.0.0.2")], missing, ..HostAddresses::default() };
        let merged = with_missing(addresses, Some(&last)).records;
        assert_eq!(merged, Records::Addresses(vec![ip("10.0.0.2"), ip("2001:db8::1")]));
    }

    #[test]
    fn a_source_gives_at_most_as_many_backends_as_configured() {
        let text = "pools: [{name: web, backends: [{dns: 'http://a.test:80', backends_max: 2}]}]";
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let found = sources(&config);
        let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(ip);
        let records = Records::Addresses(addresses.to_vec());
        assert_eq!(found[0].targets[0].servers(&records, None).len(), 2);
        assert_eq!(found[0].targets[0].left_out(&records), 1);
    }

    #[test]
    fn the_name_of_a_certificate_is_that_of_the_pool_if_there_is_one() {
        let server = FoundServer {
            address: "10.0.0.1:443".parse().unwrap(),
            weight: NonZeroU32::MIN,
            server_name: Some("host1.test".to_owned()),
        };
        let named = |keys: &str, of: &str| {
            let text = format!("pools: [{{name: web, {keys} backends: [{{{of}}}]}}]");
            let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
            let records = Records::Servers(vec![server.clone()]);
            sources(&config)[0].targets[0].servers(&records, None)[0].server_name.clone()
        };
        let pool = "tls: {server_name: pool.test},";
        assert_eq!(named("", "srv: _https._tcp.a.test").as_deref(), Some("host1.test"));
        assert_eq!(named(pool, "srv: _https._tcp.a.test"), None, "it is the one of the entry");
        assert_eq!(named("", "srv: _http._tcp.a.test"), None, "without TLS");
        assert_eq!(named("", "file: a.txt").as_deref(), Some("host1.test"));
        assert_eq!(named(pool, "file: a.txt").as_deref(), Some("pool.test"));
    }
}
