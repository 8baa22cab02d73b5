//! A worker's life, order by order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use humantime::format_duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::admin_port::AdminPort;
use super::heartbeat::Heartbeat;
use super::renewal::{Files, keep_renewed};
use super::reports::Reported;
use super::services::{self, Running, Sockets};
use super::signals::Signals;
use super::{Parts, WorkerError, threads};
use crate::admin::Admin;
use crate::config::Config;
use crate::link::{Link, State, ToSupervisor, ToWorker};
use crate::metrics::Supervision;
use crate::runtime::handoff::Handoff;
use crate::runtime::in_flight::InFlight;
use crate::time::Timestamp;
use crate::tls::last_good::LastGoodFiles;

/// How often the supervisor is told everything, for the case that this process dies.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);
/// How often it is told what is counted while draining: the totals of the successor lag by this.
const DRAIN_REPORT_EVERY: Duration = Duration::from_millis(100);

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A successor serves: drain at once.
    Replaced,
    /// The service stops: say so first, then drain.
    Stopped,
    /// The supervisor is gone: another one may want the ports.
    Orphaned,
}

/// Carries out orders.
pub(super) struct Conductor<'a> {
    config: &'a Config,
    pub(super) parts: Parts,
    pub(super) admin: Arc<Admin>,
    link: Arc<Link>,
    pub(super) admin_port: AdminPort,
    sockets: Sockets,
    pub(super) data_service: Option<Running>,
    /// Health checks and lookups of names, until it drains.
    pub(super) background: Option<Running>,
    pub(super) silent: bool,
    pub(super) heartbeat: Heartbeat,
    /// It was told to stop at once.
    aborting: bool,
    /// What the successor got.
    handed_over: Option<Reported>,
    /// What was reported since, at the end of the drain.
    pub(super) reported: Option<Reported>,
    files: Arc<Files>,
    /// What the supervisor knows of the files.
    kept: Option<LastGoodFiles>,
}

impl<'a> Conductor<'a> {
    pub(super) fn new(
        config: &'a Config,
        parts: Parts,
        (admin, admin_port): (Admin, AdminPort),
        link: Arc<Link>,
        sockets: Sockets,
    ) -> Self {
        let terminators = parts.doors.iter().filter_map(|door| door.terminator.clone());
        let files = Files::new(terminators.collect(), Arc::clone(&parts.proxy.upstreams));
        Self {
            config,
            files: Arc::new(files),
            kept: None,
            parts,
            admin: Arc::new(admin),
            link,
            admin_port,
            sockets,
            data_service: None,
            background: None,
            silent: false,
            heartbeat: Heartbeat::default(),
            aborting: false,
            handed_over: None,
            reported: None,
        }
    }

    /// Takes in what the supervisor says of itself.
    pub(super) fn supervised(&mut self, supervision: &Supervision) {
        self.heartbeat.set_timeout(supervision.hang_timeout);
        self.admin.note_uptime(supervision.uptime);
        self.admin.metrics.supervised(supervision);
        let snapshot = Arc::clone(&self.parts.proxy.snapshot);
        InFlight::set_other_workers(&supervision.draining_requests, &snapshot);
    }

    pub(super) fn beat(&mut self) {
        let beat = self.heartbeat.beat(self.parts.proxy.clock.now());
        self.tell(&beat);
    }

    /// From the first probe to the last connection.
    pub(super) async fn conduct(
        &mut self,
        orders: &mut UnboundedReceiver<ToWorker>,
        mut signals: Signals,
        first_checks_max: Duration,
    ) -> Result<(), WorkerError> {
        let background = std::mem::take(&mut self.parts.background);
        self.background = Some(Running::background("background", background));
        tokio::spawn(self.renewal());
        tokio::select! {
            () = self.first_checks(first_checks_max) => {}
            _order = orders.recv() => return Ok(()),
            () = signals.next() => return Ok(()),
        }
        self.tell(&ToSupervisor::Warm);
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
        if timeout(longest, self.parts.prober.initial_probes_done()).await.is_err() {
            let waited = format_duration(longest);
            log::warn!("not all backends have been checked: waited={waited}; serving without them");
        }
    }

    fn renewal(&self) -> impl Future<Output = ()> + use<> {
        keep_renewed(
            Arc::clone(&self.files),
            Arc::clone(&self.parts.tickets),
            self.parts.connection_metrics.clone(),
            self.parts.proxy.clock,
        )
    }

    fn take_over(&mut self, state: &State) -> Result<(), WorkerError> {
        let snapshot = Arc::clone(&self.parts.proxy.snapshot);
        state.handoff.import(&snapshot, self.parts.proxy.clock.now());
        self.admin.metrics.import(&state.counts, &snapshot);
        // Until the supervisor reports what the predecessor still has, it is what it had just now.
        let draining = self.admin.metrics.supervision().map(|told| told.draining_requests);
        let in_flight = [state.counts.in_flight(), &draining.unwrap_or_default()].concat();
        InFlight::set_other_workers(&in_flight, &snapshot);
        if let Some(keys) = &state.tickets {
            self.parts.tickets.import(keys.clone());
        }
        let data = std::mem::take(&mut self.sockets);
        let threads = threads(self.config.threads);
        let accept = services::accept(self.config, &self.parts, threads, data)
            .map_err(super::system("make the proxy"))?;
        // With one thread there is nothing to steal, and the simpler scheduler is cheaper.
        let data = Running::start(("data", threads, threads > 1), accept);
        self.heartbeat.watch(data.runtime());
        self.data_service = Some(data);
        self.parts.readiness.accept();
        self.admin_port.take_over(&self.admin)?;
        self.tell(&ToSupervisor::Ready);
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
                    self.tell(&ToSupervisor::Connections(self.open()));
                    continue;
                }
            };
            match order {
                Some(ToWorker::Drain) => return Ok(End::Replaced),
                Some(ToWorker::Hold) => self.hold(),
                Some(ToWorker::Speak) => self.speak(),
                Some(ToWorker::Stop) => return Ok(End::Stopped),
                Some(ToWorker::StopNow) => {
                    self.aborting = true;
                    return Ok(End::Stopped);
                }
                None => return Ok(End::Orphaned),
                Some(order) => self.obey(order)?,
            }
        }
    }

    fn obey(&mut self, order: ToWorker) -> Result<(), WorkerError> {
        match order {
            ToWorker::HandOver => {
                self.admin_port.close();
                let (state, now) = self.admin.freeze(|| self.state());
                self.handed_over = Some(Reported::by(&state, now));
                self.tell(&ToSupervisor::State(Box::new(state)));
            }
            ToWorker::Resume => {
                self.handed_over = None;
                self.admin.unfreeze();
                self.admin_port.open();
            }
            ToWorker::Inherit(report) => {
                let snapshot = Arc::clone(&self.parts.proxy.snapshot);
                report.debits.import(&snapshot, self.parts.proxy.clock.now());
                self.admin.metrics.import(&report.counts, &snapshot);
            }
            ToWorker::Supervised(facts) => {
                self.supervised(&facts);
                self.admin_port.begin(&self.admin)?;
            }
            ToWorker::Start(_)
            | ToWorker::TakeOver(_)
            | ToWorker::Drain
            | ToWorker::Stop
            | ToWorker::StopNow
            | ToWorker::Hold
            | ToWorker::Speak => {}
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
            self.parts.readiness.drain();
            let pre_stop = tokio::time::sleep(self.config.shutdown.pre_stop);
            tokio::pin!(pre_stop);
            while orders_open && !self.aborting {
                tokio::select! {
                    () = &mut pre_stop => break,
                    () = self.heartbeat.due() => self.beat(),
                    order = orders.recv() => orders_open = self.obey_late(order, end)?,
                }
            }
        }
        self.parts.proxy.draining.store(true, Relaxed);
        // What is left in flight goes on with what is known of the backends.
        if let Some(background) = &self.background {
            background.close();
        }
        if let Some(mut data) = self.data_service.take() {
            let mut told = self.handed_over.take().unwrap_or_else(|| self.all_reported());
            let mut report = interval(DRAIN_REPORT_EVERY);
            // An orphan gives tunnels no longer than requests: nobody could end it.
            let tunnels_over = tokio::time::sleep(self.config.shutdown.drain);
            tokio::pin!(tunnels_over);
            let mut tunnels_go_on = true;
            while !self.aborting {
                tokio::select! {
                    () = data.drained() => break,
                    () = &mut tunnels_over, if tunnels_go_on && !orders_open => {
                        tunnels_go_on = false;
                        self.parts.connections.end_tunnels(self.parts.proxy.clock.now());
                    }
                    () = self.heartbeat.due() => self.beat(),
                    _ = report.tick() => self.report(&mut told),
                    order = orders.recv(), if orders_open => {
                        orders_open = self.obey_late(order, end)?;
                    }
                }
            }
            if self.aborting {
                self.abort(&mut data).await;
            }
            // What is said while the supervisor replaces itself would be lost.
            while self.silent && orders_open {
                orders_open = self.obey_late(orders.recv().await, end)?;
            }
            self.report_all(&mut told);
            self.reported = Some(told);
            self.data_service = Some(data);
        }
        while end == End::Stopped && !self.aborting && orders_open && self.others_drain() {
            tokio::select! {
                () = self.heartbeat.due() => self.beat(),
                order = orders.recv() => orders_open = self.obey_late(order, end)?,
            }
        }
        match self.parts.connections.unfinished() {
            0 => Ok(()),
            open => Err(WorkerError::Cut(open)),
        }
    }

    /// Obeys one that is about to end; whether there may be more orders. The last worker of a
    /// service still tells everything on its admin port, its predecessors' counts included.
    fn obey_late(&mut self, order: Option<ToWorker>, end: End) -> Result<bool, WorkerError> {
        match order {
            None => {
                self.admin_port.retire();
                return Ok(false);
            }
            Some(ToWorker::Hold) => self.hold(),
            Some(ToWorker::Speak) => self.speak(),
            Some(ToWorker::StopNow) => self.aborting = true,
            Some(order) if end == End::Stopped => self.obey(order)?,
            Some(_) => {}
        }
        Ok(true)
    }

    /// Whether a former worker still drains. The last worker shows its counts on the admin port.
    fn others_drain(&self) -> bool {
        self.admin.metrics.supervision().is_some_and(|told| told.draining_workers > 0)
    }

    /// What it knows, and when it did.
    fn state(&self) -> (State, Timestamp) {
        let snapshot = Arc::clone(&self.parts.proxy.snapshot);
        let now = self.parts.proxy.clock.now();
        let handoff = Handoff::export(&snapshot, now);
        let tickets = Some(self.parts.tickets.export());
        let counts = self.admin.metrics.export(&snapshot);
        (State { handoff, counts, tickets, files: None }, now)
    }

    /// Tells all that is known, for the case that this process dies. What is in the files is told
    /// when it has changed.
    fn checkpoint(&mut self) {
        if self.silent {
            return;
        }
        let kept = Some(self.files.kept());
        let files = if self.kept == kept { None } else { kept.clone() };
        self.tell(&ToSupervisor::Checkpoint(Box::new(State { files, ..self.state().0 })));
        self.kept = kept;
    }

    pub(super) fn open(&self) -> u64 {
        u64::try_from(self.parts.connections.open()).unwrap_or(u64::MAX)
    }

    /// The supervisor replaces itself and could lose what it has half read.
    pub(super) fn hold(&mut self) {
        self.tell(&ToSupervisor::Held);
        self.silent = true;
    }

    /// Another image may be listening, which knows what the one before could tell it.
    pub(super) fn speak(&mut self) {
        self.silent = false;
        self.kept = None;
    }

    pub(super) fn tell(&self, said: &ToSupervisor) {
        if self.silent {
            return;
        }
        if let Err(error) = self.link.send(said) {
            log::debug!("supervisor not told: error=\"{error}\"");
        }
    }
}
