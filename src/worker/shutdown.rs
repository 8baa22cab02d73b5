//! The exit of a worker: what still runs is stopped, and the last lines of both logs are written.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::FLUSH_MAX;
use super::admin_port::AdminPort;
use super::lifecycle::Lifecycle;
use super::reports::DrainReporter;
use super::services::Running;
use crate::access_log::Writer;
use crate::clock::Clock;
use crate::exchange::refusal::Abort;
use crate::link::{DrainReport, ToSupervisor, ToWorker};
use crate::log::Log;

/// How long requests may take to end, and be logged, once the worker was ordered to stop at once.
const ABORT_MAX: Duration = Duration::from_millis(1500);
/// How long the data threads may take to drop what has not ended.
const DROP_MAX: Duration = Duration::from_millis(500);
/// The least time for the program log, however long the access log took.
const LOG_FLUSH_MIN: Duration = Duration::from_millis(100);

/// What runs until the end.
pub(super) struct Services {
    pub(super) data: Option<Running>,
    pub(super) admin: AdminPort,
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

impl Lifecycle<'_> {
    /// Sends a report, unless the worker is to send nothing: then it is sent later.
    pub(super) fn report(&mut self, report: fn(&mut DrainReporter) -> DrainReport) {
        if self.quiesced {
            return;
        }
        if let Some(report) = self.reporter.as_mut().map(report) {
            self.send(&ToSupervisor::Draining(Box::new(report), self.open()));
        }
    }

    /// Aborts every request, and waits until all are logged, though not for long.
    pub(super) async fn abort(&self, data: &mut Running) {
        log::warn!("requests aborted: connections={}", self.open());
        self.components.connections.abort(self.components.proxy.clock.now(), Abort::ForcedStop);
        if tokio::time::timeout(ABORT_MAX, data.drained()).await.is_err() {
            log::warn!("connections did not end: connections={}", self.open());
        }
    }

    /// Takes what still runs, to be stopped: it had its time.
    pub(super) fn take_services(&mut self) -> Services {
        self.heartbeat.unwatch();
        Services {
            data: self.data_service.take(),
            admin: std::mem::take(&mut self.admin_port),
            background: self.background.take(),
        }
    }

    /// Waits until everything has stopped; returns its result. Meanwhile the supervisor may replace
    /// itself, and must neither wait for us nor lose our last message.
    pub(super) async fn await_end(
        &mut self,
        mut ended: oneshot::Receiver<u64>,
        orders: &mut UnboundedReceiver<ToWorker>,
    ) -> u64 {
        let (mut unreported, mut orders_open) = (None, true);
        while unreported.is_none() || self.quiesced {
            tokio::select! {
                () = self.heartbeat.due() => self.beat(),
                ended = &mut ended, if unreported.is_none() => {
                    unreported = Some(ended.unwrap_or_default());
                }
                order = orders.recv(), if orders_open => match order {
                    Some(ToWorker::Quiesce) => self.quiesce(),
                    Some(ToWorker::Unquiesce) => self.unquiesce(),
                    Some(_) => {}
                    None => {
                        orders_open = false;
                        self.unquiesce();
                    }
                },
            }
        }
        unreported.unwrap_or_default()
    }

    /// The last messages: what was counted after the drain, and how many lines of the log are lost
    /// without a report in the log.
    pub(super) fn report_log_losses(&mut self, unreported: u64) {
        self.report(DrainReporter::last_report);
        if unreported > 0 {
            self.send(&ToSupervisor::LogLost(unreported));
        }
    }
}

/// Stops everything, on a thread of its own, because the control thread may not wait for a log. The
/// result is the number of lines that were lost without a report in the log.
pub(super) fn begin(services: Services, access_log: Writer, log: Log) -> oneshot::Receiver<u64> {
    let (done, ended) = oneshot::channel();
    let end = move || {
        services.end();
        // The receiver is gone if the process exits for another reason.
        let _unheard = done.send(flush(access_log, &log));
    };
    // Without it, what is left ends with the process.
    if let Err(error) = thread::Builder::new().name("end".to_owned()).spawn(end) {
        log::warn!("the last lines are not waited for: error=\"{error}\"");
    }
    ended
}

fn flush(access_log: Writer, log: &Log) -> u64 {
    let clock = Clock::process();
    let end = clock.now() + FLUSH_MAX;
    if !access_log.stop(FLUSH_MAX) {
        log::warn!("access log: its last lines could not be written in time");
    }
    log.stop(end.since(clock.now()).max(LOG_FLUSH_MIN))
}
