//! The state of a request, for the decision who is to blame when it fails.

use pingora_error::Error;
use pingora_proxy::Session;

use super::error_map;
use crate::downstream::disconnect::Presence;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::outcome::{Judgement, Progress};
use crate::exchange::refusal::Outcome;
use crate::exchange::{Exchange, Replay};
use crate::http::method::is_idempotent;
use crate::time::Timestamp;

/// Decides who is to blame for `error`, and the consequences.
pub(super) fn judge(
    error: &Error,
    session: &mut Session,
    (exchange, now): (&Exchange, Timestamp),
) -> Judgement {
    error_map::fault(error).judge(&progress(session, (exchange, now)))
}

/// The outcome of an exchange, for the log.
pub(super) fn outcome(
    session: &mut Session,
    error: Option<&Error>,
    (exchange, now): (&Exchange, Timestamp),
) -> Outcome {
    if let Some(refusal) = exchange.refusal() {
        return Outcome::Refused(refusal);
    }
    match error {
        None if exchange.tunnel_since().is_some() => Outcome::Completed,
        None => exchange.direct_outcome().unwrap_or(Outcome::Completed),
        Some(error) => judge(error, session, (exchange, now)).ending,
    }
}

fn progress(session: &mut Session, (exchange, now): (&Exchange, Timestamp)) -> Progress {
    let has_body = session.as_downstream_mut().is_body_done();
    let state = session.connection_state();
    let upgraded = exchange.tunnel_since().is_some();
    Progress {
        response_started: upgraded || response_started(session),
        upgraded,
        awaits_body: !has_body && state.is_some_and(|state| state.is_waiting_for_client()),
        awaits_reader: state.is_some_and(|state| state.response.is_unread()),
        expired: state.and_then(|state| state.expired()),
        all_down: exchange.is_all_down(),
        until_deadline: exchange.is_until_deadline(),
        now,
        deadline: exchange.deadline(),
    }
}

/// Whether the headers of the final response were sent.
pub(super) fn response_started(session: &Session) -> bool {
    let begun = session.as_downstream().response_written();
    begun.is_some_and(|head| !head.status.is_informational() || head.status.as_u16() == 101)
}

/// Whether the request could be sent again.
pub(super) fn replay(session: &Session, presence: Presence) -> Replay {
    Replay {
        half_closed: presence != Presence::Waits,
        idempotent: is_idempotent(&session.req_header().method),
        response_started: response_started(session),
        body_whole: !session.as_downstream().retry_buffer_truncated(),
    }
}
