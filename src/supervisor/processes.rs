//! The processes that the supervisor has started.

use std::collections::BTreeMap;

use rustix::process::Pid;

use super::child::{Child, SendError};
use super::compatibility::CompatibilityCheck;
use super::program::Image;
use super::{Values, memory};
use crate::lifecycle::{Binary, Event, Hang, KillReason, Memory, WorkerEvent, WorkerId};
use crate::link::{DrainReport, ToWorker};
use crate::time::whole_millis;

/// The processes that the supervisor has started.
#[derive(Default)]
pub(super) struct Processes {
    /// The workers.
    pub(super) workers: BTreeMap<WorkerId, Child>,
    /// The one that checks the binary on disk.
    pub(super) check: Option<CompatibilityCheck>,
    /// The binary of the last worker that served.
    last_served: Option<Image>,
}

impl Processes {
    /// Sends a message. Returns what the life cycle has to know of a worker that does not read.
    pub(super) fn send(&mut self, worker: WorkerId, message: &ToWorker) -> Option<Event<Values>> {
        match self.workers.get_mut(&worker)?.send(message) {
            Ok(()) => None,
            // It is about to be reaped.
            Err(SendError::Gone) => None,
            Err(SendError::TimedOut) => Some(Event::Worker(worker, WorkerEvent::SendTimedOut)),
        }
    }

    /// Ends a worker at once and logs why.
    pub(super) fn kill(&self, worker: WorkerId, reason: &KillReason) {
        let Some(child) = self.workers.get(&worker) else { return };
        let (connections, pid) = (child.connections, child.pid());
        match reason {
            KillReason::NotNeeded => {}
            KillReason::DrainTimeout => {
                log::warn!("worker killed, it did not drain: generation={worker}");
            }
            KillReason::TooManyDraining { max } => log::warn!(
                "worker ended, too many drain: generation={worker} connections={connections} \
                 most={max} (help: raise shutdown.draining_workers)"
            ),
            KillReason::MemoryShort { available, wanted } => log::warn!(
                "worker ended, too little memory for another one: generation={worker} \
                 connections={connections} available_bytes={available} wanted_bytes={wanted} (help: \
                 allow more memory, reload less often, or lower shutdown.drain)"
            ),
            KillReason::Hung(Hang::Silent(silent)) => log::error!(
                "worker killed, it hangs: generation={worker} pid={pid} silent={:?} \
                 (help: --hang-timeout says how long it may be silent)",
                whole_millis(*silent)
            ),
            KillReason::Hung(Hang::DataThreads(threads)) => log::error!(
                "worker killed, data threads hang: generation={worker} pid={pid} \
                 threads={threads} (help: --hang-timeout says how long they may be)"
            ),
            KillReason::SendTimedOut => {
                log::error!("worker killed, it does not listen: generation={worker}");
            }
            KillReason::LinkLost => log::error!(
                "worker killed, its link is closed and it did not exit: generation={worker} pid={pid}"
            ),
        }
        child.kill();
    }

    /// Sends what a draining worker counted. A report that was not sent comes back.
    pub(super) fn send_report(
        &mut self,
        worker: WorkerId,
        report: Box<DrainReport>,
    ) -> Option<Event<Values>> {
        let message = ToWorker::AddCounts(report);
        let child = self.workers.get_mut(&worker);
        let sent = child.map_or(Err(SendError::Gone), |child| child.send(&message));
        let (Err(error), ToWorker::AddCounts(report)) = (sent, message) else { return None };
        let timed_out = error == SendError::TimedOut;
        Some(Event::Worker(worker, WorkerEvent::ReportNotSent { report, timed_out }))
    }

    /// Remembers the binary of a worker that serves.
    pub(super) fn keep_binary(&mut self, worker: WorkerId) {
        self.last_served = self.workers.get(&worker).map(Child::image);
    }

    /// The binary to start a worker from.
    pub(super) fn image(&self, binary: Binary) -> Image {
        match binary {
            Binary::OnDisk => Image::OnDisk,
            Binary::Running => Image::Running,
            Binary::LastServed => self.last_served.clone().unwrap_or(Image::Running),
        }
    }

    /// Ends the check of the binary on disk, if one runs.
    pub(super) fn cancel_check(&mut self) {
        if let Some(check) = self.check.take() {
            check.kill();
        }
    }

    /// Takes into account that a child was reaped. Returns the worker that it was.
    pub(super) fn record_reaped(&mut self, pid: Pid) -> Option<WorkerId> {
        if let Some(check) = &mut self.check {
            check.record_reaped(pid);
        }
        self.workers.iter().find(|(_, child)| child.pid() == pid).map(|(worker, _)| *worker)
    }

    /// The memory of each worker, and what is left.
    pub(super) fn measure_memory(&self) -> Memory {
        let resident = self.workers.iter();
        let resident = resident.map(|(worker, child)| (*worker, child.resident_bytes()));
        Memory { available: memory::available(), resident: resident.collect() }
    }
}
