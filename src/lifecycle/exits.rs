//! Workers that hang and exit, and what follows from it.

use log::Level;

use super::candidate::Candidate;
use super::command::{Command, KillReason};
use super::event::Exit;
use super::service::{Phase, Service};
use super::worker::Worker;
use super::workers::Removed;
use super::{Payload, WorkerId};
use crate::time::whole_millis;

impl<P: Payload> Service<P> {
    pub(super) fn on_heartbeat(&mut self, id: WorkerId, hung_threads: u64) {
        let (now, timeout) = (self.now, self.settings.hang_timeout);
        let worker = self.workers.watched_mut().find(|worker| worker.id() == id);
        if let Some(worker) = worker.filter(|worker| worker.is_running()) {
            worker.record_heartbeat(hung_threads, timeout, now);
        }
    }

    /// Kills workers that hang, and replaces the one that should serve.
    pub(super) fn kill_hung_workers(&mut self) {
        let now = self.now;
        let hang = |worker: &mut Worker| worker.take_hang(now).map(|hang| (worker.id(), hang));
        let hung: Vec<_> = self.workers.watched_mut().filter_map(hang).collect();
        for (id, hang) in &hung {
            self.counters.hangs += 1;
            self.kill(*id, KillReason::Hung(*hang));
            if !self.workers.is_current(*id) {
                continue;
            }
            if let Phase::Stopping(stop) = &mut self.phase {
                stop.has_aborted = true;
            } else if let Some(worker) = self.workers.current.take() {
                // Its exit is not waited for: a process that hangs in the kernel cannot be reaped.
                self.on_current_lost(&worker, "killed, it hung");
                self.workers.discarded.push(worker);
            }
        }
        if !hung.is_empty() {
            self.commands.push(Command::PublishStats);
        }
    }

    /// Kills the worker that serves if its link is closed and its process did not exit in time.
    pub(super) fn kill_disconnected_worker(&mut self) {
        let now = self.now;
        let lost = self
            .workers
            .current
            .as_ref()
            .filter(|current| current.link_deadline().is_some_and(|deadline| deadline <= now));
        if let Some(id) = lost.map(Worker::id) {
            self.kill(id, KillReason::LinkLost);
        }
    }

    pub(super) fn reconcile_exit(&mut self, id: WorkerId) {
        if let Some(exit) = self.workers.exit_of(id) {
            self.commands.push(Command::Release(id));
            let _exited = self.remove(id, &exit);
        }
    }

    /// Does without workers that were killed and do not exit: a process that hangs in the kernel cannot
    /// be reaped.
    pub(super) fn abandon_killed_workers(&mut self) {
        let now = self.now;
        let is_late = |worker: &&Worker| worker.exit_deadline().is_some_and(|at| at <= now);
        let late: Vec<WorkerId> = self.workers.all().filter(is_late).map(Worker::id).collect();
        for id in late {
            let message = format!(
                "worker does not exit, though it was killed: generation={id} (help: it hangs in the \
                 kernel; look at its disks and network file systems)"
            );
            self.log(Level::Error, message);
            let exit = Exit { clean: false, status: "killed, and did not exit".to_owned() };
            if let Some(worker) = self.remove(id, &exit) {
                self.workers.discarded.push(worker);
            }
        }
    }

    /// Takes a worker out, and does what follows from its exit.
    fn remove(&mut self, id: WorkerId, exit: &Exit) -> Option<Worker> {
        match self.workers.take(id)? {
            Removed::Current(worker) => {
                self.on_current_exit(&worker, exit);
                Some(worker)
            }
            Removed::Candidate(candidate) => {
                let why = format!("the new worker ended: {}", exit.status);
                let (worker, gone) = candidate.give_up(exit.clean, why);
                self.on_candidate_gone(gone);
                Some(worker)
            }
            Removed::Draining(worker) => {
                if let Phase::Stopping(stop) = &mut self.phase {
                    stop.has_aborted |= !exit.clean;
                }
                self.commands.push(Command::PublishStats);
                Some(worker)
            }
            Removed::Discarded => None,
        }
    }

    fn on_current_exit(&mut self, worker: &Worker, exit: &Exit) {
        if let Phase::Stopping(stop) = &mut self.phase {
            stop.has_aborted |= !exit.clean;
        } else {
            self.on_current_lost(worker, &exit.status);
        }
    }

    /// The worker that served is gone, and was not asked to go: it is replaced.
    fn on_current_lost(&mut self, worker: &Worker, status: &str) {
        let (id, lived) = (worker.id(), worker.age(self.now));
        self.log(
            Level::Error,
            format!(
                "worker died: generation={id} lived={:?} status=\"{status}\"",
                whole_millis(lived)
            ),
        );
        self.counters.restarts += 1;
        self.commands.push(Command::ForgetInFlight);
        self.restart.worker_died(lived);
        // A successor that is warm takes over by the last checkpoint. One that still warms up may
        // take its time: it is not waited for.
        self.activate_waiting();
        if !self.workers.candidates().any(Candidate::is_taking_over) {
            self.restart.schedule(self.now);
        }
        self.postpone_upgrade();
    }
}
