//! A whole configuration, as the rest of Weir uses it. Sections whose keys are used as they are written are
//! in `file`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use ipnet::IpNet;

use super::file::{
    AccessLog, Breaker, Forwarding, HealthCheck, Limits, RateLimit, RequestQueue, Retry, Shutdown,
    Timeouts,
};
use super::listener::Listener;
use super::problem::SourcePosition;
use super::route::Route;
use super::source::ConfigSource;
use super::terms::{Algorithm, BackendAddress, DiscoveryFrom, FilePath};
use super::transport::Transport;
use crate::name::PoolName;

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
    /// What it was made from.
    pub source: ConfigSource,
}

/// The admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// IP address and port.
    pub address: SocketAddr,
    /// Which pools need a healthy backend for `/readyz` to be 200.
    pub ready_when: ReadyWhen,
    /// Where its address is defined in the file.
    pub defined_at: SourcePosition,
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
    /// Its circuit breaker; `None` if that is off.
    pub breaker: Option<Breaker>,
    /// When a failed request is retried.
    pub retry: Retry,
    /// Requests that wait for a place at a backend.
    pub queue: RequestQueue,
    /// Timeouts towards the backends.
    pub timeouts: Timeouts,
    /// Transport to the backends.
    pub transport: Transport,
    /// Time over which a backend that is new or has recovered grows to its weight.
    pub slow_start: Option<Duration>,
    /// Rate limit of this pool, after the global one and the route's.
    pub rate_limit: Option<RateLimit>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Address, as written.
    pub address: BackendAddress,
    /// Share of the requests relative to the other backends of the pool; at most 1000.
    pub weight: NonZeroU32,
    /// Maximum number of requests in flight; `None`: no limit.
    pub max_requests: Option<NonZeroU32>,
    /// Server name (or IP address) that its certificate is verified for; never empty. `None` without TLS.
    /// For a file: the name that its `https://` lines share, if there is one.
    pub server_name: Option<String>,
    /// Position of its URL.
    pub defined_at: SourcePosition,
}

impl Backend {
    /// Whether a connection to it may use TLS. Each line of a file has a scheme of its own.
    #[must_use]
    pub fn may_use_tls(&self) -> bool {
        self.server_name.is_some() || self.is_from_file()
    }

    /// Whether the lines of a file are the backends.
    #[must_use]
    pub fn is_from_file(&self) -> bool {
        self.file().is_some()
    }

    /// The file whose lines are the backends.
    #[must_use]
    pub fn file(&self) -> Option<&FilePath> {
        let BackendAddress::Discovered(discovery) = &self.address else { return None };
        match &discovery.from {
            DiscoveryFrom::File(file) => Some(file),
            DiscoveryFrom::Dns(..) | DiscoveryFrom::Srv(_) => None,
        }
    }

    pub(super) fn file_mut(&mut self) -> Option<&mut FilePath> {
        let BackendAddress::Discovered(discovery) = &mut self.address else { return None };
        match &mut discovery.from {
            DiscoveryFrom::File(file) => Some(file),
            DiscoveryFrom::Dns(..) | DiscoveryFrom::Srv(_) => None,
        }
    }
}
