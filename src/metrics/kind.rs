//! The closed set behind the labels `type` and `reason`.

use crate::exchange::refusal::{Abort, Ending, Refusal};
use crate::policy::retry::Failure;

/// What goes into `lb_errors_total{type}`: every attempt that failed, by how; and every exchange
/// whose end says more than its attempts do. What a client brought on itself is counted where it
/// shows an attack, or a limit that is too low; the rest is in `lb_requests_total` alone. The reasons of `lb_retries_total` are those of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// An attempt: no connection.
    Connect,
    /// An attempt: no TLS.
    Tls,
    /// An attempt: a certificate that is not one to trust.
    Certificate,
    /// An attempt: the backend did nothing with it.
    Refused,
    /// An attempt: the connection broke.
    Reset,
    /// An attempt: no answer in time.
    Timeout,
    /// An attempt: a status that was thrown away to try again.
    Status,
    /// An exchange: nobody was eligible.
    NoBackend,
    /// An exchange: its whole time was up.
    RequestTimeout,
    /// An exchange: the backend's answer was not HTTP.
    InvalidResponse,
    /// An exchange: the answer was cut after it had begun.
    ResponseCut,
    /// An exchange: our own mistake.
    Internal,
    /// An exchange: abandoned.
    Dropped,
    /// An exchange: ended before it was complete.
    Aborted(Abort),
    /// A connection: one too many.
    TooManyConnections,
    /// An exchange: we lack what a connection to a backend takes.
    Overload,
    /// A request: not what RFC 9112 calls one.
    BadRequest,
    /// A request: more than it may be; see `limits`.
    TooLarge,
    /// A request: not sent in time.
    SlowClient,
    /// An exchange: the client did not take its answer.
    ClientStalled,
}

impl ErrorKind {
    /// How many there are.
    pub(super) const COUNT: usize = 19 + Abort::ALL.len();

    /// How an attempt can fail at any backend,
    pub(super) const OF_ATTEMPT: [Self; 5] =
        [Self::Connect, Self::Refused, Self::Reset, Self::Timeout, Self::Status];
    /// and at one that TLS is spoken with.
    pub(super) const OF_TLS: [Self; 2] = [Self::Tls, Self::Certificate];
    /// What is counted where a backend was asked.
    pub(super) const OF_BACKEND: [Self; 10] = [
        Self::Connect,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
        Self::Status,
        Self::RequestTimeout,
        Self::InvalidResponse,
        Self::ResponseCut,
        Self::ClientStalled,
        Self::SlowClient,
    ];
    /// What is counted where a pool was found and no backend was asked,
    pub(super) const OF_POOL: [Self; 1] = [Self::NoBackend];
    /// and where no pool was found.
    pub(super) const OF_NO_POOL: [Self; 4] =
        [Self::BadRequest, Self::TooLarge, Self::SlowClient, Self::TooManyConnections];

    pub(super) const fn of_attempt(failure: Failure) -> Self {
        match failure {
            Failure::Connect => Self::Connect,
            Failure::Tls => Self::Tls,
            Failure::Certificate => Self::Certificate,
            Failure::Refused => Self::Refused,
            Failure::Reset => Self::Reset,
            Failure::Timeout => Self::Timeout,
            Failure::Status(_) => Self::Status,
        }
    }

    /// `None` for what is no error, or was counted with the attempt.
    pub(super) const fn of_ending(ending: Ending) -> Option<Self> {
        match ending {
            Ending::Answered
            | Ending::Redirected
            | Ending::Responded
            | Ending::ClientClosed
            | Ending::TunnelIdle
            | Ending::TunnelDrained => None,
            Ending::ClientStalled => Some(Self::ClientStalled),
            Ending::Cut => Some(Self::ResponseCut),
            Ending::Aborted(abort) => Some(Self::Aborted(abort)),
            Ending::Dropped => Some(Self::Dropped),
            Ending::Refused(refusal) => match refusal {
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
                Refusal::SlowClient => Some(Self::SlowClient),
                Refusal::NoRoute
                | Refusal::Loop
                | Refusal::MethodNotAllowed
                | Refusal::Misdirected
                | Refusal::TooManyOfClient
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
            Self::ResponseCut => 7,
            Self::Internal => 8,
            Self::Dropped => 9,
            Self::TooManyConnections => 10,
            Self::BadRequest => 11,
            Self::TooLarge => 12,
            Self::SlowClient => 13,
            Self::ClientStalled => 14,
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
            Self::ResponseCut => "response_cut",
            Self::Internal => "internal",
            Self::Dropped => "dropped",
            Self::TooManyConnections => "too_many_connections",
            Self::Overload => "overload",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::SlowClient => "slow_client",
            Self::ClientStalled => "client_stalled",
            Self::Aborted(abort) => abort.code(),
        }
    }
}
