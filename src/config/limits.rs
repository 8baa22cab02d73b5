//! Limits of a configuration that are not the range of a single key, each with its reason.

use std::time::Duration;

/// Client connections at the same time, where the file says nothing.
pub const CONNECTIONS_DEFAULT: u32 = 20_000;
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
/// The size of a file. A thousand pools of a hundred backends fit. A file of nothing but commas
/// takes a hundred times its size while it is scanned, so this also bounds the memory.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nodes of a file, each alias counted as often as it is used: some hundred bytes each while it is
/// read. A hundred thousand backends with weights are half of it.
pub const FILE_NODES_MAX: usize = 1_000_000;
/// How deep lists and maps may be nested. The deepest key is at 5.
pub const FILE_DEPTH_MAX: usize = 32;
/// Problems that are put into words; the rest is counted.
pub const PROBLEMS_MAX: usize = 1000;
/// Listeners of one process.
pub const LISTENERS_MAX: usize = 256;
/// Certificates of one listener. Each is two files to look at every few seconds.
pub const CERTIFICATES_MAX: usize = 10_000;
/// Requests on one connection. More than any connection lives for.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = 1_000_000_000;
/// Requests at once on one connection of HTTP/2, with clients and with backends. Each may hold a
/// window of its own.
pub const STREAMS_MAX: u32 = 1000;
/// Threads that serve requests.
pub const THREADS_MAX: usize = 1024;
/// The lowest rate: a request in a thousand seconds. With [`RATE_MAX`] as the burst a bucket then
/// takes 10¹⁸ ns to fill, which a 64-bit number of nanoseconds still holds with room to spare.
pub const RATE_MIN: f64 = 0.001;
/// The largest burst.
pub const BURST_MAX: u32 = 1_000_000;
/// Client connections at once. A process on Linux gets no more file descriptors than this unless
/// the kernel is told otherwise.
pub const CONNECTIONS_MAX: usize = 1_048_576;
/// The longest request target that may be allowed: what the type of a URI can hold.
pub const TARGET_BYTES_MAX: usize = 65_534;
/// The smallest limit of all fields: less would refuse every client there is.
pub const HEADER_BYTES_MIN: usize = 256;
/// The largest limit of all fields. Pingora takes a head of 1 MiB, request line and all.
pub const HEADER_BYTES_MAX: usize = 512 * 1024;
/// The most fields that may be allowed. Pingora takes 256.
pub const HEADERS_MAX: usize = 250;
/// A shorter interval of probes gets a warning.
pub const INTERVAL_SANE: Duration = Duration::from_millis(10);
/// Runs of equal probe results. At an interval of a second this is a quarter of an hour.
pub const RUN_MAX: u32 = 1000;
/// Routes by `path_regex`. Those of a host take one pass over a path. Where that would need too much memory
/// they are tried one after the other: in the worst case, a path of 8 KiB that all of them have to read to
/// its end, that takes 12 ms.
pub const PATTERNS_MAX: usize = 1000;
/// The body of a fixed response. It is kept in memory.
pub const RESPOND_BYTES_MAX: usize = 64 * 1024;
/// Workers that may drain at once. Each holds its own memory and its own connections.
pub const DRAINING_WORKERS_MAX: usize = 256;
/// Routes with the same host and path, told apart by their conditions. They are tried one after the
/// other, and whether one hides another takes the product of them to find out.
pub const ALTERNATIVES_MAX: usize = 256;
