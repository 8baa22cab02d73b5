//! Decides who is to blame when a request fails, and the consequences.
//!
//! `proxy/error_map.rs` turns an error into a [`Fault`], and `proxy/progress.rs` describes the state of
//! the request ([`Progress`]). [`Fault::judge`] is the only place that decides from these facts. A
//! backend is blamed only for its own faults, never for a client that sends or reads slowly.

use super::refusal::{Abort, Outcome, Refusal};
use crate::policy::retry::AttemptFailure;
use crate::time::Timestamp;

/// Where a fault was detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// On the client's connection.
    Client,
    /// On the backend's connection.
    Backend,
    /// In Weir itself.
    Internal,
}

/// The kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No connection was made: it was rejected, or there is no route.
    Connect,
    /// No connection, or no TLS session, was made in time.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The certificate is not trusted.
    Certificate,
    /// Nothing could be read for too long; to a backend, nothing could be written either.
    Timeout,
    /// The client did not read the response for too long.
    Unread,
    /// The connection was closed or reset.
    Closed,
    /// The backend did not process the request, so it can be retried.
    Unprocessed,
    /// The peer violated the protocol.
    Protocol,
    /// The response was complete; only something after it failed.
    AfterResponse,
    /// Anything else.
    Other,
}

impl Kind {
    /// How a backend has failed that is to blame for this.
    #[must_use]
    pub const fn failure(self) -> AttemptFailure {
        match self {
            Self::Connect => AttemptFailure::Connect,
            Self::ConnectTimeout => AttemptFailure::ConnectTimeout,
            Self::Tls => AttemptFailure::Tls,
            Self::Certificate => AttemptFailure::Certificate,
            Self::Timeout => AttemptFailure::Timeout,
            Self::Unprocessed => AttemptFailure::Refused,
            Self::Unread | Self::Closed | Self::Protocol | Self::AfterResponse | Self::Other => {
                AttemptFailure::Reset
            }
        }
    }
}

/// One error, in the terms of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Where it was detected.
    pub side: Side,
    /// The kind of fault.
    pub kind: Kind,
}

/// A limit of the client's connection that has been exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The time for the request, for the headers or the next part of its response, or for its body.
    Deadline,
    /// The minimum rate at which the client has to read its response, or the limit for unread data,
    /// which also applies to the backend of a WebSocket.
    WriteRate,
    /// No limit of the request itself: the connection is closed for this reason.
    Connection(Abort),
}

/// The state of a request when a fault is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// A part of the response has been sent to the client.
    pub response_started: bool,
    /// The connection has been upgraded to a WebSocket.
    pub upgraded: bool,
    /// Weir was waiting for the rest of the request body from the client.
    pub awaits_body: bool,
    /// Weir was waiting for the client to read.
    pub awaits_reader: bool,
    /// The limit that has been exceeded, if any.
    pub expired: Option<Expired>,
    /// All attempts so far failed before there was a connection, and no other backend is left to
    /// try.
    pub all_down: bool,
    /// The current attempt has less time than the pool's timeout, because the deadline is nearer.
    pub until_deadline: bool,
    /// The current attempt is moved to another backend.
    pub moved: bool,
    /// The time now.
    pub now: Timestamp,
    /// The request's deadline.
    pub deadline: Timestamp,
}

/// The consequences of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// How the backend failed; `None` if it is not to blame.
    pub blame: Option<AttemptFailure>,
    /// The response to send; `None` if none can be sent, or one has been.
    pub refusal: Option<Refusal>,
    /// The outcome of the exchange if there is no further attempt.
    pub outcome: Outcome,
}

/// The outcome of an exchange that reached its last hook, for the log.
///
/// `refusal` is the response that was sent instead of a backend's, and `direct` the outcome of a
/// response that the route configures. `judged` is the judgement of the error that ended it, if any.
#[must_use]
pub fn of_exchange(
    refusal: Option<Refusal>,
    direct: Option<Outcome>,
    judged: Option<Judgement>,
) -> Outcome {
    match (refusal, judged) {
        (Some(refusal), _) => Outcome::Refused(refusal),
        (None, Some(judged)) => judged.outcome,
        (None, None) => direct.unwrap_or(Outcome::Completed),
    }
}

/// The outcome of an exchange that was dropped before its last hook, because its connection was
/// closed. Without an exceeded limit, the runtime ended with the process.
#[must_use]
pub const fn of_dropped(expired: Option<Expired>) -> Outcome {
    match expired {
        Some(Expired::Connection(abort)) => Outcome::Aborted(abort),
        Some(Expired::Deadline) => Outcome::Aborted(Abort::Deadline),
        Some(Expired::WriteRate) => Outcome::ClientWriteTimeout,
        None => Outcome::Abandoned,
    }
}

impl Judgement {
    /// Responds with `refusal` if the response has not started; otherwise the outcome is `outcome`.
    fn new(progress: &Progress, refusal: Refusal, outcome: Outcome) -> Self {
        if progress.response_started {
            return Self::without_response(outcome);
        }
        Self { blame: None, refusal: Some(refusal), outcome: Outcome::Refused(refusal) }
    }

    const fn without_response(outcome: Outcome) -> Self {
        Self { blame: None, refusal: None, outcome }
    }

    const fn blaming(self, failure: AttemptFailure) -> Self {
        Self { blame: Some(failure), ..self }
    }
}

impl Fault {
    /// Decides who is to blame, and the consequences.
    #[must_use]
    pub fn judge(self, progress: &Progress) -> Judgement {
        if self.kind == Kind::AfterResponse && progress.response_started {
            return Judgement::without_response(Outcome::Completed);
        }
        if progress.upgraded {
            return Judgement::without_response(self.upgraded_outcome(progress));
        }
        match progress.expired {
            Some(Expired::Connection(abort)) => {
                Judgement::without_response(Outcome::Aborted(abort))
            }
            Some(Expired::WriteRate) => Judgement::without_response(Outcome::ClientWriteTimeout),
            Some(Expired::Deadline) => {
                past_deadline(progress, progress.awaits_body || progress.awaits_reader)
            }
            None => self.before_deadline(progress),
        }
    }

    const fn upgraded_outcome(self, progress: &Progress) -> Outcome {
        match (progress.expired, self.kind, self.side) {
            (Some(Expired::Connection(Abort::DrainTimeout) | Expired::Deadline), ..) => {
                Outcome::TunnelDrained
            }
            (Some(Expired::Connection(abort)), ..) => Outcome::Aborted(abort),
            (Some(Expired::WriteRate), _, Side::Client) => Outcome::ClientWriteTimeout,
            (Some(Expired::WriteRate), ..) => Outcome::TunnelIdle,
            (_, Kind::Timeout | Kind::Unread, _) => Outcome::TunnelIdle,
            (_, _, Side::Client) => Outcome::ClientAborted,
            _ => Outcome::UpstreamAborted,
        }
    }

    fn before_deadline(self, progress: &Progress) -> Judgement {
        match (self.side, self.kind) {
            (Side::Client, Kind::Unread) if progress.response_started => unread(progress),
            (Side::Client, Kind::Unread) => {
                Judgement::without_response(Outcome::ClientWriteTimeout)
            }
            (Side::Client, Kind::Timeout) => client_timeout(progress),
            (Side::Client, Kind::Protocol) => {
                Judgement::new(progress, Refusal::BadRequest, Outcome::ClientAborted)
            }
            (Side::Client, _) => Judgement::without_response(Outcome::ClientAborted),
            (Side::Backend, kind) => judge_backend(kind, progress),
            (Side::Internal, _) => {
                Judgement::new(progress, Refusal::Internal, Outcome::UpstreamAborted)
            }
        }
    }
}

/// The backend failed, or did not respond in time.
fn judge_backend(kind: Kind, progress: &Progress) -> Judgement {
    let refusal = match kind {
        // It cannot respond to an incomplete request.
        Kind::Timeout if progress.awaits_body => return client_timeout(progress),
        Kind::Timeout if progress.until_deadline || progress.now >= progress.deadline => {
            return past_deadline(progress, false);
        }
        Kind::Timeout => Refusal::ResponseTimeout,
        Kind::Connect if progress.all_down => Refusal::NoBackend,
        Kind::Connect => Refusal::ConnectFailed,
        Kind::ConnectTimeout => Refusal::ConnectTimeout,
        Kind::Tls => Refusal::TlsFailed,
        Kind::Certificate => Refusal::CertificateInvalid,
        Kind::Protocol => Refusal::InvalidResponse,
        Kind::Unprocessed | Kind::Closed | Kind::AfterResponse | Kind::Unread | Kind::Other => {
            Refusal::ConnectionReset
        }
    };
    Judgement::new(progress, refusal, Outcome::UpstreamAborted).blaming(kind.failure())
}

/// The client did not read its response, or not all of it in the request's time.
fn unread(progress: &Progress) -> Judgement {
    if progress.now >= progress.deadline {
        return past_deadline(progress, true);
    }
    Judgement::without_response(Outcome::ClientWriteTimeout)
}

/// The client did not send its body in time. Once a response has started, the outcome is that of a client that
/// does not read.
fn client_timeout(progress: &Progress) -> Judgement {
    Judgement::new(progress, Refusal::ClientTimeout, Outcome::ClientWriteTimeout)
}

/// The deadline has passed while waiting for the client or the backend.
fn past_deadline(progress: &Progress, is_client: bool) -> Judgement {
    let is_over = progress.now >= progress.deadline || progress.until_deadline;
    let outcome = match (is_over, is_client) {
        (true, _) => Outcome::Aborted(Abort::Deadline),
        // The time for the headers, or for the next part of the response, has passed.
        (false, true) => Outcome::ClientWriteTimeout,
        (false, false) => Outcome::UpstreamAborted,
    };
    if is_client {
        return Judgement::new(progress, Refusal::ClientTimeout, outcome);
    }
    let refusal = if is_over { Refusal::RequestTimeout } else { Refusal::ResponseTimeout };
    let failure = if progress.moved { AttemptFailure::Moved } else { AttemptFailure::Timeout };
    Judgement::new(progress, refusal, outcome).blaming(failure)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    /// A request that waits for its backend, with time left.
    fn waiting() -> Progress {
        Progress {
            response_started: false,
            upgraded: false,
            awaits_body: false,
            awaits_reader: false,
            expired: None,
            until_deadline: false,
            all_down: false,
            moved: false,
            now: NOW,
            deadline: NOW + Duration::from_secs(1),
        }
    }

    /// Its response is being sent, with time left.
    fn responding() -> Progress {
        Progress { response_started: true, ..waiting() }
    }

    /// The client does not read the response.
    fn unread() -> Progress {
        Progress { awaits_reader: true, ..responding() }
    }

    /// The client has not sent its body.
    fn uploading() -> Progress {
        Progress { awaits_body: true, ..waiting() }
    }

    fn expired(what: Expired, progress: Progress) -> Progress {
        let now = if what == Expired::Deadline { progress.deadline } else { progress.now };
        Progress { expired: Some(what), now, ..progress }
    }

    fn late(progress: Progress) -> Progress {
        expired(Expired::Deadline, progress)
    }

    fn closed_for(abort: Abort, progress: Progress) -> Progress {
        expired(Expired::Connection(abort), progress)
    }

    type Case = (Side, Kind, Progress, Option<AttemptFailure>, Outcome);

    #[track_caller]
    fn check(cases: &[Case]) {
        for (side, kind, progress, blame, outcome) in cases {
            let fault = Fault { side: *side, kind: *kind };
            let judged = fault.judge(progress);
            assert_eq!(
                (judged.blame, judged.outcome),
                (*blame, *outcome),
                "{fault:?} {progress:?}"
            );
            let refused =
                if let Outcome::Refused(refusal) = outcome { Some(*refusal) } else { None };
            assert_eq!(judged.refusal, refused, "{fault:?} {progress:?}");
        }
    }

    #[test]
    fn a_backend_is_blamed_for_what_it_did() {
        use AttemptFailure as F;
        use Refusal as R;
        let (backend, reset) = (Side::Backend, Some(F::Reset));
        let refused = Outcome::Refused;
        check(&[
            (backend, Kind::Timeout, waiting(), Some(F::Timeout), refused(R::ResponseTimeout)),
            (backend, Kind::Timeout, responding(), Some(F::Timeout), Outcome::UpstreamAborted),
            (backend, Kind::Closed, waiting(), reset, refused(R::ConnectionReset)),
            (backend, Kind::Closed, responding(), reset, Outcome::UpstreamAborted),
            (backend, Kind::Closed, unread(), reset, Outcome::UpstreamAborted),
            (backend, Kind::Closed, uploading(), reset, refused(R::ConnectionReset)),
            (backend, Kind::Unprocessed, waiting(), Some(F::Refused), refused(R::ConnectionReset)),
            (backend, Kind::Protocol, waiting(), reset, refused(R::InvalidResponse)),
            (backend, Kind::Tls, waiting(), Some(F::Tls), refused(R::TlsFailed)),
            (
                backend,
                Kind::Certificate,
                waiting(),
                Some(F::Certificate),
                refused(R::CertificateInvalid),
            ),
            (backend, Kind::Connect, waiting(), Some(F::Connect), refused(R::ConnectFailed)),
            (
                backend,
                Kind::ConnectTimeout,
                waiting(),
                Some(F::ConnectTimeout),
                refused(R::ConnectTimeout),
            ),
        ]);
    }

    #[test]
    fn each_kind_of_fault_is_one_kind_of_failure() {
        for (kind, failure) in [
            (Kind::Connect, AttemptFailure::Connect),
            (Kind::ConnectTimeout, AttemptFailure::ConnectTimeout),
            (Kind::Tls, AttemptFailure::Tls),
            (Kind::Certificate, AttemptFailure::Certificate),
            (Kind::Timeout, AttemptFailure::Timeout),
            (Kind::Unprocessed, AttemptFailure::Refused),
            (Kind::Closed, AttemptFailure::Reset),
            (Kind::Protocol, AttemptFailure::Reset),
            (Kind::Unread, AttemptFailure::Reset),
            (Kind::AfterResponse, AttemptFailure::Reset),
            (Kind::Other, AttemptFailure::Reset),
        ] {
            assert_eq!(kind.failure(), failure, "{kind:?}");
        }
    }

    #[test]
    fn any_other_fault_of_a_backend_is_a_reset_connection() {
        let reset = Some(AttemptFailure::Reset);
        for kind in [Kind::Unread, Kind::AfterResponse, Kind::Other] {
            let refused = Outcome::Refused(Refusal::ConnectionReset);
            check(&[(Side::Backend, kind, waiting(), reset, refused)]);
        }
        check(&[(Side::Backend, Kind::Other, responding(), reset, Outcome::UpstreamAborted)]);
    }

    #[test]
    fn a_client_that_sends_or_reads_slowly_is_not_the_backends_failure() {
        let slow = Outcome::Refused(Refusal::ClientTimeout);
        let over = Progress { now: waiting().deadline, ..responding() };
        check(&[
            (Side::Backend, Kind::Timeout, uploading(), None, slow),
            (Side::Client, Kind::Timeout, uploading(), None, slow),
            (Side::Client, Kind::Timeout, responding(), None, Outcome::ClientWriteTimeout),
            (Side::Client, Kind::Unread, unread(), None, Outcome::ClientWriteTimeout),
            (Side::Client, Kind::Unread, waiting(), None, Outcome::ClientWriteTimeout),
            (Side::Client, Kind::Unread, over, None, Outcome::Aborted(Abort::Deadline)),
            (Side::Client, Kind::Closed, late(uploading()), None, slow),
            (Side::Client, Kind::Closed, late(unread()), None, Outcome::Aborted(Abort::Deadline)),
            (
                Side::Client,
                Kind::Closed,
                expired(Expired::WriteRate, unread()),
                None,
                Outcome::ClientWriteTimeout,
            ),
        ]);
    }

    #[test]
    fn at_the_deadline_the_backend_is_blamed_if_weir_was_waiting_for_it() {
        let timeout = Some(AttemptFailure::Timeout);
        let refused = Outcome::Refused(Refusal::RequestTimeout);
        let deadline = Outcome::Aborted(Abort::Deadline);
        let shortened = Progress { until_deadline: true, ..waiting() };
        let over = Progress { now: waiting().deadline, ..responding() };
        check(&[
            (Side::Client, Kind::Closed, late(waiting()), timeout, refused),
            (Side::Client, Kind::Closed, late(responding()), timeout, deadline),
            // The timer of the attempt fires just before that of the request.
            (Side::Backend, Kind::Timeout, shortened, timeout, refused),
            (Side::Backend, Kind::Timeout, over, timeout, deadline),
        ]);
    }

    #[test]
    fn the_time_for_the_headers_or_one_piece_of_a_response_is_not_the_deadline() {
        let late = |progress| Progress { expired: Some(Expired::Deadline), ..progress };
        let sending = Progress { awaits_body: true, ..responding() };
        let no_headers = Outcome::Refused(Refusal::ResponseTimeout);
        check(&[
            (
                Side::Client,
                Kind::Closed,
                late(waiting()),
                Some(AttemptFailure::Timeout),
                no_headers,
            ),
            (
                Side::Client,
                Kind::Closed,
                late(responding()),
                Some(AttemptFailure::Timeout),
                Outcome::UpstreamAborted,
            ),
            (Side::Client, Kind::Closed, late(unread()), None, Outcome::ClientWriteTimeout),
            (Side::Client, Kind::Closed, late(sending), None, Outcome::ClientWriteTimeout),
        ]);
    }

    #[test]
    fn a_client_that_disconnects_is_not_a_failure() {
        let gone = Outcome::ClientAborted;
        check(&[
            (Side::Client, Kind::Closed, waiting(), None, gone),
            (Side::Client, Kind::Closed, responding(), None, gone),
            (Side::Client, Kind::Protocol, waiting(), None, Outcome::Refused(Refusal::BadRequest)),
            (Side::Client, Kind::Protocol, responding(), None, gone),
            (Side::Client, Kind::Other, waiting(), None, gone),
            (Side::Client, Kind::Connect, waiting(), None, gone),
        ]);
    }

    #[test]
    fn the_reason_for_closing_the_connection_takes_precedence() {
        for abort in [Abort::DrainTimeout, Abort::ForcedStop, Abort::Http2Flood] {
            for progress in [waiting(), responding(), unread(), uploading()] {
                for side in [Side::Client, Side::Backend, Side::Internal] {
                    for kind in [Kind::Timeout, Kind::Closed] {
                        let progress = closed_for(abort, progress);
                        check(&[(side, kind, progress, None, Outcome::Aborted(abort))]);
                    }
                }
            }
        }
    }

    #[test]
    fn all_backends_are_down_only_if_each_was_tried_and_none_was_connected() {
        let (down, failed) = (Refusal::NoBackend, Refusal::ConnectFailed);
        for (all_down, refusal) in [(true, down), (false, failed)] {
            let progress = Progress { all_down, ..waiting() };
            let refused = Outcome::Refused(refusal);
            check(&[(
                Side::Backend,
                Kind::Connect,
                progress,
                Some(AttemptFailure::Connect),
                refused,
            )]);
        }
        // A timeout is a timeout, whatever the other attempts did.
        let progress = Progress { all_down: true, ..waiting() };
        let late = Outcome::Refused(Refusal::ConnectTimeout);
        let timeout = Some(AttemptFailure::ConnectTimeout);
        check(&[(Side::Backend, Kind::ConnectTimeout, progress, timeout, late)]);
    }

    #[test]
    fn a_websocket_ends_by_silence_by_a_drain_or_by_either_side() {
        let open = Progress { upgraded: true, ..responding() };
        check(&[
            (Side::Client, Kind::Timeout, open, None, Outcome::TunnelIdle),
            (Side::Backend, Kind::Timeout, open, None, Outcome::TunnelIdle),
            (Side::Client, Kind::Closed, open, None, Outcome::ClientAborted),
            (Side::Backend, Kind::Closed, open, None, Outcome::UpstreamAborted),
            (Side::Client, Kind::Closed, late(open), None, Outcome::TunnelDrained),
            (
                Side::Client,
                Kind::Closed,
                closed_for(Abort::DrainTimeout, open),
                None,
                Outcome::TunnelDrained,
            ),
            (Side::Client, Kind::Unread, open, None, Outcome::TunnelIdle),
            (Side::Internal, Kind::Other, open, None, Outcome::UpstreamAborted),
            (Side::Internal, Kind::AfterResponse, open, None, Outcome::Completed),
            (
                Side::Client,
                Kind::Other,
                expired(Expired::WriteRate, open),
                None,
                Outcome::ClientWriteTimeout,
            ),
            (
                Side::Backend,
                Kind::Other,
                expired(Expired::WriteRate, open),
                None,
                Outcome::TunnelIdle,
            ),
            (
                Side::Client,
                Kind::Closed,
                closed_for(Abort::ForcedStop, open),
                None,
                Outcome::Aborted(Abort::ForcedStop),
            ),
        ]);
    }

    #[test]
    fn an_error_after_the_response_is_not_a_failure_and_an_internal_error_is_internal() {
        let internal = Outcome::Refused(Refusal::Internal);
        check(&[
            (Side::Internal, Kind::AfterResponse, responding(), None, Outcome::Completed),
            (Side::Internal, Kind::Other, waiting(), None, internal),
            // Before the response has started, it is an error like any other.
            (Side::Internal, Kind::AfterResponse, waiting(), None, internal),
            (Side::Internal, Kind::Other, responding(), None, Outcome::UpstreamAborted),
        ]);
    }

    #[test]
    fn a_refusal_is_the_outcome_whatever_ended_the_exchange() {
        let judged = Judgement::without_response(Outcome::ClientAborted);
        let redirect = Some(Outcome::Redirected);
        let refused = Outcome::Refused(Refusal::NoRoute);
        let not_found = Some(Refusal::NoRoute);
        assert_eq!(of_exchange(not_found, redirect, Some(judged)), refused);
        assert_eq!(of_exchange(not_found, None, None), refused);
        assert_eq!(of_exchange(None, redirect, Some(judged)), Outcome::ClientAborted);
        assert_eq!(of_exchange(None, redirect, None), Outcome::Redirected);
        assert_eq!(of_exchange(None, None, None), Outcome::Completed);
    }

    #[test]
    fn a_dropped_exchange_has_the_reason_for_which_its_connection_was_closed() {
        for (expired, outcome) in [
            (Some(Expired::Connection(Abort::ForcedStop)), Outcome::Aborted(Abort::ForcedStop)),
            (Some(Expired::Deadline), Outcome::Aborted(Abort::Deadline)),
            (Some(Expired::WriteRate), Outcome::ClientWriteTimeout),
            (None, Outcome::Abandoned),
        ] {
            assert_eq!(of_dropped(expired), outcome, "{expired:?}");
        }
    }
}
