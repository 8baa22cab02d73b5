//! Types of single values. The file as typed and the configuration share them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::problem::Position;
use crate::policy::refresh::RefreshBounds;

/// Load balancing algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// The fewest requests in flight per unit of weight.
    LeastConnections,
    /// The same client always to the same backend.
    IpHash,
    /// Two at random; the one with fewer requests in flight is used.
    Random,
}

/// Address of a backend, as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A host name (lower case) and a port.
    Name(String, u16),
    /// Any number of backends, which are looked up.
    Discovered(Box<Discovery>),
}

/// Where backends are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Discovery {
    /// The source.
    pub from: DiscoveryFrom,
    /// Whether the certificate of each server must have the name that the source gives it.
    pub own_names: bool,
    /// Which addresses of a host name are used.
    pub family: AddressFamily,
    /// The bounds of the time between two lookups.
    pub refresh: RefreshBounds,
    /// The maximum number of backends; others are left out.
    pub backends_max: usize,
}

/// A source of backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DiscoveryFrom {
    /// Every address of a host name (lower case), with this port.
    Dns(String, u16),
    /// Every SRV record of a service.
    Srv(String),
    /// Every line of a file.
    File(FilePath),
}

impl fmt::Display for DiscoveryFrom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name, port) => write!(formatter, "dns {name}:{port}"),
            Self::Srv(name) => write!(formatter, "srv {name}"),
            Self::File(file) => write!(formatter, "file {}", file.path.display()),
        }
    }
}

/// Which addresses of a host name are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// All.
    Any,
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
}

impl AddressFamily {
    /// Whether an address is one of these.
    #[must_use]
    pub const fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(formatter),
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
            Self::Discovered(discovery) => discovery.from.fmt(formatter),
        }
    }
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

/// Failed attempts that count for a circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailureSet {
    /// No connection could be made.
    pub connect: bool,
    /// The connection broke before the response.
    pub reset: bool,
    /// There was no response in time.
    pub timeout: bool,
    /// The response was aborted after its headers.
    pub cut: bool,
    /// The response has a status in one of these inclusive ranges.
    pub status: Vec<(u16, u16)>,
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

/// Format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Plain text.
    Text,
    /// No access log.
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

/// HTTP version that a pool's backends speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// With TLS what ALPN negotiates, else HTTP/1.1.
    Auto,
}

impl Protocol {
    /// Whether only HTTP/2 is used.
    #[must_use]
    pub const fn is_http2_alone(self) -> bool {
        matches!(self, Self::H2 | Self::H2c)
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A file that the configuration names. Two are equal if their paths are equal,
/// wherever they are written.
#[derive(Debug, Clone, Eq)]
pub struct FilePath {
    /// As written, or joined with the directory of the configuration file.
    pub path: PathBuf,
    /// Where it is written; `None` if not in the file.
    pub at: Option<Position>,
}

impl PartialEq for FilePath {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Hash for FilePath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

/// A header that carries the address of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with `-Proto`, `-Host` and `-Port`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Headers that backends receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentHeaders {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwardedFor,
    /// `Forwarded` alone.
    Forwarded,
    /// Both.
    Both,
}

impl SentHeaders {
    /// Whether `X-Forwarded-…` is sent.
    #[must_use]
    pub const fn has_x_forwarded(self) -> bool {
        matches!(self, Self::XForwardedFor | Self::Both)
    }

    /// Whether `Forwarded` is sent.
    #[must_use]
    pub const fn has_forwarded(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

/// Host names that a route matches. Names are lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(String),
    /// `*.example.com`, kept as `example.com`: one or more labels in front of it.
    Suffix(String),
    /// Every host.
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => formatter.write_str(host),
            Self::Suffix(host) => write!(formatter, "*.{host}"),
            Self::Any => formatter.write_str("*"),
        }
    }
}

/// Memory limit for responses and WebSocket data that clients do not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseBuffers {
    /// An eighth of the memory that Weir may use: two workers have such a share during a reload, and each
    /// may hold more than it for some seconds.
    #[default]
    OfMemory,
    /// This many bytes.
    Bytes(u64),
    /// No limit.
    Off,
}

impl ResponseBuffers {
    /// The least that is an eighth of the memory.
    const MIN: u64 = 32 << 20;
    /// Used where the amount of memory is unknown.
    const UNKNOWN: u64 = 64 << 20;

    /// The limit in bytes, if Weir may use `memory` bytes in all; `None` is no limit.
    #[must_use]
    pub fn bytes(self, memory: Option<u64>) -> Option<u64> {
        match self {
            Self::OfMemory => Some(memory.map_or(Self::UNKNOWN, |all| (all / 8).max(Self::MIN))),
            Self::Bytes(bytes) => Some(bytes),
            Self::Off => None,
        }
    }
}

/// What happens to a path that Weir and a backend may match to different routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AmbiguousPaths {
    /// The request is rejected with 400.
    #[default]
    Refuse,
    /// The route of Weir's own reading is used.
    Pass,
}

/// What happens to an HTTP/1 request whose client closes its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HalfClosed {
    /// The client is taken to have left: the request is cancelled.
    #[default]
    Abort,
    /// The client still gets its response.
    Serve,
}

/// What happens to request headers with an underscore in their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreHeaders {
    /// A header is removed if a backend may read it as one that Weir acts on.
    #[default]
    Guard,
    /// All are removed.
    Drop,
    /// The request is rejected with 400.
    Refuse,
    /// They are forwarded.
    Pass,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_responses_may_hold_an_eighth_of_the_memory() {
        let of = |memory| ResponseBuffers::OfMemory.bytes(memory);
        assert_eq!(of(Some(8 << 30)), Some(1 << 30));
        assert_eq!(of(Some(1 << 20)), Some(32 << 20), "at least 32 MiB");
        assert_eq!(of(None), Some(64 << 20));
        assert_eq!(ResponseBuffers::Bytes(5).bytes(Some(8 << 30)), Some(5));
        assert_eq!(ResponseBuffers::Off.bytes(Some(8 << 30)), None);
    }
}
