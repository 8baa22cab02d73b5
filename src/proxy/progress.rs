//! The state of a request, for the decision who is to blame when it fails.

use pingora_error::Error;
use pingora_proxy::Session;

use super::error_map::{self, TimeoutSide};
use crate::downstream::disconnect::Presence;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::outcome::{Judgement, Progress};
use crate::exchange::{Exchange, Replay};
use crate::http::method::is_idempotent;
use crate::time::Timestamp;

/// Decides who is to blame for `error`, and the consequences.
pub(super) fn judge(
    error: &Error,
    session: &mut Session,
    exchange: &Exchange,
    now: Timestamp,
) -> Judgement {
    error_map::fault(error).judge(&progress(session, exchange, now))
}

fn progress(session: &mut Session, exchange: &Exchange, now: Timestamp) -> Progress {
    let body_read = session.as_downstream_mut().is_body_done();
    let state = session.connection_state();
    let upgraded = exchange.tunnel_since().is_some();
    Progress {
        response_started: upgraded || response_started(session),
        upgraded,
        awaits_body: !body_read && state.is_some_and(|state| state.is_waiting_for_client()),
        awaits_reader: state.is_some_and(|state| state.response.is_unread()),
        expired: state.and_then(|state| state.expired()),
        all_down: exchange.is_all_down(),
        until_deadline: exchange.is_until_deadline(),
        now,
        deadline: exchange.deadline(),
    }
}

/// The side that Weir was waiting for while the last part of the response was sent.
pub(super) fn timeout_side(session: &Session) -> TimeoutSide {
    let lagged = session.connection_state().is_some_and(|state| state.response.took_lag());
    if lagged { TimeoutSide::Client } else { TimeoutSide::Backend }
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
