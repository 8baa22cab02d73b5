//! Carries out the commands of the life cycle.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use super::child::{Child, Executable, StartMessage};
use super::compatibility::{CompatibilityCheck, with_path};
use super::config::{ActiveConfig, format_bind_errors, report};
use super::control::Reply;
use super::{Client, Supervisor, SupervisorError, Values, announce, loaded, operator, systemd};
use crate::config::diff;
use crate::lifecycle::{Binary, Command, Event, Failure, Loaded, Order, WorkerEvent, WorkerId};
use crate::link::{Start, ToWorker};
use crate::metrics::SupervisorStats;
use crate::policy::operator::OverrideList;

impl Supervisor {
    /// Carries out a command. Returns what happened at once, if the life cycle has to know.
    pub(super) fn execute(&mut self, command: Command<Values>) -> Option<Event<Values>> {
        match command {
            Command::Log(level, message) => {
                log::log!(target: "weir::lifecycle", level, "{message}");
            }
            Command::LoadConfig => return Some(Event::ConfigLoaded(self.load_config())),
            Command::Spawn { worker, config, binary, is_alone, overrides } => {
                let start = self.start_of(worker, &config, is_alone, &overrides);
                return self.spawn(start, worker, binary);
            }
            Command::SendOverrides { worker, serial, list } => {
                let list = Arc::unwrap_or_clone(list);
                return self.processes.send(worker, &ToWorker::Overrides { serial, list });
            }
            Command::ReplyRound(result) => operator::reply(self, *result),
            Command::Send(worker, order) => {
                return self.processes.send(worker, &order_message(order));
            }
            Command::TakeOver { worker, listen } => return self.take_over(worker, listen),
            Command::Kill(worker, reason) => self.processes.kill(worker, &reason),
            Command::Release(worker) => drop(self.processes.workers.remove(&worker)),
            Command::StoreState(worker, state) => {
                if let Some(child) = self.processes.workers.get_mut(&worker) {
                    child.in_flight = state.counts.in_flight().to_vec();
                }
                self.checkpoint.store(*state, self.clock.now());
            }
            Command::StoreNames(worker, state) => {
                if let Some(child) = self.processes.workers.get_mut(&worker) {
                    child.names = state.handoff;
                }
            }
            Command::AdoptNames(worker) => self.adopt_names(worker),
            Command::ForgetInFlight => self.checkpoint.forget_in_flight(),
            Command::SendReport(worker, report) => {
                return self.processes.send_report(worker, report);
            }
            Command::KeepBinary(worker) => self.processes.keep_binary(worker),
            Command::CloseUnused(config) => self.sockets.close_unused(&config.addresses()),
            Command::CloseSockets => self.sockets.close_all(),
            Command::ReportReload { worker, before, after, callers } => {
                self.report_reload(worker, &before, &after, callers);
            }
            Command::ReplyFailed(clients, why) => {
                let answer = Reply::failed(why);
                clients.into_iter().for_each(|client| client.reply(&answer));
            }
            Command::CheckCompatibility { check } => return self.start_check(check),
            Command::CancelCheck => self.processes.cancel_check(),
            Command::Exec => return Some(Event::ExecFailed(self.exec().to_string())),
            Command::MeasureMemory => {
                return Some(Event::MemoryMeasured(self.processes.measure_memory()));
            }
            Command::PublishStats => return self.publish_stats(),
            Command::NotifyReady => self.options.announce_ready(),
            Command::NotifyReloading => systemd::reloading(),
            Command::NotifyStopping => systemd::stopping(),
            Command::NotifyAlive => systemd::alive(),
            Command::ReplyEnded { result, callers } => reply_ended(result, callers),
            Command::Exit(result) => self.ended = Some(result),
        }
        None
    }

    /// What a worker is to serve.
    fn start_of(
        &self,
        worker: WorkerId,
        config: &ActiveConfig,
        is_alone: bool,
        overrides: &OverrideList,
    ) -> Start {
        Start {
            text: config.text.clone(),
            version: config.version.clone(),
            sockets: config.addresses(),
            state: Some(self.checkpoint.for_start(self.clock.now())),
            supervision: SupervisorStats { generation: worker.0, ..self.stats() },
            is_alone,
            overrides: overrides.clone(),
        }
    }

    fn spawn(&mut self, start: Start, worker: WorkerId, binary: Binary) -> Option<Event<Values>> {
        let sockets: Vec<&TcpListener> = self.sockets.of(&start.sockets).collect();
        let version = start.version.clone();
        let image = self.processes.image(binary);
        let executable = Executable { program: &self.options.program, image: &image };
        let message = StartMessage { start, sockets: &sockets };
        match Child::start(executable, worker, message, &self.inputs) {
            Ok(child) => {
                log::debug!("worker started: generation={worker} config={version}");
                self.processes.workers.insert(worker, child);
                None
            }
            Err(error) => {
                let why = format!("a worker cannot be started: {error}");
                Some(Event::Worker(worker, WorkerEvent::SpawnFailed(why)))
            }
        }
    }

    fn take_over(&mut self, worker: WorkerId, listen: bool) -> Option<Event<Values>> {
        if listen && let Err(why) = self.sockets.listen() {
            return Some(Event::Worker(worker, WorkerEvent::ListenFailed(why)));
        }
        let state = self.checkpoint.aged(self.clock.now());
        self.processes.send(worker, &ToWorker::TakeOver(Box::new(state)))
    }

    fn adopt_names(&mut self, worker: WorkerId) {
        log::info!("worker ready: generation={worker} config={}", self.active().version);
        if let Some(child) = self.processes.workers.get_mut(&worker) {
            child.name_changes = self.checkpoint.adopt_names(std::mem::take(&mut child.names));
        }
    }

    fn report_reload(
        &mut self,
        worker: WorkerId,
        before: &Rc<ActiveConfig>,
        after: &Rc<ActiveConfig>,
        clients: Vec<Client>,
    ) {
        self.figures.last_reload_at = self.clock.wall(self.clock.now());
        let mut changes = diff(&before.config, &after.config);
        if let Some(child) = self.processes.workers.get_mut(&worker) {
            changes.append(&mut child.name_changes);
        }
        let overridden_by = &self.options.overridden_by;
        announce::announce_reload(&after.version, &changes, overridden_by);
        announce::announce_addresses(&before.config, &after.config);
        let answer = Reply::done(report(&changes, &after.version, overridden_by));
        clients.into_iter().for_each(|client| client.reply(&answer));
    }

    /// Sends the counters to the worker that serves.
    pub(super) fn publish_stats(&mut self) -> Option<Event<Values>> {
        self.figures.log_dropped = self.options.log.dropped();
        let current = self.service.view(self.clock.now()).current()?.id;
        let stats = SupervisorStats { generation: current.0, ..self.stats() };
        self.processes.send(current, &ToWorker::SupervisorStats(stats))
    }

    /// What the admin port shows of the service.
    pub(super) fn stats(&self) -> SupervisorStats {
        let now = self.clock.now();
        let view = self.service.view(now);
        let draining: Vec<&Child> =
            view.draining().filter_map(|worker| self.processes.workers.get(&worker)).collect();
        let in_flight = draining.iter().flat_map(|child| &child.in_flight);
        SupervisorStats {
            generation: view.counters.generation,
            reloads_done: view.counters.reloads_done,
            reloads_refused: view.counters.reloads_rejected,
            upgrades_done: view.counters.upgrades_done,
            upgrades_refused: view.counters.upgrades_rejected,
            restarts: view.counters.restarts,
            hangs: view.counters.hangs,
            draining_workers: u64::try_from(draining.len()).unwrap_or(u64::MAX),
            draining_connections: draining.iter().map(|child| child.connections).sum(),
            log_dropped: self.figures.log_dropped,
            draining_requests: in_flight.cloned().collect(),
            last_reload_ok: view.counters.last_reload_ok,
            last_reload_at: self.figures.last_reload_at,
            uptime: self.figures.uptime(now),
            hang_timeout: self.options.hang_timeout,
        }
    }

    fn start_check(&mut self, check: u64) -> Option<Event<Values>> {
        let program = &self.options.program;
        let started = self.save_state().and_then(|state| {
            CompatibilityCheck::start(program, state, check, self.inputs.clone())
        });
        match started {
            Ok(process) => {
                self.processes.check = Some(process);
                None
            }
            Err(error) => {
                let why =
                    format!("the binary on disk cannot be started to check it: error=\"{error}\"");
                Some(Event::CompatibilityChecked { check, result: Err(with_path(&why, program)) })
            }
        }
    }

    fn load_config(&mut self) -> Result<Loaded<Rc<ActiveConfig>>, String> {
        let active = self.file.read_and_load(&self.options).map_err(|error| error.to_string())?;
        let is_draining = self.service.view(self.clock.now()).draining().next().is_some();
        let active = Rc::new(active);
        let bound = self.sockets.bind_missing(&active.addresses(), is_draining);
        match bound {
            Ok(()) => Ok(loaded(&active)),
            Err(errors) => Err(format_bind_errors(&self.options, &active, &errors).to_string()),
        }
    }
}

fn reply_ended(result: Result<(), Failure>, clients: Vec<Client>) {
    let answer = match result.map_err(SupervisorError::from) {
        Ok(()) => Reply::done("stopped".to_owned()),
        Err(error) => Reply::failed(error.to_string()),
    };
    clients.into_iter().for_each(|client| client.reply(&answer));
}

const fn order_message(order: Order) -> ToWorker {
    match order {
        Order::HandOver => ToWorker::HandOver,
        Order::Resume => ToWorker::Resume,
        Order::Drain => ToWorker::Drain,
        Order::Stop => ToWorker::Stop,
        Order::StopNow => ToWorker::StopNow,
        Order::Quiesce => ToWorker::Quiesce,
        Order::Unquiesce => ToWorker::Unquiesce,
    }
}
