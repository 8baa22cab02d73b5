//! How a worker shares out its file descriptors.
//!
//! A client connection takes one, and its request one more for a connection to a backend. Both come
//! out of the same limit, and a worker without descriptors can do nothing at all. So there are never
//! more client connections than the limit carries, whatever `limits.connections` says.

use std::fs;

use log::Level;

use crate::config::limits::CONNECTIONS_DEFAULT;

/// What is left for what is opened now and then: files, pipes, timers, lookups of names.
const SLACK: u64 = 32;
/// What a thread of a runtime opens for itself.
const OF_THREAD: u64 = 4;
/// Idle connections kept to backends, per thread.
const KEPT_MAX: u64 = 1024;
/// Rejected connections that get a response at the same time.
const REJECTED_MAX: u64 = 1024;

/// A share for each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Client connections.
    pub(super) connections: usize,
    /// Idle connections kept to backends, per thread.
    pub(super) kept: usize,
    /// Rejected connections that get a response at the same time.
    pub(super) rejected: usize,
}

impl Budget {
    /// Shares out what `limit` leaves beside the `used` ones, for `threads` that serve and up to
    /// `wanted` client connections.
    pub(super) fn of((limit, used): (u64, u64), threads: usize, wanted: usize) -> Self {
        let threads = u64::try_from(threads).unwrap_or(u64::MAX).max(1);
        let own = used.saturating_add(SLACK).saturating_add(threads.saturating_mul(OF_THREAD));
        let free = limit.saturating_sub(own);
        let kept = threads.saturating_mul(KEPT_MAX).min(free / 8);
        let rejected = REJECTED_MAX.min(free / 32);
        // Each has a connection to a backend at the same time.
        let carried = (free - kept - rejected) / 2;
        let count = |number: u64| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
        Self {
            connections: wanted.min(count(carried)),
            kept: count(kept / threads),
            rejected: count(rejected),
        }
    }

    /// The same for this process as it is now. Says so if it carries fewer connections than wanted.
    pub(super) fn of_process(threads: usize, wanted: usize) -> Self {
        let limit = super::rlimit_of_files();
        let used = fs::read_dir("/proc/self/fd").map_or(256, Iterator::count);
        let used = u64::try_from(used).unwrap_or(u64::MAX);
        let budget = Self::of((limit, used), threads, wanted);
        let held = budget.connections;
        if held < wanted {
            // A file that leaves the number out has not asked for it: a warning at every start is noise.
            let is_default = u32::try_from(wanted) == Ok(CONNECTIONS_DEFAULT);
            let level = if is_default { Level::Info } else { Level::Warn };
            log::log!(
                level,
                "too few file descriptors: limit={limit} limits.connections={wanted} held_to={held} \
                 (help: raise the limit, `ulimit -Hn` or LimitNOFILE=, or lower limits.connections)"
            );
        }
        budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_connections_than_the_limit_carries() {
        for limit in [0, 64, 128, 256, 1024, 20_000, 1 << 20, u64::MAX] {
            for threads in [1, 4, 64] {
                let used = 50;
                let budget = Budget::of((limit, used), threads, 20_000);
                let Budget { connections, kept, rejected } = budget;
                assert!(connections >= 1 && kept >= 1 && rejected >= 1);
                let taken = 2 * connections + kept * threads + rejected;
                let least = 2 + threads + 1;
                let free = usize::try_from(limit.saturating_sub(used)).unwrap_or(usize::MAX);
                assert!(taken <= free.max(least), "{limit} {threads} {budget:?}");
            }
        }
    }

    #[test]
    fn what_is_wanted_is_had_where_there_are_enough() {
        let budget = Budget::of((1 << 20, 50), 8, 20_000);
        assert_eq!(budget, Budget { connections: 20_000, kept: 1024, rejected: 1024 });
        assert!(Budget::of((20_000, 50), 8, 20_000).connections > 8000);
    }
}
