//! The state of a request, which decides who is to blame when it fails.

use pingora_error::Error;
use pingora_proxy::Session;

use super::error_map::{self, TimeoutSide};
use super::pingora::early_response::is_final;
use crate::downstream::disconnect::ClientPresence;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::outcome::{Judgement, Progress};
use crate::exchange::{Exchange, Replay};
use crate::time::Timestamp;

/// Decides who is to blame for `error`, and the consequences.
pub(super) fn judge(
    error: &Error,
    session: &mut Session,
    exchange: &mut Exchange,
    now: Timestamp,
) -> Judgement {
    if let Some(token) = session.connection_state().and_then(|state| state.take_moved()) {
        exchange.set_moved(token);
    }
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
        moved: exchange.is_moved(),
        now,
        deadline: exchange.deadline(),
    }
}

/// The side that Weir was waiting for while the last part of the response was sent. Asking resets it.
pub(super) fn timeout_side(session: &Session) -> TimeoutSide {
    let lagged = session.connection_state().is_some_and(|state| state.response.took_lag());
    if lagged { TimeoutSide::Client } else { TimeoutSide::Backend }
}

/// Whether the headers of the final response were sent.
pub(super) fn response_started(session: &Session) -> bool {
    session.as_downstream().response_written().is_some_and(|head| is_final(head.status))
}

/// What decides whether the request can be sent again.
pub(super) fn replay(session: &Session, exchange: &Exchange, presence: ClientPresence) -> Replay {
    Replay {
        half_closed: presence != ClientPresence::Waits,
        idempotent: exchange.allows_repetition(&session.req_header().method),
        response_started: response_started(session),
        body_whole: !session.as_downstream().retry_buffer_truncated(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::http::ResponseHeader;

    use crate::proxy::tests::{ONE_POOL, forwarded, session_with_state};

    const NOW: Timestamp = Timestamp::ZERO;
    const POST: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

    #[tokio::test]
    async fn a_client_is_awaited_only_while_its_body_is_incomplete() {
        let exchange = forwarded(ONE_POOL, "/");
        for (bytes, is_waiting, expected) in
            [(POST, true, true), (POST, false, false), (GET, true, false)]
        {
            let (mut session, state) = session_with_state(bytes).await;
            state.set_waiting_for_client(is_waiting);
            let progress = progress(&mut session, &exchange, NOW);
            assert_eq!(progress.awaits_body, expected, "{bytes:?} {is_waiting}");
            assert!(!progress.response_started);
        }
    }

    #[tokio::test]
    async fn an_upgrade_counts_as_a_started_response() {
        let (mut session, _) = session_with_state(GET).await;
        let mut exchange = forwarded(ONE_POOL, "/");
        exchange.upgraded(NOW);
        let progress = progress(&mut session, &exchange, NOW);
        assert!(progress.upgraded && progress.response_started);
    }

    #[tokio::test]
    async fn the_side_that_was_waited_for_is_the_client_if_it_did_not_read() {
        let (session, state) = session_with_state(GET).await;
        assert_eq!(timeout_side(&session), TimeoutSide::Backend);
        state.response.set_unread(true);
        state.response.set_unread(false);
        assert_eq!(timeout_side(&session), TimeoutSide::Client);
        assert_eq!(timeout_side(&session), TimeoutSide::Backend, "the next part is another wait");
    }

    #[tokio::test]
    async fn a_request_can_be_sent_again_until_a_final_response() {
        let (mut session, _) = session_with_state(GET).await;
        let exchange = forwarded(ONE_POOL, "/");
        let fresh = Replay {
            half_closed: false,
            idempotent: true,
            response_started: false,
            body_whole: true,
        };
        assert_eq!(replay(&session, &exchange, ClientPresence::Waits), fresh);
        for presence in [ClientPresence::HalfClosed, ClientPresence::Left] {
            assert!(replay(&session, &exchange, presence).half_closed, "{presence:?}");
        }
        for (status, started) in [(103, false), (200, true)] {
            let head = ResponseHeader::build(status, None).unwrap();
            session.write_response_header(Box::new(head), false).await.unwrap();
            let expected = Replay { response_started: started, ..fresh };
            assert_eq!(replay(&session, &exchange, ClientPresence::Waits), expected, "{status}");
        }
        let (session, _) = session_with_state(POST).await;
        assert!(!replay(&session, &exchange, ClientPresence::Waits).idempotent);
        let listed = "
pools: [{name: web, health_check: off, backends: [http://10.1.0.1:80], retry: {methods: [POST]}}]";
        let exchange = forwarded(listed, "/");
        assert!(replay(&session, &exchange, ClientPresence::Waits).idempotent);
    }
}
