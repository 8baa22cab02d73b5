//! Whether this worker is ready for traffic.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::config::ReadyWhen;
use crate::lifecycle::serving_state::SharedServingState;
use crate::name::PoolName;
use crate::runtime::snapshot::Snapshot;

/// Whether this worker is ready, by its state and by its pools.
#[derive(Debug)]
pub struct Readiness {
    serving: Arc<SharedServingState>,
}

/// Why this worker is not ready for traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// It does not accept connections yet.
    Starting,
    /// It stops soon; clients should use another instance.
    Draining,
    /// These pools need a healthy backend and have none.
    NoBackend(UnhealthyPools),
}

/// Pools without a healthy backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyPools(pub Vec<PoolName>);

impl Readiness {
    /// The readiness of the worker with this state.
    #[must_use]
    pub const fn new(serving: Arc<SharedServingState>) -> Self {
        Self { serving }
    }

    /// Checks that the worker accepts connections, does not drain, and that the pools of `ready_when`
    /// have a healthy backend. Returns the pools without one.
    ///
    /// # Errors
    /// Why the worker is not ready.
    pub fn check(
        &self,
        snapshot: &Snapshot,
        ready_when: &ReadyWhen,
    ) -> Result<UnhealthyPools, NotReady> {
        if self.serving.is_stopping() {
            return Err(NotReady::Draining);
        }
        if !self.serving.has_accepted() {
            return Err(NotReady::Starting);
        }
        let unhealthy = snapshot.pools.iter().filter(|pool| pool.available().is_empty());
        let unhealthy: Vec<PoolName> = unhealthy.map(|pool| pool.name.clone()).collect();
        let missing: Vec<PoolName> = match ready_when {
            ReadyWhen::AnyPool if unhealthy.len() < snapshot.pools.len() => Vec::new(),
            ReadyWhen::AnyPool | ReadyWhen::AllPools => unhealthy.clone(),
            ReadyWhen::Pools(names) => {
                unhealthy.iter().filter(|name| names.contains(name)).cloned().collect()
            }
        };
        if missing.is_empty() {
            Ok(UnhealthyPools(unhealthy))
        } else {
            Err(NotReady::NoBackend(UnhealthyPools(missing)))
        }
    }
}

impl Display for UnhealthyPools {
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
            Self::NoBackend(unhealthy) => unhealthy.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Probe;
    use crate::fixture;
    use crate::lifecycle::serving_state::ServingState;
    use crate::time::Timestamp;

    fn check(readiness: &Readiness, snapshot: &Snapshot) -> Result<UnhealthyPools, NotReady> {
        readiness.check(snapshot, &ReadyWhen::AllPools)
    }

    fn accepting() -> Readiness {
        let readiness = Readiness::new(Arc::default());
        readiness.serving.set(ServingState::Accepting);
        readiness
    }

    const ALL: Result<UnhealthyPools, NotReady> = Ok(UnhealthyPools(Vec::new()));

    #[test]
    fn it_is_not_ready_before_it_accepts() {
        let readiness = Readiness::new(Arc::default());
        assert_eq!(check(&readiness, &fixture::web()), Err(NotReady::Starting));
        readiness.serving.set(ServingState::Accepting);
        assert_eq!(check(&readiness, &fixture::web()), ALL);
    }

    #[test]
    fn it_is_not_ready_while_the_service_stops() {
        let readiness = accepting();
        readiness.serving.set(ServingState::PreStop);
        assert_eq!(check(&readiness, &fixture::web()), Err(NotReady::Draining));
    }

    /// The first pool has no health check, so its backend counts as healthy.
    fn two_pools() -> Snapshot {
        let check = Some(fixture::health_check(Probe::Tcp));
        fixture::snapshot(vec![
            fixture::pool("web", &[fixture::address("10.0.0.1:80")], None),
            fixture::pool("api", &[fixture::address("10.0.0.2:80")], check),
        ])
    }

    #[test]
    fn the_configuration_says_which_pools_must_be_healthy() {
        let (snapshot, readiness) = (two_pools(), accepting());
        let [web, api] = ["web", "api"].map(|name| PoolName::new(name).unwrap());
        let unhealthy_api = || UnhealthyPools(vec![api.clone()]);
        for (ready_when, expected) in [
            (ReadyWhen::AnyPool, Ok(unhealthy_api())),
            (ReadyWhen::AllPools, Err(NotReady::NoBackend(unhealthy_api()))),
            (ReadyWhen::Pools(vec![web.clone()]), Ok(unhealthy_api())),
            (ReadyWhen::Pools(vec![web, api.clone()]), Err(NotReady::NoBackend(unhealthy_api()))),
        ] {
            assert_eq!(readiness.check(&snapshot, &ready_when), expected, "{ready_when:?}");
        }
        snapshot.pools[1].members[0].backend.probed(Ok(()), Timestamp::ZERO);
        assert_eq!(check(&readiness, &snapshot), ALL);
    }

    #[test]
    fn with_no_healthy_backend_anywhere_it_is_not_ready() {
        let check = || Some(fixture::health_check(Probe::Tcp));
        let readiness = accepting();
        let snapshot = fixture::snapshot(vec![
            fixture::pool("web", &[fixture::address("10.0.0.1:80")], check()),
            fixture::pool("api", &[fixture::address("10.0.0.2:80")], check()),
        ]);
        let reason = readiness.check(&snapshot, &ReadyWhen::AnyPool).unwrap_err();
        assert_eq!(reason.to_string(), "no healthy backend in pool web api");
    }
}
