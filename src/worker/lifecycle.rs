//! The life of a worker, order by order: warm up, take over, serve, drain.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use humantime::format_duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::admin_port::AdminPort;
use super::cert_watcher::{self, CertWatcher};
use super::heartbeat::Heartbeat;
use super::reports::{DrainReporter, Reported};
use super::services::{self, Running, Sockets};
use super::signals::Signals;
use super::{Components, WorkerError, threads};
use crate::admin::Admin;
use crate::config::Config;
use crate::link::{Link, State, ToSupervisor, ToWorker};
use crate::metrics::SupervisorStats;
use crate::runtime::handoff::Handoff;
use crate::runtime::in_flight::InFlight;
use crate::time::Timestamp;
use crate::tls::last_good::LastGoodFiles;

/// How often the whole state is sent to the supervisor, in case this process dies.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// How often a draining worker reports its counts. The totals of the successor lag by this.
const DRAIN_REPORT_EVERY: Duration = Duration::from_millis(100);

/// Why a worker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A successor serves: drain at once.
    Replaced,
    /// The service stops: report it on `/readyz` first, then drain.
    Stopped,
    /// The supervisor is gone: another one may want the ports.
    Orphaned,
}

/// Carries out the supervisor's orders.
pub(super) struct Lifecycle<'a> {
    config: &'a Config,
    pub(super) components: Components,
    pub(super) admin: Arc<Admin>,
    link: Arc<Link>,
    pub(super) admin_port: AdminPort,
    sockets: Sockets,
    pub(super) data_service: Option<Running>,
    /// Health checks and name lookups, until it drains.
    pub(super) background: Option<Running>,
    pub(super) quiesced: bool,
    pub(super) heartbeat: Heartbeat,
    /// It was ordered to stop at once.
    aborting: bool,
    /// What the successor knows since the handover.
    counts_at_handover: Option<Reported>,
    /// From the start of the drain.
    pub(super) reporter: Option<DrainReporter>,
    certificates: Arc<CertWatcher>,
    /// The contents of TLS files as last sent.
    files_sent: Option<LastGoodFiles>,
}

impl<'a> Lifecycle<'a> {
    pub(super) fn new(
        config: &'a Config,
        components: Components,
        (admin, admin_port): (Admin, AdminPort),
        link: Arc<Link>,
        sockets: Sockets,
    ) -> Self {
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
            admin_port,
            sockets,
            data_service: None,
            background: None,
            quiesced: false,
            heartbeat: Heartbeat::default(),
            aborting: false,
            counts_at_handover: None,
            reporter: None,
        }
    }

    /// Shows the figures of the supervisor on the admin port.
    pub(super) fn show_supervisor_stats(&mut self, supervision: &SupervisorStats) {
        self.heartbeat.set_timeout(supervision.hang_timeout);
        self.admin.note_uptime(supervision.uptime);
        self.admin.metrics.set_supervisor_stats(supervision);
        let snapshot = Arc::clone(&self.components.proxy.snapshot);
        InFlight::set_other_workers(&supervision.draining_requests, &snapshot);
    }

    pub(super) fn beat(&mut self) {
        let beat = self.heartbeat.beat(self.components.proxy.clock.now());
        self.send(&beat);
    }

    /// From the first health check to the last connection.
    pub(super) async fn run(
        &mut self,
        orders: &mut UnboundedReceiver<ToWorker>,
        mut signals: Signals,
        first_checks_max: Duration,
    ) -> Result<(), WorkerError> {
        let background = std::mem::take(&mut self.components.background);
        self.background = Some(Running::background("background", background));
        tokio::spawn(self.watch_certificates());
        tokio::select! {
            () = self.first_checks(first_checks_max) => {}
            _order = orders.recv() => return Ok(()),
            () = signals.next() => return Ok(()),
        }
        self.send(&ToSupervisor::Warm);
        let state = tokio::select! {
            order = orders.recv() => match order {
                Some(ToWorker::TakeOver(state)) => state,
                _ => return Ok(()),
            },
            () = signals.next() => return Ok(()),
        };
        self.take_over(&state)?;
        let end = self.serve(orders, &mut signals).await?;
        self.drain(end, orders).await
    }

    /// Waits for the first health checks of backends of which nothing is known, but not so long that
    /// the supervisor would give up on this worker.
    async fn first_checks(&self, longest: Duration) {
        if timeout(longest, self.components.prober.initial_probes_done()).await.is_err() {
            let waited = format_duration(longest);
            log::warn!("not all backends have been checked: waited={waited}; serving without them");
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

    fn take_over(&mut self, state: &State) -> Result<(), WorkerError> {
        let snapshot = Arc::clone(&self.components.proxy.snapshot);
        state.handoff.import(&snapshot, self.components.proxy.clock.now());
        self.admin.metrics.import(&state.counts, &snapshot);
        // Until the supervisor reports what the predecessor still has, it is what it had just now.
        let draining = self.admin.metrics.supervision().map(|stats| stats.draining_requests);
        let in_flight = [state.counts.in_flight(), &draining.unwrap_or_default()].concat();
        InFlight::set_other_workers(&in_flight, &snapshot);
        if let Some(keys) = &state.tickets {
            self.components.tickets.import(keys.clone());
        }
        let data = std::mem::take(&mut self.sockets);
        let threads = threads(self.config.threads);
        let accept = services::accept(self.config, &self.components, threads, data)
            .map_err(super::system("make the proxy"))?;
        // With one thread there is nothing to steal, and the simpler scheduler is cheaper.
        let data = Running::start(("data", threads, threads > 1), accept);
        self.heartbeat.watch(data.runtime());
        self.data_service = Some(data);
        self.components.readiness.accept();
        self.admin_port.take_over(&self.admin)?;
        self.send(&ToSupervisor::Ready);
        Ok(())
    }

    async fn serve(
        &mut self,
        orders: &mut UnboundedReceiver<ToWorker>,
        signals: &mut Signals,
    ) -> Result<End, WorkerError> {
        let mut checkpoint = interval(CHECKPOINT_EVERY);
        checkpoint.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                () = signals.next() => Some(ToWorker::Stop),
                () = self.heartbeat.due() => {
                    self.beat();
                    continue;
                }
                _ = checkpoint.tick() => {
                    self.checkpoint();
                    self.send(&ToSupervisor::Connections(self.open()));
                    continue;
                }
            };
            match order {
                Some(ToWorker::Drain) => return Ok(End::Replaced),
                Some(ToWorker::Quiesce) => self.quiesce(),
                Some(ToWorker::Unquiesce) => self.unquiesce(),
                Some(ToWorker::Stop) => return Ok(End::Stopped),
                Some(ToWorker::StopNow) => {
                    self.aborting = true;
                    return Ok(End::Stopped);
                }
                None => return Ok(End::Orphaned),
                Some(order) => self.handle_order(order)?,
            }
        }
    }

    fn handle_order(&mut self, order: ToWorker) -> Result<(), WorkerError> {
        match order {
            ToWorker::HandOver => {
                self.admin_port.close();
                let (state, now) = self.admin.freeze(|| self.state());
                self.counts_at_handover = Some(Reported::by(&state, now));
                self.send(&ToSupervisor::State(Box::new(state)));
            }
            ToWorker::Resume => {
                self.counts_at_handover = None;
                self.admin.unfreeze();
                self.admin_port.open();
            }
            ToWorker::AddCounts(report) => {
                let snapshot = Arc::clone(&self.components.proxy.snapshot);
                report.debits.import(&snapshot, self.components.proxy.clock.now());
                self.admin.metrics.import(&report.counts, &snapshot);
            }
            ToWorker::SupervisorStats(facts) => {
                self.show_supervisor_stats(&facts);
                self.admin_port.begin(&self.admin)?;
            }
            ToWorker::Start(_)
            | ToWorker::TakeOver(_)
            | ToWorker::Drain
            | ToWorker::Stop
            | ToWorker::StopNow
            | ToWorker::Quiesce
            | ToWorker::Unquiesce => {}
        }
        Ok(())
    }

    async fn drain(
        &mut self,
        end: End,
        orders: &mut UnboundedReceiver<ToWorker>,
    ) -> Result<(), WorkerError> {
        let mut orders_open = end != End::Orphaned;
        log::info!("draining: connections={}", self.open());
        if end != End::Stopped {
            self.admin_port.retire();
        }
        if end == End::Stopped {
            self.components.readiness.drain();
            let pre_stop = tokio::time::sleep(self.config.shutdown.pre_stop);
            tokio::pin!(pre_stop);
            while orders_open && !self.aborting {
                tokio::select! {
                    () = &mut pre_stop => break,
                    () = self.heartbeat.due() => self.beat(),
                    order = orders.recv() => orders_open = self.handle_order_draining(order, end)?,
                }
            }
        }
        self.components.proxy.draining.store(true, Relaxed);
        // What is left in flight goes on with what is known of the backends.
        if let Some(background) = &self.background {
            background.close();
        }
        if let Some(mut data) = self.data_service.take() {
            let handed_over = self.counts_at_handover.take();
            self.reporter =
                Some(DrainReporter::new(&self.components, &self.admin.metrics, handed_over));
            let mut report = interval(DRAIN_REPORT_EVERY);
            // An orphan gives WebSockets no longer than requests: no process is left that could end it.
            let tunnels_over = tokio::time::sleep(self.config.shutdown.drain);
            tokio::pin!(tunnels_over);
            let mut tunnels_go_on = true;
            while !self.aborting {
                tokio::select! {
                    () = data.drained() => break,
                    () = &mut tunnels_over, if tunnels_go_on && !orders_open => {
                        tunnels_go_on = false;
                        self.components.connections.end_upgraded(self.components.proxy.clock.now());
                    }
                    () = self.heartbeat.due() => self.beat(),
                    _ = report.tick() => self.report(DrainReporter::report),
                    order = orders.recv(), if orders_open => {
                        orders_open = self.handle_order_draining(order, end)?;
                    }
                }
            }
            if self.aborting {
                self.abort(&mut data).await;
            }
            // What is sent while the supervisor replaces itself would be lost.
            while self.quiesced && orders_open {
                orders_open = self.handle_order_draining(orders.recv().await, end)?;
            }
            self.report(DrainReporter::last_report);
            self.data_service = Some(data);
        }
        while end == End::Stopped && !self.aborting && orders_open && self.others_drain() {
            tokio::select! {
                () = self.heartbeat.due() => self.beat(),
                order = orders.recv() => orders_open = self.handle_order_draining(order, end)?,
            }
        }
        match self.components.connections.unfinished() {
            0 => Ok(()),
            open => Err(WorkerError::Cut(open)),
        }
    }

    /// Handles an order while the worker drains. Returns whether there may be more. The last worker of a
    /// service still shows everything on its admin port, its predecessors' counts included.
    fn handle_order_draining(
        &mut self,
        order: Option<ToWorker>,
        end: End,
    ) -> Result<bool, WorkerError> {
        match order {
            None => {
                self.admin_port.retire();
                return Ok(false);
            }
            Some(ToWorker::Quiesce) => self.quiesce(),
            Some(ToWorker::Unquiesce) => self.unquiesce(),
            Some(ToWorker::StopNow) => self.aborting = true,
            Some(order) if end == End::Stopped => self.handle_order(order)?,
            Some(_) => {}
        }
        Ok(true)
    }

    /// Whether a former worker still drains. The last worker shows its counts on the admin port.
    fn others_drain(&self) -> bool {
        self.admin.metrics.supervision().is_some_and(|stats| stats.draining_workers > 0)
    }

    /// The state, and when it was taken.
    fn state(&self) -> (State, Timestamp) {
        let snapshot = Arc::clone(&self.components.proxy.snapshot);
        let now = self.components.proxy.clock.now();
        let handoff = Handoff::export(&snapshot, now);
        let tickets = Some(self.components.tickets.export());
        let counts = self.admin.metrics.export(&snapshot);
        (State { handoff, counts, tickets, files: None }, now)
    }

    /// Sends the whole state, in case this process dies. The contents of TLS files are sent when they
    /// have changed.
    fn checkpoint(&mut self) {
        if self.quiesced {
            return;
        }
        let last_good = Some(self.certificates.last_good());
        let files = if self.files_sent == last_good { None } else { last_good.clone() };
        self.send(&ToSupervisor::Checkpoint(Box::new(State { files, ..self.state().0 })));
        self.files_sent = last_good;
    }

    pub(super) fn open(&self) -> u64 {
        u64::try_from(self.components.connections.open()).unwrap_or(u64::MAX)
    }

    /// The supervisor is about to replace itself, and would lose a message that it has half read. Each
    /// order is acknowledged, because the supervisor counts.
    pub(super) fn quiesce(&mut self) {
        self.quiesced = false;
        self.send(&ToSupervisor::Quiesced);
        self.quiesced = true;
    }

    /// The supervisor may be another image now, which does not have everything that was sent before.
    pub(super) fn unquiesce(&mut self) {
        self.quiesced = false;
        self.files_sent = None;
    }

    pub(super) fn send(&self, message: &ToSupervisor) {
        if self.quiesced {
            return;
        }
        if let Err(error) = self.link.send(message) {
            log::debug!("message not sent to the supervisor: error=\"{error}\"");
        }
    }
}
