//! Who is to blame when a request cannot go on, and what follows from it.
//!
//! The edge turns an error into a [`Fault`] once, and says how far the request had come
//! ([`Progress`]). [`Fault::judge`] is the only place that decides from these facts. A backend is
//! blamed for what it did itself, and never for a client that sends or reads slowly.

use super::refusal::{Abort, Ending, Refusal};
use crate::policy::retry::Failure;
use crate::time::Timestamp;

/// Where a fault showed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// On the client's connection.
    Client,
    /// On the backend's connection.
    Backend,
    /// In Weir itself.
    Internal,
}

/// What went wrong.
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
    /// The client read nothing of what was sent to it for too long.
    Unread,
    /// The connection was closed or reset.
    Closed,
    /// The backend did nothing with the request: it may be sent again.
    Unprocessed,
    /// What came is not valid HTTP.
    Protocol,
    /// The response was complete: only what should have followed it failed.
    AfterResponse,
    /// Anything else.
    Other,
}

/// One error, in the words of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Where it showed itself.
    pub side: Side,
    /// What went wrong.
    pub kind: Kind,
}

/// A limit of the client's connection that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The time for the request, for the headers or the next piece of its response, or for its body.
    Deadline,
    /// The lowest rate at which the client has to read its response; or what may be held that is not read,
    /// of a WebSocket by its backend, too.
    WriteRate,
    /// Nothing of the request itself: the connection is closed for this reason.
    Connection(Abort),
}

/// How far a request had come when the fault showed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the response have been sent to the client.
    pub response_started: bool,
    /// The connection is a WebSocket by now.
    pub upgraded: bool,
    /// The rest of the request's body had been asked for, and the client had not sent it.
    pub awaits_body: bool,
    /// The client had not read what was sent to it.
    pub awaits_reader: bool,
    /// The limit that has passed, if one has.
    pub expired: Option<Expired>,
    /// All attempts so far failed before there was a connection, and no other backend could be tried.
    pub all_down: bool,
    /// The current attempt was given less time than the pool allows, as the deadline is nearer.
    pub until_deadline: bool,
    /// The time now.
    pub now: Timestamp,
    /// When the request must be over.
    pub deadline: Timestamp,
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// How the backend failed; `None` if it is not to blame.
    pub blame: Option<Failure>,
    /// The response to send; `None` if none can be sent, or one has been.
    pub refusal: Option<Refusal>,
    /// How the exchange ends if there is no further attempt.
    pub ending: Ending,
}

impl Judgement {
    /// Responds with `refusal` if the response has not begun; else it ends with `ending`.
    fn new(progress: &Progress, refusal: Refusal, ending: Ending) -> Self {
        if progress.response_started {
            return Self::over(ending);
        }
        Self { blame: None, refusal: Some(refusal), ending: Ending::Refused(refusal) }
    }

    const fn over(ending: Ending) -> Self {
        Self { blame: None, refusal: None, ending }
    }

    const fn blaming(self, failure: Failure) -> Self {
        Self { blame: Some(failure), ..self }
    }
}

impl Fault {
    /// Decides who is to blame, and what follows.
    #[must_use]
    pub fn judge(self, progress: &Progress) -> Judgement {
        if self.kind == Kind::AfterResponse && progress.response_started {
            return Judgement::over(Ending::Answered);
        }
        if progress.upgraded {
            return Judgement::over(self.end_of_tunnel(progress));
        }
        match progress.expired {
            Some(Expired::Connection(abort)) => Judgement::over(Ending::Aborted(abort)),
            Some(Expired::WriteRate) => Judgement::over(Ending::ClientStalled),
            Some(Expired::Deadline) => {
                past_deadline(progress, progress.awaits_body || progress.awaits_reader)
            }
            None => self.before_deadline(progress),
        }
    }

    const fn end_of_tunnel(self, progress: &Progress) -> Ending {
        match (progress.expired, self.kind, self.side) {
            (Some(Expired::Connection(Abort::DrainTimeout) | Expired::Deadline), ..) => {
                Ending::TunnelDrained
            }
            (Some(Expired::Connection(abort)), ..) => Ending::Aborted(abort),
            (Some(Expired::WriteRate), _, Side::Client) => Ending::ClientStalled,
            (Some(Expired::WriteRate), ..) => Ending::TunnelIdle,
            (_, Kind::Timeout | Kind::Unread, _) => Ending::TunnelIdle,
            (_, _, Side::Client) => Ending::ClientClosed,
            _ => Ending::Cut,
        }
    }

    fn before_deadline(self, progress: &Progress) -> Judgement {
        match (self.side, self.kind) {
            (Side::Client, Kind::Unread) if progress.response_started => unread(progress),
            (Side::Client, Kind::Unread) => Judgement::over(Ending::ClientStalled),
            (Side::Client, Kind::Timeout) => slow_client(progress),
            (Side::Client, Kind::Protocol) => {
                Judgement::new(progress, Refusal::BadRequest, Ending::ClientClosed)
            }
            (Side::Client, _) => Judgement::over(Ending::ClientClosed),
            (Side::Backend, kind) => of_backend(kind, progress),
            (Side::Internal, _) => Judgement::new(progress, Refusal::Internal, Ending::Cut),
        }
    }
}

/// The backend failed, or was silent.
fn of_backend(kind: Kind, progress: &Progress) -> Judgement {
    let judged = |refusal| Judgement::new(progress, refusal, Ending::Cut);
    match kind {
        // It cannot respond to a request that it does not have.
        Kind::Timeout if progress.awaits_body => slow_client(progress),
        Kind::Timeout if progress.until_deadline || progress.now >= progress.deadline => {
            past_deadline(progress, false)
        }
        Kind::Timeout => judged(Refusal::ResponseTimeout).blaming(Failure::Timeout),
        Kind::Connect if progress.all_down => judged(Refusal::NoBackend).blaming(Failure::Connect),
        Kind::Connect => judged(Refusal::ConnectFailed).blaming(Failure::Connect),
        Kind::ConnectTimeout => judged(Refusal::ConnectTimeout).blaming(Failure::Connect),
        Kind::Tls => judged(Refusal::TlsFailed).blaming(Failure::Tls),
        Kind::Certificate => judged(Refusal::CertificateInvalid).blaming(Failure::Certificate),
        Kind::Unprocessed => judged(Refusal::ConnectionReset).blaming(Failure::Refused),
        Kind::Protocol => judged(Refusal::InvalidResponse).blaming(Failure::Reset),
        Kind::Closed | Kind::AfterResponse | Kind::Unread | Kind::Other => {
            judged(Refusal::ConnectionReset).blaming(Failure::Reset)
        }
    }
}

/// The client read nothing of its response, or not all of it in the request's time.
fn unread(progress: &Progress) -> Judgement {
    if progress.now >= progress.deadline {
        return past_deadline(progress, true);
    }
    Judgement::over(Ending::ClientStalled)
}

/// The client did not send its body in time.
fn slow_client(progress: &Progress) -> Judgement {
    Judgement::new(progress, Refusal::SlowClient, Ending::ClientStalled)
}

/// The time is up, and the client, or the backend, was being waited for.
fn past_deadline(progress: &Progress, is_client: bool) -> Judgement {
    let is_over = progress.now >= progress.deadline || progress.until_deadline;
    let ending = match (is_over, is_client) {
        (true, _) => Ending::Aborted(Abort::Deadline),
        // The time for the headers, or for the next piece of the response, has passed.
        (false, true) => Ending::ClientStalled,
        (false, false) => Ending::Cut,
    };
    if is_client {
        return Judgement::new(progress, Refusal::SlowClient, ending);
    }
    let refusal = if is_over { Refusal::RequestTimeout } else { Refusal::ResponseTimeout };
    Judgement::new(progress, refusal, ending).blaming(Failure::Timeout)
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
            now: NOW,
            deadline: NOW + Duration::from_secs(1),
        }
    }

    /// Its response is on its way, and has time left.
    fn responding() -> Progress {
        Progress { response_started: true, ..waiting() }
    }

    /// The client does not read what is sent to it.
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

    type Case = (Side, Kind, Progress, Option<Failure>, Ending);

    #[track_caller]
    fn check(cases: &[Case]) {
        for (side, kind, progress, blame, ending) in cases {
            let fault = Fault { side: *side, kind: *kind };
            let judged = fault.judge(progress);
            assert_eq!((judged.blame, judged.ending), (*blame, *ending), "{fault:?} {progress:?}");
            let refused = if let Ending::Refused(refusal) = ending { Some(*refusal) } else { None };
            assert_eq!(judged.refusal, refused, "{fault:?} {progress:?}");
        }
    }

    #[test]
    fn a_backend_is_blamed_for_what_it_did() {
        use Failure as F;
        use Refusal as R;
        let (backend, reset) = (Side::Backend, Some(F::Reset));
        let refused = Ending::Refused;
        check(&[
            (backend, Kind::Timeout, waiting(), Some(F::Timeout), refused(R::ResponseTimeout)),
            (backend, Kind::Timeout, responding(), Some(F::Timeout), Ending::Cut),
            (backend, Kind::Closed, waiting(), reset, refused(R::ConnectionReset)),
            (backend, Kind::Closed, responding(), reset, Ending::Cut),
            (backend, Kind::Closed, unread(), reset, Ending::Cut),
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
                Some(F::Connect),
                refused(R::ConnectTimeout),
            ),
        ]);
    }

    #[test]
    fn a_client_that_sends_or_reads_slowly_is_not_the_backends_failure() {
        let slow = Ending::Refused(Refusal::SlowClient);
        let over = Progress { now: waiting().deadline, ..responding() };
        check(&[
            (Side::Backend, Kind::Timeout, uploading(), None, slow),
            (Side::Client, Kind::Timeout, uploading(), None, slow),
            (Side::Client, Kind::Timeout, responding(), None, Ending::ClientStalled),
            (Side::Client, Kind::Unread, unread(), None, Ending::ClientStalled),
            (Side::Client, Kind::Unread, waiting(), None, Ending::ClientStalled),
            (Side::Client, Kind::Unread, over, None, Ending::Aborted(Abort::Deadline)),
            (Side::Client, Kind::Closed, late(uploading()), None, slow),
            (Side::Client, Kind::Closed, late(unread()), None, Ending::Aborted(Abort::Deadline)),
            (
                Side::Client,
                Kind::Closed,
                expired(Expired::WriteRate, unread()),
                None,
                Ending::ClientStalled,
            ),
        ]);
    }

    #[test]
    fn at_the_deadline_the_backend_is_blamed_if_it_was_waited_for() {
        let timeout = Some(Failure::Timeout);
        let refused = Ending::Refused(Refusal::RequestTimeout);
        let deadline = Ending::Aborted(Abort::Deadline);
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
        let no_headers = Ending::Refused(Refusal::ResponseTimeout);
        check(&[
            (Side::Client, Kind::Closed, late(waiting()), Some(Failure::Timeout), no_headers),
            (Side::Client, Kind::Closed, late(responding()), Some(Failure::Timeout), Ending::Cut),
            (Side::Client, Kind::Closed, late(unread()), None, Ending::ClientStalled),
            (Side::Client, Kind::Closed, late(sending), None, Ending::ClientStalled),
        ]);
    }

    #[test]
    fn a_client_that_leaves_is_nobodys_failure() {
        let gone = Ending::ClientClosed;
        check(&[
            (Side::Client, Kind::Closed, waiting(), None, gone),
            (Side::Client, Kind::Closed, responding(), None, gone),
            (Side::Client, Kind::Protocol, waiting(), None, Ending::Refused(Refusal::BadRequest)),
            (Side::Client, Kind::Protocol, responding(), None, gone),
        ]);
    }

    #[test]
    fn a_connection_that_is_closed_is_the_reason_whatever_shows_itself() {
        for abort in [Abort::DrainTimeout, Abort::ForcedStop, Abort::Http2Flood] {
            for progress in [waiting(), responding(), unread(), uploading()] {
                for side in [Side::Client, Side::Backend, Side::Internal] {
                    for kind in [Kind::Timeout, Kind::Closed] {
                        let progress = closed_for(abort, progress);
                        check(&[(side, kind, progress, None, Ending::Aborted(abort))]);
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
            let refused = Ending::Refused(refusal);
            check(&[(Side::Backend, Kind::Connect, progress, Some(Failure::Connect), refused)]);
        }
        // A timeout is one, whatever the others did.
        let progress = Progress { all_down: true, ..waiting() };
        let late = Ending::Refused(Refusal::ConnectTimeout);
        check(&[(Side::Backend, Kind::ConnectTimeout, progress, Some(Failure::Connect), late)]);
    }

    #[test]
    fn a_websocket_ends_by_silence_by_a_drain_or_by_either_side() {
        let open = Progress { upgraded: true, ..responding() };
        check(&[
            (Side::Client, Kind::Timeout, open, None, Ending::TunnelIdle),
            (Side::Backend, Kind::Timeout, open, None, Ending::TunnelIdle),
            (Side::Client, Kind::Closed, open, None, Ending::ClientClosed),
            (Side::Backend, Kind::Closed, open, None, Ending::Cut),
            (Side::Client, Kind::Closed, late(open), None, Ending::TunnelDrained),
            (
                Side::Client,
                Kind::Other,
                expired(Expired::WriteRate, open),
                None,
                Ending::ClientStalled,
            ),
            (
                Side::Backend,
                Kind::Other,
                expired(Expired::WriteRate, open),
                None,
                Ending::TunnelIdle,
            ),
            (
                Side::Client,
                Kind::Closed,
                closed_for(Abort::ForcedStop, open),
                None,
                Ending::Aborted(Abort::ForcedStop),
            ),
        ]);
    }

    #[test]
    fn what_fails_after_the_response_is_no_failure_and_our_own_mistake_is_ours() {
        let internal = Ending::Refused(Refusal::Internal);
        check(&[
            (Side::Internal, Kind::AfterResponse, responding(), None, Ending::Answered),
            (Side::Internal, Kind::Other, waiting(), None, internal),
            (Side::Internal, Kind::Other, responding(), None, Ending::Cut),
        ]);
    }
}
