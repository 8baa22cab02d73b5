//! The shell of a worker's life: it reports what happens to
//! [`WorkerProcess`], which decides, and carries out what follows (`commands.rs`).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::admin_port::AdminPort;
use super::cert_watcher::{self, CertWatcher};
use super::heartbeat::Heartbeat;
use super::reports::{DrainReporter, Reported};
use super::services::{Running, Sockets};
use super::shutdown::{self, Services, Shutdown};
use super::signals::Signals;
use super::{Components, WorkerError};
use crate::admin::Admin;
use crate::config::Config;
use crate::lifecycle::Order;
use crate::lifecycle::process::{ProcessEvent, ProcessPayload, ProcessSettings, WorkerProcess};
use crate::link::{DrainReport, Link, State, ToWorker};
use crate::metrics::SupervisorStats;
use crate::policy::operator::OverrideList;
use crate::runtime::in_flight::InFlight;
use crate::time::Timestamp;
use crate::tls::last_good::LastGoodFiles;

/// What passes through the machine.
#[derive(Debug)]
pub(super) enum WorkerValues {}

impl ProcessPayload for WorkerValues {
    type State = Box<State>;
    type Report = Box<DrainReport>;
    type Stats = SupervisorStats;
    type Overrides = (u64, OverrideList);
}

/// What a run begins with and owns.
pub(super) struct RunParts {
    pub(super) admin: Admin,
    pub(super) admin_port: AdminPort,
    pub(super) sockets: Sockets,
    pub(super) shutdown: Shutdown,
}

/// Carries out what the machine decides.
pub(super) struct WorkerRun<'a> {
    pub(super) config: &'a Config,
    pub(super) components: Components,
    pub(super) admin: Arc<Admin>,
    pub(super) link: Arc<Link>,
    /// The listening sockets, until connections are accepted.
    pub(super) sockets: Sockets,
    pub(super) services: Services,
    pub(super) heartbeat: Heartbeat,
    pub(super) totals: ServedTotals,
    pub(super) certificates: Arc<CertWatcher>,
    /// The contents of TLS files as last sent.
    pub(super) files_sent: Option<LastGoodFiles>,
    pub(super) shutdown: Shutdown,
}

/// The totals of this worker, as others know them.
#[derive(Default)]
pub(super) struct ServedTotals {
    /// The state that was taken when the pages were frozen, until it is sent.
    pub(super) frozen: Option<Box<State>>,
    /// What was sent to the successor.
    pub(super) handed_over: Option<Reported>,
    /// From the start of the drain.
    pub(super) reporter: Option<DrainReporter>,
    /// The number of the last list of overrides.
    pub(super) overrides_serial: u64,
}

impl<'a> WorkerRun<'a> {
    pub(super) fn new(
        config: &'a Config,
        components: Components,
        link: Arc<Link>,
        parts: RunParts,
    ) -> Self {
        let RunParts { admin, admin_port, sockets, shutdown } = parts;
        let terminators = components.listeners.iter().filter_map(|it| it.terminator.clone());
        let upstreams = Arc::clone(&components.proxy.upstreams);
        let certificates = CertWatcher::new(terminators.collect(), upstreams);
        Self {
            config,
            certificates: Arc::new(certificates),
            files_sent: None,
            components,
            admin: Arc::new(admin),
            link,
            sockets,
            services: Services { data: None, admin: admin_port, background: None },
            heartbeat: Heartbeat::default(),
            totals: ServedTotals::default(),
            shutdown,
        }
    }

    /// Applies the supervisor's hang timeout, shows its figures on the admin port, and counts the
    /// requests in flight of other workers.
    pub(super) fn apply_supervisor_state(&mut self, supervision: &SupervisorStats) {
        self.heartbeat.set_timeout(supervision.hang_timeout);
        self.admin.note_uptime(supervision.uptime);
        self.admin.metrics.set_supervisor_stats(supervision);
        let snapshot = self.components.proxy.current.snapshot();
        InFlight::set_other_workers(&supervision.draining_requests, &snapshot, self.now());
    }

    /// From the first health check to the last message.
    pub(super) async fn run(
        mut self,
        mut orders: UnboundedReceiver<ToWorker>,
        mut signals: Signals,
        first_checks_max: Duration,
    ) -> Result<(), WorkerError> {
        let settings = self.settings(first_checks_max);
        let mut process = WorkerProcess::new(settings, self.now());
        let background = std::mem::take(&mut self.components.background);
        self.services.background = Some(Running::background("background", background));
        tokio::spawn(self.watch_certificates());
        let prober = Arc::clone(&self.components.prober);
        let mut first_checks = pin!(prober.initial_probes_done());
        let mut is_link_open = true;
        while !process.has_ended() {
            let pause = process.next_deadline().since(self.now());
            let event = tokio::select! {
                () = &mut first_checks, if process.is_warming_up() => ProcessEvent::ChecksDone,
                order = orders.recv(), if is_link_open => {
                    is_link_open = order.is_some();
                    event_of(order)
                }
                () = signals.next() => ProcessEvent::StopSignal,
                () = shutdown::drained(&mut self.services), if process.is_draining() => {
                    ProcessEvent::Drained
                }
                () = self.shutdown.services_stopped() => ProcessEvent::ServicesStopped,
                () = tokio::time::sleep(pause) => ProcessEvent::Tick,
            };
            self.dispatch(&mut process, event);
        }
        self.shutdown.result
    }

    fn settings(&self, first_checks_max: Duration) -> ProcessSettings {
        ProcessSettings {
            first_checks_max,
            pre_stop: self.config.shutdown.pre_stop,
            drain: self.config.shutdown.drain,
            hang_timeout: self.heartbeat.timeout(),
        }
    }

    fn dispatch(
        &mut self,
        process: &mut WorkerProcess<WorkerValues>,
        event: ProcessEvent<WorkerValues>,
    ) {
        let mut event = Some(event);
        while let Some(next) = event.take() {
            for command in process.handle(next, self.now()) {
                if let Err(error) = self.execute(command) {
                    self.shutdown.record_error(error);
                    event = Some(ProcessEvent::CommandFailed);
                    break;
                }
            }
        }
    }

    fn watch_certificates(&self) -> impl Future<Output = ()> + use<> {
        cert_watcher::run(
            Arc::clone(&self.certificates),
            Arc::clone(&self.components.tickets),
            self.components.connection_metrics.clone(),
            self.components.proxy.clock,
        )
    }

    pub(super) fn now(&self) -> Timestamp {
        self.components.proxy.clock.now()
    }
}

/// What an order of the supervisor is for the machine; `None`: there will be no more.
fn event_of(order: Option<ToWorker>) -> ProcessEvent<WorkerValues> {
    let order = match order {
        None => return ProcessEvent::LinkClosed,
        // Only the first message is a start.
        Some(ToWorker::Start(_)) => return ProcessEvent::Tick,
        Some(ToWorker::TakeOver(state)) => return ProcessEvent::TakeOver(state),
        Some(ToWorker::AddCounts(report)) => return ProcessEvent::AddCounts(report),
        Some(ToWorker::Overrides { serial, list }) => {
            return ProcessEvent::Overrides((serial, list));
        }
        Some(ToWorker::SupervisorStats(stats)) => {
            return ProcessEvent::Stats {
                hang_timeout: stats.hang_timeout,
                others_drain: stats.draining_workers > 0,
                stats,
            };
        }
        Some(ToWorker::HandOver) => Order::HandOver,
        Some(ToWorker::Resume) => Order::Resume,
        Some(ToWorker::Drain) => Order::Drain,
        Some(ToWorker::Stop) => Order::Stop,
        Some(ToWorker::StopNow) => Order::StopNow,
        Some(ToWorker::Quiesce) => Order::Quiesce,
        Some(ToWorker::Unquiesce) => Order::Unquiesce,
    };
    ProcessEvent::Order(order)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::link::Start;

    fn stats(draining_workers: u64) -> SupervisorStats {
        SupervisorStats {
            generation: 1,
            reloads_done: 0,
            reloads_refused: 0,
            upgrades_done: 0,
            upgrades_refused: 0,
            restarts: 0,
            hangs: 0,
            draining_workers,
            draining_connections: 5,
            log_dropped: 0,
            draining_requests: Vec::new(),
            last_reload_ok: true,
            last_reload_at: SystemTime::UNIX_EPOCH,
            uptime: Duration::ZERO,
            hang_timeout: Some(Duration::from_secs(9)),
        }
    }

    #[test]
    fn a_second_start_changes_nothing_and_the_end_of_the_link_does() {
        let start = Start {
            text: None,
            version: String::new(),
            sockets: Vec::new(),
            state: None,
            supervision: stats(0),
            is_alone: true,
            overrides: OverrideList::default(),
        };
        let event = event_of(Some(ToWorker::Start(Box::new(start))));
        assert!(matches!(event, ProcessEvent::Tick), "{event:?}");
        assert!(matches!(event_of(None), ProcessEvent::LinkClosed));
    }

    #[test]
    fn others_drain_while_there_is_a_draining_worker() {
        for (workers, expected) in [(0, false), (1, true)] {
            let event = event_of(Some(ToWorker::SupervisorStats(stats(workers))));
            let ProcessEvent::Stats { hang_timeout, others_drain, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!(others_drain, expected);
            assert_eq!(hang_timeout, Some(Duration::from_secs(9)));
        }
    }

    #[test]
    fn each_way_to_stop_is_an_order_of_its_own() {
        let drain = event_of(Some(ToWorker::Drain));
        assert!(matches!(drain, ProcessEvent::Order(Order::Drain)), "{drain:?}");
        let stop = event_of(Some(ToWorker::Stop));
        assert!(matches!(stop, ProcessEvent::Order(Order::Stop)), "{stop:?}");
        let now = event_of(Some(ToWorker::StopNow));
        assert!(matches!(now, ProcessEvent::Order(Order::StopNow)), "{now:?}");
    }
}
