//! How much memory this process may use.

use std::fs;
use std::path::{Path, PathBuf};

/// In bytes: the smallest of the limits of its cgroup and those above, and the memory of the machine.
pub(super) fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits =
        files(&groups).into_iter().filter_map(|file| limit(&fs::read_to_string(file).ok()?));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    limits.chain(machine).min()
}

/// The files that may hold a limit of these cgroups: of each and of all above it. In a container the path
/// may be one of the host, of which only the end is there; then the last file is the one of the container.
fn files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut components = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (components.next(), components.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

/// A limit of a cgroup; version 2 says `max` where there is none, version 1 a number above any memory.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `MemTotal` of proc(5), which has KiB.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_cgroup_and_of_all_above_it_count() {
        let paths = |groups: &str| -> Vec<String> {
            files(groups).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            paths("0::/a.slice/weir.service\n"),
            [
                "/sys/fs/cgroup/a.slice/weir.service/memory.max",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(paths("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            paths("12:cpu,cpuacct:/x\n8:memory:/docker/1\n"),
            [
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert!(paths("nonsense\n").is_empty());
    }

    #[test]
    fn what_is_no_number_is_no_limit() {
        assert_eq!(limit("268435456\n"), Some(256 << 20));
        assert_eq!(limit("max\n"), None);
    }

    #[test]
    fn the_memory_of_the_machine_is_read_in_bytes() {
        assert_eq!(total("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_limit().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn an_amount_that_is_not_understood_is_unknown() {
        for text in ["MemTotal: 24576 MB", "MemTotal: 24576", "MemTotal: -1 kB", "MemTotal:"] {
            assert_eq!(total(text), None, "{text}");
        }
        assert_eq!(total("MemTotal: 18446744073709551615 kB"), None, "too many bytes");
        assert_eq!(total("XMemTotal: 1 kB\nMemTotal: 2 kB"), Some(2048));
    }
}
