//! Whether a failed attempt may be retried.
//!
//! A retry must not execute a request twice. If no connection could be made, nothing was sent, and
//! any method may be retried. The same is true if the backend reports that it did not process the
//! request, although it was sent: [`RetryPolicy::connect`] covers that as well. Otherwise it is
//! unknown what the backend has done. RFC 9110 §9.2.2 lets a proxy retry such a request only if its
//! method is idempotent. Moreover, the client must not have received any part of a response, and
//! whatever was sent of the body must still be available.

use std::num::NonZeroU8;
use std::time::Duration;

use http::Method;

/// How an attempt failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttemptFailure {
    /// The connection was refused, or the backend is unreachable. Nothing was sent.
    Connect,
    /// No connection was made in time. This is not [`AttemptFailure::Timeout`]: nothing was sent.
    ConnectTimeout,
    /// The TLS handshake failed. Nothing was sent either.
    Tls,
    /// The backend's certificate is not trusted. Nothing was sent either.
    Certificate,
    /// The backend reports that it did not process the request (RFC 9113 §8.7). Any method may be
    /// retried.
    Refused,
    /// The connection broke before a response, or the response is not valid HTTP.
    Reset,
    /// The request was sent, and there was no response in time.
    Timeout,
    /// The backend did not respond for far longer than usual, and its circuit breaker keeps requests
    /// away from it. The request was moved to another backend before its timeout.
    Moved,
    /// The backend's response has this status.
    Status(u16),
}

/// Which failures are retried, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of attempts, including the first.
    pub attempts: NonZeroU8,
    /// Whether failures to connect, TLS failures and [`AttemptFailure::Refused`] are retried.
    pub connect: bool,
    /// Whether [`AttemptFailure::Reset`] is retried.
    pub reset: bool,
    /// Whether [`AttemptFailure::Timeout`] and [`AttemptFailure::Moved`] are retried.
    pub timeout: bool,
    /// Which statuses are retried.
    pub status: Vec<u16>,
    /// Which methods are retried although they are not idempotent.
    pub methods: Vec<Method>,
    /// The first back-off before a backend is tried again.
    pub backoff: Duration,
    /// The time limit of an attempt that is not the last one.
    pub try_timeout: Option<Duration>,
}

/// The state of a request, for the decision to retry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryContext {
    /// Attempts made so far, including the failed one.
    pub attempts_made: u32,
    /// Whether the method is idempotent.
    pub idempotent: bool,
    /// Whether any part of a response was sent to the client.
    pub response_started: bool,
    /// Whether the whole request body is still available.
    pub body_whole: bool,
    /// Whether the attempt was a trial of the circuit breaker, and has failed it. Such a failure is
    /// retried even if it is not listed: the client is not to pay for the trial.
    pub failed_trial: bool,
}

impl AttemptFailure {
    /// Its name in `lb_errors_total{type}` and in the access log, which adds the number of a status.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Connect | Self::ConnectTimeout => "connect",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Moved => "moved",
            Self::Status(_) => "status",
        }
    }

    /// Whether it is certain that the backend has received nothing of the request.
    #[must_use]
    pub const fn is_unsent(self) -> bool {
        match self {
            Self::Connect | Self::ConnectTimeout | Self::Tls | Self::Certificate => true,
            Self::Refused | Self::Reset | Self::Timeout | Self::Moved | Self::Status(_) => false,
        }
    }
}

impl RetryPolicy {
    /// Whether a response with this status is a failure, which earns no retry.
    #[must_use]
    pub fn is_failure(&self, status: u16) -> bool {
        status >= 500 || self.status.contains(&status)
    }

    /// Whether a request may be retried after `failure`.
    #[must_use]
    pub fn allows(&self, failure: AttemptFailure, context: RetryContext) -> bool {
        let enabled = match failure {
            AttemptFailure::Connect
            | AttemptFailure::ConnectTimeout
            | AttemptFailure::Tls
            | AttemptFailure::Certificate
            | AttemptFailure::Refused => self.connect,
            AttemptFailure::Reset => self.reset,
            AttemptFailure::Timeout | AttemptFailure::Moved => self.timeout,
            AttemptFailure::Status(status) => self.status.contains(&status),
        };
        let safe = match failure {
            AttemptFailure::Connect
            | AttemptFailure::ConnectTimeout
            | AttemptFailure::Tls
            | AttemptFailure::Certificate => true,
            AttemptFailure::Refused => context.body_whole,
            AttemptFailure::Reset
            | AttemptFailure::Timeout
            | AttemptFailure::Moved
            | AttemptFailure::Status(_) => context.idempotent && context.body_whole,
        };
        (enabled || context.failed_trial)
            && safe
            && !context.response_started
            && context.attempts_made < u32::from(self.attempts.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: NonZeroU8::new(3).unwrap(),
            connect: true,
            reset: true,
            timeout: true,
            status: vec![502, 503],
            methods: Vec::new(),
            backoff: Duration::ZERO,
            try_timeout: None,
        }
    }

    const GET: RetryContext = RetryContext {
        attempts_made: 1,
        idempotent: true,
        response_started: false,
        body_whole: true,
        failed_trial: false,
    };
    const POST: RetryContext = RetryContext { idempotent: false, ..GET };

    #[test]
    fn an_idempotent_request_is_retried_after_every_configured_failure() {
        assert!(policy().allows(AttemptFailure::Connect, GET));
        assert!(policy().allows(AttemptFailure::Reset, GET));
        assert!(policy().allows(AttemptFailure::Timeout, GET));
        assert!(policy().allows(AttemptFailure::Status(502), GET));
        assert!(policy().allows(AttemptFailure::Status(503), GET));
    }

    #[test]
    fn a_post_is_retried_if_nothing_was_sent() {
        assert!(policy().allows(AttemptFailure::Connect, POST));
    }

    #[test]
    fn a_post_that_was_sent_is_never_sent_twice() {
        assert!(!policy().allows(AttemptFailure::Reset, POST));
        assert!(!policy().allows(AttemptFailure::Timeout, POST));
        assert!(!policy().allows(AttemptFailure::Moved, POST));
        assert!(!policy().allows(AttemptFailure::Status(503), POST));
    }

    #[test]
    fn a_status_that_is_not_listed_is_not_retried() {
        assert!(!policy().allows(AttemptFailure::Status(500), GET));
        assert!(!policy().allows(AttemptFailure::Status(200), GET));
    }

    #[test]
    fn the_third_of_three_attempts_is_the_last() {
        assert!(policy().allows(AttemptFailure::Connect, RetryContext { attempts_made: 2, ..GET }));
        assert!(
            !policy().allows(AttemptFailure::Connect, RetryContext { attempts_made: 3, ..GET })
        );
        assert!(
            !policy()
                .allows(AttemptFailure::Connect, RetryContext { attempts_made: u32::MAX, ..GET })
        );
    }

    #[test]
    fn one_attempt_means_no_retry() {
        let once = RetryPolicy { attempts: NonZeroU8::MIN, ..policy() };
        assert!(!once.allows(AttemptFailure::Connect, GET));
    }

    #[test]
    fn nothing_is_retried_once_the_client_has_received_a_part_of_a_response() {
        let context = RetryContext { response_started: true, ..GET };
        assert!(!policy().allows(AttemptFailure::Connect, context));
        assert!(!policy().allows(AttemptFailure::Reset, context));
        assert!(!policy().allows(AttemptFailure::Timeout, context));
        assert!(!policy().allows(AttemptFailure::Status(502), context));
    }

    #[test]
    fn without_the_whole_body_there_is_no_retry() {
        let context = RetryContext { body_whole: false, ..GET };
        assert!(!policy().allows(AttemptFailure::Reset, context));
        assert!(!policy().allows(AttemptFailure::Timeout, context));
        assert!(!policy().allows(AttemptFailure::Status(502), context));
    }

    #[test]
    fn a_failed_connection_does_not_need_the_body() {
        assert!(
            policy().allows(AttemptFailure::Connect, RetryContext { body_whole: false, ..POST })
        );
    }

    #[test]
    fn connect_is_only_retried_if_configured() {
        let policy = RetryPolicy { connect: false, ..policy() };
        assert!(!policy.allows(AttemptFailure::Connect, GET));
        assert!(policy.allows(AttemptFailure::Reset, GET));
    }

    #[test]
    fn reset_is_only_retried_if_configured() {
        let policy = RetryPolicy { reset: false, ..policy() };
        assert!(!policy.allows(AttemptFailure::Reset, GET));
        assert!(policy.allows(AttemptFailure::Timeout, GET));
    }

    #[test]
    fn timeout_is_only_retried_if_configured() {
        let policy = RetryPolicy { timeout: false, ..policy() };
        assert!(!policy.allows(AttemptFailure::Timeout, GET));
        assert!(!policy.allows(AttemptFailure::Moved, GET));
        assert!(policy.allows(AttemptFailure::Connect, GET));
    }
}
