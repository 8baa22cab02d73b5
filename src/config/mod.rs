//! What a configuration means.
//!
//! A configuration has three shapes: the text as typed (`file`), what it means
//! (the types here), and what runs (`runtime`). Going from the first to the second
//! is where every `Problem` is found, all at once; from here on
//! nothing is doubtful: every name resolves, every number is in range, and an
//! `Option` is something that really may be absent.

mod action;
mod builder;
mod check;
mod diff;
mod file;
mod foreign;
mod forwarding;
pub mod limits;
mod listener;
mod manual;
mod overrides;
pub mod pem;
mod problem;
mod read;
mod route;
mod show;
mod shutdown;
mod strictness;
mod transport;
mod value;
mod yaml;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use xxhash_rust::xxh3::Xxh3;

use crate::http::scan::Limits as HeadLimits;
use crate::name::{PoolName, RouteName};
use crate::policy::transfer_rate::MinTransferRate;

pub use action::{Action, Forward, Header, HeaderChanges, Respond, Rewrite, Share};
pub use builder::{ConfigBuilder, Report, Warning};
pub use diff::diff;
pub use forwarding::{Forwarding, ForwardingHeader, SentHeaders};
pub use listener::{Certificate, ClientAuth, FilePath, Listener, Tls, TlsVersion};
pub use manual::manual;
pub use overrides::{Override, Overrides};
pub use problem::{Position, Problem, Problems, Source, SourcePosition, nearest};
pub use route::{Condition, Conditions, HostPattern, PathPattern, Route, Test, precedence};
pub use show::show;
pub use shutdown::Shutdown;
pub use strictness::{AmbiguousPaths, HalfClosed, ResponseBuffers, UnderscoreHeaders};
pub use transport::{Protocol, Transport, TransportHttp2, TransportTls};

/// What a file and the values that win over it mean; the file may be left out.
///
/// # Errors
/// Every problem with them, in the order of the file.
pub fn load(text: Option<&[u8]>, overrides: &Overrides) -> Result<Config, Problems> {
    ConfigBuilder::new(text, overrides, Path::new(""))?.finish().config
}

/// A short name for a file and the values that win over it: equal for equal bytes.
#[must_use]
pub fn version(text: Option<&[u8]>, overrides: &Overrides) -> String {
    let mut hash = Xxh3::new();
    // Each part with its length, so that no two different lists run together to the same bytes.
    let mut part = |bytes: &[u8]| {
        hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(bytes);
    };
    part(text.unwrap_or_default());
    for (name, given) in overrides.each() {
        part(name.as_bytes());
        part(given.value.as_bytes());
    }
    let digits = format!("{:016x}", hash.digest());
    digits.chars().take(12).collect()
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect. At least one; no address twice.
    pub listeners: Vec<Listener>,
    /// The admin port: metrics, status, health. Never one of the listeners.
    pub admin: Admin,
    /// How many threads serve requests.
    pub threads: Threads,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// By which fields balancers tell who the client is.
    pub forwarded: Forwarding,
    /// In the order of the file. At least one.
    pub routes: Vec<Route>,
    /// At least one; no name twice.
    pub pools: Vec<Pool>,
    /// For every request, before the route is looked up.
    pub rate_limit: Option<RateLimit>,
    /// What a client may ask of us.
    pub limits: Limits,
    /// One line per request.
    pub access_log: AccessLog,
    /// How to stop.
    pub shutdown: Shutdown,
}

/// The operator's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// IP address and port.
    pub address: SocketAddr,
    /// Which pools need a healthy backend for `/readyz` to be 200.
    pub ready_when: ReadyWhen,
}

/// Which pools need a healthy backend for the balancer to be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadyWhen {
    /// One of them, whichever it is.
    AnyPool,
    /// Each of them.
    AllPools,
    /// Each of these. At least one; all of them are there.
    Pools(Vec<PoolName>),
}

/// How many threads serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// As many as the processors this process may use (cgroup quota and affinity).
    Auto,
    /// This many.
    Count(NonZeroUsize),
}

/// A named group of interchangeable backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// What routes, metrics and logs call it.
    pub name: PoolName,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// At least one, at most [`limits::BACKENDS_MAX`]; no address twice.
    pub backends: Vec<Backend>,
    /// `None` if it was switched off: then every backend counts as healthy.
    pub health_check: Option<HealthCheck>,
    /// When to try again.
    pub retry: Retry,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How its backends are spoken to.
    pub transport: Transport,
    /// For the requests of this pool alone, after the global and the route's limit.
    pub rate_limit: Option<RateLimit>,
}

/// How a backend is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, smooth by weight.
    RoundRobin,
    /// The fewest requests in flight per unit of weight.
    LeastConnections,
    /// The same client to the same backend.
    IpHash,
    /// Two at random, the less busy of them.
    Random,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub address: BackendAddress,
    /// Its share relative to the others of its pool; at most [`limits::WEIGHT_MAX`].
    pub weight: NonZeroU32,
    /// By which name its certificate is looked at, which may be an IP address; never empty. `None`
    /// if it speaks clear.
    pub server_name: Option<String>,
    /// Where its URL is written.
    pub defined_at: SourcePosition,
}

/// Where a backend listens, as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A host name (lower case) and a port.
    Name(String, u16),
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(formatter),
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
        }
    }
}

/// How a backend is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked of the backend.
    pub probe: Probe,
    /// From the start of one probe to the start of the next, ±10 % at random.
    pub interval: Duration,
    /// For a whole probe. Not longer than the interval.
    pub timeout: Duration,
    /// So many failures in a row make a healthy backend unhealthy.
    pub unhealthy_after: NonZeroU32,
    /// So many passes in a row make an unhealthy backend healthy.
    pub healthy_after: NonZeroU32,
}

/// What a probe asks of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It accepts a connection.
    Tcp,
    /// It says that it serves, by `grpc.health.v1.Health`.
    Grpc {
        /// Which of its services; empty is the server as a whole.
        service: String,
    },
    /// It answers `GET path` as expected.
    Http {
        /// Starts with `/`.
        path: String,
        /// The `Host` field; `None` sends the backend's own address.
        host: Option<String>,
        /// Which answers pass.
        status: StatusSet,
        /// A text that the body must have in its first [`limits::PROBE_BODY_BYTES_MAX`] bytes.
        body: Option<String>,
    },
}

/// A set of HTTP status codes, as inclusive ranges. Not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(pub Vec<(u16, u16)>);

impl StatusSet {
    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

/// When an exchange may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included; at most [`limits::ATTEMPTS_MAX`].
    pub attempts: NonZeroU8,
    /// The longest wait before an exchange goes to a backend that it tried already; doubled for
    /// each further one, and the real wait is a random share of it. A backend that was not tried
    /// yet is tried at once.
    pub backoff: Duration,
    /// For which failures.
    pub on: RetryOn,
}

/// For which failures an exchange may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// No connection could be made. Safe for any method: nothing was sent.
    pub connect: bool,
    /// The connection broke before an answer came. Idempotent methods only.
    pub reset: bool,
    /// No answer came in time. Idempotent methods only.
    pub timeout: bool,
    /// The backend answered with one of these. Idempotent methods only.
    pub status: Vec<u16>,
}

/// How long to wait for a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the head of the answer, and between two pieces of its body.
    pub response: Duration,
    /// For the whole exchange, every attempt and back-off included. `None` is for ever.
    pub request: Option<Duration>,
    /// How long an unused connection to a backend is kept.
    pub idle: Duration,
    /// How long a tunnel may be silent in both directions.
    pub tunnel: Duration,
}

/// How much one client may ask for: a token bucket per client.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Tokens earned per second; above 0, may be a fraction.
    pub requests_per_second: f64,
    /// Tokens that a bucket holds.
    pub burst: NonZeroU32,
    /// IPv6 clients are told apart by so many bits of their address, 1 to 128.
    pub ipv6_prefix: u8,
    /// How many clients are remembered at once.
    pub clients_max: NonZeroUsize,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
}

/// What a client may ask of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once; one more is answered 503 and closed.
    pub connections: NonZeroUsize,
    /// Where that is written: nowhere in a file that leaves it to the default.
    pub connections_defined_at: SourcePosition,
    /// Connections of one client at once.
    pub connections_per_client: Option<NonZeroUsize>,
    /// Requests on one connection.
    pub requests_per_connection: Option<NonZeroU32>,
    /// How much the head of a request may have.
    pub head: HeadLimits,
    /// Bytes of a request's body.
    pub body: Option<u64>,
    /// What becomes of paths that lead to different routes, depending on who reads them.
    pub ambiguous_paths: AmbiguousPaths,
    /// What becomes of request headers whose name has an underscore.
    pub underscore_headers: UnderscoreHeaders,
    /// How slow a client may be.
    pub min_rate: Option<MinTransferRate>,
    /// For a whole head; also how long a new connection may be silent.
    pub header_timeout: Duration,
    /// What responses and tunnels may hold that are not read, in bytes.
    pub response_buffers: ResponseBuffers,
    /// What becomes of a request whose client closes its side of the connection.
    pub half_closed: HalfClosed,
    /// How long an idle client connection is kept between requests.
    pub keepalive: Duration,
    /// What an HTTP/2 connection may ask for.
    pub http2: Http2,
}

/// What an HTTP/2 connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Streams at once.
    pub streams: u32,
    /// Bytes of a body that may be on their way before we have taken them, by stream.
    pub stream_window: u32,
    /// The same for the whole connection.
    pub connection_window: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self { streams: 100, stream_window: 64 * 1024, connection_window: 1024 * 1024 }
    }
}

/// One line per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines go.
    pub target: LogTarget,
}

/// How an access log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Words for people.
    Text,
    /// No lines.
    Off,
}

/// Where access log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
