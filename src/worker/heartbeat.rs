//! Whether the data threads make progress, and how that is reported to the supervisor.
//!
//! The control thread sends a heartbeat at regular intervals. So a worker that is stopped, or whose
//! control thread is blocked, is silent. For the data threads it reads their runtime's counters:
//! a thread that sleeps waits for work and is well; one that is awake has to come past its counters
//! every few tasks. This costs the data threads nothing, and needs no idle thread.

use std::time::Duration;

use pingora_runtime::Runtime;
use tokio::runtime::RuntimeMetrics;

use crate::link::ToSupervisor;
use crate::policy::watchdog::Watchdog;
use crate::time::Timestamp;

/// The heartbeats of a worker.
#[derive(Default)]
pub(super) struct Heartbeat {
    timeout: Option<Duration>,
    runtime: Option<RuntimeMetrics>,
    threads: Vec<Thread>,
}

/// One data thread.
struct Thread {
    watchdog: Watchdog,
    seen: Counters,
}

/// What a thread has counted.
#[derive(PartialEq, Eq)]
struct Counters {
    /// Odd while the thread sleeps.
    parks_and_unparks: u64,
    busy: Duration,
}

impl Counters {
    fn read(runtime: &RuntimeMetrics, thread: usize) -> Self {
        Self {
            parks_and_unparks: runtime.worker_park_unpark_count(thread),
            busy: runtime.worker_total_busy_duration(thread),
        }
    }

    const fn is_asleep(&self) -> bool {
        self.parks_and_unparks % 2 == 1
    }
}

impl Heartbeat {
    /// Watches the threads that serve requests.
    pub(super) fn watch(&mut self, data: &Runtime) {
        self.runtime = Some(data.get_handle().metrics());
        self.threads.clear();
    }

    /// The threads that serve requests are about to end.
    pub(super) fn unwatch(&mut self) {
        self.runtime = None;
        self.threads.clear();
    }

    /// How long silence may last, as the supervisor says; with `None` there are no heartbeats.
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) {
        if self.timeout == timeout {
            return;
        }
        self.timeout = timeout;
        self.threads.clear();
    }

    /// How long silence may last; `None`: there are no heartbeats.
    pub(super) const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The heartbeat that is due now.
    pub(super) fn beat(&mut self, now: Timestamp) -> ToSupervisor {
        let hung_threads = self.hung_threads(now);
        ToSupervisor::Heartbeat { hung_threads: u64::try_from(hung_threads).unwrap_or(u64::MAX) }
    }

    fn hung_threads(&mut self, now: Timestamp) -> usize {
        let (Some(timeout), Some(runtime)) = (self.timeout, &self.runtime) else { return 0 };
        let counters = (0..runtime.num_workers()).map(|thread| Counters::read(runtime, thread));
        if self.threads.is_empty() {
            let watchdog = Watchdog::new(timeout, now);
            self.threads = counters.map(|seen| Thread { watchdog, seen }).collect();
            return 0;
        }
        let looked_at = self.threads.iter_mut().zip(counters);
        looked_at.filter_map(|(thread, found)| thread.is_hung(found, now).then_some(())).count()
    }
}

impl Thread {
    fn is_hung(&mut self, found: Counters, now: Timestamp) -> bool {
        if found.is_asleep() || found != self.seen {
            self.watchdog.progress(now);
        }
        self.seen = found;
        self.watchdog.is_hung(now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use pingora_runtime::RuntimeBuilder;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Blocks one thread of a runtime until the sender is dropped.
    fn block_one(runtime: &Runtime) -> Sender<()> {
        let (release, released) = channel::<()>();
        let (started, has_started) = channel();
        drop(runtime.get_handle().spawn(async move {
            started.send(()).unwrap();
            assert!(released.recv().is_err());
        }));
        has_started.recv().unwrap();
        release
    }

    /// Heartbeats, one a second; the first that reports hung threads, and how many.
    fn first_hang(heartbeat: &mut Heartbeat, from: u64, to: u64) -> Option<(u64, usize)> {
        (from..=to).find_map(|second| {
            let now = Timestamp::ZERO + Duration::from_secs(second);
            let hung = heartbeat.hung_threads(now);
            (hung > 0).then_some((second, hung))
        })
    }

    fn watching(runtime: &Runtime) -> Heartbeat {
        let mut heartbeat = Heartbeat { timeout: Some(TIMEOUT), ..Heartbeat::default() };
        heartbeat.watch(runtime);
        heartbeat
    }

    /// Waits until this many threads sleep: new ones fall asleep by themselves, but not at once.
    fn until_asleep(runtime: &Runtime, count: usize) {
        let metrics = runtime.get_handle().metrics();
        let sleeps = |thread: &usize| Counters::read(&metrics, *thread).is_asleep();
        while (0..metrics.num_workers()).filter(sleeps).count() < count {
            std::thread::yield_now();
        }
    }

    fn runtime(threads: usize) -> Runtime {
        RuntimeBuilder::new(threads, "test").work_steal(threads > 1).build()
    }

    #[test]
    fn a_blocked_thread_is_hung_after_the_timeout_whatever_the_others_do() {
        for threads in [1, 2] {
            let runtime = runtime(threads);
            let release = block_one(&runtime);
            until_asleep(&runtime, threads - 1);
            let mut heartbeat = watching(&runtime);
            // The first heartbeat notes where the counters are.
            assert_eq!(first_hang(&mut heartbeat, 0, 60), Some((10, 1)), "of {threads} threads");
            drop(release);
            runtime.shutdown_timeout(TIMEOUT);
        }
    }

    #[test]
    fn threads_that_wait_for_work_are_never_hung() {
        for threads in [1, 2] {
            let runtime = runtime(threads);
            let mut heartbeat = watching(&runtime);
            until_asleep(&runtime, threads);
            assert_eq!(first_hang(&mut heartbeat, 0, 3600), None, "of {threads} threads");
            runtime.shutdown_timeout(TIMEOUT);
        }
    }

    #[test]
    fn a_thread_that_is_released_is_well_again() {
        let runtime = runtime(1);
        let release = block_one(&runtime);
        let mut heartbeat = watching(&runtime);
        assert_eq!(first_hang(&mut heartbeat, 0, 9), None);
        drop(release);
        until_asleep(&runtime, 1);
        assert_eq!(first_hang(&mut heartbeat, 10, 60), None);
        runtime.shutdown_timeout(TIMEOUT);
    }
}
