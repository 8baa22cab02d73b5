//! Where a backend listens: at a fixed address, or under a host name that must be resolved.
//!
//! A host name without an address makes its backend unavailable, and nothing else. Once an address
//! is known it is kept for the life of the worker. Following a host name to another address at run
//! time would be done in [`Endpoint::found`], which already gets every address that a name resolves
//! to.

use std::net::SocketAddr;
use std::sync::OnceLock;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The result of resolving a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The name has this address.
    Found(SocketAddr),
    /// Resolving failed for this reason; the address is the last known one.
    Stale(SocketAddr, String),
    /// Resolving failed for this reason, and no address is known.
    Failed(String),
}

/// Where a backend listens.
#[derive(Debug)]
pub struct Endpoint {
    /// The host name and the port; `None` if the configuration has an IP address.
    host: Option<(Box<str>, u16)>,
    address: OnceLock<SocketAddr>,
    /// Why resolving failed last; `None` if it succeeded.
    failure: Mutex<Option<String>>,
}

/// What a new result changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The address is the one in use.
    Same,
    /// It is the first address of this name.
    First,
    /// The address in use is a different one.
    Moved {
        /// The address in use.
        used: SocketAddr,
    },
}

impl Endpoint {
    /// An IP address of the configuration.
    #[must_use]
    pub fn fixed(address: SocketAddr) -> Self {
        Self { host: None, address: OnceLock::from(address), failure: Mutex::default() }
    }

    /// A host name of the configuration.
    #[must_use]
    pub fn named(host: &str, port: u16, lookup: Lookup) -> Self {
        let (address, failure) = match lookup {
            Lookup::Found(address) => (OnceLock::from(address), None),
            Lookup::Stale(address, why) => (OnceLock::from(address), Some(why)),
            Lookup::Failed(why) => (OnceLock::new(), Some(why)),
        };
        Self { host: Some((host.into(), port)), address, failure: Mutex::new(failure) }
    }

    /// The host name and the port, if it must be resolved.
    #[must_use]
    pub fn host(&self) -> Option<(&str, u16)> {
        self.host.as_ref().map(|(host, port)| (&**host, *port))
    }

    /// Where to connect; `None` while the name has no address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// Why resolving failed last; `None` if it succeeded.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Records that resolving failed.
    pub fn failed(&self, why: &str) {
        *self.failure.lock() = Some(why.to_owned());
    }

    /// Records that resolving succeeded. The address is used if none was known.
    pub fn found(&self, address: SocketAddr) -> Change {
        *self.failure.lock() = None;
        if self.address.set(address).is_ok() {
            return Change::First;
        }
        match self.address() {
            Some(used) if used != address => Change::Moved { used },
            Some(_) | None => Change::Same,
        }
    }
}

/// The state of a host name, for the next worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownName {
    /// The pool whose backend has this name.
    pub pool: String,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The address in use; `None` if the name has never had one.
    pub address: Option<SocketAddr>,
    /// Why resolving failed last; `None` if it succeeded.
    #[serde(default)]
    pub failure: Option<String>,
}

impl KnownName {
    /// The state of a backend's host name; `None` if it has none.
    #[must_use]
    pub fn of(pool: &str, endpoint: &Endpoint) -> Option<Self> {
        let (host, port) = endpoint.host()?;
        Some(Self {
            pool: pool.to_owned(),
            host: host.to_owned(),
            port,
            address: endpoint.address(),
            failure: endpoint.failure(),
        })
    }

    /// What to report to the operator after a reload: the address differs from `before`, or
    /// resolving failed.
    #[must_use]
    pub fn report(&self, before: Option<&Self>) -> Option<String> {
        let Self { pool, host, port, address, failure } = self;
        let used = before.and_then(|before| before.address);
        match (address, failure, used) {
            (None, Some(why), _) => Some(format!(
                "warning: pool {pool}: backend {host}:{port} takes no requests until its name \
                 resolves: {why}"
            )),
            (Some(last), Some(why), _) => Some(format!(
                "warning: pool {pool}: backend {host}:{port} keeps its last known address {last}: \
                 {why}"
            )),
            (Some(now), None, Some(used)) if *now != used => {
                Some(format!("pool {pool}: backend {host}:{port} address: {used} → {now}"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_without_an_address_gets_the_first_one_that_is_found() {
        let endpoint = Endpoint::named("web", 80, Lookup::Failed("no such name".to_owned()));
        assert_eq!(
            (endpoint.address(), endpoint.failure().as_deref()),
            (None, Some("no such name"))
        );
        assert_eq!(endpoint.found(address("10.0.0.1:80")), Change::First);
        assert_eq!((endpoint.address(), endpoint.failure()), (Some(address("10.0.0.1:80")), None));
    }

    #[test]
    fn an_address_in_use_stays_when_the_name_moves() {
        let used = address("10.0.0.1:80");
        let endpoint = Endpoint::named("web", 80, Lookup::Stale(used, "timed out".to_owned()));
        assert_eq!(endpoint.found(used), Change::Same);
        assert_eq!(endpoint.failure(), None);
        assert_eq!(endpoint.found(address("10.0.0.2:80")), Change::Moved { used });
        assert_eq!(endpoint.address(), Some(used));
    }

    #[test]
    fn a_report_names_the_change_or_the_failure() {
        let known = |address: Option<&str>, failure: Option<&str>| KnownName {
            pool: "web".to_owned(),
            host: "api.internal".to_owned(),
            port: 80,
            address: address.map(self::address),
            failure: failure.map(str::to_owned),
        };
        let before = known(Some("10.0.0.1:80"), None);
        assert_eq!(before.report(None), None);
        assert_eq!(before.report(Some(&before)), None);
        let moved = known(Some("10.0.0.2:80"), None).report(Some(&before));
        assert_eq!(
            moved.as_deref(),
            Some("pool web: backend api.internal:80 address: 10.0.0.1:80 → 10.0.0.2:80")
        );
        let unresolved = known(None, Some("no such name")).report(Some(&before)).unwrap();
        assert!(unresolved.contains("takes no requests until its name resolves: no such name"));
        let stale = known(Some("10.0.0.1:80"), Some("timed out")).report(Some(&before)).unwrap();
        assert!(stale.contains("keeps its last known address 10.0.0.1:80: timed out"));
    }
}
