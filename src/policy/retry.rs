//! May this failure be tried again?
//!
//! A second attempt must not do a thing twice. When no connection could be made, nothing was
//! sent, and any method may go elsewhere. After that nobody knows what the backend has done:
//! RFC 9110 §9.2.2 lets a proxy repeat a request by itself only if its method is idempotent,
//! and even then only while the client has not seen a byte of an answer and we still have the
//! whole request body to send again.

use std::num::NonZeroU8;

/// How an attempt failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// There was no connection: refused, unreachable, or not made in time. A connect *timeout*
    /// is this, not [`Failure::Timeout`]: nothing was sent.
    Connect,
    /// There was a connection, but no TLS over it. Nothing was sent here either.
    Tls,
    /// The certificate that was shown is not one to trust. Nothing was sent here either.
    Certificate,
    /// The backend says that it did nothing with the request (RFC 9113 §8.7).
    Refused,
    /// The connection broke before an answer came.
    Reset,
    /// The request was sent and no answer came in time.
    Timeout,
    /// The backend answered with this status.
    Status(u16),
}

/// Which failures may be tried again, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: NonZeroU8,
    /// Whether [`Failure::Connect`] is tried again, and what is wrong with TLS.
    pub connect: bool,
    /// Whether [`Failure::Reset`] is tried again.
    pub reset: bool,
    /// Whether [`Failure::Timeout`] is tried again.
    pub timeout: bool,
    /// Which statuses are tried again.
    pub status: Vec<u16>,
}

/// What an exchange has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Attempts made so far, the failed one included.
    pub attempts_made: u32,
    /// Whether the method is idempotent.
    pub idempotent: bool,
    /// Whether the client was sent any part of an answer.
    pub answer_started: bool,
    /// Whether the request body could be sent again from its first byte.
    pub body_whole: bool,
}

impl RetryPolicy {
    /// Whether an exchange may be tried again after `failure`.
    #[must_use]
    pub fn allows(&self, failure: Failure, facts: Facts) -> bool {
        let asked_for = match failure {
            Failure::Connect | Failure::Tls | Failure::Certificate | Failure::Refused => {
                self.connect
            }
            Failure::Reset => self.reset,
            Failure::Timeout => self.timeout,
            Failure::Status(status) => self.status.contains(&status),
        };
        let safe = match failure {
            Failure::Connect | Failure::Tls | Failure::Certificate => true,
            Failure::Refused => facts.body_whole,
            Failure::Reset | Failure::Timeout | Failure::Status(_) => {
                facts.idempotent && facts.body_whole
            }
        };
        asked_for
            && safe
            && !facts.answer_started
            && facts.attempts_made < u32::from(self.attempts.get())
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
        }
    }

    const GET: Facts =
        Facts { attempts_made: 1, idempotent: true, answer_started: false, body_whole: true };
    const POST: Facts = Facts { idempotent: false, ..GET };

    #[test]
    fn an_idempotent_request_is_tried_again_after_every_failure_asked_for() {
        assert!(policy().allows(Failure::Connect, GET));
        assert!(policy().allows(Failure::Reset, GET));
        assert!(policy().allows(Failure::Timeout, GET));
        assert!(policy().allows(Failure::Status(502), GET));
        assert!(policy().allows(Failure::Status(503), GET));
    }

    #[test]
    fn a_post_is_tried_again_when_nothing_was_sent() {
        assert!(policy().allows(Failure::Connect, POST));
    }

    #[test]
    fn a_post_that_was_sent_is_never_sent_twice() {
        assert!(!policy().allows(Failure::Reset, POST));
        assert!(!policy().allows(Failure::Timeout, POST));
        assert!(!policy().allows(Failure::Status(503), POST));
    }

    #[test]
    fn a_status_not_listed_is_the_answer() {
        assert!(!policy().allows(Failure::Status(500), GET));
        assert!(!policy().allows(Failure::Status(200), GET));
    }

    #[test]
    fn the_third_of_three_attempts_is_the_last() {
        assert!(policy().allows(Failure::Connect, Facts { attempts_made: 2, ..GET }));
        assert!(!policy().allows(Failure::Connect, Facts { attempts_made: 3, ..GET }));
        assert!(!policy().allows(Failure::Connect, Facts { attempts_made: u32::MAX, ..GET }));
    }

    #[test]
    fn one_attempt_means_no_retry() {
        let once = RetryPolicy { attempts: NonZeroU8::MIN, ..policy() };
        assert!(!once.allows(Failure::Connect, GET));
    }

    #[test]
    fn nothing_is_tried_again_once_the_client_has_seen_an_answer() {
        let facts = Facts { answer_started: true, ..GET };
        assert!(!policy().allows(Failure::Connect, facts));
        assert!(!policy().allows(Failure::Reset, facts));
        assert!(!policy().allows(Failure::Timeout, facts));
        assert!(!policy().allows(Failure::Status(502), facts));
    }

    #[test]
    fn a_body_that_is_gone_cannot_be_sent_again() {
        let facts = Facts { body_whole: false, ..GET };
        assert!(!policy().allows(Failure::Reset, facts));
        assert!(!policy().allows(Failure::Timeout, facts));
        assert!(!policy().allows(Failure::Status(502), facts));
    }

    #[test]
    fn a_failed_connection_took_nothing_of_the_body() {
        assert!(policy().allows(Failure::Connect, Facts { body_whole: false, ..POST }));
    }

    #[test]
    fn connect_is_only_tried_again_if_asked_for() {
        let policy = RetryPolicy { connect: false, ..policy() };
        assert!(!policy.allows(Failure::Connect, GET));
        assert!(policy.allows(Failure::Reset, GET));
    }

    #[test]
    fn reset_is_only_tried_again_if_asked_for() {
        let policy = RetryPolicy { reset: false, ..policy() };
        assert!(!policy.allows(Failure::Reset, GET));
        assert!(policy.allows(Failure::Timeout, GET));
    }

    #[test]
    fn timeout_is_only_tried_again_if_asked_for() {
        let policy = RetryPolicy { timeout: false, ..policy() };
        assert!(!policy.allows(Failure::Timeout, GET));
        assert!(policy.allows(Failure::Connect, GET));
    }
}
