//! The closed set of values of the labels `type` and `reason`.

use crate::exchange::refusal::{Abort, Outcome, Refusal};
use crate::policy::retry::AttemptFailure;

/// Values of `lb_errors_total{type}`: every failed attempt, by the kind of failure, and every
/// request whose outcome adds information to its attempts. Errors caused by the client are included
/// if they can reveal an attack, or a limit that is too low; the others appear only in
/// `lb_requests_total`. The reasons of `lb_retries_total` are those of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// Attempt: no connection.
    Connect,
    /// Attempt: the TLS handshake failed.
    Tls,
    /// Attempt: the certificate is not trusted.
    Certificate,
    /// Attempt: the backend refused the request without processing it.
    Refused,
    /// Attempt: the connection was reset.
    Reset,
    /// Attempt: no response in time.
    Timeout,
    /// Attempt: moved to another backend before its timeout.
    Moved,
    /// Attempt: a status that is retried.
    Status,
    /// Request: no backend was eligible.
    NoBackend,
    /// Request: `timeouts.request` was exceeded.
    RequestTimeout,
    /// Request: the backend's response is not valid HTTP.
    InvalidResponse,
    /// Request: the response was aborted after it had started.
    UpstreamAborted,
    /// Request: internal error.
    Internal,
    /// Request: abandoned.
    Abandoned,
    /// Request: aborted before it was complete.
    Aborted(Abort),
    /// Request: the resources for a connection to a backend are missing.
    Overload,
    /// Request: violates RFC 9112.
    BadRequest,
    /// Request: exceeds one of `limits`.
    TooLarge,
    /// Request: not received in time.
    ClientTimeout,
    /// Request: the client did not read the response.
    ClientWriteTimeout,
}

impl ErrorKind {
    /// The number of kinds.
    pub(super) const COUNT: usize = 19 + Abort::ALL.len();

    /// The failures of an attempt at any backend,
    pub(super) const OF_ATTEMPT: [Self; 6] =
        [Self::Connect, Self::Refused, Self::Reset, Self::Timeout, Self::Moved, Self::Status];
    /// and at a TLS backend.
    pub(super) const OF_TLS: [Self; 2] = [Self::Tls, Self::Certificate];
    /// The kinds counted for requests that reached a backend.
    pub(super) const OF_BACKEND: [Self; 11] = [
        Self::Connect,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
        Self::Moved,
        Self::Status,
        Self::RequestTimeout,
        Self::InvalidResponse,
        Self::UpstreamAborted,
        Self::ClientWriteTimeout,
        Self::ClientTimeout,
    ];
    /// The kinds counted for requests with a pool but without a backend,
    pub(super) const OF_POOL: [Self; 1] = [Self::NoBackend];
    /// and without a pool.
    pub(super) const OF_NO_POOL: [Self; 3] =
        [Self::BadRequest, Self::TooLarge, Self::ClientTimeout];

    pub(super) const fn of_attempt(failure: AttemptFailure) -> Self {
        match failure {
            AttemptFailure::Connect | AttemptFailure::ConnectTimeout => Self::Connect,
            AttemptFailure::Tls => Self::Tls,
            AttemptFailure::Certificate => Self::Certificate,
            AttemptFailure::Refused => Self::Refused,
            AttemptFailure::Reset => Self::Reset,
            AttemptFailure::Timeout => Self::Timeout,
            AttemptFailure::Moved => Self::Moved,
            AttemptFailure::Status(_) => Self::Status,
        }
    }

    /// `None` if it is not an error, or was counted with the attempt. Other outcomes than these have no
    /// series: the table of refusals (`exchange/refusal.rs`) has their status and their code.
    pub(super) const fn of_ending(ending: Outcome) -> Option<Self> {
        match ending {
            Outcome::Completed
            | Outcome::Redirected
            | Outcome::Responded
            | Outcome::ClientAborted
            | Outcome::TunnelIdle
            | Outcome::TunnelDrained => None,
            Outcome::ClientWriteTimeout => Some(Self::ClientWriteTimeout),
            Outcome::UpstreamAborted => Some(Self::UpstreamAborted),
            Outcome::Aborted(abort) => Some(Self::Aborted(abort)),
            Outcome::Abandoned => Some(Self::Abandoned),
            Outcome::Refused(refusal) => match refusal {
                Refusal::NoBackend | Refusal::TakenOut => Some(Self::NoBackend),
                Refusal::Overload => Some(Self::Overload),
                Refusal::RequestTimeout => Some(Self::RequestTimeout),
                Refusal::InvalidResponse => Some(Self::InvalidResponse),
                Refusal::Internal => Some(Self::Internal),
                Refusal::BadRequest
                | Refusal::AmbiguousPath
                | Refusal::ExpectationFailed
                | Refusal::VersionNotSupported => Some(Self::BadRequest),
                Refusal::BodyTooLarge | Refusal::TargetTooLong | Refusal::HeadersTooLarge => {
                    Some(Self::TooLarge)
                }
                Refusal::ClientTimeout => Some(Self::ClientTimeout),
                Refusal::NoRoute
                | Refusal::LoopDetected
                | Refusal::MethodNotAllowed
                | Refusal::MisdirectedRequest
                // Connections without a request: `lb_connection_failures_total` counts them.
                | Refusal::TooManyConnections
                | Refusal::TooManyConnectionsPerClient
                | Refusal::RateLimited(..)
                // `lb_shed_total` counts it.
                | Refusal::RequestLimit
                | Refusal::QueueFull
                | Refusal::QueueTimeout
                | Refusal::ConnectFailed
                | Refusal::TlsFailed
                | Refusal::CertificateInvalid
                | Refusal::ConnectionReset
                | Refusal::ConnectTimeout
                | Refusal::ResponseTimeout => None,
            },
        }
    }

    /// The index of its counter in an array of [`Self::COUNT`].
    pub(super) const fn index(self) -> usize {
        self.row().0
    }

    /// The value of the label.
    pub(super) const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Index and label. The labels of attempts are those of the access log.
    const fn row(self) -> (usize, &'static str) {
        match self {
            Self::Connect => (0, AttemptFailure::Connect.code()),
            Self::Tls => (1, AttemptFailure::Tls.code()),
            Self::Certificate => (2, AttemptFailure::Certificate.code()),
            Self::Refused => (3, AttemptFailure::Refused.code()),
            Self::Reset => (4, AttemptFailure::Reset.code()),
            Self::Timeout => (5, AttemptFailure::Timeout.code()),
            Self::Status => (6, AttemptFailure::Status(0).code()),
            Self::NoBackend => (7, Refusal::NoBackend.code()),
            Self::RequestTimeout => (8, Refusal::RequestTimeout.code()),
            Self::InvalidResponse => (9, Refusal::InvalidResponse.code()),
            Self::Internal => (10, Refusal::Internal.code()),
            Self::Overload => (11, Refusal::Overload.code()),
            Self::BadRequest => (12, Refusal::BadRequest.code()),
            Self::ClientTimeout => (13, Refusal::ClientTimeout.code()),
            // Three refusals: 413, 414 and 431.
            Self::TooLarge => (14, "too_large"),
            Self::UpstreamAborted => (15, "upstream_aborted"),
            Self::Abandoned => (16, "abandoned"),
            Self::ClientWriteTimeout => (17, "client_write_timeout"),
            Self::Moved => (18, AttemptFailure::Moved.code()),
            Self::Aborted(abort) => (19 + abort.index(), abort.code()),
        }
    }
}
