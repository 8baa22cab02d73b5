//! Which backends an entry of a pool has, after a source has found other servers.
//!
//! A backend that stays is the same object, with all its state. One that goes leaves with the next
//! snapshot, and the requests that it has end as usual. If nothing healthy would be left, it stays until
//! another backend of the pool is healthy; the caller limits for how long.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{self, BackendAddress, Protocol};
use crate::runtime::backend::{Backend, Member, PastInstant, TransportKey};
use crate::runtime::endpoint::{Endpoint, Lookup};
use crate::runtime::ids::EntryId;
use crate::runtime::pool::Pool;
use crate::time::Timestamp;

/// A server that a source has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the requests.
    pub weight: NonZeroU32,
    /// The name that its certificate must have; `None` without TLS.
    pub server_name: Option<String>,
}

/// The next members of a pool.
#[derive(Debug)]
pub struct MemberChange {
    /// All members of the pool.
    pub members: Vec<Member>,
    /// Those that are new.
    pub added: Vec<Arc<Backend>>,
    /// Those that are no longer members.
    pub removed: Vec<Arc<Backend>>,
    /// How many were not found, but stay because nothing else is healthy.
    pub held: usize,
}

impl MemberChange {
    /// Whether the pool has these members already.
    #[must_use]
    pub fn is_same_as(&self, pool: &Pool) -> bool {
        let is_same = |(one, other): (&Member, &Member)| {
            Arc::ptr_eq(&one.backend, &other.backend) && one.weight == other.weight
        };
        self.members.len() == pool.members.len()
            && self.members.iter().zip(&*pool.members).all(is_same)
    }
}

/// The servers that an entry of a pool has now, for the next worker.
#[must_use]
pub fn servers_of(pool: &Pool, entry: EntryId) -> Vec<FoundServer> {
    let members = pool.members.iter().filter(|member| member.backend.origin.entry == entry);
    let servers = members.filter_map(|member| {
        Some(FoundServer {
            address: member.backend.address()?,
            weight: member.weight,
            server_name: member.backend.origin.own_name.as_deref().map(ToOwned::to_owned),
        })
    });
    servers.collect()
}

/// Calculates the members of a pool after the servers of `entry` were found. `None`: nothing changes.
/// `may_hold`: members that are gone may stay while nothing else is healthy.
#[must_use]
pub fn change_members(
    pool: &Pool,
    entry: EntryId,
    found: &[FoundServer],
    may_hold: bool,
    now: Timestamp,
) -> Option<MemberChange> {
    let configured = pool.config.backends.get(entry.position())?;
    let mut wanted: Vec<(&FoundServer, String)> = Vec::new();
    for server in found {
        let label = match &configured.address {
            BackendAddress::Name(..) => configured.address.to_string(),
            BackendAddress::Socket(_) | BackendAddress::Discovered(_) => server.address.to_string(),
        };
        let is_other = |member: &Member| {
            member.backend.origin.entry != entry && *member.backend.label == *label
        };
        if !pool.members.iter().any(is_other) && !wanted.iter().any(|(_, known)| *known == label) {
            wanted.push((server, label));
        }
    }
    let mut change =
        MemberChange { members: Vec::new(), added: Vec::new(), removed: Vec::new(), held: 0 };
    let mut gone = Vec::new();
    let mut has_new_weight = false;
    for member in &*pool.members {
        if member.backend.origin.entry != entry {
            change.members.push(member.clone());
            continue;
        }
        let is_it =
            |(server, label): &(&FoundServer, String)| is_same(&member.backend, server, label);
        match wanted.iter().position(is_it) {
            Some(index) => {
                let (server, _) = wanted.remove(index);
                if server.weight != member.weight {
                    has_new_weight = true;
                    member.backend.weight.set_configured(server.weight);
                }
                change.members.push(Member { weight: server.weight, ..member.clone() });
            }
            None => gone.push(member.clone()),
        }
    }
    for (server, label) in wanted {
        let before = gone.iter().position(|member| *member.backend.label == *label);
        let endpoint = match &configured.address {
            BackendAddress::Name(host, port) => {
                Endpoint::named(host, *port, Lookup::Found(server.address))
            }
            BackendAddress::Socket(_) | BackendAddress::Discovered(_) => {
                Endpoint::fixed(server.address)
            }
        };
        let own_name = server.server_name.as_deref();
        let backend = new_backend(&pool.config, entry, &label, endpoint, own_name)?;
        let backend = Arc::new(backend.with_weight(pool.balancing.backend_weight()));
        backend.weight.set_configured(server.weight);
        if let Some(before) = before {
            inherit(&backend, &gone.remove(before).backend, &mut change, now);
        }
        change.added.push(Arc::clone(&backend));
        let (weight, max_requests) = (server.weight, configured.max_requests);
        change.members.push(Member { backend, weight, max_requests });
    }
    let is_healthy = |member: &Member| member.backend.is_healthy();
    if may_hold && !change.members.iter().any(is_healthy) && gone.iter().any(is_healthy) {
        change.held = gone.len();
        change.members.append(&mut gone);
    }
    change.removed.extend(gone.into_iter().map(|member| member.backend));
    let changes = has_new_weight || !change.added.is_empty() || !change.removed.is_empty();
    (changes || change.held > 0).then_some(change)
}

/// A backend of an entry in the configuration of a pool; `None` if the pool does not have the entry.
/// `own_name`: the name that its certificate must have, if that is not the one of the entry.
#[must_use]
pub fn new_backend(
    pool: &config::Pool,
    entry: EntryId,
    label: &str,
    endpoint: Endpoint,
    own_name: Option<&str>,
) -> Option<Backend> {
    let configured = pool.backends.get(entry.position())?;
    // A line of a file uses TLS if it says so.
    let of_entry = configured.server_name.as_deref().filter(|_| !configured.is_from_file());
    let backend = Backend::new(label, endpoint, pool.health_check.as_ref());
    let backend = backend.with_transport(transport(pool, own_name.or(of_entry)));
    Some(backend.with_entry(entry).with_own_name(own_name))
}

fn transport(pool: &config::Pool, server_name: Option<&str>) -> TransportKey {
    let protocol = pool.transport.protocol;
    let tls = server_name.is_some();
    let proxied = pool.transport.proxy_protocol;
    if !tls && protocol != Protocol::H2c && !proxied {
        return TransportKey::default();
    }
    // Renewed certificates in the same files do not make a different server.
    let config::TransportTls { verify, ca, identity } = &pool.transport.tls;
    let (ca, cert) = (ca.as_ref().map(|ca| &ca.path), identity.as_ref().map(|id| &id.cert.path));
    let fingerprint = format!("{server_name:?} {protocol:?} {proxied} {verify} {ca:?} {cert:?}");
    TransportKey { tls, fingerprint: xxh3_64(fingerprint.as_bytes()) }
}

/// Whether a member is this server.
fn is_same(backend: &Backend, server: &FoundServer, label: &str) -> bool {
    *backend.label == *label
        && backend.address() == Some(server.address)
        && backend.origin.own_name.as_deref() == server.server_name.as_deref()
}

/// The host name of a backend has another address. The health of the former address applies until the
/// first check of the new one, unless the former one was down.
fn inherit(backend: &Backend, former: &Arc<Backend>, change: &mut MemberChange, now: Timestamp) {
    backend.add_counts(former.attempts(), former.failures());
    if former.is_healthy() {
        let health = former.export_health(now);
        backend.import_health(&health, PastInstant { at: now, earlier: Duration::ZERO });
    }
    change.removed.push(Arc::clone(former));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Overrides, load};
    use crate::runtime::snapshot::Snapshot;

    const ENTRY: EntryId = EntryId::new(0);

    fn pool_of(entries: &str, keys: &str) -> Pool {
        let text = format!("pools: [{{name: web, {keys} backends: [{entries}]}}]");
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let lookup = |_: &str, port| Lookup::Found(SocketAddr::from(([10, 0, 0, 99], port)));
        Snapshot::new(&config, "v", 1, lookup).pools[0].clone()
    }

    fn by_dns() -> Pool {
        pool_of("{dns: 'http://web.test:80'}", "health_check: off,")
    }

    fn server(last: u8) -> FoundServer {
        let address = SocketAddr::from(([10, 0, 0, last], 80));
        FoundServer { address, weight: NonZeroU32::MIN, server_name: None }
    }

    fn changed(pool: &Pool, found: &[FoundServer]) -> Pool {
        match change_members(pool, ENTRY, found, false, Timestamp::ZERO) {
            Some(change) => pool.with_members(change.members),
            None => pool.clone(),
        }
    }

    fn labels(pool: &Pool) -> Vec<&str> {
        pool.members.iter().map(|member| &*member.backend.label).collect()
    }

    #[test]
    fn a_member_that_stays_is_the_same_object() {
        let before = changed(&by_dns(), &[server(1), server(2)]);
        let after = changed(&before, &[server(3), server(2)]);
        assert_eq!(labels(&after), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert!(Arc::ptr_eq(&before.members[1].backend, &after.members[0].backend));
    }

    #[test]
    fn the_same_answer_changes_nothing_and_a_new_weight_makes_no_new_backend() {
        let before = changed(&by_dns(), &[server(1)]);
        assert!(change_members(&before, ENTRY, &[server(1)], true, Timestamp::ZERO).is_none());
        let heavier = FoundServer { weight: NonZeroU32::new(5).unwrap(), ..server(1) };
        let after = changed(&before, &[heavier]);
        assert_eq!(after.members[0].weight.get(), 5);
        assert!(Arc::ptr_eq(&before.members[0].backend, &after.members[0].backend));
    }

    #[test]
    fn an_address_is_a_member_once_whichever_entry_has_it() {
        let pool = pool_of("http://10.0.0.1:80, {dns: 'http://web.test:80'}", "health_check: off,");
        let found = [server(1), server(2), server(2)];
        let change = change_members(&pool, EntryId::new(1), &found, false, Timestamp::ZERO);
        let after = pool.with_members(change.unwrap().members);
        assert_eq!(labels(&after), ["10.0.0.1:80", "10.0.0.2:80"]);
    }

    #[test]
    fn members_stay_until_another_one_is_healthy() {
        let pool = changed(&pool_of("{dns: 'http://web.test:80'}", ""), &[server(1)]);
        pool.members[0].backend.probed(Ok(()), Timestamp::ZERO);
        let change = change_members(&pool, ENTRY, &[server(2)], true, Timestamp::ZERO).unwrap();
        assert_eq!((change.held, change.members.len(), change.removed.len()), (1, 2, 0));
        let pool = pool.with_members(change.members);
        let change = change_members(&pool, ENTRY, &[server(2)], true, Timestamp::ZERO).unwrap();
        assert!(change.is_same_as(&pool), "nothing is made a second time");
        pool.members[0].backend.probed(Ok(()), Timestamp::ZERO);
        let change = change_members(&pool, ENTRY, &[server(2)], true, Timestamp::ZERO).unwrap();
        assert_eq!((change.held, change.members.len(), change.removed.len()), (0, 1, 1));
        let change = change_members(&pool, ENTRY, &[server(3)], false, Timestamp::ZERO).unwrap();
        assert_eq!((change.held, change.removed.len()), (0, 2), "not for ever");
    }

    #[test]
    fn a_host_name_that_moves_is_another_backend_of_the_same_name_and_health() {
        let pool = pool_of("'http://web.test:80'", "");
        let former = &pool.members[0].backend;
        former.probed(Ok(()), Timestamp::ZERO);
        former.attempt_failed("reset");
        let after = changed(&pool, &[server(1)]);
        let backend = &after.members[0].backend;
        assert!(!Arc::ptr_eq(former, backend));
        assert_eq!((&*backend.label, backend.address()), ("web.test:80", Some(server(1).address)));
        assert!(backend.is_healthy());
        assert_eq!(backend.failures(), 1);
        for _ in 0..3 {
            backend.probed(Err("refused".into()), Timestamp::ZERO);
        }
        assert!(!changed(&after, &[server(2)]).members[0].backend.is_healthy());
    }

    proptest! {
        #[test]
        fn the_members_are_always_those_of_the_last_answer(
            answers in prop::collection::vec(prop::collection::vec(1_u8..9, 0..6), 1..12),
        ) {
            let mut pool = by_dns();
            for answer in &answers {
                let found: Vec<_> = answer.iter().map(|last| server(*last)).collect();
                let before = pool.clone();
                pool = changed(&pool, &found);
                let mut wanted: Vec<_> = answer.iter().map(|last| format!("10.0.0.{last}:80")).collect();
                let mut members: Vec<_> = labels(&pool).into_iter().map(str::to_owned).collect();
                wanted.sort();
                wanted.dedup();
                members.sort();
                prop_assert_eq!(members, wanted);
                for member in &*pool.members {
                    let known = before.members.iter().find(|it| it.backend.label == member.backend.label);
                    prop_assert!(known.is_none_or(|it| Arc::ptr_eq(&it.backend, &member.backend)));
                }
            }
        }
    }
}
