//! Requests in flight of other workers: a draining worker reports them, and the serving worker
//! counts them when it picks a backend.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// Requests in flight at one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The pool.
    pub pool: String,
    /// The backend, as written in the configuration.
    pub backend: String,
    /// The number of requests.
    pub requests: u64,
}

impl InFlight {
    /// This worker's own requests in flight, without idle backends.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Vec<Self> {
        let mut all = Vec::new();
        for pool in &snapshot.pools {
            let backends = pool.members.iter().map(|member| &member.backend);
            let backends = backends.filter(|backend| backend.in_flight() > 0);
            all.extend(backends.map(|backend| Self {
                pool: pool.name.to_string(),
                backend: backend.label.to_string(),
                requests: backend.in_flight(),
            }));
        }
        all
    }

    /// Sets the requests in flight of all other workers at the backends of a snapshot. Replaces the
    /// previous values. Places that are free now go to requests that wait.
    pub fn set_other_workers(all: &[Self], snapshot: &Snapshot, now: Timestamp) {
        let mut sums: HashMap<(&str, &str), u64> = HashMap::new();
        for one in all {
            let sum = sums.entry((&one.pool, &one.backend)).or_default();
            *sum = sum.saturating_add(one.requests);
        }
        for pool in &snapshot.pools {
            for backend in pool.members.iter().map(|member| &member.backend) {
                let sum = sums.get(&(pool.name.as_str(), &*backend.label));
                backend.set_other_workers(sum.copied().unwrap_or(0));
            }
            pool.dispatch(now);
        }
    }
}
