//! The deadlines of a client connection, and what follows when one has passed.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{CloseReason, ConnectionState, DRAIN_IDLE, Direction, Phase};
use crate::exchange::outcome::Expired;
use crate::exchange::refusal::Abort;
use crate::time::Timestamp;

/// How long a request past its deadline has to end with a response. Then the connection is closed.
pub(super) const FORCE_CLOSE_AFTER: Duration = Duration::from_secs(1);

impl ConnectionState {
    /// When [`ConnectionState::on_timer`] has to be called next.
    pub(crate) fn next_deadline(&self) -> Timestamp {
        let force_close_ns = self.force_close_ns.load(Relaxed);
        let due = Timestamp::from_nanos(self.deadline_ns.load(Relaxed).min(force_close_ns));
        // With a reason to close set, `deadline_ns` is the end of the grace period.
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
                due.min(Timestamp::from_nanos(slow_ns)).min(self.attempt.check_at())
            }
            _ => due,
        }
    }

    /// A deadline may have passed. Returns `false` once the connection must be closed without
    /// delay.
    pub(crate) fn on_timer(&self, now: Timestamp) -> bool {
        self.check_attempt(now);
        if now < self.next_deadline() {
            return true;
        }
        let reason = match self.close_reason() {
            None => self.close_reason_at(now),
            // The grace period for a local 504 or 408 response has passed as well.
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

    /// If a check is due, checks whether the current attempt has to be moved to another backend. Then
    /// its time is over.
    fn check_attempt(&self, now: Timestamp) {
        if now < self.attempt.check_at() {
            return;
        }
        let may_move = self.is(Phase::InRequest)
            && self.close_reason().is_none()
            && now.as_nanos() < self.deadline_ns.load(Relaxed);
        if self.attempt.check(may_move, now) {
            self.deadline_ns.fetch_min(now.as_nanos(), Relaxed);
        }
    }

    /// The reason for the close, given that a deadline has passed.
    pub(crate) fn close_reason_at(&self, now: Timestamp) -> CloseReason {
        let is_forced = self.force_close_ns.load(Relaxed) <= now.as_nanos();
        if self.is(Phase::Idle) || (is_forced && self.is(Phase::ReadingHead)) {
            CloseReason::Idle
        } else if self.is(Phase::ReadingHead) {
            CloseReason::HeaderTimeout
        } else if is_forced {
            CloseReason::Forced
        } else if self.write_stall_ns.load(Relaxed) <= now.as_nanos() {
            CloseReason::WriteTimeout
        } else if self.response.has_started() {
            CloseReason::Forced
        } else {
            CloseReason::RequestTimeout
        }
    }

    /// Closes the connection by force, in whatever phase it is. Only the first reason counts;
    /// returns whether this is the first.
    pub(crate) fn force_close(&self, now: Timestamp, reason: Abort) -> bool {
        let is_first = self.abort_reason.set(reason).is_ok();
        if is_first {
            self.force_close_ns.fetch_min(now.as_nanos(), Relaxed);
            self.wake();
        }
        is_first
    }

    /// Why the connection is closed by force, if it is.
    pub(crate) fn abort_reason(&self) -> Option<Abort> {
        self.abort_reason.get().copied()
    }

    /// Whether every write to the client must fail from now on.
    pub(crate) fn must_fail_writes(&self) -> bool {
        matches!(self.close_reason(), Some(CloseReason::WriteTimeout | CloseReason::Forced))
    }

    /// The limit that the request has exceeded, if any.
    pub(crate) fn expired(&self) -> Option<Expired> {
        match self.close_reason() {
            None | Some(CloseReason::Idle | CloseReason::HeaderTimeout) => {
                self.abort_reason().map(Expired::Connection)
            }
            Some(CloseReason::WriteTimeout) => Some(Expired::WriteRate),
            Some(CloseReason::RequestTimeout | CloseReason::Forced) => {
                Some(self.abort_reason().map_or(Expired::Deadline, Expired::Connection))
            }
        }
    }
}
