//! The exit of a worker: what still runs is stopped, and the last lines of both logs are written.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::admin_port::AdminPort;
use super::services::Running;
use super::{FLUSH_MAX, WorkerError};
use crate::access_log::AccessLogWriter;
use crate::clock::Clock;
use crate::log::Log;

/// How long the data threads may take to drop what has not ended.
const DROP_MAX: Duration = Duration::from_millis(500);
/// The least time for the program log, however long the access log took.
const LOG_FLUSH_MIN: Duration = Duration::from_millis(100);

/// What runs until the end.
#[derive(Default)]
pub(super) struct Services {
    /// What accepts connections, from the take-over on.
    pub(super) data: Option<Running>,
    pub(super) admin: AdminPort,
    /// Health checks and lookups of names.
    pub(super) background: Option<Running>,
}

impl Services {
    fn end(self) {
        if let Some(data) = self.data {
            // A request that is dropped here is logged and counted like any other.
            data.stop(DROP_MAX);
        }
        self.admin.stop(FLUSH_MAX);
        if let Some(background) = self.background {
            background.stop(Duration::ZERO);
        }
    }
}

/// Waits until the last connection is closed.
pub(super) async fn drained(services: &mut Services) {
    if let Some(data) = &mut services.data {
        data.drained().await;
    }
}

/// How the worker ends.
pub(super) struct Shutdown {
    /// Both logs, until they are stopped.
    logs: Option<(AccessLogWriter, Log)>,
    /// From the stop of the services to its result.
    stopped: Option<oneshot::Receiver<u64>>,
    log_lost: u64,
    pub(super) result: Result<(), WorkerError>,
}

impl Shutdown {
    pub(super) const fn new(access_log: AccessLogWriter, log: Log) -> Self {
        Self { logs: Some((access_log, log)), stopped: None, log_lost: 0, result: Ok(()) }
    }

    /// The first error is the result.
    pub(super) fn record_error(&mut self, error: WorkerError) {
        if self.result.is_ok() {
            self.result = Err(error);
        }
    }

    /// How many lines of the log were lost without a report in the log.
    pub(super) const fn log_lost(&self) -> u64 {
        self.log_lost
    }

    /// Stops everything, on a thread of its own, because the control thread may not wait for a log.
    pub(super) fn start(&mut self, services: Services) {
        let Some((access_log, log)) = self.logs.take() else { return };
        let (done, stopped) = oneshot::channel();
        self.stopped = Some(stopped);
        let end = move || {
            services.end();
            // The receiver is gone if the process exits for another reason.
            let _unheard = done.send(flush(access_log, &log));
        };
        // Without it, what is left ends with the process.
        if let Err(error) = thread::Builder::new().name("end".to_owned()).spawn(end) {
            log::warn!("the last lines are not waited for: error=\"{error}\"");
        }
    }

    /// Waits until everything has stopped. Meanwhile the supervisor may replace itself, and must neither
    /// wait for this worker nor lose its last message.
    pub(super) async fn services_stopped(&mut self) {
        let Some(stopped) = &mut self.stopped else { return std::future::pending().await };
        self.log_lost = stopped.await.unwrap_or_default();
        self.stopped = None;
    }
}

fn flush(access_log: AccessLogWriter, log: &Log) -> u64 {
    let clock = Clock::process();
    let end = clock.now() + FLUSH_MAX;
    if !access_log.stop(FLUSH_MAX) {
        log::warn!("access log: its last lines could not be written in time");
    }
    log.stop(end.since(clock.now()).max(LOG_FLUSH_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shutdown(stopped: Option<oneshot::Receiver<u64>>) -> Shutdown {
        Shutdown { logs: None, stopped, log_lost: 0, result: Ok(()) }
    }

    #[test]
    fn the_first_error_is_the_result_of_the_worker() {
        let mut shutdown = shutdown(None);
        shutdown.record_error(WorkerError::ForcedStop(1));
        shutdown.record_error(WorkerError::ForcedStop(2));
        assert!(matches!(shutdown.result, Err(WorkerError::ForcedStop(1))));
    }

    #[tokio::test]
    async fn the_end_of_the_services_is_reported_once_with_the_lost_lines() {
        let (done, stopped) = oneshot::channel();
        let mut shutdown = shutdown(Some(stopped));
        done.send(3).unwrap();
        shutdown.services_stopped().await;
        assert_eq!(shutdown.log_lost(), 3);
        let again = std::pin::pin!(shutdown.services_stopped());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(again.poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn a_thread_that_dies_while_it_stops_the_services_ends_the_wait() {
        let (done, stopped) = oneshot::channel::<u64>();
        let mut shutdown = shutdown(Some(stopped));
        drop(done);
        shutdown.services_stopped().await;
        assert_eq!(shutdown.log_lost(), 0);
    }
}
