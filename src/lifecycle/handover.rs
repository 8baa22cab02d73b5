//! How one worker takes over from another, which drains.

use std::sync::Arc;

use log::Level;

use super::candidate::{Candidate, Gone, Late, Purpose, Step};
use super::command::{Command, Failure, KillReason, Order};
use super::drain::{DRAIN_GRACE, Draining, excess};
use super::event::{Memory, WorkerEvent};
use super::operator::{AppliedList, OperatorRequests};
use super::restart::Binary;
use super::service::{Phase, STOPPING, Service};
use super::worker::Worker;
use super::{Loaded, Payload, WorkerId};
use crate::config::Shutdown;
use crate::time::Timestamp;

impl<P: Payload> Service<P> {
    pub(super) fn on_worker_event(&mut self, id: WorkerId, event: WorkerEvent<P>) {
        let now = self.now;
        if event.is_message()
            && let Some(worker) = self.workers.watched_mut().find(|worker| worker.id() == id)
        {
            worker.record_progress(now);
        }
        match event {
            WorkerEvent::SpawnFailed(why) => self.on_spawn_failed(id, why),
            WorkerEvent::ListenFailed(why) => self.fail_candidate(id, why),
            WorkerEvent::Warm => self.on_warm(id),
            WorkerEvent::Ready => self.on_ready(id),
            WorkerEvent::State(state) => self.on_state(id, state),
            WorkerEvent::Checkpoint(state) => self.on_checkpoint(id, state),
            WorkerEvent::DrainReport(report) => self.on_drain_report(id, report),
            WorkerEvent::Failed(why) => self.on_failed(id, why),
            WorkerEvent::Quiesced => {
                if let Some(worker) = self.workers.find_mut(id) {
                    worker.record_quiesced();
                }
            }
            WorkerEvent::OverridesApplied { serial, version } => {
                let applied = AppliedList { serial, version };
                self.operate(|operator, rest| operator.on_applied(id, applied, rest));
            }
            WorkerEvent::Heartbeat { hung_threads } => self.on_heartbeat(id, hung_threads),
            WorkerEvent::Alive => {}
            WorkerEvent::SendTimedOut => self.kill(id, KillReason::SendTimedOut),
            WorkerEvent::ReportNotSent { report, timed_out } => {
                self.on_report_not_sent(id, report, timed_out);
            }
            WorkerEvent::LinkClosed => {
                if let Some(worker) = self.workers.find_mut(id) {
                    worker.close_link(now);
                }
                self.reconcile_exit(id);
            }
            WorkerEvent::Exited(exit) => {
                if let Some(worker) = self.workers.find_mut(id) {
                    worker.record_exit(exit);
                }
                self.reconcile_exit(id);
            }
        }
    }

    // ── from one worker to the next ──

    /// Starts a worker for the active configuration.
    pub(super) fn start_worker(&mut self) {
        self.restart.cancel();
        self.spawn(self.active.clone(), Purpose::Restart);
    }

    pub(super) fn spawn(&mut self, loaded: Loaded<P::Config>, purpose: Purpose<P::Caller>) {
        // The number is used up even if the start fails: messages of a failed worker must not be
        // taken for those of another one.
        self.counters.generation += 1;
        let worker = WorkerId(self.counters.generation);
        let is_restart = matches!(purpose, Purpose::Restart);
        let overrides = Arc::new(self.operator.overrides.list(false, self.now));
        let mut process = Worker::new(worker, self.now);
        process.overrides.record_sent(overrides.version);
        self.commands.push(Command::Spawn {
            worker,
            config: loaded.config.clone(),
            binary: if is_restart { self.restart.binary() } else { Binary::OnDisk },
            // The worker of a reload is not the one that responds, even if the current one is dead:
            // the replacement does.
            is_alone: is_restart && self.workers.current.is_none(),
            overrides,
        });
        let deadline = self.now + self.settings.ready_timeout;
        let candidate = Candidate::new(process, loaded, purpose, deadline);
        if is_restart {
            self.workers.replacement = Some(candidate);
        } else {
            self.workers.reload = Some(candidate);
        }
    }

    fn on_spawn_failed(&mut self, id: WorkerId, why: String) {
        if let Some(candidate) = self.workers.take_candidate(id) {
            let (_no_process, gone) = candidate.give_up(false, why);
            self.on_candidate_gone(gone);
        }
    }

    /// A candidate could serve. The old worker hands over first.
    fn on_warm(&mut self, id: WorkerId) {
        let is_other = |other: &Candidate<P>| other.id() != id && other.is_taking_over();
        let other_takes_over = self.workers.candidates().any(is_other);
        let current = self.workers.current.as_ref().map(Worker::id);
        let Some(candidate) = self.workers.candidate_mut(id) else { return };
        if candidate.is_failed() || !matches!(candidate.step, Step::Warming | Step::Queued) {
            return;
        }
        match current {
            Some(current) => {
                candidate.step = Step::AwaitingState { since: self.now };
                self.commands.push(Command::Send(current, Order::HandOver));
                if let Some(current) = &mut self.workers.current {
                    current.handovers.record_request();
                }
            }
            // The state that is known can be given to one of them only.
            None if other_takes_over => candidate.step = Step::Queued,
            None => self.activate(id),
        }
    }

    /// Lets a candidate accept connections.
    fn activate(&mut self, id: WorkerId) {
        let Some(candidate) = self.workers.candidate_mut(id) else { return };
        candidate.step = Step::TakingOver;
        let listen = candidate.is_reload();
        self.commands.push(Command::TakeOver { worker: id, listen });
        if listen && self.workers.current.is_none() {
            self.drop_replacement();
        }
    }

    /// A candidate that waits for the old worker's state takes over by the last known one.
    pub(super) fn activate_waiting(&mut self) {
        let waiting = self.workers.candidates().find(|candidate| candidate.awaits_state());
        if let Some(id) = waiting.map(Candidate::id) {
            self.activate(id);
        }
    }

    /// A candidate that was warm while another took over has its turn.
    fn retry_queued(&mut self) {
        let queued = self.workers.candidates().find(|candidate| candidate.is_queued());
        if let Some(id) = queued.map(Candidate::id) {
            self.on_warm(id);
        }
    }

    /// Ends the replacement: another candidate takes its place.
    fn drop_replacement(&mut self) {
        self.restart.cancel();
        if let Some(replacement) = self.workers.replacement.take() {
            let id = replacement.id();
            self.workers.discarded.push(replacement.worker);
            self.kill(id, KillReason::NotNeeded);
        }
    }

    fn on_state(&mut self, id: WorkerId, state: P::State) {
        let Some(current) = self.workers.current.as_mut().filter(|current| current.id() == id)
        else {
            return;
        };
        // If several states were requested, only the last one has everything that the worker has counted.
        let is_newest = current.handovers.record_response();
        self.commands.push(Command::StoreState(id, state));
        if is_newest {
            self.activate_waiting();
        }
    }

    fn on_checkpoint(&mut self, id: WorkerId, state: P::State) {
        if self.workers.is_current(id) {
            self.commands.push(Command::StoreState(id, state));
        } else if self.workers.candidate_mut(id).is_some() {
            self.commands.push(Command::StoreNames(id, state));
        }
    }

    /// The candidate serves: it is the current worker now, and the old one drains.
    fn on_ready(&mut self, id: WorkerId) {
        // One that was killed may have been ready in its last moment.
        if !self.workers.candidate_mut(id).is_some_and(|candidate| candidate.is_taking_over()) {
            return;
        }
        let Some(candidate) = self.workers.take_candidate(id) else { return };
        let before = std::mem::replace(&mut self.active, candidate.loaded);
        let old = self.workers.current.replace(candidate.worker);
        if matches!(self.phase, Phase::Starting) {
            self.phase = Phase::Serving;
        }
        self.restart.keep_binary();
        self.commands.extend([Command::AdoptNames(id), Command::KeepBinary(id)]);
        if let Some(old) = old {
            self.drain(old, before.shutdown);
        }
        if let Purpose::Reload(callers) = candidate.purpose {
            self.drop_replacement();
            self.counters.reloads_done += 1;
            self.counters.last_reload_ok = true;
            self.rejections.clear_reload();
            self.operate(OperatorRequests::drop_missing);
            let after = self.active.config.clone();
            self.commands.push(Command::CloseUnused(after.clone()));
            let before = before.config;
            self.commands.push(Command::ReportReload { worker: id, before, after, callers });
        }
        self.send_kept_reports(id);
        self.commands.push(Command::PublishStats);
        if !matches!(self.phase, Phase::Stopping(_)) {
            self.commands.push(Command::NotifyReady);
        }
        self.retry_queued();
    }

    fn on_failed(&mut self, id: WorkerId, why: String) {
        if let Some(candidate) = self.workers.candidate_mut(id) {
            candidate.fail(why);
        } else if let Phase::Stopping(stop) = &mut self.phase {
            stop.why = Some(why);
        }
    }

    fn fail_candidate(&mut self, id: WorkerId, why: String) {
        if let Some(candidate) = self.workers.candidate_mut(id) {
            candidate.fail(why);
            self.kill(id, KillReason::NotNeeded);
        }
    }

    /// Gives up candidates that are not ready in time, and no longer waits for an old worker that does
    /// not hand over.
    pub(super) fn expire_candidates(&mut self) {
        let now = self.now;
        let late = |candidate: &Candidate<P>| Some((candidate.id(), candidate.late(now)?));
        let late: Vec<_> = self.workers.candidates().filter_map(late).collect();
        let timeout = self.settings.ready_timeout;
        for (id, late) in late {
            match late {
                Late::Ready => {
                    let why = format!("the new worker was not ready within {timeout:?}");
                    self.fail_candidate(id, why);
                }
                Late::Handover => {
                    self.log(
                        Level::Warn,
                        "worker does not hand over: its last checkpoint is taken".to_owned(),
                    );
                    self.activate_waiting();
                }
            }
        }
    }

    /// A candidate has exited: what served before goes on.
    pub(super) fn on_candidate_gone(&mut self, candidate: Gone<P::Caller>) {
        let why = &*candidate.why;
        match &mut self.phase {
            Phase::Stopping(stop) => {
                // It was ordered to stop, and it served by then.
                stop.has_aborted |= candidate.step.may_accept() && !candidate.is_clean;
                if let Purpose::Reload(callers) = candidate.purpose {
                    self.reply_failed(callers, STOPPING);
                }
                return;
            }
            Phase::Starting => {
                let callers = self.operator.queue.cancel();
                self.reply_failed(callers, why);
                // No stop was asked for: one that is now finds nothing left to do.
                self.phase = Phase::Ended(Ok(()));
                self.commands.push(Command::Exit(Err(Failure::FirstWorker(why.to_owned()))));
                return;
            }
            Phase::Serving | Phase::Loading(_) | Phase::Upgrading(_) | Phase::Ended(_) => {}
        }
        if candidate.step.asked_old_worker()
            && let Some(current) = &self.workers.current
        {
            self.commands.push(Command::Send(current.id(), Order::Resume));
        }
        match candidate.purpose {
            Purpose::Reload(callers) => self.reject_reload(why, callers),
            Purpose::Restart => {
                self.log(Level::Error, format!("worker not ready: {why}"));
                self.restart.replacement_failed();
            }
        }
        let is_planned = self.workers.replacement.is_some() || self.restart.due().is_some();
        if self.workers.current.is_none() && !is_planned {
            self.restart.schedule_later(self.now);
        }
        self.retry_queued();
    }

    // ── drain ──

    fn drain(&mut self, old: Worker, shutdown: Shutdown) {
        self.commands.push(Command::Send(old.id(), Order::Drain));
        let mut deadline = self.now + shutdown.longest() + DRAIN_GRACE;
        if let Phase::Stopping(stop) = &self.phase {
            // It stops already, and may still wait for its `pre_stop`.
            deadline = deadline.max(stop.kill_at().unwrap_or(Timestamp::ZERO));
        }
        self.workers.draining.push_back(Draining { worker: old, deadline });
        self.commands.push(Command::MeasureMemory);
    }

    /// Ends workers that drain if there are too many, or too little memory for the next one.
    pub(super) fn end_excess_draining(&mut self, memory: &Memory) {
        let draining = self.workers.draining.iter().map(|draining| draining.worker.id());
        let draining: Vec<WorkerId> = draining.collect();
        let current = self.workers.current.as_ref().map(Worker::id);
        let max = self.active.shutdown.draining_workers.get();
        for (id, reason) in excess(&draining, current, max, memory) {
            self.kill(id, reason);
        }
    }

    pub(super) fn expire_draining(&mut self) {
        let now = self.now;
        let late = self.workers.draining.iter().filter(|draining| draining.deadline <= now);
        let late: Vec<WorkerId> = late.map(|draining| draining.worker.id()).collect();
        late.into_iter().for_each(|id| self.kill(id, KillReason::DrainTimeout));
    }
}
