//! One client connection: what it is doing, and when that has taken too long.
//!
//! ```text
//!            first byte of a head              head complete
//!   Idle ───────────────────────────▶ Head ─────────────────────▶ Busy
//!    ▲  │ silent too long, or draining │ too slow: 408             │ past the deadline: cut
//!    │  ▼                              ▼                           ▼
//!    │ closed                        closed                      closed
//!    └──────────────────────────────────────────────── answer sent ┘
//! ```
//! A request that becomes a tunnel has no deadline any more, but for the one of a drain.
//! Pingora times each read but not a whole head, and a reused connection not at all. So the line
//! keeps the time itself: the connection's own task watches it (`accept.rs`), and the stream
//! below Pingora (`guard.rs`) carries out the verdict.

mod expiry;
mod notes;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use pingora_core::protocols::Stream;

pub(crate) use super::close_reason::CloseReason;
use super::connection_info::ConnectionInfo;
use super::cork::Cork;
use super::early_refusal::{EarlyRefusal, PanickedRequest};
pub(crate) use super::phase::Direction;
use super::phase::Phase;
use super::response_progress::ResponseProgress;
use super::stalled::{Reader, Stalled, ToBackend, Wait};
use crate::exchange::refusal::{Abort, Refusal};
use crate::http::scan::Violation;
use crate::http::target::Change;
use crate::time::Timestamp;
use crate::upstream::http2::Upload;

/// How long an idle connection may still send its next request, from the later of the drain's start
/// and the end of its last response. A client learns of the drain from that request's response:
/// to close at once would race with it.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How long a request that is past its deadline has to end by itself, with an answer, before the
/// connection is cut.
const FORCE_CLOSE_AFTER: Duration = Duration::from_secs(1);

/// The timeouts of a client connection.
#[derive(Debug, Clone, Copy)]
pub struct DownstreamTimeouts {
    /// From the first byte of a head to its end; also how long a new connection may be silent.
    pub request_header: Duration,
    /// Between requests.
    pub keepalive_idle: Duration,
    /// How long a tunnel may go on once draining began.
    pub tunnel_drain: Duration,
    /// How many requests it may serve.
    pub max_requests: Option<NonZeroU32>,
}

/// One client connection. Only its own task changes it; others may start its draining.
#[derive(Debug)]
pub struct ConnectionState {
    pub(crate) connection: Arc<ConnectionInfo>,
    timeouts: DownstreamTimeouts,
    phase: AtomicU8,
    close_reason: AtomicU8,
    /// When the phase has taken too long.
    deadline_ns: AtomicU64,
    /// When it is over, whatever the phase; the end of time unless it is to be cut.
    force_close_ns: AtomicU64,
    /// Why it is to be cut.
    abort_reason: OnceLock<Abort>,
    /// What was sent of the current response.
    pub(crate) response: ResponseProgress,
    /// The request that a panic ended, if its client is to get a response.
    pub(crate) panicked: OnceLock<PanickedRequest>,
    /// When the client has taken too long to send more; the end of time if nobody waits.
    read_stall_ns: AtomicU64,
    /// When it has taken too long to take more.
    write_stall_ns: AtomicU64,
    /// When a tunnel has to end, whatever its own limit says; the end of time if nothing says so.
    upgraded_end_ns: AtomicU64,
    /// When draining began; the end of time if it has not.
    draining_since_ns: AtomicU64,
    /// When the connection last became idle.
    idle_since_ns: AtomicU64,
    /// We answered before a hook ran.
    early_refusal: OnceLock<EarlyRefusal>,
    /// What the client sent that is not HTTP.
    violation: OnceLock<Violation>,
    /// Bytes of targets that others stand for, of this request and of those behind it.
    target_changes: Mutex<Vec<Change>>,
    /// What to answer to the request, known from its head alone.
    pub(crate) head_refusal: OnceLock<Refusal>,
    /// The last read found nothing: the client is to say the next word.
    waiting_for_client: AtomicBool,
    /// Requests of which at least a byte was read.
    requests_started: AtomicU64,
    /// Requests that were served, or are being served.
    requests_served: AtomicU64,
    /// When the head began, or the connection.
    head_started_ns: AtomicU64,
    task: AtomicWaker,
    /// Of the socket to a backend.
    pub(crate) cork: Cork,
    /// Of the request's body, if its backend speaks HTTP/2.
    request_body: Mutex<Option<Arc<Upload>>>,
    /// Where exchanges that wait to be read are counted.
    pub(crate) stalled: OnceLock<Arc<Stalled<Self>>>,
    /// The response, or the backend's data of an upgraded connection, waits for the client to read.
    client_wait: Wait<Self>,
    /// What the client sends into a tunnel waits for the backend.
    pub(crate) to_backend: ToBackend<Self>,
    /// The response or tunnel was ended, because this side took nothing and others did not either.
    given_up: OnceLock<Reader>,
    /// The stream, once nobody serves it any more and the client may still be sending.
    lingering: Mutex<Option<Stream>>,
    /// The response ends where the connection does.
    pub(crate) is_until_closed: AtomicBool,
}

impl ConnectionState {
    pub(crate) fn new(
        connection: Arc<ConnectionInfo>,
        timeouts: DownstreamTimeouts,
        now: Timestamp,
    ) -> Self {
        Self {
            connection,
            timeouts,
            phase: AtomicU8::new(Phase::Idle.code()),
            close_reason: AtomicU8::new(CloseReason::code(None)),
            deadline_ns: AtomicU64::new((now + timeouts.request_header).as_nanos()),
            force_close_ns: AtomicU64::new(u64::MAX),
            abort_reason: OnceLock::new(),
            response: ResponseProgress::default(),
            panicked: OnceLock::new(),
            read_stall_ns: AtomicU64::new(u64::MAX),
            write_stall_ns: AtomicU64::new(u64::MAX),
            upgraded_end_ns: AtomicU64::new(u64::MAX),
            draining_since_ns: AtomicU64::new(u64::MAX),
            idle_since_ns: AtomicU64::new(now.as_nanos()),
            early_refusal: OnceLock::new(),
            violation: OnceLock::new(),
            target_changes: Mutex::default(),
            head_refusal: OnceLock::new(),
            waiting_for_client: AtomicBool::new(false),
            requests_started: AtomicU64::new(0),
            requests_served: AtomicU64::new(0),
            head_started_ns: AtomicU64::new(now.as_nanos()),
            task: AtomicWaker::new(),
            cork: Cork::default(),
            request_body: Mutex::default(),
            stalled: OnceLock::new(),
            client_wait: Wait::default(),
            to_backend: ToBackend::default(),
            given_up: OnceLock::new(),
            lingering: Mutex::default(),
            is_until_closed: AtomicBool::new(false),
        }
    }

    fn enter(&self, phase: Phase, due: Timestamp) {
        self.set_stall_deadline(Direction::Read, None);
        self.set_stall_deadline(Direction::Write, None);
        self.deadline_ns.store(due.as_nanos(), Relaxed);
        self.phase.store(phase.code(), Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase.code()
    }

    /// The answer was sent; the next request may come. Some of its head may be here already.
    pub(crate) fn response_sent(&self, now: Timestamp) {
        if self.has_pipelined_input() {
            self.head_started(now);
        } else {
            self.idle_since_ns.store(now.as_nanos(), Relaxed);
            self.enter(Phase::Idle, now + self.timeouts.keepalive_idle);
        }
    }

    /// Bytes were read, and so many requests have begun by now. `now` is asked only if one of them
    /// begins a head that is waited for.
    pub(crate) fn bytes_read(&self, begun: u64, now: impl FnOnce() -> Timestamp) {
        self.requests_started.store(begun, Relaxed);
        if self.is(Phase::Idle) && begun > self.requests_served() {
            self.head_started(now());
        }
    }

    /// Requests that were served, or are being served.
    pub(crate) fn requests_served(&self) -> u64 {
        self.requests_served.load(Relaxed)
    }

    fn head_started(&self, now: Timestamp) {
        self.head_started_ns.store(now.as_nanos(), Relaxed);
        self.enter(Phase::ReadingHead, now + self.timeouts.request_header);
    }

    /// When the head began that is being read, or the connection if none has.
    pub(crate) fn head_started_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.head_started_ns.load(Relaxed))
    }

    /// Something was asked of the client, and it had nothing.
    pub(crate) fn set_waiting_for_client(&self, pending: bool) {
        self.waiting_for_client.store(pending, Relaxed);
    }

    /// Whether the client is to say the next word.
    pub(crate) fn is_waiting_for_client(&self) -> bool {
        self.waiting_for_client.load(Relaxed)
    }

    /// Whether a request is being served, or a tunnel that it became.
    pub(crate) fn is_in_request(&self) -> bool {
        self.is(Phase::InRequest) || self.is_upgraded()
    }

    /// Whether nothing has been read of a next request.
    pub(crate) fn is_idle(&self) -> bool {
        self.is(Phase::Idle)
    }

    /// Whether what is read and written is no HTTP any more.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.is(Phase::Upgraded)
    }

    /// The request has become a tunnel: no deadline holds, and nothing that is read is HTTP.
    pub(crate) fn upgraded(&self) {
        if self.close_reason().is_none() {
            self.enter(Phase::Upgraded, Timestamp::MAX);
        }
    }

    /// A head is complete and its request begins. Until it has a deadline of its own, it may take as
    /// long as its head: so much has a client to take an answer of ours.
    pub(crate) fn request_started(&self, now: Timestamp) {
        self.requests_served.fetch_add(1, Relaxed);
        self.set_request_body(None);
        self.response.begin();
        self.enter(Phase::InRequest, now + self.timeouts.request_header);
    }

    /// A stream has begun on this connection. It has a line of its own, which watches it. An idle
    /// connection that was about to be closed stays open for it.
    pub(crate) fn stream_opened(&self) {
        self.requests_served.fetch_add(1, Relaxed);
        self.enter(Phase::InRequest, Timestamp::MAX);
        self.reopen();
    }

    /// The client has been asked to begin nothing more on this connection, and has as long as in a
    /// drain to hear of it.
    pub(crate) fn goaway_sent(&self, now: Timestamp) {
        self.draining_since_ns.fetch_min(now.as_nanos(), Relaxed);
        self.reopen();
    }

    fn reopen(&self) {
        let (close, open) = (CloseReason::code(Some(CloseReason::Idle)), CloseReason::code(None));
        let _other = self.close_reason.compare_exchange(close, open, Relaxed, Relaxed);
    }

    /// An answer of ours begins where a backend's could not come.
    pub(crate) fn local_reply_started(&self, now: Timestamp) {
        self.deadline_ns.fetch_min((now + self.timeouts.request_header).as_nanos(), Relaxed);
    }

    /// How long a client may take nothing of an answer of ours.
    pub(crate) fn local_reply_timeout(&self) -> Duration {
        self.timeouts.request_header
    }

    /// The request must be over by then.
    pub(crate) fn set_deadline(&self, deadline: Timestamp) {
        self.deadline_ns.store(deadline.as_nanos(), Relaxed);
    }

    /// The request is tried again, and must be over by then. That the attempt before was late says
    /// nothing of this one.
    pub(crate) fn attempt_started(&self, deadline: Timestamp) {
        let (late, open) =
            (CloseReason::code(Some(CloseReason::RequestTimeout)), CloseReason::code(None));
        let _other = self.close_reason.compare_exchange(late, open, Relaxed, Relaxed);
        self.set_deadline(deadline);
    }

    /// Whether something came behind the request that is being served.
    pub(crate) fn has_pipelined_input(&self) -> bool {
        self.requests_started.load(Relaxed) > self.requests_served()
    }

    /// Draining has begun: wakes the connection's task so that it notices.
    pub(crate) fn drain(&self, now: Timestamp) {
        self.draining_since_ns.fetch_min(now.as_nanos(), Relaxed);
        self.task.wake();
    }

    /// A tunnel of a connection that drains has to end now.
    pub(crate) fn end_upgraded(&self, now: Timestamp) {
        self.upgraded_end_ns.fetch_min(now.as_nanos(), Relaxed);
        self.task.wake();
    }

    /// Whether the request that is being served is the last one that may be.
    pub(crate) fn reached_max_requests(&self) -> bool {
        self.timeouts
            .max_requests
            .is_some_and(|most| self.requests_served() >= u64::from(most.get()))
    }

    /// Has the connection's task look at everything once more.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// Whether the connection should end soon.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining_since().is_some()
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.task.register(waker);
    }

    /// When [`Line::check`] must be asked again.
    pub(crate) fn next_deadline(&self) -> Timestamp {
        let cut_ns = self.force_close_ns.load(Relaxed);
        let due = Timestamp::from_nanos(self.deadline_ns.load(Relaxed).min(cut_ns));
        // What has its verdict already is due when that must have been carried out.
        match self.draining_since().filter(|_| self.close_reason().is_none()) {
            Some(since) if self.is(Phase::Idle) => {
                due.min(since.max(self.idle_since()) + DRAIN_IDLE)
            }
            Some(since) if self.is_upgraded() => {
                let end = Timestamp::from_nanos(self.upgraded_end_ns.load(Relaxed));
                due.min(since + self.timeouts.tunnel_drain).min(end)
            }
            _ if self.is(Phase::InRequest) => {
                let slow_ns =
                    self.read_stall_ns.load(Relaxed).min(self.write_stall_ns.load(Relaxed));
                due.min(Timestamp::from_nanos(slow_ns))
            }
            _ => due,
        }
    }

    /// When the client will have been too slow; `None` if it is not waited for.
    pub(crate) fn set_stall_deadline(&self, direction: Direction, at: Option<Timestamp>) {
        let due_ns = match direction {
            Direction::Read => &self.read_stall_ns,
            Direction::Write => &self.write_stall_ns,
        };
        due_ns.store(at.unwrap_or(Timestamp::MAX).as_nanos(), Relaxed);
    }

    fn idle_since(&self) -> Timestamp {
        Timestamp::from_nanos(self.idle_since_ns.load(Relaxed))
    }

    fn draining_since(&self) -> Option<Timestamp> {
        let since = self.draining_since_ns.load(Relaxed);
        (since != u64::MAX).then(|| Timestamp::from_nanos(since))
    }

    /// Something is due. `false` once the connection must be cut without more ado.
    pub(crate) fn on_timer(&self, now: Timestamp) -> bool {
        if now < self.next_deadline() {
            return true;
        }
        let reason = match self.close_reason() {
            None => self.close_reason_at(now),
            // The local response has had its time.
            Some(CloseReason::RequestTimeout) => CloseReason::Forced,
            Some(
                CloseReason::Idle
                | CloseReason::HeaderTimeout
                | CloseReason::WriteTimeout
                | CloseReason::Forced,
            ) => {
                return false;
            }
        };
        self.set_stall_deadline(Direction::Read, None);
        self.set_stall_deadline(Direction::Write, None);
        self.close_reason.store(CloseReason::code(Some(reason)), Relaxed);
        let over_ns = (now + FORCE_CLOSE_AFTER).as_nanos();
        if self.force_close_ns.load(Relaxed) != u64::MAX {
            self.force_close_ns.store(over_ns, Relaxed);
        }
        self.deadline_ns.store(over_ns, Relaxed);
        true
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        CloseReason::of(self.close_reason.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::outcome::Expired;

    const TIMEOUTS: DownstreamTimeouts = DownstreamTimeouts {
        request_header: Duration::from_secs(10),
        keepalive_idle: Duration::from_secs(75),
        tunnel_drain: Duration::from_secs(40),
        max_requests: None,
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn state() -> ConnectionState {
        let end = "127.0.0.1:1".parse().unwrap();
        ConnectionState::new(Arc::new(ConnectionInfo::new(end, end)), TIMEOUTS, at(0))
    }

    #[test]
    fn a_new_connection_may_be_silent_as_long_as_a_head_may_take() {
        let state = state();
        assert_eq!(state.next_deadline(), at(10));
        assert!(state.on_timer(at(10)));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
    }

    #[test]
    fn a_byte_now_and_then_does_not_stretch_a_heads_time() {
        let state = state();
        state.bytes_read(1, || at(4));
        state.bytes_read(1, || at(13));
        assert_eq!(state.next_deadline(), at(14));
        assert!(state.on_timer(at(14)));
        assert_eq!(state.close_reason(), Some(CloseReason::HeaderTimeout));
    }

    #[test]
    fn a_reused_connection_has_the_same_time_for_its_head() {
        let state = state();
        state.bytes_read(1, || at(1));
        state.request_started(at(0));
        state.response_sent(at(2));
        assert_eq!(state.next_deadline(), at(77));
        state.bytes_read(2, || at(50));
        assert_eq!(state.next_deadline(), at(60));
    }

    #[test]
    fn a_head_that_came_with_the_request_before_it_has_no_longer() {
        let state = state();
        state.bytes_read(2, || at(1));
        state.request_started(at(0));
        state.response_sent(at(5));
        assert_eq!(state.next_deadline(), at(15));
        state.drain(at(6));
        assert_eq!(
            state.next_deadline(),
            at(15),
            "it is half a head, and draining leaves it its time"
        );
    }

    #[test]
    fn an_empty_line_begins_no_head() {
        let state = state();
        state.bytes_read(1, || at(1));
        state.request_started(at(0));
        state.response_sent(at(2));
        state.bytes_read(1, || at(3));
        assert_eq!(state.next_deadline(), at(77));
    }

    #[test]
    fn a_request_past_its_deadline_may_end_by_itself_and_is_cut_if_it_does_not() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        assert!(state.on_timer(at(30)));
        assert_eq!(state.close_reason(), Some(CloseReason::RequestTimeout));
        assert!(state.on_timer(at(30)), "it still has a moment");
        assert!(
            state.on_timer(at(31)),
            "its last moment: even a response of ours is not waited for"
        );
        assert_eq!(
            (state.close_reason(), state.expired()),
            (Some(CloseReason::Forced), Some(Expired::Deadline))
        );
        assert!(!state.on_timer(at(32)), "now it is cut");
    }

    #[test]
    fn a_response_that_is_under_way_at_the_deadline_is_aborted_at_once() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        state.response.headers(200);
        assert!(state.on_timer(at(30)));
        assert_eq!(
            (state.close_reason(), state.expired()),
            (Some(CloseReason::Forced), Some(Expired::Deadline))
        );
        assert!(!state.on_timer(at(31)), "it did not end by itself");
    }

    #[test]
    fn a_connection_that_is_cut_keeps_the_first_reason() {
        let state = state();
        state.request_started(at(0));
        assert!(state.force_close(at(5), Abort::DrainTimeout));
        assert!(!state.force_close(at(4), Abort::ForcedStop));
        assert!(state.on_timer(at(5)));
        let expired = Some(Expired::Connection(Abort::DrainTimeout));
        assert_eq!((state.close_reason(), state.expired()), (Some(CloseReason::Forced), expired));
    }

    #[test]
    fn a_request_that_is_tried_again_is_not_late_for_the_attempt_before_it() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(5));
        assert!(state.on_timer(at(5)));
        state.attempt_started(at(10));
        assert_eq!((state.close_reason(), state.next_deadline()), (None, at(10)));
        assert!(state.on_timer(at(10)));
        assert_eq!(state.close_reason(), Some(CloseReason::RequestTimeout));
    }

    #[test]
    fn a_client_that_takes_its_answer_too_slowly_is_not_the_one_that_is_late() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        state.set_stall_deadline(Direction::Write, Some(at(20)));
        assert_eq!(state.next_deadline(), at(20));
        assert!(state.on_timer(at(20)));
        assert_eq!(state.close_reason(), Some(CloseReason::WriteTimeout));
    }

    #[test]
    fn a_body_that_comes_too_slowly_is_late_before_the_request_is() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        state.set_stall_deadline(Direction::Read, Some(at(20)));
        state.set_stall_deadline(Direction::Read, None);
        assert_eq!(state.next_deadline(), at(30), "it came after all");
        state.set_stall_deadline(Direction::Read, Some(at(25)));
        assert!(state.on_timer(at(25)));
        assert_eq!(state.close_reason(), Some(CloseReason::RequestTimeout));
    }

    #[test]
    fn draining_closes_an_idle_connection_after_a_moment() {
        let state = state();
        state.response_sent(at(1));
        state.drain(at(20));
        assert_eq!(state.next_deadline(), at(20) + DRAIN_IDLE);
        assert!(state.on_timer(at(20) + DRAIN_IDLE));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
    }

    #[test]
    fn a_response_under_way_at_the_drains_start_leaves_the_connection_its_moment() {
        let state = state();
        state.request_started(at(1));
        state.set_deadline(at(60));
        state.drain(at(2));
        state.response_sent(at(30));
        assert_eq!(state.next_deadline(), at(30) + DRAIN_IDLE);
        assert!(state.on_timer(at(30)));
        assert_eq!(state.close_reason(), None);
    }

    #[test]
    fn a_connection_that_speaks_only_after_the_drains_start_has_its_moment() {
        let end = "127.0.0.1:1".parse().unwrap();
        let state = ConnectionState::new(Arc::new(ConnectionInfo::new(end, end)), TIMEOUTS, at(7));
        state.drain(at(2));
        assert_eq!(state.next_deadline(), at(7) + DRAIN_IDLE);
    }

    #[test]
    fn a_connection_to_be_closed_stays_open_for_a_stream_and_is_closed_soon_after_it() {
        let state = state();
        state.response_sent(at(1));
        state.drain(at(2));
        assert!(state.on_timer(at(3)));
        assert_eq!(
            (state.close_reason(), state.next_deadline()),
            (Some(CloseReason::Idle), at(3) + FORCE_CLOSE_AFTER)
        );
        state.stream_opened();
        assert_eq!((state.close_reason(), state.next_deadline()), (None, Timestamp::MAX));
        state.response_sent(at(50));
        assert_eq!(state.next_deadline(), at(50) + DRAIN_IDLE);
        assert!(state.on_timer(at(51)));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
        assert!(!state.on_timer(at(52)), "now it is cut");
    }

    #[test]
    fn a_connection_that_leaves_has_as_long_as_in_a_drain() {
        let state = state();
        state.response_sent(at(0));
        assert!(state.on_timer(at(75)));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
        state.goaway_sent(at(75));
        assert_eq!((state.close_reason(), state.next_deadline()), (None, at(75) + DRAIN_IDLE));
    }

    #[test]
    fn draining_leaves_a_half_sent_head_its_time() {
        let state = state();
        state.bytes_read(1, || at(1));
        state.drain(at(2));
        assert_eq!(state.next_deadline(), at(11));
    }

    #[test]
    fn a_tunnel_has_no_deadline_until_draining_begins() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        state.upgraded();
        assert!(state.on_timer(at(1000)));
        assert_eq!(state.close_reason(), None);
        state.drain(at(2000));
        assert_eq!(state.next_deadline(), at(2040));
        assert!(state.on_timer(at(2040)));
        assert_eq!(state.close_reason(), Some(CloseReason::RequestTimeout));
        assert!(state.on_timer(at(2041)) && !state.on_timer(at(2042)), "now it is cut");
    }

    #[test]
    fn a_request_that_is_not_forwarded_has_as_long_as_its_head() {
        let state = state();
        state.request_started(at(3));
        assert_eq!(state.next_deadline(), at(13));
        state.set_deadline(Timestamp::MAX);
        state.local_reply_started(at(50));
        assert_eq!(state.next_deadline(), at(60), "so has an answer in place of a backend's");
    }

    #[test]
    fn what_is_cut_stays_cut_though_a_stream_begins() {
        let state = state();
        state.response_sent(at(1));
        state.force_close(at(2), Abort::Http2Flood);
        state.stream_opened();
        assert_eq!(state.next_deadline(), at(2));
        assert!(state.on_timer(at(2)));
        state.stream_opened();
        assert!(state.on_timer(at(2)), "it has a moment");
        assert!(!state.on_timer(at(3)), "and no more, whatever begins");
    }
}
