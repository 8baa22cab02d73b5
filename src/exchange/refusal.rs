//! Responses of Weir itself, and the outcome of an exchange.

use std::time::Duration;

use crate::http::scan::Violation;

/// Which rate limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The global one.
    Global,
    /// The route's own.
    Route,
    /// The pool's own.
    Pool,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Global, Self::Route, Self::Pool];

    /// The metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Route => "route",
            Self::Pool => "pool",
        }
    }
}

/// Weir rejects a request, or responds in place of a backend that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request is invalid: no valid `Host`, or a target of the wrong form.
    BadRequest,
    /// Servers may interpret the path differently, and would use different routes.
    AmbiguousPath,
    /// No route matches.
    NoRoute,
    /// The request is in a forwarding loop.
    LoopDetected,
    /// TRACE and CONNECT are not supported.
    MethodNotAllowed,
    /// The connection was made for another host, and client certificates are required.
    MisdirectedRequest,
    /// The client did not send the rest of its request in time.
    ClientTimeout,
    /// The body is longer than the limit.
    BodyTooLarge,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The expectation is not supported.
    ExpectationFailed,
    /// There are more headers than the limit, or they are longer.
    HeadersTooLarge,
    /// The HTTP version is neither 1.0 nor 1.1.
    VersionNotSupported,
    /// A rate limit was exceeded; the client may retry after the wait.
    RateLimited(Scope, Duration),
    /// An internal error.
    Internal,
    /// No connection to a backend could be made.
    ConnectFailed,
    /// The TLS handshake with a backend failed.
    TlsFailed,
    /// A backend's certificate is not trusted.
    CertificateInvalid,
    /// The connection to the backend broke before a response.
    ConnectionReset,
    /// The backend's response is not valid HTTP.
    InvalidResponse,
    /// No backend is eligible.
    NoBackend,
    /// The maximum number of client connections is reached.
    TooManyConnections,
    /// The maximum number of connections of this client is reached.
    TooManyConnectionsPerClient,
    /// Descriptors, ports or memory for a connection to a backend are missing.
    Overload,
    /// A connection to a backend was not made in time.
    ConnectTimeout,
    /// The backend did not respond in time.
    ResponseTimeout,
    /// The whole request took too long.
    RequestTimeout,
}

impl Refusal {
    /// The response status (RFC 9110 §15; 429 and 431: RFC 6585).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::AmbiguousPath => 400,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::ClientTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::HeadersTooLarge => 431,
            Self::VersionNotSupported => 505,
            Self::MisdirectedRequest => 421,
            Self::LoopDetected => 508,
            Self::RateLimited(..) | Self::TooManyConnectionsPerClient => 429,
            Self::Internal => 500,
            Self::ConnectFailed
            | Self::TlsFailed
            | Self::CertificateInvalid
            | Self::ConnectionReset
            | Self::InvalidResponse => 502,
            Self::NoBackend | Self::TooManyConnections | Self::Overload => 503,
            Self::ConnectTimeout | Self::ResponseTimeout | Self::RequestTimeout => 504,
        }
    }

    /// The stable code for log lines and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::AmbiguousPath => "ambiguous_path",
            Self::NoRoute => "no_route",
            Self::LoopDetected => "loop_detected",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MisdirectedRequest => "misdirected_request",
            Self::ClientTimeout => "client_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::ExpectationFailed => "expectation_failed",
            Self::HeadersTooLarge => "headers_too_large",
            Self::VersionNotSupported => "version_not_supported",
            Self::RateLimited(..) => "rate_limited",
            Self::Internal => "internal",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::CertificateInvalid => "certificate_invalid",
            Self::ConnectionReset => "connection_reset",
            Self::InvalidResponse => "invalid_response",
            Self::NoBackend => "no_backend",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyConnectionsPerClient => "too_many_connections_per_client",
            Self::Overload => "overload",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::RequestTimeout => "request_timeout",
        }
    }

    /// The text for people. It reveals nothing about the backends.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::LoopDetected => {
                "Loop Detected: the request has come through this proxy too often"
            }
            Self::AmbiguousPath => "Bad Request: the path is ambiguous",
            Self::NoRoute => "Not Found: no route matches this request",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::MisdirectedRequest => "Misdirected Request: open a new connection for this host",
            Self::ClientTimeout => "Request Timeout",
            Self::BodyTooLarge => "Content Too Large",
            Self::TargetTooLong => "URI Too Long",
            Self::ExpectationFailed => "Expectation Failed",
            Self::HeadersTooLarge => "Request Header Fields Too Large",
            Self::VersionNotSupported => "HTTP Version Not Supported",
            Self::RateLimited(..) => "Too Many Requests",
            Self::Internal => "Internal Server Error",
            Self::ConnectFailed | Self::TlsFailed | Self::CertificateInvalid => {
                "Bad Gateway: the backend could not be reached"
            }
            Self::ConnectionReset => "Bad Gateway: the backend closed the connection",
            Self::InvalidResponse => "Bad Gateway: the backend's response is not valid",
            Self::NoBackend => "Service Unavailable: all backends are down",
            Self::TooManyConnections => "Service Unavailable: too many connections",
            Self::TooManyConnectionsPerClient => "Too Many Requests: too many connections",
            Self::Overload => "Service Unavailable: overloaded",
            Self::ConnectTimeout | Self::ResponseTimeout | Self::RequestTimeout => {
                "Gateway Timeout: the backend did not respond in time"
            }
        }
    }

    /// When the client may retry, in whole seconds, rounded up so that a client that waits exactly
    /// that long is admitted (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::RateLimited(_, wait) => Some(whole_seconds(wait)),
            // A backend may recover, or a client disconnect, at any moment.
            Self::NoBackend
            | Self::TooManyConnections
            | Self::TooManyConnectionsPerClient
            | Self::Overload => Some(1),
            Self::BadRequest
            | Self::AmbiguousPath
            | Self::NoRoute
            | Self::LoopDetected
            | Self::MethodNotAllowed
            | Self::MisdirectedRequest
            | Self::ClientTimeout
            | Self::BodyTooLarge
            | Self::TargetTooLong
            | Self::ExpectationFailed
            | Self::HeadersTooLarge
            | Self::VersionNotSupported
            | Self::Internal
            | Self::ConnectFailed
            | Self::TlsFailed
            | Self::CertificateInvalid
            | Self::ConnectionReset
            | Self::InvalidResponse
            | Self::ConnectTimeout
            | Self::ResponseTimeout
            | Self::RequestTimeout => None,
        }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        match violation.status() {
            414 => Self::TargetTooLong,
            431 => Self::HeadersTooLarge,
            505 => Self::VersionNotSupported,
            _ => Self::BadRequest,
        }
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Why an exchange was aborted, regardless of client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The deadline passed after the response had started.
    Deadline,
    /// It was still in progress at the end of a drain.
    DrainTimeout,
    /// The process was stopped at once.
    ForcedStop,
    /// Its HTTP/2 connection was closed because of a flood.
    Http2Flood,
    /// A panic.
    Panic,
}

impl Abort {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Deadline, Self::DrainTimeout, Self::ForcedStop, Self::Http2Flood, Self::Panic];

    /// The stable code for log lines and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::DrainTimeout => "drain_timeout",
            Self::ForcedStop => "forced_stop",
            Self::Http2Flood => "http2_flood",
            Self::Panic => "panic",
        }
    }
}

/// The outcome of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The backend's whole response was sent to the client.
    Completed,
    /// Weir responded instead of a backend.
    Refused(Refusal),
    /// The route redirected the client.
    Redirected,
    /// The route sent a fixed response.
    Responded,
    /// The backend failed after the response had started; the client's connection was aborted.
    UpstreamAborted,
    /// The client disconnected before it had its response.
    ClientAborted,
    /// The client did not read its response in time.
    ClientWriteTimeout,
    /// The upgraded connection exceeded its idle timeout.
    TunnelIdle,
    /// The upgraded connection was closed while draining.
    TunnelDrained,
    /// It was aborted before it was complete.
    Aborted(Abort),
    /// The exchange was dropped for an unknown reason.
    Abandoned,
}

impl Outcome {
    /// The stable code of what went wrong, if something did.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::Completed => None,
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Redirected => Some("redirect"),
            Self::Responded => Some("respond"),
            Self::UpstreamAborted => Some("upstream_aborted"),
            Self::ClientAborted => Some("client_aborted"),
            Self::ClientWriteTimeout => Some("client_write_timeout"),
            Self::TunnelIdle => Some("tunnel_idle"),
            Self::TunnelDrained => Some("tunnel_drained"),
            Self::Aborted(abort) => Some(abort.code()),
            Self::Abandoned => Some("abandoned"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        let after = |wait| Refusal::RateLimited(Scope::Global, wait).retry_after();
        assert_eq!(after(Duration::from_millis(1)), Some(1));
        assert_eq!(after(Duration::from_secs(1)), Some(1));
        assert_eq!(after(Duration::from_millis(1001)), Some(2));
    }

    #[test]
    fn only_a_completed_exchange_has_no_code() {
        assert_eq!(Outcome::Completed.code(), None);
        assert_eq!(Outcome::Refused(Refusal::NoBackend).code(), Some("no_backend"));
        assert_eq!(Outcome::ClientAborted.code(), Some("client_aborted"));
    }
}
