//! Why and how a client connection is ended before its time.

use std::sync::atomic::Ordering::Relaxed;

use super::{CloseReason, ConnectionState, Phase};
use crate::exchange::outcome::Expired;
use crate::exchange::refusal::Abort;
use crate::time::Timestamp;

impl ConnectionState {
    /// What follows if something is due now.
    pub(crate) fn close_reason_at(&self, now: Timestamp) -> CloseReason {
        let is_cut = self.force_close_ns.load(Relaxed) <= now.as_nanos();
        if self.is(Phase::Idle) || (is_cut && self.is(Phase::ReadingHead)) {
            CloseReason::Idle
        } else if self.is(Phase::ReadingHead) {
            CloseReason::HeaderTimeout
        } else if is_cut {
            CloseReason::Forced
        } else if self.write_stall_ns.load(Relaxed) <= now.as_nanos() {
            CloseReason::WriteTimeout
        } else if self.response.has_started() {
            CloseReason::Forced
        } else {
            CloseReason::RequestTimeout
        }
    }

    /// The connection has to end, whatever it is doing. Only the first reason counts: whether this
    /// is the first.
    pub(crate) fn force_close(&self, now: Timestamp, reason: Abort) -> bool {
        let is_first = self.abort_reason.set(reason).is_ok();
        if is_first {
            self.force_close_ns.fetch_min(now.as_nanos(), Relaxed);
            self.wake();
        }
        is_first
    }

    /// Why it has to end, if it has to.
    pub(crate) fn abort_reason(&self) -> Option<Abort> {
        self.abort_reason.get().copied()
    }

    /// The limit that the request has exceeded, if it has.
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
