//! A whole configuration, as the rest of Weir uses it.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use super::forwarding::Forwarding;
use super::listener::Listener;
use super::problem::SourcePosition;
use super::rate_limit::RateLimit;
use super::route::Route;
use super::shutdown::Shutdown;
use super::terms::{
    Algorithm, AmbiguousPaths, BackendAddress, HalfClosed, LogFormat, LogTarget, ResponseBuffers,
    StatusSet, UnderscoreHeaders,
};
use super::transport::Transport;
use crate::http::scan::Limits as HeadLimits;
use crate::name::PoolName;
use crate::policy::transfer_rate::MinTransferRate;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Addresses that clients connect to. At least one; no address twice.
    pub listeners: Vec<Listener>,
    /// The admin port: metrics, status, health. Its address is not one of the listeners.
    pub admin: Admin,
    /// Number of threads that serve requests.
    pub threads: Threads,
    /// Networks of the proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Headers that carry the address of the client.
    pub forwarded: Forwarding,
    /// In the order of the file. At least one.
    pub routes: Vec<Route>,
    /// At least one; no name twice.
    pub pools: Vec<Pool>,
    /// For every request, before the route is chosen.
    pub rate_limit: Option<RateLimit>,
    /// Limits on client connections and requests.
    pub limits: Limits,
    /// The access log: one line per request.
    pub access_log: AccessLog,
    /// Graceful shutdown.
    pub shutdown: Shutdown,
}

/// The admin port.
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
    /// At least one.
    AnyPool,
    /// Each of them.
    AllPools,
    /// Each of these. At least one; all of them are there.
    Pools(Vec<PoolName>),
}

/// Number of threads that serve requests.
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
    /// Name in routes, metrics and logs.
    pub name: PoolName,
    /// Load balancing algorithm.
    pub algorithm: Algorithm,
    /// At least one, at most [`super::limits::BACKENDS_MAX`]; no address twice.
    pub backends: Vec<Backend>,
    /// `None` if health checks are off: then every backend counts as healthy.
    pub health_check: Option<HealthCheck>,
    /// When a failed request is retried.
    pub retry: Retry,
    /// Timeouts towards the backends.
    pub timeouts: Timeouts,
    /// Transport to the backends.
    pub transport: Transport,
    /// Rate limit of this pool, after the global one and the route's.
    pub rate_limit: Option<RateLimit>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Address, as written.
    pub address: BackendAddress,
    /// Share of the requests relative to the other backends of the pool; at most [`super::limits::WEIGHT_MAX`].
    pub weight: NonZeroU32,
    /// Server name (or IP address) that its certificate is verified for; never empty. `None` without TLS.
    pub server_name: Option<String>,
    /// Position of its URL.
    pub defined_at: SourcePosition,
}

/// Active health checks of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Type of the health check.
    pub probe: Probe,
    /// From the start of one health check to the start of the next, ±10 % at random.
    pub interval: Duration,
    /// Time limit for a whole health check. Not longer than the interval.
    pub timeout: Duration,
    /// Consecutive failures that make a healthy backend unhealthy.
    pub unhealthy_after: NonZeroU32,
    /// Consecutive successes that make an unhealthy backend healthy.
    pub healthy_after: NonZeroU32,
}

/// Type of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The backend accepts a connection.
    Tcp,
    /// It reports `SERVING` (`grpc.health.v1.Health`).
    Grpc {
        /// Name of the service; empty is the server as a whole.
        service: String,
    },
    /// It returns an expected response to `GET path`.
    Http {
        /// Starts with `/`.
        path: String,
        /// The `Host` header; `None` sends the backend's own address.
        host: Option<String>,
        /// Statuses with which it passes.
        status: StatusSet,
        /// A text that the body must have in its first [`super::limits::PROBE_BODY_BYTES_MAX`] bytes.
        body: Option<String>,
    },
}

/// When a failed request is retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Maximum number of attempts, the first one included; at most [`super::limits::ATTEMPTS_MAX`].
    pub attempts: NonZeroU8,
    /// Maximum wait before a request goes to a backend that already failed it. It doubles each time; the
    /// actual wait is a random part of it. A backend that was not tried yet is tried without a wait.
    pub backoff: Duration,
    /// Failures that are retried.
    pub on: RetryOn,
}

/// Failures that are retried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOn {
    /// No connection could be made. Safe for every method: nothing was sent.
    pub connect: bool,
    /// The connection broke before the response. Idempotent methods only.
    pub reset: bool,
    /// There was no response in time. Idempotent methods only.
    pub timeout: bool,
    /// The response has one of these statuses. Idempotent methods only.
    pub status: Vec<u16>,
}

/// Timeouts towards the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, and again for its TLS handshake.
    pub connect: Duration,
    /// For the response headers, and between two parts of the response body.
    pub response: Duration,
    /// For the whole request, all attempts and waits included. `None` is no limit.
    pub request: Option<Duration>,
    /// How long an idle connection to a backend stays open.
    pub idle: Duration,
    /// How long a WebSocket may be silent in both directions.
    pub tunnel: Duration,
}

/// Limits on client connections and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of client connections; further ones get 503 and are closed.
    pub connections: NonZeroUsize,
    /// Position of `connections`; `None` if the file does not set it.
    pub connections_defined_at: SourcePosition,
    /// Maximum number of connections of one client.
    pub connections_per_client: Option<NonZeroUsize>,
    /// Maximum number of requests on one connection.
    pub requests_per_connection: Option<NonZeroU32>,
    /// Limits on the request line and the request headers.
    pub head: HeadLimits,
    /// Maximum size of a request body, in bytes.
    pub body: Option<u64>,
    /// What happens to ambiguous paths.
    pub ambiguous_paths: AmbiguousPaths,
    /// What happens to request headers with an underscore in their name.
    pub underscore_headers: UnderscoreHeaders,
    /// Minimum transfer rate of a client.
    pub min_rate: Option<MinTransferRate>,
    /// Time limit for the request headers, and for the first byte of a new connection.
    pub header_timeout: Duration,
    /// Memory limit for responses and WebSocket data that clients do not read.
    pub response_buffers: ResponseBuffers,
    /// What happens to a request whose client closes its side of the connection.
    pub half_closed: HalfClosed,
    /// How long an idle client connection stays open between requests.
    pub keepalive: Duration,
    /// Limits on HTTP/2 connections with clients.
    pub http2: Http2,
}

/// Limits on HTTP/2 connections with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Maximum number of concurrent streams.
    pub streams: u32,
    /// Flow-control window of one stream, in bytes.
    pub stream_window: u32,
    /// Flow-control window of the whole connection, in bytes.
    pub connection_window: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self { streams: 100, stream_window: 64 * 1024, connection_window: 1024 * 1024 }
    }
}

/// The access log: one line per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLog {
    /// Format of a line.
    pub format: LogFormat,
    /// Where the lines go.
    pub target: LogTarget,
}
