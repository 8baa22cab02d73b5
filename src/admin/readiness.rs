//! Whether requests are welcome.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::config::ReadyWhen;
use crate::name::PoolName;
use crate::runtime::snapshot::Snapshot;

/// What the worker knows of itself: whether it accepts, and whether it is about to stop.
#[derive(Debug, Default)]
pub struct Readiness {
    accepting: AtomicBool,
    draining: AtomicBool,
}

/// Why requests are not welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// Not accepting yet.
    Starting,
    /// About to stop: whoever can should go elsewhere.
    Draining,
    /// None of the backends of these pools is healthy.
    NoBackend(Without),
}

/// Pools of which no backend is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Without(pub Vec<PoolName>);

impl Readiness {
    /// Neither accepting nor draining.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on connections are accepted.
    pub fn accept(&self) {
        self.accepting.store(true, Relaxed);
    }

    /// From now on it is about to stop. There is no way back.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether it is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether requests are welcome: it accepts, is not about to stop, and the pools that
    /// `ready_when` asks for have a healthy backend. Gives the pools that have none.
    ///
    /// # Errors
    /// Why they are not welcome.
    pub fn check(&self, snapshot: &Snapshot, ready_when: &ReadyWhen) -> Result<Without, NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        if !self.accepting.load(Relaxed) {
            return Err(NotReady::Starting);
        }
        let without = snapshot.pools.iter().filter(|pool| pool.healthy().is_empty());
        let without: Vec<PoolName> = without.map(|pool| pool.name.clone()).collect();
        let missing: Vec<PoolName> = match ready_when {
            ReadyWhen::AnyPool if without.len() < snapshot.pools.len() => Vec::new(),
            ReadyWhen::AnyPool | ReadyWhen::AllPools => without.clone(),
            ReadyWhen::Pools(names) => {
                without.iter().filter(|name| names.contains(name)).cloned().collect()
            }
        };
        if missing.is_empty() {
            Ok(Without(without))
        } else {
            Err(NotReady::NoBackend(Without(missing)))
        }
    }
}

impl Display for Without {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("no healthy backend in pool")?;
        self.0.iter().try_for_each(|pool| write!(formatter, " {pool}"))
    }
}

impl Display for NotReady {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => formatter.write_str("starting"),
            Self::Draining => formatter.write_str("draining"),
            Self::NoBackend(without) => without.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Probe;
    use crate::fixture;
    use crate::time::Timestamp;

    fn check(readiness: &Readiness, snapshot: &Snapshot) -> Result<Without, NotReady> {
        readiness.check(snapshot, &ReadyWhen::AllPools)
    }

    const ALL: Result<Without, NotReady> = Ok(Without(Vec::new()));

    #[test]
    fn it_is_not_ready_before_it_accepts() {
        let readiness = Readiness::new();
        assert_eq!(check(&readiness, &fixture::web()), Err(NotReady::Starting));
        readiness.accept();
        assert_eq!(check(&readiness, &fixture::web()), ALL);
    }

    #[test]
    fn it_is_not_ready_while_it_drains() {
        let readiness = Readiness::new();
        readiness.accept();
        readiness.drain();
        assert_eq!(check(&readiness, &fixture::web()), Err(NotReady::Draining));
    }

    /// Of these pools the first has a backend that is healthy without any check.
    fn two_pools() -> Snapshot {
        let check = Some(fixture::health_check(Probe::Tcp));
        fixture::snapshot(vec![
            fixture::pool("web", &[fixture::address("10.0.0.1:80")], None),
            fixture::pool("api", &[fixture::address("10.0.0.2:80")], check),
        ])
    }

    #[test]
    fn which_pools_have_to_be_healthy_is_the_files_to_say() {
        let (snapshot, readiness) = (two_pools(), Readiness::new());
        readiness.accept();
        let [web, api] = ["web", "api"].map(|name| PoolName::new(name).unwrap());
        let without_api = || Without(vec![api.clone()]);
        for (ready_when, expected) in [
            (ReadyWhen::AnyPool, Ok(without_api())),
            (ReadyWhen::AllPools, Err(NotReady::NoBackend(without_api()))),
            (ReadyWhen::Pools(vec![web.clone()]), Ok(without_api())),
            (ReadyWhen::Pools(vec![web, api.clone()]), Err(NotReady::NoBackend(without_api()))),
        ] {
            assert_eq!(readiness.check(&snapshot, &ready_when), expected, "{ready_when:?}");
        }
        snapshot.pools[1].backend(0).unwrap().probed(Ok(()), Timestamp::ZERO);
        assert_eq!(check(&readiness, &snapshot), ALL);
    }

    #[test]
    fn with_no_healthy_backend_anywhere_it_is_not_ready() {
        let check = || Some(fixture::health_check(Probe::Tcp));
        let readiness = Readiness::new();
        readiness.accept();
        let snapshot = fixture::snapshot(vec![
            fixture::pool("web", &[fixture::address("10.0.0.1:80")], check()),
            fixture::pool("api", &[fixture::address("10.0.0.2:80")], check()),
        ]);
        let reason = readiness.check(&snapshot, &ReadyWhen::AnyPool).unwrap_err();
        assert_eq!(reason.to_string(), "no healthy backend in pool web api");
    }
}
