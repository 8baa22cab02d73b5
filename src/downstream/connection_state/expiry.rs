//! Why and how a client connection is ended before its time.

use std::sync::atomic::Ordering::Relaxed;

use super::{Line, Phase, Verdict};
use crate::exchange::outcome::Expired;
use crate::exchange::refusal::Abort;
use crate::time::Timestamp;

impl Line {
    /// What follows if something is due now.
    pub(crate) fn verdict_at(&self, now: Timestamp) -> Verdict {
        let is_cut = self.cut_ns.load(Relaxed) <= now.as_nanos();
        if self.is(Phase::Idle) || (is_cut && self.is(Phase::Head)) {
            Verdict::Close
        } else if self.is(Phase::Head) {
            Verdict::HeadTimeout
        } else if is_cut {
            Verdict::Abort
        } else if self.write_due_ns.load(Relaxed) <= now.as_nanos() {
            Verdict::Stalled
        } else if self.response.has_started() {
            Verdict::Abort
        } else {
            Verdict::PastDeadline
        }
    }

    /// The connection has to end, whatever it is doing. Only the first reason counts: whether this
    /// is the first.
    pub(crate) fn cut(&self, now: Timestamp, reason: Abort) -> bool {
        let is_first = self.abort.set(reason).is_ok();
        if is_first {
            self.cut_ns.fetch_min(now.as_nanos(), Relaxed);
            self.wake();
        }
        is_first
    }

    /// Why it has to end, if it has to.
    pub(crate) fn abort(&self) -> Option<Abort> {
        self.abort.get().copied()
    }

    /// The limit that the request has exceeded, if it has.
    pub(crate) fn expired(&self) -> Option<Expired> {
        match self.verdict() {
            Verdict::Open | Verdict::Close | Verdict::HeadTimeout => {
                self.abort().map(Expired::Connection)
            }
            Verdict::Stalled => Some(Expired::WriteRate),
            Verdict::PastDeadline | Verdict::Abort => {
                Some(self.abort().map_or(Expired::Deadline, Expired::Connection))
            }
        }
    }
}
