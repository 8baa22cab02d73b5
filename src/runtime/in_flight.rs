//! Requests that other workers still have in flight: a worker that drains reports them, and the one
//! that serves counts them when it picks a backend.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::runtime::snapshot::Snapshot;

/// Requests in flight at one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The pool.
    pub pool: String,
    /// The backend, as the file has it.
    pub backend: String,
    /// How many.
    pub requests: u64,
}

impl InFlight {
    /// What this worker has in flight itself, without idle backends.
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

    /// Tells the backends of a snapshot what all other workers have in flight. What was told before
    /// no longer counts.
    pub fn set_elsewhere(all: &[Self], snapshot: &Snapshot) {
        let mut sums: HashMap<(&str, &str), u64> = HashMap::new();
        for one in all {
            let sum = sums.entry((&one.pool, &one.backend)).or_default();
            *sum = sum.saturating_add(one.requests);
        }
        for pool in &snapshot.pools {
            for backend in pool.members.iter().map(|member| &member.backend) {
                let sum = sums.get(&(pool.name.as_str(), &*backend.label));
                backend.set_elsewhere(sum.copied().unwrap_or(0));
            }
        }
    }
}
