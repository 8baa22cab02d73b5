//! The state of one client connection: what it is doing, and when that has taken too long.
//!
//! ```text
//!            first byte of a request         headers complete
//!   Idle ───────────────────────────▶ ReadingHead ──────────────▶ InRequest ───────▶ Upgraded
//!    ▲  │ keepalive, or draining       │ header timeout: 408        │ past its deadline
//!    │  ▼                              ▼                            ▼
//!    │ closed                        closed                       closed
//!    └──────────────────────────────────────────── response sent ───┘
//! ```
//!
//! An HTTP/2 connection is `InRequest` while it has streams. Each stream has a state of its own, with
//! the deadline of its request. An upgraded connection has no deadline, except that of a drain.
//!
//! Pingora times each read, but not the headers as a whole, and a reused connection not at all. So
//! the deadlines are kept here. The connection's own task watches them (`timers.rs`), and the
//! stream below Pingora acts on the result (`http1/io.rs`).

mod attempt;
mod deadlines;
mod notes;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use pingora_core::protocols::Stream;

use self::attempt::AttemptState;
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
use crate::http::target::ReplacedByte;
use crate::time::Timestamp;

/// How long an idle connection may still send its next request. It counts from the start of the
/// drain or from the end of the last response, whichever is later. The client learns of the drain
/// from the next response, so closing at once would race with its next request.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// The timeouts of a client connection.
#[derive(Debug, Clone, Copy)]
pub struct DownstreamTimeouts {
    /// From the first byte of the request headers to their end. A new connection may also be silent
    /// for this long.
    pub request_header: Duration,
    /// How long a connection may be idle between two requests.
    pub keepalive_idle: Duration,
    /// How long an upgraded connection may go on after a drain has started.
    pub tunnel_drain: Duration,
    /// How many requests the connection may serve; `None` for no limit.
    pub max_requests: Option<NonZeroU32>,
}

/// The state of one client connection or HTTP/2 stream. Only the connection's own task changes it.
/// Other tasks may start its drain or close it.
#[derive(Debug)]
pub struct ConnectionState {
    pub(crate) connection: Arc<ConnectionInfo>,
    timeouts: DownstreamTimeouts,
    phase: AtomicU8,
    close_reason: AtomicU8,
    /// When the current phase has taken too long.
    deadline_ns: AtomicU64,
    /// When the connection is closed whatever its phase; `u64::MAX` unless it has to be closed.
    force_close_ns: AtomicU64,
    /// Why the connection is closed by force.
    abort_reason: OnceLock<Abort>,
    /// What has been sent of the current response.
    pub(crate) response: ResponseProgress,
    /// The request that a panic ended, if its client gets a response.
    pub(crate) panicked: OnceLock<PanickedRequest>,
    /// When the client has sent nothing for too long; `u64::MAX` unless Weir waits for it.
    read_stall_ns: AtomicU64,
    /// When the client has read nothing for too long; `u64::MAX` unless Weir waits for it.
    write_stall_ns: AtomicU64,
    /// When an upgraded connection has to end even before `tunnel_drain`; `u64::MAX` if it need
    /// not.
    upgraded_end_ns: AtomicU64,
    /// When draining started; `u64::MAX` if it has not.
    draining_since_ns: AtomicU64,
    /// When the connection last became idle.
    idle_since_ns: AtomicU64,
    /// The response that was sent before there was a request.
    early_refusal: OnceLock<EarlyRefusal>,
    /// The first violation of HTTP by the client.
    violation: OnceLock<Violation>,
    /// Bytes that the scanner replaced in request targets, of the current and of pipelined
    /// requests.
    target_changes: Mutex<Vec<ReplacedByte>>,
    /// The refusal that the request headers alone call for.
    pub(crate) head_refusal: OnceLock<Refusal>,
    /// The last read returned `Pending`: Weir is waiting for the client.
    waiting_for_client: AtomicBool,
    /// Requests of which at least one byte has been read.
    requests_started: AtomicU64,
    /// Requests that have been served or are being served.
    requests_served: AtomicU64,
    /// When the first byte of the current request headers came, or when the connection was made.
    head_started_ns: AtomicU64,
    task: AtomicWaker,
    /// Holds back the request to a backend that asks for an upgrade.
    pub(crate) cork: Cork,
    attempt: AttemptState,
    /// Where responses and upgraded connections are counted while they wait for a reader.
    pub(crate) stalled: OnceLock<Arc<Stalled<Self>>>,
    /// Set while a response, or data of an upgraded connection, waits for the client to read.
    client_wait: Wait<Self>,
    /// Data of an upgraded connection that waits for the backend to read.
    pub(crate) to_backend: ToBackend<Self>,
    /// The side for which the response or upgraded connection was ended, because it did not read.
    given_up: OnceLock<Reader>,
    /// The stream, once the service has ended and the client may still be sending.
    lingering: Mutex<Option<Stream>>,
    /// The response has no length, so it ends when the connection is closed.
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
            attempt: AttemptState::default(),
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

    /// The response was sent in full. The next request may follow; a part of it may have been read.
    pub(crate) fn response_sent(&self, now: Timestamp) {
        if self.has_pipelined_input() {
            self.head_started(now);
        } else {
            self.idle_since_ns.store(now.as_nanos(), Relaxed);
            self.enter(Phase::Idle, now + self.timeouts.keepalive_idle);
        }
    }

    /// Bytes were read, and `begun` requests have started by now. `now` is called only if one of
    /// them starts request headers.
    pub(crate) fn bytes_read(&self, begun: u64, now: impl FnOnce() -> Timestamp) {
        self.requests_started.store(begun, Relaxed);
        if self.is(Phase::Idle) && begun > self.requests_served() {
            self.head_started(now());
        }
    }

    /// The number of requests that have been served or are being served.
    pub(crate) fn requests_served(&self) -> u64 {
        self.requests_served.load(Relaxed)
    }

    fn head_started(&self, now: Timestamp) {
        self.head_started_ns.store(now.as_nanos(), Relaxed);
        self.enter(Phase::ReadingHead, now + self.timeouts.request_header);
    }

    /// When the first byte of the current request headers came, or when the connection was made.
    pub(crate) fn head_started_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.head_started_ns.load(Relaxed))
    }

    /// Sets whether the last read returned `Pending`.
    pub(crate) fn set_waiting_for_client(&self, pending: bool) {
        self.waiting_for_client.store(pending, Relaxed);
    }

    /// Whether the last read returned `Pending`, so that Weir is waiting for the client.
    pub(crate) fn is_waiting_for_client(&self) -> bool {
        self.waiting_for_client.load(Relaxed)
    }

    /// Whether a request is being served, or the connection is upgraded.
    pub(crate) fn is_in_request(&self) -> bool {
        self.is(Phase::InRequest) || self.is_upgraded()
    }

    /// Whether nothing has been read of a next request.
    pub(crate) fn is_idle(&self) -> bool {
        self.is(Phase::Idle)
    }

    /// Whether the connection was upgraded, so that its bytes are not HTTP.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.is(Phase::Upgraded)
    }

    /// The connection was upgraded. No deadline of a request applies, and its bytes are not HTTP.
    pub(crate) fn upgraded(&self) {
        if self.close_reason().is_none() {
            self.enter(Phase::Upgraded, Timestamp::MAX);
        }
    }

    /// The request headers are complete. Until a route sets a deadline, the header timeout applies;
    /// it also bounds how long a client may take to read a local response.
    pub(crate) fn request_started(&self, now: Timestamp) {
        self.requests_served.fetch_add(1, Relaxed);
        self.set_request_body(None);
        let _unmoved = self.attempt.stop();
        self.response.begin();
        self.enter(Phase::InRequest, now + self.timeouts.request_header);
    }

    /// A stream was opened on this HTTP/2 connection. It has a state of its own, with its
    /// deadlines. An idle connection that was about to be closed stays open for it.
    pub(crate) fn stream_opened(&self) {
        self.requests_served.fetch_add(1, Relaxed);
        self.enter(Phase::InRequest, Timestamp::MAX);
        self.reopen();
    }

    /// A GOAWAY was sent. The client may open streams for as long as in a drain, until it has read
    /// it.
    pub(crate) fn goaway_sent(&self, now: Timestamp) {
        self.draining_since_ns.fetch_min(now.as_nanos(), Relaxed);
        self.reopen();
    }

    fn reopen(&self) {
        let (close, open) = (CloseReason::code(Some(CloseReason::Idle)), CloseReason::code(None));
        let _other = self.close_reason.compare_exchange(close, open, Relaxed, Relaxed);
    }

    /// A local response is sent, because the backend's cannot be.
    pub(crate) fn local_reply_started(&self, now: Timestamp) {
        self.deadline_ns.fetch_min((now + self.timeouts.request_header).as_nanos(), Relaxed);
    }

    /// How long a client may read nothing of a local response.
    pub(crate) fn local_reply_timeout(&self) -> Duration {
        self.timeouts.request_header
    }

    /// Sets the deadline of the request.
    pub(crate) fn set_deadline(&self, deadline: Timestamp) {
        self.deadline_ns.store(deadline.as_nanos(), Relaxed);
    }

    /// Another attempt starts, with this deadline. Clears the timeout of the previous attempt.
    pub(crate) fn attempt_started(&self, deadline: Timestamp) {
        let _unmoved = self.attempt.stop();
        self.clear_request_timeout();
        self.set_deadline(deadline);
    }

    /// Clears the timeout of an attempt.
    fn clear_request_timeout(&self) {
        let (late, open) =
            (CloseReason::code(Some(CloseReason::RequestTimeout)), CloseReason::code(None));
        let _other = self.close_reason.compare_exchange(late, open, Relaxed, Relaxed);
    }

    /// Whether bytes of the next request have been read.
    pub(crate) fn has_pipelined_input(&self) -> bool {
        self.requests_started.load(Relaxed) > self.requests_served()
    }

    /// Draining has started. Wakes the connection's task, which acts on it.
    pub(crate) fn drain(&self, now: Timestamp) {
        self.draining_since_ns.fetch_min(now.as_nanos(), Relaxed);
        self.task.wake();
    }

    /// An upgraded connection that drains has to end now.
    pub(crate) fn end_upgraded(&self, now: Timestamp) {
        self.upgraded_end_ns.fetch_min(now.as_nanos(), Relaxed);
        self.task.wake();
    }

    /// Whether the current request is the last one that the connection may serve.
    pub(crate) fn reached_max_requests(&self) -> bool {
        self.timeouts
            .max_requests
            .is_some_and(|most| self.requests_served() >= u64::from(most.get()))
    }

    /// Makes the connection's task check its state.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// Whether the connection is draining.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining_since().is_some()
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.task.register(waker);
    }

    /// Sets when the client has been too slow; `None` while Weir does not wait for it.
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

    /// Why the connection has to be closed, if it has to.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        CloseReason::of(self.close_reason.load(Relaxed))
    }
}

#[cfg(test)]
impl DownstreamTimeouts {
    /// For tests.
    pub(crate) const FIXTURE: Self = Self {
        request_header: Duration::from_secs(10),
        keepalive_idle: Duration::from_secs(75),
        tunnel_drain: Duration::from_secs(40),
        max_requests: None,
    };
}

#[cfg(test)]
impl ConnectionState {
    /// Of a new plaintext connection, for tests.
    pub(crate) fn fixture(now: Timestamp) -> Self {
        let end = "127.0.0.1:1".parse().unwrap();
        Self::new(Arc::new(ConnectionInfo::new(end, end)), DownstreamTimeouts::FIXTURE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::deadlines::FORCE_CLOSE_AFTER;
    use super::*;
    use crate::exchange::outcome::Expired;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn state() -> ConnectionState {
        ConnectionState::fixture(at(0))
    }

    #[test]
    fn a_new_connection_may_be_silent_for_the_header_timeout() {
        let state = state();
        assert_eq!(state.next_deadline(), at(10));
        assert!(state.on_timer(at(10)));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
    }

    #[test]
    fn slow_bytes_do_not_extend_the_header_timeout() {
        let state = state();
        state.bytes_read(1, || at(4));
        state.bytes_read(1, || at(13));
        assert_eq!(state.next_deadline(), at(14));
        assert!(state.on_timer(at(14)));
        assert_eq!(state.close_reason(), Some(CloseReason::HeaderTimeout));
    }

    #[test]
    fn the_header_timeout_applies_to_a_reused_connection() {
        let state = state();
        state.bytes_read(1, || at(1));
        state.request_started(at(0));
        state.response_sent(at(2));
        assert_eq!(state.next_deadline(), at(77));
        state.bytes_read(2, || at(50));
        assert_eq!(state.next_deadline(), at(60));
    }

    #[test]
    fn the_header_timeout_of_a_pipelined_request_starts_with_the_last_response() {
        let state = state();
        state.bytes_read(2, || at(1));
        state.request_started(at(0));
        state.response_sent(at(5));
        assert_eq!(state.next_deadline(), at(15));
        state.drain(at(6));
        assert_eq!(state.next_deadline(), at(15), "the header timeout still applies");
    }

    #[test]
    fn an_empty_line_does_not_start_request_headers() {
        let state = state();
        state.bytes_read(1, || at(1));
        state.request_started(at(0));
        state.response_sent(at(2));
        state.bytes_read(1, || at(3));
        assert_eq!(state.next_deadline(), at(77));
    }

    #[test]
    fn a_request_past_its_deadline_is_closed_by_force_after_a_grace_period() {
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
        assert!(!state.on_timer(at(32)), "the grace period is over");
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
    fn a_connection_closed_by_force_keeps_the_first_reason() {
        let state = state();
        state.request_started(at(0));
        assert!(state.force_close(at(5), Abort::DrainTimeout));
        assert!(!state.force_close(at(4), Abort::ForcedStop));
        assert!(state.on_timer(at(5)));
        let expired = Some(Expired::Connection(Abort::DrainTimeout));
        assert_eq!((state.close_reason(), state.expired()), (Some(CloseReason::Forced), expired));
    }

    #[test]
    fn the_timeout_of_one_attempt_does_not_apply_to_the_next() {
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
    fn a_client_that_reads_too_slowly_is_a_write_timeout_and_no_request_timeout() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        state.set_stall_deadline(Direction::Write, Some(at(20)));
        assert_eq!(state.next_deadline(), at(20));
        assert!(state.on_timer(at(20)));
        assert_eq!(state.close_reason(), Some(CloseReason::WriteTimeout));
    }

    #[test]
    fn a_body_that_is_sent_too_slowly_times_out_before_the_request_does() {
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
    fn draining_closes_an_idle_connection_after_a_second() {
        let state = state();
        state.response_sent(at(1));
        state.drain(at(20));
        assert_eq!(state.next_deadline(), at(20) + DRAIN_IDLE);
        assert!(state.on_timer(at(20) + DRAIN_IDLE));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
    }

    #[test]
    fn a_connection_is_open_for_a_second_after_a_response_that_a_drain_interrupts() {
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
    fn a_connection_made_during_a_drain_is_open_for_a_second() {
        let state = ConnectionState::fixture(at(7));
        state.drain(at(2));
        assert_eq!(state.next_deadline(), at(7) + DRAIN_IDLE);
    }

    #[test]
    fn a_new_stream_keeps_an_idle_connection_open_that_was_about_to_be_closed() {
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
        assert!(!state.on_timer(at(52)), "the grace period is over");
    }

    #[test]
    fn after_a_goaway_a_connection_is_open_for_a_second() {
        let state = state();
        state.response_sent(at(0));
        assert!(state.on_timer(at(75)));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
        state.goaway_sent(at(75));
        assert_eq!((state.close_reason(), state.next_deadline()), (None, at(75) + DRAIN_IDLE));
    }

    #[test]
    fn draining_does_not_shorten_the_header_timeout() {
        let state = state();
        state.bytes_read(1, || at(1));
        state.drain(at(2));
        assert_eq!(state.next_deadline(), at(11));
    }

    #[test]
    fn an_upgraded_connection_has_no_deadline_until_draining_starts() {
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
        assert!(state.on_timer(at(2041)) && !state.on_timer(at(2042)), "the grace period is over");
    }

    #[test]
    fn a_local_response_has_as_long_as_the_header_timeout() {
        let state = state();
        state.request_started(at(3));
        assert_eq!(state.next_deadline(), at(13));
        state.set_deadline(Timestamp::MAX);
        state.local_reply_started(at(50));
        assert_eq!(state.next_deadline(), at(60), "a local response has the same time");
    }

    #[test]
    fn a_new_stream_does_not_stop_a_forced_close() {
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

    #[test]
    fn only_a_client_that_does_not_read_and_a_forced_close_fail_its_writes() {
        let late = state();
        late.request_started(at(0));
        late.set_deadline(at(30));
        assert!(late.on_timer(at(30)));
        assert!(!late.must_fail_writes(), "the 504 is still to be written");
        assert!(late.on_timer(at(31)));
        assert!(late.must_fail_writes());
        let unread = state();
        unread.request_started(at(0));
        unread.set_stall_deadline(Direction::Write, Some(at(5)));
        assert!(unread.on_timer(at(5)));
        assert!(unread.must_fail_writes());
        assert_eq!(unread.expired(), Some(Expired::WriteRate));
    }

    #[test]
    fn a_stalled_transfer_has_no_effect_after_its_request() {
        let state = state();
        state.request_started(at(0));
        state.set_stall_deadline(Direction::Write, Some(at(5)));
        state.set_stall_deadline(Direction::Read, Some(at(6)));
        state.response_sent(at(3));
        state.request_started(at(4));
        assert_eq!(state.next_deadline(), at(14));
    }

    #[test]
    fn an_upgraded_connection_ends_early_only_in_a_drain() {
        let state = state();
        state.request_started(at(0));
        state.upgraded();
        state.end_upgraded(at(10));
        assert_eq!(state.next_deadline(), Timestamp::MAX);
        state.drain(at(5));
        assert_eq!(state.next_deadline(), at(10), "before the end of the drain");
        state.end_upgraded(at(20));
        assert_eq!(state.next_deadline(), at(10), "the first end counts");
    }

    #[test]
    fn a_request_past_its_deadline_is_not_upgraded_any_longer() {
        let state = state();
        state.request_started(at(0));
        state.set_deadline(at(30));
        assert!(state.on_timer(at(30)));
        state.upgraded();
        assert!(!state.is_upgraded());
        assert_eq!(state.next_deadline(), at(31));
    }

    #[test]
    fn a_forced_close_amid_request_headers_is_no_header_timeout() {
        let state = state();
        state.bytes_read(1, || at(1));
        assert!(state.force_close(at(2), Abort::ForcedStop));
        assert!(state.on_timer(at(2)));
        assert_eq!(state.close_reason(), Some(CloseReason::Idle));
    }

    #[test]
    fn the_last_request_of_a_connection_is_known_while_it_is_served() {
        let end = "127.0.0.1:1".parse().unwrap();
        let timeouts =
            DownstreamTimeouts { max_requests: NonZeroU32::new(2), ..DownstreamTimeouts::FIXTURE };
        let connection = Arc::new(ConnectionInfo::new(end, end));
        let limited = ConnectionState::new(connection, timeouts, at(0));
        limited.request_started(at(0));
        assert!(!limited.reached_max_requests());
        limited.request_started(at(1));
        assert!(limited.reached_max_requests());
        let unlimited = state();
        unlimited.request_started(at(0));
        assert!(!unlimited.reached_max_requests());
    }

    #[test]
    fn replaced_bytes_belong_to_their_own_request() {
        let state = state();
        let change = |message| ReplacedByte { message, offset: 4, byte: b'|' };
        state.add_target_changes([change(1), change(1), change(3)].into_iter());
        state.request_started(at(0));
        assert_eq!(state.take_target_changes(), [change(1), change(1)]);
        state.request_started(at(1));
        assert_eq!(state.take_target_changes(), []);
        state.request_started(at(2));
        assert_eq!(state.take_target_changes(), [change(3)]);
    }

    #[test]
    fn only_the_first_violation_of_a_client_counts() {
        let state = state();
        let [first, second] = [Violation::TargetBytes, Violation::BareReturn];
        state.set_violation(first);
        state.set_violation(second);
        assert_eq!(state.violation(), Some(first));
    }

    #[test]
    fn a_connection_that_is_closed_already_is_not_given_up() {
        use crate::downstream::stalled::Stallable as _;
        let late = state();
        late.request_started(at(0));
        late.set_deadline(at(5));
        assert!(late.on_timer(at(5)));
        late.give_up(Reader::Backend);
        assert_eq!(late.close_reason(), Some(CloseReason::RequestTimeout));
        assert_eq!(late.given_up_for(), None);
        let stalled = state();
        stalled.give_up(Reader::Backend);
        stalled.give_up(Reader::Client);
        assert_eq!(stalled.close_reason(), Some(CloseReason::WriteTimeout));
        assert_eq!(stalled.given_up_for(), Some(Reader::Backend));
    }
}
