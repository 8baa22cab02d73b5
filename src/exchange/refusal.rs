//! Responses of Weir itself, and the outcome of an exchange.

use std::time::Duration;

use crate::http::grpc;
use crate::http::scan::Violation;
use crate::runtime::pool::Pool;

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

/// What a refusal means, in one row.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// The response status (RFC 9110 §15; 429 and 431: RFC 6585).
    status: u16,
    /// The stable code for log lines and metrics.
    code: &'static str,
    /// The text for people. It reveals nothing about the backends.
    text: &'static str,
    /// The status for gRPC clients.
    grpc: u16,
    /// Seconds until the client may retry.
    retry_after: Option<u64>,
    /// Whether the client's connection is closed after the response.
    closes: bool,
}

impl Row {
    const fn new(status: u16, code: &'static str, text: &'static str) -> Self {
        let grpc = grpc::status_for(status);
        Self { status, code, text, grpc, retry_after: None, closes: false }
    }

    const fn retry(mut self) -> Self {
        self.retry_after = Some(1);
        self
    }

    const fn closes(mut self) -> Self {
        self.closes = true;
        self
    }

    const fn as_grpc_of(mut self, status: u16) -> Self {
        self.grpc = grpc::status_for(status);
        self
    }
}

const UNREACHABLE: &str = "Bad Gateway: the backend could not be reached";
const LATE: &str = "Gateway Timeout: the backend did not respond in time";

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident $(($($field:ty),+))? = $row:expr;)+) => {
        /// Weir rejects a request, or responds in place of a backend that failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])+ $name $(($($field),+))?,)+
        }

        impl Refusal {
            const fn row(self) -> Row {
                match self {
                    $(Self::$name { .. } => $row,)+
                }
            }
        }

        #[cfg(test)]
        const ROWS: &[Row] = &[$($row),+];
    };
}

refusals! {
    /// The request is invalid: no valid `Host`, or a target of the wrong form.
    // What follows on the connection may not be HTTP.
    BadRequest = Row::new(400, "bad_request", "Bad Request").closes();
    /// Servers may interpret the path differently, and would use different routes.
    AmbiguousPath = Row::new(400, "ambiguous_path", "Bad Request: the path is ambiguous");
    /// No route matches.
    NoRoute = Row::new(404, "no_route", "Not Found: no route matches this request");
    /// The request is in a forwarding loop.
    LoopDetected = Row::new(
        508,
        "loop_detected",
        "Loop Detected: the request has come through this proxy too often",
    );
    /// TRACE and CONNECT are not supported.
    MethodNotAllowed = Row::new(405, "method_not_allowed", "Method Not Allowed");
    /// The connection was made for another host, and client certificates are required.
    MisdirectedRequest = Row::new(
        421,
        "misdirected_request",
        "Misdirected Request: open a new connection for this host",
    );
    /// The client did not send the rest of its request in time.
    ClientTimeout = Row::new(408, "client_timeout", "Request Timeout");
    /// The body is longer than the limit.
    // The rest of the body would be too much to read.
    BodyTooLarge = Row::new(413, "body_too_large", "Content Too Large").closes();
    /// The target is longer than the limit.
    TargetTooLong = Row::new(414, "target_too_long", "URI Too Long");
    /// The expectation is not supported.
    ExpectationFailed = Row::new(417, "expectation_failed", "Expectation Failed");
    /// There are more headers than the limit, or they are longer.
    HeadersTooLarge = Row::new(431, "headers_too_large", "Request Header Fields Too Large");
    /// The HTTP version is neither 1.0 nor 1.1.
    VersionNotSupported = Row::new(505, "version_not_supported", "HTTP Version Not Supported");
    /// A rate limit was exceeded; the client may retry after the wait.
    RateLimited(Scope, Duration) = Row::new(429, "rate_limited", "Too Many Requests");
    /// An internal error.
    Internal = Row::new(500, "internal", "Internal Server Error");
    /// No connection to a backend could be made.
    ConnectFailed = Row::new(502, "connect_failed", UNREACHABLE);
    /// The TLS handshake with a backend failed.
    TlsFailed = Row::new(502, "tls_failed", UNREACHABLE);
    /// A backend's certificate is not trusted.
    CertificateInvalid = Row::new(502, "certificate_invalid", UNREACHABLE);
    /// The connection to the backend broke before a response.
    ConnectionReset = Row::new(
        502,
        "connection_reset",
        "Bad Gateway: the backend closed the connection",
    );
    /// The backend's response is not valid HTTP.
    InvalidResponse = Row::new(
        502,
        "invalid_response",
        "Bad Gateway: the backend's response is not valid",
    );
    /// No backend is eligible.
    // A backend may recover, or a client disconnect, at any moment: retry after a second.
    NoBackend = Row::new(503, "no_backend", "Service Unavailable: all backends are down").retry();
    /// No backend has a free place, and the request could not wait for one.
    // A gRPC client may retry: the request was not sent to any backend.
    QueueFull = Row::new(503, "queue_full", "Service Unavailable: all backends are busy").retry();
    /// The request has waited for a place at a backend as long as it may, or would have had to wait longer.
    QueueTimeout = Row::new(503, "queue_timeout", "Service Unavailable: all backends are busy").retry();
    /// Operators have taken out every healthy backend.
    TakenOut = Row::new(
        503,
        "taken_out_by_operator",
        "Service Unavailable: taken out of service",
    )
    .retry();
    /// The maximum number of client connections is reached.
    TooManyConnections = Row::new(
        503,
        "too_many_connections",
        "Service Unavailable: too many connections",
    )
    .retry();
    /// The maximum number of connections of this client is reached.
    TooManyConnectionsPerClient = Row::new(
        429,
        "too_many_connections_per_client",
        "Too Many Requests: too many connections",
    )
    .retry();
    /// The worker handles as many requests as it may (`limits.requests`).
    // A gRPC client may retry: the request was not sent to any backend.
    RequestLimit = Row::new(
        503,
        "request_limit",
        "Service Unavailable: too many requests in progress",
    )
    .retry();
    /// Descriptors, ports or memory for a connection to a backend are missing.
    Overload = Row::new(503, "overload", "Service Unavailable: overloaded").retry();
    /// A connection to a backend was not made in time.
    // A gRPC client may retry: the request was not sent to any backend.
    ConnectTimeout = Row::new(504, "connect_timeout", LATE).as_grpc_of(503);
    /// The backend did not respond in time.
    ResponseTimeout = Row::new(504, "response_timeout", LATE);
    /// The whole request took too long.
    RequestTimeout = Row::new(504, "request_timeout", LATE);
}

impl Refusal {
    /// Why a pool has no backend for a request.
    pub(super) fn without_backend(pool: &Pool) -> Self {
        if pool.is_taken_out() { Self::TakenOut } else { Self::NoBackend }
    }

    /// The response status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The stable code for log lines and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The text for people. It reveals nothing about the backends.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.row().text
    }

    /// The status for gRPC clients.
    #[must_use]
    pub const fn grpc_status(self) -> u16 {
        self.row().grpc
    }

    /// Whether the client's connection is closed after the response.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        self.row().closes
    }

    /// When the client may retry, in whole seconds, rounded up so that a client that waits exactly
    /// that long is admitted (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(self) -> Option<u64> {
        if let Self::RateLimited(_, wait) = self {
            return Some(whole_seconds(wait));
        }
        self.row().retry_after
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
        self.row().1
    }

    /// The position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.row().0
    }

    const fn row(self) -> (usize, &'static str) {
        match self {
            Self::Deadline => (0, "deadline"),
            Self::DrainTimeout => (1, "drain_timeout"),
            Self::ForcedStop => (2, "forced_stop"),
            Self::Http2Flood => (3, "http2_flood"),
            Self::Panic => (4, "panic"),
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
    /// The backend failed after the response had started, or Weir had an internal error; the client's
    /// connection was aborted.
    UpstreamAborted,
    /// The client disconnected before it had its response.
    ClientAborted,
    /// The client did not read its response in time, or did not send its body once the response had
    /// started.
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
    /// The stable code of a response that is not the backend's, or of what went wrong; `None` for
    /// [`Self::Completed`].
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

    /// The first two columns of the table of reasons in docs/OPERATIONS.md, a row for each code.
    fn documented() -> Vec<(String, String)> {
        let page = include_str!("../../docs/OPERATIONS.md");
        let (_, table) = page.split_once("| `reason` | Status |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut codes = Vec::new();
        for row in rows {
            let mut cells = row.split(" | ");
            let (names, statuses) = (cells.next().unwrap(), cells.next().unwrap());
            let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
            let each: Vec<&str> = statuses.split(", ").collect();
            for (index, name) in names.iter().enumerate() {
                let status = if each.len() == names.len() { each[index] } else { statuses };
                codes.push(((*name).to_owned(), status.trim().to_owned()));
            }
        }
        codes
    }

    /// A refusal before there is a request has no line in the access log.
    const WITHOUT_REQUEST: [&str; 2] = ["too_many_connections", "too_many_connections_per_client"];

    #[test]
    fn the_manual_has_each_reason_with_its_status() {
        let documented = documented();
        let status = |code: &str| documented.iter().find(|(name, _)| name == code);
        for row in ROWS {
            let Some((_, status)) = status(row.code) else {
                assert!(WITHOUT_REQUEST.contains(&row.code), "`{}` is not documented", row.code);
                continue;
            };
            assert!(status.starts_with(&row.status.to_string()), "{}: {status}", row.code);
        }
        let outcomes =
            Abort::ALL.into_iter().map(Abort::code).chain(OUTCOMES.map(|it| it.code().unwrap()));
        for code in outcomes {
            assert!(status(code).is_some(), "`{code}` is not documented");
        }
    }

    #[test]
    fn the_manual_has_no_other_reasons() {
        let outcomes = OUTCOMES.into_iter().filter_map(Outcome::code);
        let codes = ROWS.iter().map(|row| row.code).chain(outcomes);
        let codes: Vec<&str> = codes.chain(Abort::ALL.map(Abort::code)).collect();
        for (code, _) in documented() {
            assert!(codes.contains(&code.as_str()), "`{code}` is no reason");
        }
    }

    const OUTCOMES: [Outcome; 8] = [
        Outcome::Redirected,
        Outcome::Responded,
        Outcome::UpstreamAborted,
        Outcome::ClientAborted,
        Outcome::ClientWriteTimeout,
        Outcome::TunnelIdle,
        Outcome::TunnelDrained,
        Outcome::Abandoned,
    ];

    #[test]
    fn no_two_refusals_have_the_same_code() {
        for (index, row) in ROWS.iter().enumerate() {
            let before = ROWS.iter().take(index).find(|other| other.code == row.code);
            assert!(before.is_none(), "{}", row.code);
        }
    }
}
