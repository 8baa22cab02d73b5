//! Whether requests are welcome.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
    NoBackend(Vec<PoolName>),
}

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

    /// Whether requests are welcome: it accepts, is not about to stop, and every pool has a
    /// healthy backend.
    ///
    /// # Errors
    /// Why they are not.
    pub fn check(&self, snapshot: &Snapshot) -> Result<(), NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        if !self.accepting.load(Relaxed) {
            return Err(NotReady::Starting);
        }
        let without = snapshot.pools.iter().filter(|pool| pool.healthy().is_empty());
        let without: Vec<PoolName> = without.map(|pool| pool.name.clone()).collect();
        if without.is_empty() { Ok(()) } else { Err(NotReady::NoBackend(without)) }
    }
}

impl Display for NotReady {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => formatter.write_str("starting"),
            Self::Draining => formatter.write_str("draining"),
            Self::NoBackend(pools) => {
                formatter.write_str("no healthy backend in pool")?;
                pools.iter().try_for_each(|pool| write!(formatter, " {pool}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Probe;
    use crate::fixture;
    use crate::time::Timestamp;

    #[test]
    fn it_is_not_ready_before_it_accepts() {
        let readiness = Readiness::new();
        assert_eq!(readiness.check(&fixture::web()), Err(NotReady::Starting));
        readiness.accept();
        assert_eq!(readiness.check(&fixture::web()), Ok(()));
    }

    #[test]
    fn it_is_not_ready_while_it_drains() {
        let readiness = Readiness::new();
        readiness.accept();
        readiness.drain();
        assert_eq!(readiness.check(&fixture::web()), Err(NotReady::Draining));
    }

    #[test]
    fn it_is_not_ready_while_a_pool_has_no_healthy_backend() {
        let check = Some(fixture::health_check(Probe::Tcp));
        let snapshot = fixture::snapshot(vec![
            fixture::pool("web", &[fixture::address("10.0.0.1:80")], None),
            fixture::pool("api", &[fixture::address("10.0.0.2:80")], check),
        ]);
        let readiness = Readiness::new();
        readiness.accept();
        let reason = readiness.check(&snapshot).unwrap_err();
        assert_eq!(reason.to_string(), "no healthy backend in pool api");
        snapshot.pools[1].backend(0).unwrap().probed(Ok(()), Timestamp::ZERO);
        assert_eq!(readiness.check(&snapshot), Ok(()));
    }
}
