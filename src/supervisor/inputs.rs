//! Turns what the threads of the supervisor see into events of the life cycle.

use std::sync::mpsc::Sender;

use nix::sys::signal::Signal;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::control::{Reply, Request};
use super::options::system;
use super::{Client, Input, Supervisor, SupervisorError, compatibility, operator, status};
use crate::lifecycle::{Event, Exit, WorkerEvent, WorkerId};
use crate::link::ToSupervisor;

impl Supervisor {
    pub(super) fn handle_input(&mut self, input: Input) -> Result<(), SupervisorError> {
        match input {
            Input::Signals => return self.read_signals(),
            Input::WorkerMessage { worker, message } => self.on_message(worker, message),
            Input::WorkerLinkClosed { worker } => {
                self.dispatch(Event::Worker(worker, WorkerEvent::LinkClosed));
            }
            Input::Command(request, reply) => self.on_command(request, reply),
            Input::StopAndWait(stream) => self.dispatch(Event::StopAndWait(Client::End(stream))),
            Input::FileChanged(contents) => self.on_file_change(contents),
            Input::CompatibilityResult { check, said } => {
                let result = compatibility::result(&said, &self.options.program);
                self.dispatch(Event::CompatibilityChecked { check, result });
            }
        }
        Ok(())
    }

    fn on_command(&mut self, request: Request, reply: Sender<Reply>) {
        match request {
            Request::Reload => self.dispatch(Event::ReloadRequested(Some(Client::Reload(reply)))),
            Request::Override(command) => match operator::request(&self.active().config, command) {
                Ok(request) => {
                    let caller = Client::Reload(reply);
                    self.dispatch(Event::OverrideRequested { request, caller });
                }
                Err(why) => Client::Reload(reply).reply(&Reply::failed(format!("weir: {why}"))),
            },
            Request::Backends(query) => {
                self.dispatch(Event::ReportRequested(Client::Backends(reply, query)));
            }
            Request::Status => {
                let now = self.clock.now();
                let (view, workers) = (self.service.view(now), &self.processes.workers);
                let answer = status::describe(&view, workers, self.clock.wall(now));
                Client::Reload(reply).reply(&answer);
            }
            // `StopAndWait` comes as an input of its own, with the connection.
            Request::Stop | Request::StopAndWait => {
                Client::Reload(reply).reply(&Reply::done("stopping".to_owned()));
                self.dispatch(Event::StopRequested);
            }
        }
    }

    fn on_message(&mut self, worker: WorkerId, message: ToSupervisor) {
        if let ToSupervisor::State(state) | ToSupervisor::Checkpoint(state) = &message
            && let Some(version) = state.overrides
        {
            let event = WorkerEvent::OverridesApplied { serial: 0, version };
            self.dispatch(Event::Worker(worker, event));
        }
        let Some(child) = self.processes.workers.get_mut(&worker) else { return };
        let event = match message {
            ToSupervisor::Warm => WorkerEvent::Warm,
            ToSupervisor::Ready => WorkerEvent::Ready,
            ToSupervisor::State(state) => WorkerEvent::State(state),
            ToSupervisor::Checkpoint(state) => WorkerEvent::Checkpoint(state),
            ToSupervisor::Failed(why) => WorkerEvent::Failed(why),
            ToSupervisor::Quiesced => WorkerEvent::Quiesced,
            ToSupervisor::Overridden { serial, version, backends } => {
                child.backends = backends;
                WorkerEvent::OverridesApplied { serial, version }
            }
            ToSupervisor::Heartbeat { hung_threads } => WorkerEvent::Heartbeat { hung_threads },
            ToSupervisor::Connections(open) => {
                child.connections = open;
                WorkerEvent::Alive
            }
            ToSupervisor::LogLost(lines) => {
                self.options.log.report(lines);
                WorkerEvent::Alive
            }
            ToSupervisor::Draining(report, open) => {
                child.connections = open;
                child.in_flight = report.counts.in_flight().to_vec();
                WorkerEvent::DrainReport(report)
            }
        };
        self.dispatch(Event::Worker(worker, event));
    }

    fn read_signals(&mut self) -> Result<(), SupervisorError> {
        while let Some(signal) = self.signals.next().map_err(system("read signals"))? {
            self.on_signal(signal);
        }
        self.signals.acknowledge();
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are ignored")]
    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGHUP => self.dispatch(Event::ReloadRequested(None)),
            Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => {
                self.dispatch(Event::StopSignal(signal.as_str()));
            }
            Signal::SIGCHLD => self.reap(),
            Signal::SIGUSR2 => self.dispatch(Event::UpgradeRequested),
            other => log::info!(
                "signal ignored: signal={other} (help: SIGHUP reloads, SIGUSR2 upgrades, SIGTERM stops)"
            ),
        }
    }

    /// Reaps every child that has exited: workers, and as process 1 also orphans of other processes.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(worker) = self.processes.record_reaped(pid) {
                self.dispatch(Event::Worker(worker, WorkerEvent::Exited(exit(status))));
            }
        }
    }

    /// The watched file has changed. Contents that a reload has read already are not read again.
    fn on_file_change(&mut self, contents: Result<u64, String>) {
        match contents {
            Err(why) => log::error!(
                "configuration file cannot be read, what is served stays: error=\"{why}\" \
                 (help: put it back)"
            ),
            Ok(hash) if self.file.is_known(hash) => {
                log::debug!("file changed, and was read already");
            }
            Ok(_) => {
                log::info!("file changed: reloading");
                self.dispatch(Event::ReloadRequested(None));
            }
        }
    }
}

fn exit(status: WaitStatus) -> Exit {
    let text = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    };
    Exit { clean: status.exit_status() == Some(0), status: text }
}
