//! One worker process, as the life cycle sees it.

use std::time::Duration;

use super::event::Exit;
use super::{SavedWorker, WorkerId};
use crate::policy::watchdog::Watchdog;
use crate::time::Timestamp;

/// How long the system may take to end a process that was killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker whose link is closed may take until its process has exited.
const LINK_GRACE: Duration = Duration::from_secs(5);

/// Why a worker counts as hung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// It sent nothing for this long.
    Silent(Duration),
    /// This many of its data threads make no progress.
    DataThreads(u64),
}

/// Requests of one kind to one worker, and its responses. The link keeps their order and a worker
/// responds to each request once, so the number of a response is its place among them. A response that
/// comes after its time is thereby not taken for that of a later request.
///
/// The place is not sent along: workers of older versions reject a request that carries a number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Requests {
    sent: u64,
    acknowledged: u64,
}

impl Requests {
    pub(super) const fn record_request(&mut self) {
        self.sent += 1;
    }

    /// Returns whether it is the response to the newest request.
    pub(super) const fn record_response(&mut self) -> bool {
        if self.are_acknowledged() {
            return false; // nothing was requested
        }
        self.acknowledged += 1;
        self.are_acknowledged()
    }

    const fn are_acknowledged(&self) -> bool {
        self.acknowledged == self.sent
    }
}

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    started: Timestamp,
    /// How long it had lived when this image of the supervisor began.
    lived_before: Duration,
    /// Requests for its state.
    pub(super) handovers: Requests,
    /// Orders to send nothing more.
    quiesces: Requests,
    /// It was not ordered to send again since the newest of them.
    is_to_be_quiet: bool,
    killed: Option<Timestamp>,
    link_closed: Option<Timestamp>,
    exit: Option<Exit>,
    /// From its first heartbeat on.
    watchdog: Option<Watchdog>,
    hung_threads: u64,
    pub(super) overrides: OverrideProgress,
}

/// How far a worker is with the overrides that operators have set, by the versions of the list.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverrideProgress {
    sent: u64,
    /// `None`: it has not said so far that it knows overrides. Older versions never do.
    applied: Option<u64>,
}

impl OverrideProgress {
    pub(super) const fn is_known(self) -> bool {
        self.applied.is_some()
    }

    pub(super) const fn record_sent(&mut self, version: u64) {
        self.sent = version;
    }

    pub(super) fn record_applied(&mut self, version: u64) {
        self.applied = self.applied.max(Some(version));
    }

    /// Whether it was not sent this version yet.
    pub(super) const fn is_behind(self, newest: u64) -> bool {
        self.sent < newest
    }
}

impl Worker {
    pub(super) fn new(id: WorkerId, now: Timestamp) -> Self {
        Self {
            id,
            started: now,
            lived_before: Duration::ZERO,
            handovers: Requests::default(),
            quiesces: Requests::default(),
            is_to_be_quiet: false,
            killed: None,
            link_closed: None,
            exit: None,
            watchdog: None,
            hung_threads: 0,
            overrides: OverrideProgress::default(),
        }
    }

    /// A worker that was started by another image of this supervisor.
    pub(super) fn restore(
        saved: &SavedWorker,
        now: Timestamp,
        hang_timeout: Option<Duration>,
    ) -> Self {
        let hang_timeout = hang_timeout.filter(|_| saved.is_watched);
        Self {
            lived_before: saved.age,
            watchdog: hang_timeout.map(|timeout| Watchdog::new(timeout, now)),
            overrides: OverrideProgress { sent: 0, applied: saved.knows_overrides.then_some(0) },
            ..Self::new(saved.id, now)
        }
    }

    pub(super) fn save(&self, now: Timestamp) -> SavedWorker {
        SavedWorker {
            id: self.id,
            age: self.age(now),
            is_watched: self.watchdog.is_some(),
            knows_overrides: self.overrides.is_known(),
        }
    }

    pub(super) const fn id(&self) -> WorkerId {
        self.id
    }

    /// How long it has lived.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.started) + self.lived_before
    }

    pub(super) fn close_link(&mut self, now: Timestamp) {
        self.link_closed.get_or_insert(now);
    }

    pub(super) fn record_exit(&mut self, exit: Exit) {
        self.exit = Some(exit);
    }

    /// Whether its process runs, as far as we know, and was not killed. Once a process is
    /// reaped, its PID may have been reused.
    pub(super) const fn is_running(&self) -> bool {
        self.exit.is_none() && self.killed.is_none()
    }

    /// Whether messages reach it, as far as we know.
    pub(super) const fn is_link_open(&self) -> bool {
        self.link_closed.is_none()
    }

    pub(super) const fn is_reaped(&self) -> bool {
        self.exit.is_some()
    }

    /// How it exited, once its process is reaped *and* its link is closed: its last message may say
    /// why.
    pub(super) fn exited(&self) -> Option<&Exit> {
        self.exit.as_ref().filter(|_| self.link_closed.is_some())
    }

    pub(super) const fn record_kill(&mut self, now: Timestamp) {
        self.killed = Some(now);
    }

    pub(super) const fn request_quiesce(&mut self) {
        self.is_to_be_quiet = true;
        self.quiesces.record_request();
    }

    pub(super) const fn record_unquiesce(&mut self) {
        self.is_to_be_quiet = false;
    }

    pub(super) const fn record_quiesced(&mut self) {
        let _is_newest = self.quiesces.record_response();
    }

    /// Whether no message of it can be in flight. One that is reaped, and whose link is not read to its
    /// end yet, is waited for: the next image could not learn that it has exited.
    pub(super) const fn is_quiet(&self) -> bool {
        self.is_to_be_quiet && self.quiesces.are_acknowledged() && !self.is_reaped()
    }

    /// When the supervisor stops waiting for the exit of a killed worker that hangs in the kernel.
    pub(super) fn exit_deadline(&self) -> Option<Timestamp> {
        self.killed.filter(|_| self.exit.is_none()).map(|killed| killed + EXIT_TIMEOUT)
    }

    /// When the worker has to be killed because its link is closed, so no order can reach it.
    pub(super) fn link_deadline(&self) -> Option<Timestamp> {
        self.link_closed.filter(|_| self.is_running()).map(|closed| closed + LINK_GRACE)
    }

    /// It sent something, so it is alive.
    pub(super) const fn record_progress(&mut self, now: Timestamp) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.progress(now);
        }
    }

    /// Starts or restarts the watch. Older workers send no heartbeat and are not watched.
    pub(super) fn record_heartbeat(
        &mut self,
        hung_threads: u64,
        hang_timeout: Option<Duration>,
        now: Timestamp,
    ) {
        self.hung_threads = hung_threads;
        self.watchdog = hang_timeout.map(|timeout| Watchdog::new(timeout, now));
    }

    /// The hang of the worker, reported once: its watchdog is removed.
    pub(super) fn take_hang(&mut self, now: Timestamp) -> Option<Hang> {
        let watchdog = self.watchdog.as_mut()?;
        let hang = match (watchdog.is_hung(now), self.hung_threads) {
            (true, _) => Hang::Silent(watchdog.silent()),
            (false, 0) => return None,
            (false, threads) => Hang::DataThreads(threads),
        };
        self.watchdog = None;
        self.hung_threads = 0;
        Some(hang)
    }

    /// How long it has sent nothing, if that is suspicious but not long enough to replace it.
    pub(super) fn suspicious_silence(&self) -> Option<Duration> {
        self.watchdog.filter(Watchdog::is_suspect).map(|watchdog| watchdog.silent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn exit() -> Exit {
        Exit { clean: true, status: "exit code 0".to_owned() }
    }

    fn first_hang(worker: &mut Worker, until: u64) -> Option<(u64, Hang)> {
        (1..=until).find_map(|second| worker.take_hang(at(second)).map(|hang| (second, hang)))
    }

    #[test]
    fn a_worker_has_exited_once_it_is_reaped_and_its_link_is_closed_in_either_order() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        worker.record_exit(exit());
        assert_eq!(worker.exited(), None);
        worker.close_link(at(1));
        assert_eq!(worker.exited(), Some(&exit()));
        let mut other = Worker::new(WorkerId(2), at(0));
        other.close_link(at(1));
        assert_eq!(other.exited(), None);
        other.record_exit(exit());
        assert_eq!(other.exited(), Some(&exit()));
    }

    #[test]
    fn a_worker_whose_link_is_closed_has_a_deadline_until_it_is_reaped() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        assert_eq!(worker.link_deadline(), None);
        worker.close_link(at(3));
        worker.close_link(at(4));
        assert_eq!(worker.link_deadline(), Some(at(3) + LINK_GRACE));
        worker.record_exit(exit());
        assert_eq!(worker.link_deadline(), None);
    }

    #[test]
    fn the_exit_of_a_killed_worker_has_a_deadline_until_it_is_reaped() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        assert_eq!(worker.exit_deadline(), None);
        worker.record_kill(at(2));
        assert_eq!(worker.exit_deadline(), Some(at(2) + EXIT_TIMEOUT));
        worker.record_exit(exit());
        assert_eq!(worker.exit_deadline(), None);
    }

    #[test]
    fn a_response_belongs_to_the_oldest_request_that_has_none() {
        let mut requests = Requests::default();
        assert!(!requests.record_response(), "nothing was requested");
        requests.record_request();
        requests.record_request();
        assert!(!requests.record_response() && !requests.are_acknowledged());
        assert!(requests.record_response() && requests.are_acknowledged());
    }

    #[test]
    fn a_worker_is_quiet_once_it_has_acknowledged_every_order_and_until_it_sends_again() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        assert!(!worker.is_quiet(), "it never got the order");
        worker.request_quiesce();
        worker.record_unquiesce();
        worker.request_quiesce();
        worker.record_quiesced();
        assert!(!worker.is_quiet(), "that was the first order's");
        worker.record_quiesced();
        assert!(worker.is_quiet());
        worker.record_unquiesce();
        assert!(!worker.is_quiet());
    }

    #[test]
    fn a_reaped_worker_is_not_quiet_while_its_link_is_open() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        worker.request_quiesce();
        worker.record_quiesced();
        worker.record_exit(exit());
        assert!(!worker.is_quiet());
    }

    #[test]
    fn a_worker_that_never_sent_a_heartbeat_is_not_watched() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        worker.record_progress(at(1));
        assert_eq!(first_hang(&mut worker, 60), None);
    }

    #[test]
    fn a_silent_worker_hangs_once() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        worker.record_heartbeat(0, TIMEOUT, at(0));
        let hang = Hang::Silent(Duration::from_secs(10));
        assert_eq!(first_hang(&mut worker, 60), Some((10, hang)));
        assert_eq!(worker.take_hang(at(11)), None);
    }

    #[test]
    fn data_threads_that_hang_are_a_hang_at_once() {
        let mut worker = Worker::new(WorkerId(1), at(0));
        worker.record_heartbeat(2, TIMEOUT, at(0));
        assert_eq!(first_hang(&mut worker, 60), Some((1, Hang::DataThreads(2))));
    }

    #[test]
    fn age_goes_on_over_an_upgrade() {
        let worker = Worker::new(WorkerId(7), at(100));
        let saved = worker.save(at(130));
        let restored = Worker::restore(&saved, at(2), TIMEOUT);
        assert_eq!((restored.id(), restored.age(at(5))), (WorkerId(7), Duration::from_secs(33)));
        assert_eq!(restored.suspicious_silence(), None);
    }
}
