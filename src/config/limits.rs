//! Every bound of a configuration, in one place, each with its reason.

use std::time::Duration;

/// Backends in one pool. A pick looks at each of them and keeps who is eligible in a bit set of
/// this size on the stack.
pub const BACKENDS_MAX: usize = 1024;
/// Pools in one file. Each has its own metrics series.
pub const POOLS_MAX: usize = 1024;
/// A backend's weight. A thousand to one is finer than traffic can show.
pub const WEIGHT_MAX: u32 = 1000;
/// Attempts of one exchange. More would hide an outage and multiply it.
pub const ATTEMPTS_MAX: u8 = 16;
/// How much of a probe's answer is read to find the expected text.
pub const PROBE_BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest duration that may be written. A day is longer than any sane timeout, and far from
/// where arithmetic in nanoseconds would overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest back-off, whatever the doubling says.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The highest rate and burst of a bucket: beyond it, a token would be worth less than a
/// microsecond and a limit would not limit.
pub const RATE_MAX: f64 = 1_000_000.0;
/// Clients that one rate limit remembers: at 16 bytes each, 160 MB.
pub const CLIENTS_MAX: usize = 10_000_000;
/// The size of a file. A thousand pools of a hundred backends fit.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
