//! Limits of a configuration that are not the range of a single key, each with its reason.

use std::time::Duration;

/// Backends in one pool. A pick looks at each of them, and keeps the eligible ones in a bit set
/// of this size on the stack.
pub const BACKENDS_MAX: usize = 1024;
/// Pools in one file. Each has its own metrics series.
pub const POOLS_MAX: usize = 1024;
/// Maximum of `retry.attempts`. More would hide an outage and multiply it.
pub const ATTEMPTS_MAX: u8 = 16;
/// How much of the response to a health check is read to find the expected text.
pub const PROBE_BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest duration. A day is longer than any sane timeout, and far from
/// where arithmetic in nanoseconds would overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest back-off, whatever the doubling says.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The size of a file. A thousand pools of a hundred backends fit. A file of nothing but commas
/// takes a hundred times its size while it is scanned, so this also bounds the memory.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nodes of a file, each alias counted as often as it is used: some hundred bytes each while it is
/// read. A hundred thousand backends with weights are half of it.
pub const FILE_NODES_MAX: usize = 1_000_000;
/// How deep lists and maps may be nested. The deepest key is at 5.
pub const FILE_DEPTH_MAX: usize = 32;
/// Problems that are reported; the rest is counted.
pub const PROBLEMS_MAX: usize = 1000;
/// Listeners of one process.
pub const LISTENERS_MAX: usize = 256;
/// Certificates of one listener. Each is two files that are checked every few seconds.
pub const CERTIFICATES_MAX: usize = 10_000;
/// Threads that serve requests.
pub const THREADS_MAX: usize = 1024;
/// A shorter interval of health checks gets a warning.
pub const INTERVAL_SANE: Duration = Duration::from_millis(10);
/// Routes by `path_regex`. Those of a host take one pass over a path. Where that would need too much memory
/// they are tried one after the other: in the worst case, a path of 8 KiB that all of them have to read to
/// its end, that takes 12 ms.
pub const PATTERNS_MAX: usize = 1000;
/// The body of a fixed response. It is kept in memory.
pub const RESPOND_BYTES_MAX: usize = 64 * 1024;
/// Routes with the same host and path, told apart by their conditions. They are tried one after the
/// other, and whether one hides another takes the product of them to find out.
pub const ALTERNATIVES_MAX: usize = 256;
