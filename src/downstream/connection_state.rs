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

pub(crate) use super::close_reason::Verdict;
use super::connection_info::Connection;
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
const CUT_AFTER: Duration = Duration::from_secs(1);

/// The timeouts of a client connection.
#[derive(Debug, Clone, Copy)]
pub struct LineTimeouts {
    /// From the first byte of a head to its end; also how long a new connection may be silent.
    pub header: Duration,
    /// Between requests.
    pub keepalive: Duration,
    /// How long a tunnel may go on once draining began.
    pub tunnels: Duration,
    /// How many requests it may serve.
    pub requests: Option<NonZeroU32>,
}

/// One client connection. Only its own task changes it; others may start its draining.
#[derive(Debug)]
pub struct Line {
    pub(crate) connection: Arc<Connection>,
    timeouts: LineTimeouts,
    phase: AtomicU8,
    verdict: AtomicU8,
    /// When the phase has taken too long.
    due_ns: AtomicU64,
    /// When it is over, whatever the phase; the end of time unless it is to be cut.
    cut_ns: AtomicU64,
    /// Why it is to be cut.
    abort: OnceLock<Abort>,
    /// What was sent of the current response.
    pub(crate) response: ResponseProgress,
    /// The request that a panic ended, if its client is to get a response.
    pub(crate) panicked: OnceLock<PanickedRequest>,
    /// When the client has taken too long to send more; the end of time if nobody waits.
    read_due_ns: AtomicU64,
    /// When it has taken too long to take more.
    write_due_ns: AtomicU64,
    /// When a tunnel has to end, whatever its own limit says; the end of time if nothing says so.
    tunnel_end_ns: AtomicU64,
    /// When draining began; the end of time if it has not.
    draining_since_ns: AtomicU64,
    /// When the connection last became idle.
    idle_since_ns: AtomicU64,
    /// We answered before a hook ran.
    refusal: OnceLock<EarlyRefusal>,
    /// What the client sent that is not HTTP.
    violation: OnceLock<Violation>,
    /// Bytes of targets that others stand for, of this request and of those behind it.
    changes: Mutex<Vec<Change>>,
    /// What to answer to the request, known from its head alone.
    pub(crate) foretold: OnceLock<Refusal>,
    /// The last read found nothing: the client is to say the next word.
    awaited: AtomicBool,
    /// Requests of which at least a byte was read.
    begun: AtomicU64,
    /// Requests that were served, or are being served.
    served: AtomicU64,
    /// When the head began, or the connection.
    began_ns: AtomicU64,
    task: AtomicWaker,
    /// Of the socket to a backend.
    pub(crate) cork: Cork,
    /// Of the request's body, if its backend speaks HTTP/2.
    upload: Mutex<Option<Arc<Upload>>>,
    /// Where exchanges that wait to be read are counted.
    pub(crate) stalled: OnceLock<Arc<Stalled<Self>>>,
    /// The response, or the backend's data of an upgraded connection, waits for the client to read.
    to_client: Wait<Self>,
    /// What the client sends into a tunnel waits for the backend.
    pub(crate) to_backend: ToBackend<Self>,
    /// The response or tunnel was ended, because this side took nothing and others did not either.
    given_up: OnceLock<Reader>,
    /// The stream, once nobody serves it any more and the client may still be sending.
    left: Mutex<Option<Stream>>,
    /// The response ends where the connection does.
    pub(crate) is_until_closed: AtomicBool,
}

impl Line {
    pub(crate) fn new(connection: Arc<Connection>, timeouts: LineTimeouts, now: Timestamp) -> Self {
        Self {
            connection,
            timeouts,
            phase: AtomicU8::new(Phase::Idle.code()),
            verdict: AtomicU8::new(Verdict::Open.code()),
            due_ns: AtomicU64::new((now + timeouts.header).as_nanos()),
            cut_ns: AtomicU64::new(u64::MAX),
            abort: OnceLock::new(),
            response: ResponseProgress::default(),
            panicked: OnceLock::new(),
            read_due_ns: AtomicU64::new(u64::MAX),
            write_due_ns: AtomicU64::new(u64::MAX),
            tunnel_end_ns: AtomicU64::new(u64::MAX),
            draining_since_ns: AtomicU64::new(u64::MAX),
            idle_since_ns: AtomicU64::new(now.as_nanos()),
            refusal: OnceLock::new(),
            violation: OnceLock::new(),
            changes: Mutex::default(),
            foretold: OnceLock::new(),
            awaited: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            served: AtomicU64::new(0),
            began_ns: AtomicU64::new(now.as_nanos()),
            task: AtomicWaker::new(),
            cork: Cork::default(),
            upload: Mutex::default(),
            stalled: OnceLock::new(),
            to_client: Wait::default(),
            to_backend: ToBackend::default(),
            given_up: OnceLock::new(),
            left: Mutex::default(),
            is_until_closed: AtomicBool::new(false),
        }
    }

    fn enter(&self, phase: Phase, due: Timestamp) {
        self.slow_at(Direction::Read, None);
        self.slow_at(Direction::Write, None);
        self.due_ns.store(due.as_nanos(), Relaxed);
        self.phase.store(phase.code(), Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase.code()
    }

    /// The answer was sent; the next request may come. Some of its head may be here already.
    pub(crate) fn answered(&self, now: Timestamp) {
        if self.has_more() {
            self.began(now);
        } else {
            self.idle_since_ns.store(now.as_nanos(), Relaxed);
            self.enter(Phase::Idle, now + self.timeouts.keepalive);
        }
    }

    /// Bytes were read, and so many requests have begun by now. `now` is asked only if one of them
    /// begins a head that is waited for.
    pub(crate) fn bytes_read(&self, begun: u64, now: impl FnOnce() -> Timestamp) {
        self.begun.store(begun, Relaxed);
        if self.is(Phase::Idle) && begun > self.served() {
            self.began(now());
        }
    }

    /// Requests that were served, or are being served.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    fn began(&self, now: Timestamp) {
        self.began_ns.store(now.as_nanos(), Relaxed);
        self.enter(Phase::Head, now + self.timeouts.header);
    }

    /// When the head began that is being read, or the connection if none has.
    pub(crate) fn since(&self) -> Timestamp {
        Timestamp::from_nanos(self.began_ns.load(Relaxed))
    }

    /// Something was asked of the client, and it had nothing.
    pub(crate) fn read_pending(&self, pending: bool) {
        self.awaited.store(pending, Relaxed);
    }

    /// Whether the client is to say the next word.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Relaxed)
    }

    /// Whether a request is being served, or a tunnel that it became.
    pub(crate) fn is_busy(&self) -> bool {
        self.is(Phase::Busy) || self.is_tunnel()
    }

    /// Whether nothing has been read of a next request.
    pub(crate) fn is_idle(&self) -> bool {
        self.is(Phase::Idle)
    }

    /// Whether what is read and written is no HTTP any more.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.is(Phase::Tunnel)
    }

    /// The request has become a tunnel: no deadline holds, and nothing that is read is HTTP.
    pub(crate) fn tunnel(&self) {
        if self.verdict() == Verdict::Open {
            self.enter(Phase::Tunnel, Timestamp::MAX);
        }
    }

    /// A head is complete and its request begins. Until it has a deadline of its own, it may take as
    /// long as its head: so much has a client to take an answer of ours.
    pub(crate) fn busy(&self, now: Timestamp) {
        self.served.fetch_add(1, Relaxed);
        self.uploads(None);
        self.response.begin();
        self.enter(Phase::Busy, now + self.timeouts.header);
    }

    /// A stream has begun on this connection. It has a line of its own, which watches it. An idle
    /// connection that was about to be closed stays open for it.
    pub(crate) fn carries(&self) {
        self.served.fetch_add(1, Relaxed);
        self.enter(Phase::Busy, Timestamp::MAX);
        self.reopen();
    }

    /// The client has been asked to begin nothing more on this connection, and has as long as in a
    /// drain to hear of it.
    pub(crate) fn leaves(&self, now: Timestamp) {
        self.draining_since_ns.fetch_min(now.as_nanos(), Relaxed);
        self.reopen();
    }

    fn reopen(&self) {
        let (close, open) = (Verdict::Close.code(), Verdict::Open.code());
        let _other = self.verdict.compare_exchange(close, open, Relaxed, Relaxed);
    }

    /// An answer of ours begins where a backend's could not come.
    pub(crate) fn answers(&self, now: Timestamp) {
        self.due_ns.fetch_min((now + self.timeouts.header).as_nanos(), Relaxed);
    }

    /// How long a client may take nothing of an answer of ours.
    pub(crate) fn patience(&self) -> Duration {
        self.timeouts.header
    }

    /// The request must be over by then.
    pub(crate) fn deadline(&self, deadline: Timestamp) {
        self.due_ns.store(deadline.as_nanos(), Relaxed);
    }

    /// The request is tried again, and must be over by then. That the attempt before was late says
    /// nothing of this one.
    pub(crate) fn again(&self, deadline: Timestamp) {
        let (late, open) = (Verdict::PastDeadline.code(), Verdict::Open.code());
        let _other = self.verdict.compare_exchange(late, open, Relaxed, Relaxed);
        self.deadline(deadline);
    }

    /// Whether something came behind the request that is being served.
    pub(crate) fn has_more(&self) -> bool {
        self.begun.load(Relaxed) > self.served()
    }

    /// Draining has begun: wakes the connection's task so that it notices.
    pub(crate) fn drain(&self, now: Timestamp) {
        self.draining_since_ns.fetch_min(now.as_nanos(), Relaxed);
        self.task.wake();
    }

    /// A tunnel of a connection that drains has to end now.
    pub(crate) fn end_tunnel(&self, now: Timestamp) {
        self.tunnel_end_ns.fetch_min(now.as_nanos(), Relaxed);
        self.task.wake();
    }

    /// Whether the request that is being served is the last one that may be.
    pub(crate) fn is_worn(&self) -> bool {
        self.timeouts.requests.is_some_and(|most| self.served() >= u64::from(most.get()))
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
    pub(crate) fn due(&self) -> Timestamp {
        let cut_ns = self.cut_ns.load(Relaxed);
        let due = Timestamp::from_nanos(self.due_ns.load(Relaxed).min(cut_ns));
        // What has its verdict already is due when that must have been carried out.
        match self.draining_since().filter(|_| self.verdict() == Verdict::Open) {
            Some(since) if self.is(Phase::Idle) => {
                due.min(since.max(self.idle_since()) + DRAIN_IDLE)
            }
            Some(since) if self.is_tunnel() => {
                let end = Timestamp::from_nanos(self.tunnel_end_ns.load(Relaxed));
                due.min(since + self.timeouts.tunnels).min(end)
            }
            _ if self.is(Phase::Busy) => {
                let slow_ns = self.read_due_ns.load(Relaxed).min(self.write_due_ns.load(Relaxed));
                due.min(Timestamp::from_nanos(slow_ns))
            }
            _ => due,
        }
    }

    /// When the client will have been too slow; `None` if it is not waited for.
    pub(crate) fn slow_at(&self, direction: Direction, at: Option<Timestamp>) {
        let due_ns = match direction {
            Direction::Read => &self.read_due_ns,
            Direction::Write => &self.write_due_ns,
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
    pub(crate) fn check(&self, now: Timestamp) -> bool {
        if now < self.due() {
            return true;
        }
        let verdict = match self.verdict() {
            Verdict::Open => self.verdict_at(now),
            // The response in place of a backend's had its time.
            Verdict::PastDeadline => Verdict::Abort,
            Verdict::Close | Verdict::HeadTimeout | Verdict::Stalled | Verdict::Abort => {
                return false;
            }
        };
        self.slow_at(Direction::Read, None);
        self.slow_at(Direction::Write, None);
        self.verdict.store(verdict.code(), Relaxed);
        let over_ns = (now + CUT_AFTER).as_nanos();
        if self.cut_ns.load(Relaxed) != u64::MAX {
            self.cut_ns.store(over_ns, Relaxed);
        }
        self.due_ns.store(over_ns, Relaxed);
        true
    }

    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::of(self.verdict.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::outcome::Expired;

    const TIMEOUTS: LineTimeouts = LineTimeouts {
        header: Duration::from_secs(10),
        keepalive: Duration::from_secs(75),
        tunnels: Duration::from_secs(40),
        requests: None,
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn line() -> Line {
        let end = "127.0.0.1:1".parse().unwrap();
        Line::new(Arc::new(Connection::new(end, end)), TIMEOUTS, at(0))
    }

    #[test]
    fn a_new_connection_may_be_silent_as_long_as_a_head_may_take() {
        let line = line();
        assert_eq!(line.due(), at(10));
        assert!(line.check(at(10)));
        assert_eq!(line.verdict(), Verdict::Close);
    }

    #[test]
    fn a_byte_now_and_then_does_not_stretch_a_heads_time() {
        let line = line();
        line.bytes_read(1, || at(4));
        line.bytes_read(1, || at(13));
        assert_eq!(line.due(), at(14));
        assert!(line.check(at(14)));
        assert_eq!(line.verdict(), Verdict::HeadTimeout);
    }

    #[test]
    fn a_reused_connection_has_the_same_time_for_its_head() {
        let line = line();
        line.bytes_read(1, || at(1));
        line.busy(at(0));
        line.answered(at(2));
        assert_eq!(line.due(), at(77));
        line.bytes_read(2, || at(50));
        assert_eq!(line.due(), at(60));
    }

    #[test]
    fn a_head_that_came_with_the_request_before_it_has_no_longer() {
        let line = line();
        line.bytes_read(2, || at(1));
        line.busy(at(0));
        line.answered(at(5));
        assert_eq!(line.due(), at(15));
        line.drain(at(6));
        assert_eq!(line.due(), at(15), "it is half a head, and draining leaves it its time");
    }

    #[test]
    fn an_empty_line_begins_no_head() {
        let line = line();
        line.bytes_read(1, || at(1));
        line.busy(at(0));
        line.answered(at(2));
        line.bytes_read(1, || at(3));
        assert_eq!(line.due(), at(77));
    }

    #[test]
    fn a_request_past_its_deadline_may_end_by_itself_and_is_cut_if_it_does_not() {
        let line = line();
        line.busy(at(0));
        line.deadline(at(30));
        assert!(line.check(at(30)));
        assert_eq!(line.verdict(), Verdict::PastDeadline);
        assert!(line.check(at(30)), "it still has a moment");
        assert!(line.check(at(31)), "its last moment: even a response of ours is not waited for");
        assert_eq!((line.verdict(), line.expired()), (Verdict::Abort, Some(Expired::Deadline)));
        assert!(!line.check(at(32)), "now it is cut");
    }

    #[test]
    fn a_response_that_is_under_way_at_the_deadline_is_aborted_at_once() {
        let line = line();
        line.busy(at(0));
        line.deadline(at(30));
        line.response.headers(200);
        assert!(line.check(at(30)));
        assert_eq!((line.verdict(), line.expired()), (Verdict::Abort, Some(Expired::Deadline)));
        assert!(!line.check(at(31)), "it did not end by itself");
    }

    #[test]
    fn a_connection_that_is_cut_keeps_the_first_reason() {
        let line = line();
        line.busy(at(0));
        assert!(line.cut(at(5), Abort::DrainTimeout));
        assert!(!line.cut(at(4), Abort::ForcedStop));
        assert!(line.check(at(5)));
        let expired = Some(Expired::Connection(Abort::DrainTimeout));
        assert_eq!((line.verdict(), line.expired()), (Verdict::Abort, expired));
    }

    #[test]
    fn a_request_that_is_tried_again_is_not_late_for_the_attempt_before_it() {
        let line = line();
        line.busy(at(0));
        line.deadline(at(5));
        assert!(line.check(at(5)));
        line.again(at(10));
        assert_eq!((line.verdict(), line.due()), (Verdict::Open, at(10)));
        assert!(line.check(at(10)));
        assert_eq!(line.verdict(), Verdict::PastDeadline);
    }

    #[test]
    fn a_client_that_takes_its_answer_too_slowly_is_not_the_one_that_is_late() {
        let line = line();
        line.busy(at(0));
        line.deadline(at(30));
        line.slow_at(Direction::Write, Some(at(20)));
        assert_eq!(line.due(), at(20));
        assert!(line.check(at(20)));
        assert_eq!(line.verdict(), Verdict::Stalled);
    }

    #[test]
    fn a_body_that_comes_too_slowly_is_late_before_the_request_is() {
        let line = line();
        line.busy(at(0));
        line.deadline(at(30));
        line.slow_at(Direction::Read, Some(at(20)));
        line.slow_at(Direction::Read, None);
        assert_eq!(line.due(), at(30), "it came after all");
        line.slow_at(Direction::Read, Some(at(25)));
        assert!(line.check(at(25)));
        assert_eq!(line.verdict(), Verdict::PastDeadline);
    }

    #[test]
    fn draining_closes_an_idle_connection_after_a_moment() {
        let line = line();
        line.answered(at(1));
        line.drain(at(20));
        assert_eq!(line.due(), at(20) + DRAIN_IDLE);
        assert!(line.check(at(20) + DRAIN_IDLE));
        assert_eq!(line.verdict(), Verdict::Close);
    }

    #[test]
    fn a_response_under_way_at_the_drains_start_leaves_the_connection_its_moment() {
        let line = line();
        line.busy(at(1));
        line.deadline(at(60));
        line.drain(at(2));
        line.answered(at(30));
        assert_eq!(line.due(), at(30) + DRAIN_IDLE);
        assert!(line.check(at(30)));
        assert_eq!(line.verdict(), Verdict::Open);
    }

    #[test]
    fn a_connection_that_speaks_only_after_the_drains_start_has_its_moment() {
        let end = "127.0.0.1:1".parse().unwrap();
        let line = Line::new(Arc::new(Connection::new(end, end)), TIMEOUTS, at(7));
        line.drain(at(2));
        assert_eq!(line.due(), at(7) + DRAIN_IDLE);
    }

    #[test]
    fn a_connection_to_be_closed_stays_open_for_a_stream_and_is_closed_soon_after_it() {
        let line = line();
        line.answered(at(1));
        line.drain(at(2));
        assert!(line.check(at(3)));
        assert_eq!((line.verdict(), line.due()), (Verdict::Close, at(3) + CUT_AFTER));
        line.carries();
        assert_eq!((line.verdict(), line.due()), (Verdict::Open, Timestamp::MAX));
        line.answered(at(50));
        assert_eq!(line.due(), at(50) + DRAIN_IDLE);
        assert!(line.check(at(51)));
        assert_eq!(line.verdict(), Verdict::Close);
        assert!(!line.check(at(52)), "now it is cut");
    }

    #[test]
    fn a_connection_that_leaves_has_as_long_as_in_a_drain() {
        let line = line();
        line.answered(at(0));
        assert!(line.check(at(75)));
        assert_eq!(line.verdict(), Verdict::Close);
        line.leaves(at(75));
        assert_eq!((line.verdict(), line.due()), (Verdict::Open, at(75) + DRAIN_IDLE));
    }

    #[test]
    fn draining_leaves_a_half_sent_head_its_time() {
        let line = line();
        line.bytes_read(1, || at(1));
        line.drain(at(2));
        assert_eq!(line.due(), at(11));
    }

    #[test]
    fn a_tunnel_has_no_deadline_until_draining_begins() {
        let line = line();
        line.busy(at(0));
        line.deadline(at(30));
        line.tunnel();
        assert!(line.check(at(1000)));
        assert_eq!(line.verdict(), Verdict::Open);
        line.drain(at(2000));
        assert_eq!(line.due(), at(2040));
        assert!(line.check(at(2040)));
        assert_eq!(line.verdict(), Verdict::PastDeadline);
        assert!(line.check(at(2041)) && !line.check(at(2042)), "now it is cut");
    }

    #[test]
    fn a_request_that_is_not_forwarded_has_as_long_as_its_head() {
        let line = line();
        line.busy(at(3));
        assert_eq!(line.due(), at(13));
        line.deadline(Timestamp::MAX);
        line.answers(at(50));
        assert_eq!(line.due(), at(60), "so has an answer in place of a backend's");
    }

    #[test]
    fn what_is_cut_stays_cut_though_a_stream_begins() {
        let line = line();
        line.answered(at(1));
        line.cut(at(2), Abort::Http2Flood);
        line.carries();
        assert_eq!(line.due(), at(2));
        assert!(line.check(at(2)));
        line.carries();
        assert!(line.check(at(2)), "it has a moment");
        assert!(!line.check(at(3)), "and no more, whatever begins");
    }
}
