//! Carries out what the machine of a worker's life decides.

use std::sync::Arc;

use humantime::format_duration;

use super::reports::{DrainReporter, Reported};
use super::run::{WorkerRun, WorkerValues};
use super::services::{self, Running, RuntimeThreads};
use super::{WorkerError, system, threads};
use crate::exchange::refusal::Abort;
use crate::lifecycle::process::{Message, ProcessCommand};
use crate::link::{DrainReport, State, ToSupervisor};
use crate::runtime::handoff::Handoff;
use crate::runtime::in_flight::InFlight;
use crate::runtime::report::BackendReport;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

impl WorkerRun<'_> {
    pub(super) fn execute(
        &mut self,
        command: ProcessCommand<WorkerValues>,
    ) -> Result<(), WorkerError> {
        match command {
            ProcessCommand::WarnUnchecked(waited) => {
                let waited = format_duration(waited);
                log::warn!(
                    "not all backends have been checked: waited={waited}; serving without them"
                );
            }
            ProcessCommand::LogDraining => {
                log::info!("draining: connections={}", self.open_connections())
            }
            ProcessCommand::WarnUnfinished => {
                log::warn!("connections did not end: connections={}", self.open_connections());
            }
            ProcessCommand::Send(message) => self.send_message(message),
            ProcessCommand::StartListeners(state) => self.start_listeners(&state)?,
            ProcessCommand::OpenAdminPort => self.services.admin.take_over(&self.admin)?,
            ProcessCommand::CloseAdminPort => self.services.admin.close(),
            ProcessCommand::ReopenAdminPort => self.services.admin.open(),
            ProcessCommand::RetireAdminPort => self.services.admin.retire(),
            ProcessCommand::Freeze => self.freeze(),
            ProcessCommand::Unfreeze => {
                self.totals.handed_over = None;
                self.admin.unfreeze();
            }
            ProcessCommand::ImportReport(report) => self.import_report(&report),
            ProcessCommand::ApplyOverrides((serial, list)) => {
                self.snapshot().overrides.set(Arc::new(list));
                let snapshot = self.snapshot();
                snapshot.apply_overrides(self.now());
                // Requests may wait for a backend that can be used now.
                snapshot.pools.iter().for_each(|pool| pool.dispatch(self.now()));
                self.totals.overrides_serial = serial;
            }
            ProcessCommand::ShowStats(stats) => {
                self.apply_supervisor_state(&stats);
                self.services.admin.begin(&self.admin)?;
            }
            ProcessCommand::SetServingState(state) => self.components.proxy.serving.set(state),
            ProcessCommand::StopBackground => {
                if let Some(background) = &self.services.background {
                    background.close();
                }
            }
            ProcessCommand::Drain => self.drain(),
            ProcessCommand::EndUpgraded => self.components.connections.end_upgraded(self.now()),
            ProcessCommand::Abort => {
                log::warn!("requests aborted: connections={}", self.open_connections());
                self.components.connections.abort(self.now(), Abort::ForcedStop);
            }
            ProcessCommand::ResendFiles => self.files_sent = None,
            ProcessCommand::StopServices => self.stop_services(),
            ProcessCommand::Exit => {}
        }
        Ok(())
    }

    fn start_listeners(&mut self, state: &State) -> Result<(), WorkerError> {
        let snapshot = self.snapshot();
        state.handoff.import(&snapshot, self.now());
        self.admin.metrics.import(&state.counts, &snapshot);
        // Until the supervisor reports what the predecessor still has, it is what it had just now.
        let draining = self.admin.metrics.supervision().map(|stats| stats.draining_requests);
        let in_flight = [state.counts.in_flight(), &draining.unwrap_or_default()].concat();
        InFlight::set_other_workers(&in_flight, &snapshot, self.now());
        if let Some(keys) = &state.tickets {
            self.components.tickets.import(keys.clone());
        }
        let sockets = std::mem::take(&mut self.sockets);
        let threads = threads(self.config.threads);
        let apps = services::listener_apps(self.config, &self.components, threads, sockets)
            .map_err(system("make the proxy"))?;
        // With one thread there is nothing to steal, and the simpler scheduler is cheaper.
        let data =
            Running::start(RuntimeThreads { name: "data", threads, steals: threads > 1 }, apps);
        self.heartbeat.watch(data.runtime());
        self.services.data = Some(data);
        Ok(())
    }

    fn freeze(&mut self) {
        let (state, now) = self.admin.freeze(|| self.state());
        self.totals.handed_over = Some(Reported::by(&state, now));
        self.totals.frozen = Some(Box::new(state));
    }

    fn import_report(&self, report: &DrainReport) {
        let snapshot = self.snapshot();
        report.debits.import(&snapshot, self.now());
        self.admin.metrics.import(&report.counts, &snapshot);
    }

    fn drain(&mut self) {
        if let Some(data) = &self.services.data {
            data.close();
        }
        let handed_over = self.totals.handed_over.take();
        let reporter = DrainReporter::new(&self.components, &self.admin.metrics, handed_over);
        self.totals.reporter = Some(reporter);
    }

    fn stop_services(&mut self) {
        match self.components.connections.unfinished() {
            0 => {}
            open => self.shutdown.record_error(WorkerError::ForcedStop(open)),
        }
        self.heartbeat.unwatch();
        let services = std::mem::take(&mut self.services);
        self.shutdown.start(services);
    }

    fn send_message(&mut self, message: Message) {
        let message = match message {
            Message::Warm => ToSupervisor::Warm,
            Message::Ready => ToSupervisor::Ready,
            Message::State => match self.totals.frozen.take() {
                Some(state) => ToSupervisor::State(state),
                None => return,
            },
            Message::Checkpoint => self.checkpoint(),
            Message::Connections => ToSupervisor::Connections(self.open_connections()),
            Message::Quiesced => ToSupervisor::Quiesced,
            Message::OverridesApplied => self.overridden(),
            Message::Heartbeat => self.heartbeat.beat(self.components.proxy.clock.now()),
            Message::Report => return self.report(DrainReporter::report),
            Message::LastReport => return self.report(DrainReporter::last_report),
            Message::LogLost => match self.shutdown.log_lost() {
                0 => return,
                lost => ToSupervisor::LogLost(lost),
            },
        };
        self.send(&message);
    }

    /// The whole state, in case this process dies. The contents of TLS files are sent when they have
    /// changed.
    fn checkpoint(&mut self) -> ToSupervisor {
        let last_good = Some(self.certificates.last_good());
        let files = if self.files_sent == last_good { None } else { last_good.clone() };
        self.files_sent = last_good;
        ToSupervisor::Checkpoint(Box::new(State { files, ..self.state().0 }))
    }

    /// The overrides are applied; with the state of the backends.
    fn overridden(&self) -> ToSupervisor {
        let snapshot = self.snapshot();
        ToSupervisor::Overridden {
            serial: self.totals.overrides_serial,
            version: snapshot.overrides.get().version,
            backends: BackendReport::all(&snapshot, self.now()),
        }
    }

    fn report(&mut self, report: fn(&mut DrainReporter) -> DrainReport) {
        if let Some(report) = self.totals.reporter.as_mut().map(report) {
            self.send(&ToSupervisor::Draining(Box::new(report), self.open_connections()));
        }
    }

    /// The state, and when it was taken.
    fn state(&self) -> (State, Timestamp) {
        let snapshot = self.snapshot();
        let now = self.now();
        let handoff = Handoff::export(&snapshot, now);
        let tickets = Some(self.components.tickets.export());
        let counts = self.admin.metrics.export(&snapshot);
        let overrides = Some(snapshot.overrides.get().version);
        (State { handoff, counts, tickets, files: None, overrides }, now)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.components.proxy.current.snapshot()
    }

    fn open_connections(&self) -> u64 {
        u64::try_from(self.components.connections.open()).unwrap_or(u64::MAX)
    }

    fn send(&self, message: &ToSupervisor) {
        if let Err(error) = self.link.send(message) {
            log::debug!("message not sent to the supervisor: error=\"{error}\"");
        }
    }
}
