//! What we answer when no backend does, and what is said of an exchange at its end.

use std::time::Duration;

use crate::http::scan::Violation;

/// Which rate limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The one for every request.
    Global,
    /// The route's own.
    Route,
    /// The pool's own.
    Pool,
}

impl Scope {
    /// All of them.
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

/// We answered without a backend, or in place of one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request cannot be understood: no valid `Host`, or a target of the wrong form.
    BadRequest,
    /// The path leads to different routes, depending on who reads it.
    AmbiguousPath,
    /// No route matches.
    NoRoute,
    /// It has been here too often already.
    Loop,
    /// TRACE and CONNECT are not served.
    MethodNotAllowed,
    /// The connection was made for another host, and clients must prove who they are.
    Misdirected,
    /// The client did not send the rest of its request in time.
    SlowClient,
    /// The body is longer than it may be.
    BodyTooLarge,
    /// The target is longer than it may be.
    TargetTooLong,
    /// It is expected what nobody here can do.
    ExpectationFailed,
    /// The fields are more, or longer, than they may be.
    HeadersTooLarge,
    /// A version of HTTP that is neither 1.0 nor 1.1.
    VersionNotSupported,
    /// The client asked too often; it may come back after the wait.
    RateLimited(Scope, Duration),
    /// Something went wrong on our side.
    Internal,
    /// No connection to a backend could be made.
    ConnectFailed,
    /// No TLS with a backend came about.
    TlsFailed,
    /// A backend showed a certificate that is not one to trust.
    CertificateInvalid,
    /// The connection to the backend broke before an answer came.
    ConnectionReset,
    /// The backend's answer was not valid HTTP.
    InvalidResponse,
    /// No backend is eligible.
    NoBackend,
    /// There are as many client connections as there may be.
    TooManyConnections,
    /// There are as many connections of this client as there may be.
    TooManyOfClient,
    /// We lack descriptors, ports or memory for a connection to a backend.
    Overload,
    /// A connection to a backend did not come about in time.
    ConnectTimeout,
    /// The backend did not answer in time.
    ResponseTimeout,
    /// The whole exchange took too long.
    RequestTimeout,
}

impl Refusal {
    /// The status that the client gets (RFC 9110 §15; 429 and 431: RFC 6585).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::AmbiguousPath => 400,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::SlowClient => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::HeadersTooLarge => 431,
            Self::VersionNotSupported => 505,
            Self::Misdirected => 421,
            Self::Loop => 508,
            Self::RateLimited(..) | Self::TooManyOfClient => 429,
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
            Self::Loop => "loop",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Misdirected => "misdirected",
            Self::SlowClient => "slow_client",
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
            Self::TooManyOfClient => "too_many_of_client",
            Self::Overload => "overload",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::RequestTimeout => "request_timeout",
        }
    }

    /// What a person reads. It tells nothing about the inside.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Loop => "Loop Detected: the backends lead back here",
            Self::AmbiguousPath => "Bad Request: the path can be read in several ways",
            Self::NoRoute => "Not Found: no route matches this request",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::Misdirected => "Misdirected Request: this host needs a connection of its own",
            Self::SlowClient => "Request Timeout",
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
            Self::InvalidResponse => "Bad Gateway: the backend's answer is not valid",
            Self::NoBackend => "Service Unavailable: all backends are down",
            Self::TooManyConnections => "Service Unavailable: too many connections",
            Self::TooManyOfClient => "Too Many Requests: too many connections",
            Self::Overload => "Service Unavailable: overloaded",
            Self::ConnectTimeout | Self::ResponseTimeout | Self::RequestTimeout => {
                "Gateway Timeout: the backend did not answer in time"
            }
        }
    }

    /// When the client may come back, in whole seconds, rounded up so that a client which waits
    /// just as long gets in (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::RateLimited(_, wait) => Some(whole_seconds(wait)),
            // A probe may find a backend again, a client may leave, at any moment.
            Self::NoBackend | Self::TooManyConnections | Self::TooManyOfClient | Self::Overload => {
                Some(1)
            }
            Self::BadRequest
            | Self::AmbiguousPath
            | Self::NoRoute
            | Self::Loop
            | Self::MethodNotAllowed
            | Self::Misdirected
            | Self::SlowClient
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

/// Why an exchange was ended before it was complete, whatever client and backend did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The response had begun when the time for the whole request was up.
    Deadline,
    /// It was still going on at the end of a drain.
    DrainTimeout,
    /// The process was told to stop at once.
    ForcedStop,
    /// Its HTTP/2 connection was closed for a flood.
    Http2Flood,
    /// A panic.
    Panic,
}

impl Abort {
    /// All of them.
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

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A backend's whole answer went to the client.
    Answered,
    /// We answered in place of a backend.
    Refused(Refusal),
    /// The route sent the client elsewhere.
    Redirected,
    /// The route has an answer of its own.
    Responded,
    /// The answer had begun, then the backend failed; the client saw a cut connection.
    Cut,
    /// The client left before it had its answer.
    ClientClosed,
    /// The client did not take its answer in time.
    ClientStalled,
    /// The exchange was a tunnel, and silent for too long.
    TunnelIdle,
    /// The exchange was a tunnel, and its time was up while draining.
    TunnelDrained,
    /// It was ended before it was complete.
    Aborted(Abort),
    /// The exchange was abandoned, and nothing is known of the reason.
    Dropped,
}

impl Ending {
    /// The stable code of what went wrong, if something did.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::Answered => None,
            Self::Refused(refusal) => Some(refusal.code()),
            Self::Redirected => Some("redirect"),
            Self::Responded => Some("respond"),
            Self::Cut => Some("response_cut"),
            Self::ClientClosed => Some("client_closed"),
            Self::ClientStalled => Some("client_stalled"),
            Self::TunnelIdle => Some("tunnel_idle"),
            Self::TunnelDrained => Some("tunnel_drained"),
            Self::Aborted(abort) => Some(abort.code()),
            Self::Dropped => Some("dropped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_that_are_long_enough() {
        let after = |wait| Refusal::RateLimited(Scope::Global, wait).retry_after();
        assert_eq!(after(Duration::from_millis(1)), Some(1));
        assert_eq!(after(Duration::from_secs(1)), Some(1));
        assert_eq!(after(Duration::from_millis(1001)), Some(2));
    }

    #[test]
    fn only_an_answered_exchange_has_nothing_to_explain() {
        assert_eq!(Ending::Answered.code(), None);
        assert_eq!(Ending::Refused(Refusal::NoBackend).code(), Some("no_backend"));
        assert_eq!(Ending::ClientClosed.code(), Some("client_closed"));
    }
}
