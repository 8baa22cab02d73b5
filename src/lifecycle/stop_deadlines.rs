//! What has to happen by when in a stop, and what a further signal means.

use std::time::Duration;

use super::drain::DRAIN_GRACE;
use crate::config::Shutdown;
use crate::time::Timestamp;

/// How long a worker that was ordered to stop at once may take before it is killed.
const ABORT_GRACE: Duration = Duration::from_secs(4);
/// For how long after a stop has begun a further signal still belongs to the first: `timeout` and
/// process groups deliver the same stop twice within a moment.
const STOP_REPEAT: Duration = Duration::from_millis(500);

/// A stop that has begun.
#[derive(Debug)]
pub(super) struct Stop<R> {
    /// From when on a further signal ends everything at once.
    force_from: Timestamp,
    /// When our copies of the sockets are closed. From then on no connection waits for an accept
    /// that will not come.
    close_at: Option<Timestamp>,
    /// When workers that have not exited are killed.
    kill_at: Option<Timestamp>,
    /// The workers were ordered to stop at once.
    is_forced: bool,
    /// A worker was killed or failed, or a second signal ended requests by force.
    pub(super) has_aborted: bool,
    /// What a worker reported about it.
    pub(super) why: Option<String>,
    /// Clients that wait for the end.
    pub(super) waiting: Vec<R>,
}

/// What a further signal means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repeated {
    /// Nothing: the stop has just begun.
    Ignored,
    /// Workers have to abort what is in flight.
    StopNow,
    /// Workers are killed.
    Kill,
}

impl<R> Stop<R> {
    /// A stop of workers that have these settings.
    pub(super) fn new(settings: impl Iterator<Item = Shutdown>, now: Timestamp) -> Self {
        let (mut pre_stop, mut drain) = (Duration::ZERO, Duration::ZERO);
        for shutdown in settings {
            pre_stop = pre_stop.max(shutdown.pre_stop);
            drain = drain.max(shutdown.longest());
        }
        let close_at = now + pre_stop;
        Self {
            force_from: now + STOP_REPEAT,
            close_at: Some(close_at),
            kill_at: Some(close_at + drain + DRAIN_GRACE),
            is_forced: false,
            has_aborted: false,
            why: None,
            waiting: Vec::new(),
        }
    }

    /// A further signal came. Workers log what they abort; what does not end in time is killed.
    pub(super) fn repeat(&mut self, now: Timestamp) -> Repeated {
        if now < self.force_from {
            return Repeated::Ignored;
        }
        self.has_aborted = true;
        self.kill_at = self.kill_at.map(|at| at.min(now + ABORT_GRACE));
        self.force_from = now + STOP_REPEAT;
        if std::mem::replace(&mut self.is_forced, true) {
            Repeated::Kill
        } else {
            Repeated::StopNow
        }
    }

    /// Whether the sockets are to be closed now. It is said once.
    pub(super) fn take_close(&mut self, now: Timestamp) -> bool {
        self.close_at.take_if(|at| *at <= now).is_some()
    }

    /// Whether the workers are to be killed now. It is said once.
    pub(super) fn take_kill(&mut self, now: Timestamp) -> bool {
        let is_due = self.kill_at.take_if(|at| *at <= now).is_some();
        self.has_aborted |= is_due;
        is_due
    }

    /// When workers that have not exited are killed; `None`: they were.
    pub(super) const fn kill_at(&self) -> Option<Timestamp> {
        self.kill_at
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.close_at.into_iter().chain(self.kill_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn settings(pre_stop: u64, drain: u64, tunnels: u64) -> Shutdown {
        let seconds = Duration::from_secs;
        Shutdown {
            pre_stop: seconds(pre_stop),
            drain: seconds(drain),
            tunnels: seconds(tunnels),
            draining_workers: std::num::NonZeroUsize::MIN,
        }
    }

    fn stop(pre_stop: u64, drain: u64) -> Stop<()> {
        Stop::new([settings(pre_stop, drain, 0)].into_iter(), at(0))
    }

    #[test]
    fn sockets_close_after_pre_stop_and_workers_are_killed_after_the_drain() {
        let mut stop = stop(2, 30);
        assert_eq!(stop.deadline(), Some(at(2_000)));
        assert!(!stop.take_close(at(1_999)) && stop.take_close(at(2_000)));
        assert!(!stop.take_close(at(3_000)), "it is said once");
        assert_eq!(stop.deadline(), Some(at(37_000)));
        assert!(!stop.take_kill(at(36_999)) && !stop.has_aborted);
        assert!(stop.take_kill(at(37_000)) && stop.has_aborted);
        assert_eq!(stop.deadline(), None);
    }

    #[test]
    fn of_two_configurations_the_longer_times_hold() {
        let both = [settings(2, 30, 60), settings(5, 10, 0)];
        let stop: Stop<()> = Stop::new(both.into_iter(), at(0));
        assert_eq!((stop.deadline(), stop.kill_at()), (Some(at(5_000)), Some(at(70_000))));
    }

    #[test]
    fn the_same_stop_delivered_twice_is_one_stop() {
        let mut stop = stop(0, 30);
        assert_eq!(stop.repeat(at(499)), Repeated::Ignored);
        assert!(!stop.has_aborted);
    }

    #[test]
    fn a_second_signal_aborts_and_a_third_kills() {
        let mut stop = stop(0, 30);
        assert_eq!(stop.repeat(at(1_000)), Repeated::StopNow);
        assert_eq!(stop.kill_at(), Some(at(5_000)));
        assert_eq!(stop.repeat(at(1_100)), Repeated::Ignored);
        assert_eq!(stop.repeat(at(1_500)), Repeated::Kill);
        assert!(stop.has_aborted);
    }
}
