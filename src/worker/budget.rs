//! How a worker shares out its file descriptors.
//!
//! A client connection takes one, and its request one more for a connection to a backend. Both come
//! out of the same limit, and a worker without descriptors can do nothing at all. So there are never
//! more client connections than the limit carries, whatever `limits.connections` says.

use std::fs;

use log::Level;

use crate::config::Limits;

/// What is left for what is opened now and then: files, pipes, timers, lookups of names.
const SLACK: u64 = 32;
/// What a thread of a runtime opens for itself.
const OF_THREAD: u64 = 4;
/// Idle keep-alive connections to backends, per thread.
const KEEPALIVE_MAX: u64 = 1024;
/// Rejected connections that get a response at the same time.
const REJECTED_MAX: u64 = 1024;

/// The descriptors of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    /// As many as it may have.
    pub(super) limit: u64,
    /// Those that it has already.
    pub(super) used: u64,
}

/// A share for each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Client connections.
    pub(super) connections: usize,
    /// Idle keep-alive connections to backends, per thread.
    pub(super) keepalive: usize,
    /// Rejected connections that get a response at the same time.
    pub(super) rejected: usize,
}

impl Budget {
    /// Shares out the descriptors that are left, for `threads` that serve and up to `wanted` client
    /// connections.
    pub(super) fn of(descriptors: Descriptors, threads: usize, wanted: usize) -> Self {
        let Descriptors { limit, used } = descriptors;
        let threads = u64::try_from(threads).unwrap_or(u64::MAX).max(1);
        let own = used.saturating_add(SLACK).saturating_add(threads.saturating_mul(OF_THREAD));
        let free = limit.saturating_sub(own);
        let keepalive = threads.saturating_mul(KEEPALIVE_MAX).min(free / 8);
        let rejected = REJECTED_MAX.min(free / 32);
        // Each has a connection to a backend at the same time.
        let carried = (free - keepalive - rejected) / 2;
        let count = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
        Self {
            connections: wanted.min(count(carried)),
            keepalive: count(keepalive / threads),
            rejected: count(rejected),
        }
    }

    /// The same for this process as it is now. Logs it if it carries fewer connections than wanted.
    pub(super) fn of_process(threads: usize, limits: &Limits) -> Self {
        let limit = super::rlimit_of_files();
        let used = fs::read_dir("/proc/self/fd").map_or(256, Iterator::count);
        let used = u64::try_from(used).unwrap_or(u64::MAX);
        let budget = Self::of(Descriptors { limit, used }, threads, limits.connections.get());
        if let Some(level) = budget.complaint(limits) {
            let (wanted, held) = (limits.connections, budget.connections);
            log::log!(
                level,
                "too few file descriptors: limit={limit} limits.connections={wanted} held_to={held} \
                 (help: raise the limit, `ulimit -Hn` or LimitNOFILE=, or lower limits.connections)"
            );
        }
        budget
    }

    /// The level at which to log that fewer connections are accepted than the configuration has. An
    /// operator who wrote the number relies on it. A warning about the default at every start is noise.
    fn complaint(&self, limits: &Limits) -> Option<Level> {
        let level =
            if limits.connections_defined_at.0.is_some() { Level::Warn } else { Level::Info };
        (self.connections < limits.connections.get()).then_some(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    fn budget_of(limit: u64, used: u64, threads: usize, wanted: usize) -> Budget {
        Budget::of(Descriptors { limit, used }, threads, wanted)
    }

    #[test]
    fn there_are_never_more_connections_than_the_limit_carries() {
        for limit in [0, 64, 128, 256, 1024, 20_000, 1 << 20, u64::MAX] {
            for threads in [1, 4, 64] {
                let used = 50;
                let budget = budget_of(limit, used, threads, 20_000);
                let Budget { connections, keepalive, rejected } = budget;
                assert!(connections >= 1 && keepalive >= 1 && rejected >= 1);
                let taken = 2 * connections + keepalive * threads + rejected;
                let least = 2 + threads + 1;
                let free = usize::try_from(limit.saturating_sub(used)).unwrap_or(usize::MAX);
                assert!(taken <= free.max(least), "{limit} {threads} {budget:?}");
            }
        }
    }

    #[test]
    fn a_number_that_is_written_gets_a_warning_also_if_it_is_the_default() {
        let limits = |text: &str| {
            let text = format!("{text}\npools: [{{name: web, backends: [http://10.0.0.1:1]}}]\n");
            config::load(Some(text.as_bytes()), &Overrides::default()).map(|config| config.limits)
        };
        let few = budget_of(1024, 50, 1, 20_000);
        let enough = budget_of(1 << 20, 50, 1, 20_000);
        for (text, level) in [
            ("limits: {connections: 20000}", Level::Warn),
            ("limits: {headers: 100}", Level::Info),
            ("threads: 1", Level::Info),
        ] {
            let limits = limits(text).unwrap();
            assert_eq!(few.complaint(&limits), Some(level), "{text}");
            assert_eq!(enough.complaint(&limits), None, "{text}");
        }
    }

    #[test]
    fn what_is_wanted_is_had_where_there_are_enough() {
        let budget = budget_of(1 << 20, 50, 8, 20_000);
        assert_eq!(budget, Budget { connections: 20_000, keepalive: 1024, rejected: 1024 });
        assert!(budget_of(20_000, 50, 8, 20_000).connections > 8000);
    }

    #[test]
    fn idle_and_rejected_connections_take_only_a_small_share_of_few_descriptors() {
        // 3998 are left: an eighth for idle ones, shared by the threads, and a 32nd for rejected ones.
        let budget = budget_of(4096, 50, 4, 20_000);
        assert_eq!(budget, Budget { connections: 1687, keepalive: 124, rejected: 124 });
        assert_eq!(budget_of(4096, 50, 0, 1), budget_of(4096, 50, 1, 1));
    }
}
