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
    /// Connection: the limit of connections was exceeded.
    TooManyConnections,
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
    pub(super) const OF_ATTEMPT: [Self; 5] =
        [Self::Connect, Self::Refused, Self::Reset, Self::Timeout, Self::Status];
    /// and at a TLS backend.
    pub(super) const OF_TLS: [Self; 2] = [Self::Tls, Self::Certificate];
    /// The kinds counted for requests that reached a backend.
    pub(super) const OF_BACKEND: [Self; 10] = [
        Self::Connect,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
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
    pub(super) const OF_NO_POOL: [Self; 4] =
        [Self::BadRequest, Self::TooLarge, Self::ClientTimeout, Self::TooManyConnections];

    pub(super) const fn of_attempt(failure: AttemptFailure) -> Self {
        match failure {
            AttemptFailure::Connect | AttemptFailure::ConnectTimeout => Self::Connect,
            AttemptFailure::Tls => Self::Tls,
            AttemptFailure::Certificate => Self::Certificate,
            AttemptFailure::Refused => Self::Refused,
            AttemptFailure::Reset => Self::Reset,
            AttemptFailure::Timeout => Self::Timeout,
            AttemptFailure::Status(_) => Self::Status,
        }
    }

    /// `None` if it is not an error, or was counted with the attempt.
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
                Refusal::NoBackend => Some(Self::NoBackend),
                Refusal::TooManyConnections => Some(Self::TooManyConnections),
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
                | Refusal::TooManyConnectionsPerClient
                | Refusal::RateLimited(..)
                | Refusal::ConnectFailed
                | Refusal::TlsFailed
                | Refusal::CertificateInvalid
                | Refusal::ConnectionReset
                | Refusal::ConnectTimeout
                | Refusal::ResponseTimeout => None,
            },
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Connect => 0,
            Self::Reset => 1,
            Self::Timeout => 2,
            Self::Status => 3,
            Self::NoBackend => 4,
            Self::RequestTimeout => 5,
            Self::InvalidResponse => 6,
            Self::UpstreamAborted => 7,
            Self::Internal => 8,
            Self::Abandoned => 9,
            Self::TooManyConnections => 10,
            Self::BadRequest => 11,
            Self::TooLarge => 12,
            Self::ClientTimeout => 13,
            Self::ClientWriteTimeout => 14,
            Self::Tls => 15,
            Self::Certificate => 16,
            Self::Refused => 17,
            Self::Overload => 18,
            Self::Aborted(Abort::Deadline) => 19,
            Self::Aborted(Abort::DrainTimeout) => 20,
            Self::Aborted(Abort::ForcedStop) => 21,
            Self::Aborted(Abort::Http2Flood) => 22,
            Self::Aborted(Abort::Panic) => 23,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::NoBackend => "no_backend",
            Self::RequestTimeout => "request_timeout",
            Self::InvalidResponse => "invalid_response",
            Self::UpstreamAborted => "upstream_aborted",
            Self::Internal => "internal",
            Self::Abandoned => "abandoned",
            Self::TooManyConnections => "too_many_connections",
            Self::Overload => "overload",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::ClientTimeout => "client_timeout",
            Self::ClientWriteTimeout => "client_write_timeout",
            Self::Aborted(abort) => abort.code(),
        }
    }
}
