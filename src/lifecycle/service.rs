//! The state of the service: events come in, commands go out.

use std::mem;
use std::time::Duration;

use log::Level;

use super::candidate::Candidate;
use super::command::{Command, Failure, KillReason, Order};
use super::drain::Draining;
use super::event::Event;
use super::kept_reports::KeptReports;
use super::op_queue::{Allowed, Operation};
use super::operator::{OperatorRequests, Surroundings};
use super::overrides::OverrideTable;
use super::rejections::Rejections;
use super::restart::{Binary, Restart};
use super::save::{Saved, SavedWorker};
use super::stop_deadlines::Stop;
use super::upgrade_step::Upgrade;
use super::view::{Role, View, WorkerView};
use super::worker::Worker;
use super::workers::Workers;
use super::{Counters, Loaded, Payload, Settings, WorkerId};
use crate::policy::operator::OverrideList;
use crate::policy::watchdog::Watchdog;
use crate::time::Timestamp;

/// The longest time between two looks at the deadlines.
const TICK: Duration = Duration::from_secs(1);
pub(super) const STOPPING: &str = "the supervisor is stopping";

/// What the service is doing. At most one long operation is under way.
#[derive(Debug)]
pub(super) enum Phase<R> {
    /// No worker was ready yet. If the first one fails, the service ends.
    Starting,
    /// A worker serves, or a replacement is on its way. A reload may have a candidate.
    Serving,
    /// A reload reads the file; these clients wait for the result. The supervisor reads it at once, so
    /// that only what it has reported before comes meanwhile; other shells may take their time.
    Loading(Vec<R>),
    /// The supervisor is about to be replaced.
    Upgrading(Upgrade),
    /// The service stops.
    Stopping(Stop<R>),
    /// The process is about to exit; a client that asks for a stop gets this result.
    Ended(Result<(), Failure>),
}

/// What a tick does at intervals.
#[derive(Debug, Default)]
struct Ticks {
    /// The last one.
    last: Timestamp,
    /// When the next keep-alive is sent to the service manager.
    keepalive_at: Timestamp,
}

/// One service.
#[derive(Debug)]
pub struct Service<P: Payload> {
    pub(super) settings: Settings,
    pub(super) phase: Phase<P::Caller>,
    pub(super) workers: Workers<P>,
    /// The configuration that is served.
    pub(super) active: Loaded<P::Config>,
    pub(super) operator: OperatorRequests<P::Caller>,
    pub(super) restart: Restart,
    pub(super) counters: Counters,
    pub(super) rejections: Rejections,
    pub(super) kept_reports: KeptReports<P::Report>,
    ticks: Ticks,
    pub(super) now: Timestamp,
    pub(super) commands: Vec<Command<P>>,
}

impl<P: Payload> Service<P> {
    /// A service that has not started yet. [`Event::Started`] starts it.
    #[must_use]
    pub fn new(settings: Settings, active: Loaded<P::Config>) -> Self {
        Self {
            settings,
            phase: Phase::Starting,
            workers: Workers::new(),
            active,
            operator: OperatorRequests::new(),
            // The running binary is the one at this path at the start. Starting it by its path also
            // works under valgrind or an emulator, where `/proc/self/exe` is that tool.
            restart: Restart::new(Binary::OnDisk),
            counters: Counters::default(),
            rejections: Rejections::default(),
            kept_reports: KeptReports::new(),
            ticks: Ticks::default(),
            now: Timestamp::ZERO,
            commands: Vec::new(),
        }
    }

    /// A service that another image of this supervisor has run so far. [`Event::Resumed`] continues it.
    #[must_use]
    pub fn restore(
        settings: Settings,
        active: Loaded<P::Config>,
        saved: &Saved,
        now: Timestamp,
    ) -> Self {
        let mut service = Self::new(settings, active);
        let hang_timeout = service.settings.hang_timeout;
        let worker = |saved: &SavedWorker| Worker::restore(saved, now, hang_timeout);
        service.phase = Phase::Serving;
        service.restart = Restart::new(Binary::Running);
        service.workers.current = saved.current.as_ref().map(worker);
        let draining = saved.draining.iter();
        let draining =
            draining.map(|(saved, left)| Draining { worker: worker(saved), deadline: now + *left });
        service.workers.draining = draining.collect();
        service.counters = saved.counters;
        service.operator.overrides = OverrideTable::restore(&saved.overrides, now);
        service.rejections = Rejections::restore(saved.rejected_reload.clone(), now);
        if saved.current.is_none() {
            service.restart.schedule(now);
        }
        if saved.reload_waits {
            service.operator.queue.request_reload(None);
        }
        if saved.upgrade_waits {
            service.operator.queue.request_upgrade();
        }
        (service.now, service.ticks.last) = (now, now);
        service
    }

    /// What the next image of the supervisor has to know. Candidates are left out: a check and an exec
    /// happen only when there is none.
    #[must_use]
    pub fn save(&self, now: Timestamp) -> Saved {
        let draining = self.workers.draining.iter();
        let draining =
            draining.map(|draining| (draining.worker.save(now), draining.deadline.since(now)));
        Saved {
            current: self.workers.current.as_ref().map(|worker| worker.save(now)),
            draining: draining.collect(),
            counters: self.counters,
            rejected_reload: self.rejections.reload(now),
            overrides: self.operator.overrides.list(true, now),
            reload_waits: self.operator.queue.reload_waits(),
            upgrade_waits: self.operator.queue.upgrade_waits(),
        }
    }

    /// The service, as an operator sees it now.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> View<'_, P::Config> {
        let view = |worker: &Worker, role: Role| WorkerView {
            id: worker.id(),
            role,
            age: worker.age(now),
            silent: worker.suspicious_silence(),
        };
        let workers = &self.workers;
        let candidate =
            |candidate: &Candidate<P>| view(&candidate.worker, Role::Candidate(candidate.step));
        let current = workers.current.iter().map(|worker| view(worker, Role::Serving));
        let draining = workers.draining.iter().map(|one| view(&one.worker, Role::Draining));
        let restart = self.restart.due().filter(|_| workers.current.is_none());
        View {
            active: &self.active,
            counters: self.counters,
            rejected_upgrade: self.rejections.upgrade.as_deref(),
            rejected_reload: self.rejections.reload(now),
            workers: current.chain(workers.candidates().map(candidate)).chain(draining).collect(),
            restart_in: restart.map(|at| at.since(now)),
        }
    }

    /// What operators have set on the backends of the active configuration.
    #[must_use]
    pub fn overrides(&self, now: Timestamp) -> OverrideList {
        self.operator.overrides.list(false, now)
    }

    /// Takes an event into account. Returns what is to be done, in this order.
    pub fn handle(&mut self, event: Event<P>, now: Timestamp) -> Vec<Command<P>> {
        self.now = now;
        match event {
            Event::Started => self.start_worker(),
            Event::Resumed(rollback) => self.resume(rollback),
            Event::Worker(worker, event) => self.on_worker_event(worker, event),
            Event::ReloadRequested(caller) => self.request_reload(caller),
            Event::ConfigLoaded(result) => self.on_config_loaded(result),
            Event::UpgradeRequested => self.request_upgrade(),
            Event::CompatibilityChecked { check, result } => self.on_checked(check, result),
            Event::ExecFailed(why) => self.reject_upgrade(why),
            Event::MemoryMeasured(memory) => self.end_excess_draining(&memory),
            Event::StopSignal(signal) => self.on_stop_signal(signal),
            Event::StopRequested => self.stop(),
            Event::StopAndWait(caller) => self.stop_and_wait(caller),
            Event::OverrideRequested { request, caller } => {
                self.operate(|operator, rest| operator.request_override(request, caller, rest));
            }
            Event::ReportRequested(caller) => {
                self.operate(|operator, rest| operator.request_report(caller, rest));
            }
            // It has settled the rounds: nothing may follow an exec.
            Event::Tick => {
                self.on_tick();
                self.start_next();
                return mem::take(&mut self.commands);
            }
        }
        self.operate(OperatorRequests::settle);
        self.start_next();
        mem::take(&mut self.commands)
    }

    /// When the next [`Event::Tick`] is due if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Timestamp {
        let tick = self.settings.hang_timeout.map_or(TICK, Watchdog::interval).min(TICK);
        let phase = match &self.phase {
            Phase::Upgrading(upgrade) => upgrade.deadline(),
            Phase::Stopping(stop) => stop.deadline(),
            Phase::Starting | Phase::Serving | Phase::Loading(_) | Phase::Ended(_) => None,
        };
        let draining = self.workers.draining.iter().filter(|draining| draining.worker.is_running());
        let due = [
            self.restart.due(),
            self.workers.candidates().map(Candidate::deadline).min(),
            draining.map(|draining| draining.deadline).min(),
            self.workers.all().filter_map(Worker::exit_deadline).min(),
            self.operator.overrides.next_end(),
            self.operator.rounds.deadline(),
            phase,
            self.settings.keepalive.map(|_| self.ticks.keepalive_at),
        ];
        due.into_iter().flatten().fold(self.ticks.last + tick, Timestamp::min)
    }

    fn on_tick(&mut self) {
        self.ticks.last = self.now;
        if let Some(interval) = self.settings.keepalive
            && self.ticks.keepalive_at <= self.now
        {
            self.commands.push(Command::NotifyAlive);
            self.ticks.keepalive_at = self.now + interval;
        }
        self.expire_candidates();
        if self.restart.due().is_some_and(|at| at <= self.now) {
            self.start_worker();
        }
        self.expire_stop();
        self.expire_draining();
        self.kill_hung_workers();
        self.kill_disconnected_worker();
        self.abandon_killed_workers();
        self.operate(OperatorRequests::expire);
        self.operate(OperatorRequests::settle);
        self.end_if_stopped();
        // Nothing may follow an exec: it would be lost.
        self.advance_upgrade();
    }

    /// Starts an operation that waits, if nothing else is under way.
    fn start_next(&mut self) {
        let is_free = matches!(self.phase, Phase::Serving) && !self.workers.has_candidate();
        let upgrade = is_free && self.workers.current.is_some();
        match self.operator.queue.next(Allowed { reload: is_free, upgrade }) {
            Some(Operation::Reload(callers)) => {
                self.phase = Phase::Loading(callers);
                self.commands.extend([Command::NotifyReloading, Command::LoadConfig]);
            }
            Some(Operation::Upgrade { check }) => {
                self.log(Level::Info, "replacing the supervisor".to_owned());
                self.phase = Phase::Upgrading(Upgrade::check(check, self.now));
                self.commands.push(Command::CheckCompatibility { check });
            }
            None => {}
        }
    }

    pub(super) fn reply_failed(&mut self, callers: Vec<P::Caller>, why: &str) {
        if !callers.is_empty() {
            self.commands.push(Command::ReplyFailed(callers, why.to_owned()));
        }
    }

    /// Does something about what operators have asked for.
    pub(super) fn operate(
        &mut self,
        act: impl FnOnce(&mut OperatorRequests<P::Caller>, &mut Surroundings<'_, P>),
    ) {
        let Self { operator, workers, active, commands, .. } = self;
        let active = &active.config;
        act(operator, &mut Surroundings { workers, active, commands, now: self.now });
    }

    pub(super) fn log(&mut self, level: Level, message: String) {
        self.commands.push(Command::Log(level, message));
    }

    pub(super) fn kill(&mut self, id: WorkerId, reason: KillReason) {
        let now = self.now;
        if let Some(worker) = self.workers.find_mut(id).filter(|worker| worker.is_running()) {
            worker.record_kill(now);
            self.commands.push(Command::Kill(id, reason));
        }
    }

    pub(super) fn kill_all(&mut self) {
        let all: Vec<WorkerId> = self.workers.ids().collect();
        all.into_iter().for_each(|id| self.kill(id, KillReason::NotNeeded));
    }

    pub(super) fn send_to_all(&mut self, order: Order) {
        self.commands.extend(self.workers.ids().map(|id| Command::Send(id, order)));
    }
}
