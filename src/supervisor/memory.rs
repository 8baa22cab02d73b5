//! How much memory workers take, and how much is left.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

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
    let groups = groups.lines().filter_map(available_in_groups);
    kilobytes(&machine, "MemAvailable:").into_iter().chain(groups).min()
}

/// What the cgroups of one line of `/proc/self/cgroup` leave.
fn available_in_groups(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, kind, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, max, used, cache) = match kind {
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
        let (max, used) = (number(max)?, number(used)?);
        // Pages of files that were not used lately are given back when memory is short.
        let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = statistics.lines().find_map(|line| line.strip_prefix(cache)?.parse().ok());
        Some(max.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
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

    #[test]
    fn this_process_has_memory_and_some_is_left() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(resident(own) > 100_000);
        assert!(available().unwrap() > 0);
    }

    #[test]
    fn a_size_of_a_status_file_is_in_units_of_1024_bytes() {
        let status = "Name:\tweir\nVmRSS:\t  12 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
    }

    #[test]
    fn a_size_in_another_form_is_unknown() {
        for text in ["VmRSS:\t12\n", "VmRSS:\t12 MB\n", "VmRSS:\t-1 kB\n", "VmRSS:\n", ""] {
            assert_eq!(kilobytes(text, "VmRSS:"), None, "{text:?}");
        }
        assert_eq!(kilobytes("XVmRSS: 1 kB\nVmRSS: 2 kB", "VmRSS:"), Some(2048));
    }

    #[test]
    fn only_cgroups_that_limit_memory_count() {
        // A group that does not exist has no limit of its own, and neither has the root.
        for line in ["", "1", "1:memory", "12:cpu,cpuacct:/x", "3:name=systemd:/x"] {
            assert_eq!(available_in_groups(line), None, "{line:?}");
        }
    }
}
