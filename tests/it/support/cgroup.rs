//! A memory cgroup with a limit, as a container has one, below the one that the tests run in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::weir::BINARY;
use super::{TIMEOUT, within};

/// Names of its files, which are others in version 1 and 2.
struct Files {
    limit: &'static str,
    peak: &'static str,
    events: &'static str,
}

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    events: "memory.oom_control",
};
const VERSION_2: Files =
    Files { limit: "memory.max", peak: "memory.peak", events: "memory.events" };

/// Removed when it is dropped: what runs in it must have ended.
pub(crate) struct MemoryGroup {
    path: PathBuf,
    files: Files,
}

impl MemoryGroup {
    /// `None` where none can be made: without root, without a memory controller, or read-only.
    pub(crate) fn with_limit(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("weir-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
        let version_1 = own.lines().find_map(|line| line.split_once(":memory:"));
        let version_2 = own.lines().find_map(|line| line.strip_prefix("0::"));
        let (files, own) = match (version_1, version_2) {
            (Some((_, path)), _) => (VERSION_1, below("/sys/fs/cgroup/memory", path)),
            (None, Some(path)) => (VERSION_2, below("/sys/fs/cgroup", path)),
            (None, None) => return None,
        };
        let group = Self { path: own.join(name), files };
        fs::create_dir(&group.path).ok()?;
        fs::write(group.path.join(group.files.limit), bytes.to_string()).ok()?;
        Some(group)
    }

    /// Starts the binary in it.
    pub(crate) fn launcher(&self) -> Command {
        let mut command = Command::new("sh");
        let script = r#"echo $$ > "$GROUP/cgroup.procs" && exec "$0" "$@""#;
        command.args(["-c", script, BINARY]).env("GROUP", &self.path);
        command
    }

    /// The most that was used of it, in bytes.
    pub(crate) fn peak(&self) -> Option<u64> {
        self.read(self.files.peak)?.trim().parse().ok()
    }

    /// How many of its processes the kernel has killed for lack of memory.
    pub(crate) fn killed(&self) -> Option<u64> {
        let events = self.read(self.files.events)?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes may be about to end. A test that has failed already is not to fail here.
        let removed = within(TIMEOUT, || fs::remove_dir(&self.path).ok());
        if removed.is_none() {
            eprintln!("not removed: {}", self.path.display());
        }
    }
}
