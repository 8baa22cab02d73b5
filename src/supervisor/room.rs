//! How many workers may drain at once: as many as are allowed and as memory has room for.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

/// Why a worker that drains is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// More workers drain than `shutdown.draining_workers` allows.
    Workers,
    /// Less memory is left than the next worker is going to take.
    Memory,
}

/// Memory in bytes, as it is at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// What may still be taken; `None` where nothing says so.
    pub(super) available: Option<u64>,
    /// What the next worker is going to take: as much as the largest of those that run.
    pub(super) wanted: u64,
}

/// Why each of the oldest workers has to go, oldest first. `draining` is the memory of each worker
/// that drains, in bytes, oldest first. The newest one stays.
pub(super) fn excess(draining: &[u64], most: usize, memory: Memory) -> Vec<Excess> {
    let ended = draining.len().saturating_sub(most);
    let mut all = vec![Excess::Workers; ended];
    let Some(mut available) = memory.available else { return all };
    for (at, freed) in draining.iter().enumerate() {
        let is_newest = at + 1 == draining.len();
        if at >= ended {
            if available >= memory.wanted || is_newest {
                break;
            }
            all.push(Excess::Memory);
        }
        available = available.saturating_add(*freed);
    }
    all
}

/// The resident memory of a process, in bytes; 0 if it is gone.
pub(super) fn resident(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap_or_default();
    kilobytes(&status, "VmRSS:").unwrap_or(0)
}

/// Memory that this process and its workers may still take: the least of what the machine has left
/// and of what each cgroup above them has.
pub(super) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(of_groups);
    kilobytes(&machine, "MemAvailable:").into_iter().chain(groups).min()
}

/// What the cgroups of one line of `/proc/self/cgroup` leave.
fn of_groups(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, kind, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, most, used, cache) = match kind {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        "memory" => (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
        _ => return None,
    };
    let own = Path::new(root).join(path.trim_start_matches('/'));
    let left = own.ancestors().take_while(|it| it.starts_with(root)).filter_map(|group| {
        let number = |file: &str| -> Option<u64> {
            fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
        };
        let (most, used) = (number(most)?, number(used)?);
        // Pages of files that nobody has used lately are given back when memory is short.
        let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = statistics.lines().find_map(|line| line.strip_prefix(cache)?.parse().ok());
        Some(most.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
    });
    left.min()
}

/// The number behind `name`, which is in units of 1024 bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(number.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Memory = Memory { available: Some(1000), wanted: 10 };

    #[test]
    fn the_oldest_beyond_the_number_are_ended() {
        assert_eq!(excess(&[10; 3], 3, PLENTY), []);
        assert_eq!(excess(&[10; 5], 3, PLENTY), [Excess::Workers; 2]);
    }

    #[test]
    fn where_memory_is_short_as_many_are_ended_as_make_room_for_the_next_one() {
        let short = Memory { available: Some(5), wanted: 20 };
        assert_eq!(excess(&[10, 10, 10, 10], 16, short), [Excess::Memory; 2]);
        assert_eq!(excess(&[20, 10, 10, 10], 16, short), [Excess::Memory]);
        let both = excess(&[10, 10, 10, 10], 3, short);
        assert_eq!(both, [Excess::Workers, Excess::Memory]);
    }

    #[test]
    fn the_worker_that_has_just_begun_to_drain_is_never_ended_for_memory() {
        let none = Memory { available: Some(0), wanted: 100 };
        assert_eq!(excess(&[10], 16, none), []);
        assert_eq!(excess(&[10, 10], 16, none), [Excess::Memory]);
    }

    #[test]
    fn where_nothing_says_how_much_memory_is_left_only_the_number_counts() {
        let unknown = Memory { available: None, wanted: 100 };
        assert_eq!(excess(&[10; 5], 4, unknown), [Excess::Workers]);
    }

    #[test]
    fn this_process_has_memory_and_some_is_left() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(resident(own) > 100_000);
        assert!(available().unwrap() > 0);
    }
}
