//! Series that exist with value 0 from the start.
//!
//! `rate()` does not see the first increment of a counter whose series did not exist before, so an
//! alert would miss the first burst. The series that are likely to be used are created with the
//! worker: a few for each backend and each pool, never all combinations of labels.

use prometheus::{IntCounterVec, Result};

use crate::metrics::kind::ErrorKind;
use crate::runtime::snapshot::Snapshot;

/// With more backends than this, no backend gets such series: they would make up most of a scrape.
const BACKENDS_MAX: usize = 1000;

const METHODS: [&str; 2] = ["GET", "POST"];
/// For requests that reached a backend.
const OF_BACKEND: [&str; 5] = ["200", "500", "502", "503", "504"];
/// For requests that reached no backend.
const OF_POOL: [&str; 2] = ["429", "503"];
/// For requests without a pool.
const OF_NO_POOL: [&str; 3] = ["400", "404", "429"];

/// The families that have such series.
pub(super) struct SeriesFamilies<'a> {
    pub(super) requests: &'a IntCounterVec,
    pub(super) errors: &'a IntCounterVec,
    pub(super) retries: &'a IntCounterVec,
}

impl SeriesFamilies<'_> {
    /// Creates them for the pools and backends of a snapshot.
    pub(super) fn create(&self, snapshot: &Snapshot) -> Result<()> {
        self.place("", "", &OF_NO_POOL, &ErrorKind::OF_NO_POOL)?;
        let backends: usize = snapshot.pools.iter().map(|pool| pool.members.len()).sum();
        for pool in &snapshot.pools {
            let name = pool.name.as_str();
            self.place(name, "", &OF_POOL, &ErrorKind::OF_POOL)?;
            let mut has_tls = false;
            for member in &*pool.members {
                let label = &member.backend.label;
                let is_tls = member.backend.transport.tls;
                has_tls |= is_tls;
                if backends <= BACKENDS_MAX {
                    self.place(name, label, &OF_BACKEND, &ErrorKind::OF_BACKEND)?;
                    if is_tls {
                        self.place(name, label, &[], &ErrorKind::OF_TLS)?;
                    }
                }
            }
            let tls = ErrorKind::OF_TLS.iter().filter(|_| has_tls);
            for kind in ErrorKind::OF_ATTEMPT.iter().chain(tls) {
                self.retries.get_metric_with_label_values(&[name, kind.as_str()])?;
            }
        }
        Ok(())
    }

    fn place(
        &self,
        pool: &str,
        backend: &str,
        statuses: &[&str],
        kinds: &[ErrorKind],
    ) -> Result<()> {
        for status in statuses {
            for method in METHODS {
                self.requests.get_metric_with_label_values(&[pool, backend, method, status])?;
            }
        }
        for kind in kinds {
            self.errors.get_metric_with_label_values(&[pool, backend, kind.as_str()])?;
        }
        Ok(())
    }
}
