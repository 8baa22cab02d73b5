//! The worker processes of the fake world. Each is the machine that production runs, behind a link
//! that delays messages. The world is its shell: commands take their time or fail, and the process
//! dies or hangs at any step.

use std::sync::Arc;

use weir::lifecycle::process::{Message, ProcessCommand, ProcessEvent, ProcessPayload};
use weir::lifecycle::serving_state::ServingState;
use weir::policy::operator::OverrideList;

use super::{
    Death, Duration, Event, Exit, FakeWorker, Happening, Order, Report, State, Timestamp, Values,
    WorkerEvent, WorkerId, World,
};

impl ProcessPayload for Values {
    type State = State;
    type Report = Report;
    type Stats = ();
    type Overrides = (u64, Arc<OverrideList>);
}

/// More events and commands at one moment than any good worker has.
const STEPS_MAX: u32 = 1_000;
/// How long a worker may take to end beyond its own deadlines: the slowest plan, and delays.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long requests may take to end once they were aborted.
const ABORT_MAX: Duration = Duration::from_millis(1500);

impl World {
    /// An order reaches a worker behind those that were sent before.
    pub(super) fn order(&mut self, id: WorkerId, event: ProcessEvent<Values>) {
        let latency = self.millis(0..4);
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id).filter(|it| !it.is_link_lost) else { return };
        let when = (now + latency).max(worker.last_order_at);
        worker.last_order_at = when;
        self.at(when, Happening::Arrives(id, event));
    }

    /// The link is closed. What was sent before can still be read.
    pub(super) fn lose_link(&mut self, id: WorkerId) {
        self.order(id, ProcessEvent::LinkClosed);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_link_lost = true;
        }
    }

    /// A worker that was just started warms up.
    pub(super) fn warm_up(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (death, warm) = (worker.plan.dies_warming, worker.plan.warm);
        match (death, warm) {
            (Some(death), warm) => {
                let after = warm.unwrap_or(Duration::from_millis(10));
                if death == Death::WithReason {
                    let why = WorkerEvent::Failed("it cannot".to_owned());
                    self.later(after, Happening::Input(Event::Worker(id, why)));
                }
                let exit = Exit { clean: false, status: "exit code 1".to_owned() };
                self.later(after + Duration::from_millis(1), Happening::Dies(id, exit));
            }
            (None, Some(after)) => {
                self.later(after, Happening::Arrives(id, ProcessEvent::ChecksDone));
            }
            (None, None) => self.run_worker(id),
        }
    }

    /// Something happens to a worker. It handles one event after the other.
    pub(super) fn arrive(&mut self, id: WorkerId, event: ProcessEvent<Values>) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_alive) else {
            return;
        };
        worker.inbox.push_back(event);
        self.run_worker(id);
    }

    /// Runs a worker until it waits for something.
    pub(super) fn run_worker(&mut self, id: WorkerId) {
        for _ in 0..STEPS_MAX {
            let now = self.now;
            let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_alive) else {
                return;
            };
            if worker.is_hung || worker.runs_until < now || now < worker.busy_until {
                return; // what made it busy wakes it
            }
            if let Some(command) = worker.todo.pop_front() {
                self.step(id, command);
                continue;
            }
            self.check_orders_are_obeyed(id);
            let Some(worker) = self.workers.get_mut(&id) else { return };
            let event = match worker.inbox.pop_front() {
                Some(event) => event,
                None if worker.process.next_deadline() <= now => ProcessEvent::Tick,
                None => {
                    let next = worker.process.next_deadline();
                    if next < Timestamp::MAX && next != worker.wakes_at {
                        worker.wakes_at = next;
                        self.at(next, Happening::Runs(id));
                    }
                    return;
                }
            };
            self.handle(id, event);
        }
        self.fail(&format!("worker {id} does not come to rest"));
    }

    fn handle(&mut self, id: WorkerId, event: ProcessEvent<Values>) {
        let now = self.now;
        if !matches!(event, ProcessEvent::Tick | ProcessEvent::Stats { .. }) {
            self.note(format!("    worker {id}: {event:?}"));
        }
        let has_served_one = self.dice.u8(0..6) == 0;
        self.note_deadline(id, &event);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        // Requests end all the time.
        worker.counted += u64::from(has_served_one && worker.has_connections);
        match &event {
            ProcessEvent::TakeOver(_) => worker.was_told_to_serve = true,
            ProcessEvent::Order(Order::Drain) => {
                (worker.is_to_refuse, worker.is_ending) = (true, true);
            }
            ProcessEvent::Order(Order::Stop) | ProcessEvent::StopSignal => worker.is_ending = true,
            ProcessEvent::Order(Order::StopNow) => {
                (worker.is_to_refuse, worker.is_forced, worker.is_ending) = (true, true, true);
            }
            ProcessEvent::Order(Order::Unquiesce) => {
                (worker.is_quiesced, worker.loud_since) = (false, now);
            }
            ProcessEvent::Order(Order::Resume) => worker.is_to_unfreeze = true,
            ProcessEvent::LinkClosed => {
                (worker.is_quiesced, worker.is_forced) = (false, true);
                (worker.is_to_refuse, worker.is_ending) = (true, true);
            }
            ProcessEvent::CommandFailed => worker.is_ending = true,
            _ => {}
        }
        let is_stop = worker.pre_stop_since.is_some();
        // It still accepts until `pre_stop` is over.
        worker.is_to_refuse &= !is_stop || worker.is_forced;
        let commands = worker.process.handle(event, now);
        let sabotage = self.sabotage;
        worker.todo.extend(commands.into_iter().flat_map(|command| match sabotage {
            Some(sabotage) => sabotage.change_worker(command),
            None => vec![command],
        }));
    }

    /// From when on a worker that was told to end is late.
    fn note_deadline(&mut self, id: WorkerId, event: &ProcessEvent<Values>) {
        let (now, shutdown) = (self.now, self.shutdown);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let is_first = worker.must_end_by.is_none();
        let by = match event {
            ProcessEvent::Order(Order::Drain) if is_first => shutdown.longest(),
            ProcessEvent::Order(Order::Stop) | ProcessEvent::StopSignal if is_first => {
                shutdown.pre_stop + shutdown.longest()
            }
            ProcessEvent::Order(Order::StopNow) => ABORT_MAX,
            // It had to wait with its last message.
            ProcessEvent::Order(Order::Unquiesce) if !is_first => {
                let by = worker.must_end_by.map(|by| by.max(now + END_GRACE));
                worker.must_end_by = by;
                return;
            }
            ProcessEvent::LinkClosed => {
                let by = now + shutdown.longest() + END_GRACE;
                worker.must_end_by = Some(worker.must_end_by.unwrap_or(by).max(by));
                worker.is_orphan = true;
                return;
            }
            ProcessEvent::CommandFailed => Duration::ZERO,
            _ => return,
        };
        worker.must_end_by = Some(now + by + END_GRACE);
    }

    /// Everything that an order asks for is done before the next event.
    fn check_orders_are_obeyed(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (is_to_unfreeze, is_frozen) = (worker.is_to_unfreeze, worker.frozen.is_some());
        let (is_to_refuse, is_accepting) = (worker.is_to_refuse, worker.is_accepting);
        worker.is_to_unfreeze = false;
        let is_ending = worker.is_ending;
        self.assert(!is_to_unfreeze || is_ending || !is_frozen, || {
            format!("worker {id} was told to resume, and shows frozen pages")
        });
        self.assert(!is_to_refuse || !is_accepting, || {
            format!("worker {id} drains, and still accepts connections")
        });
    }

    /// Carries out one command of a worker, after the time that it takes.
    fn step(&mut self, id: WorkerId, command: ProcessCommand<Values>) {
        let (now, is_quiet) = (self.now, self.is_quiet());
        let is_watched = self.settings.hang_timeout.is_some();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !std::mem::replace(&mut worker.has_worked, false) {
            worker.steps += 1;
            let is_due = |step: Option<u32>| step.is_some_and(|step| step <= worker.steps);
            if is_due(worker.plan.dies_at_step) && !is_quiet {
                let exit = Exit { clean: false, status: "signal 11".to_owned() };
                return self.die(id, exit);
            }
            // One that never was watched is never noticed.
            let is_noticed = !worker.was_told_to_serve || worker.has_beaten;
            if is_due(worker.plan.hangs_at_step) && !is_quiet && is_watched && is_noticed {
                worker.is_hung = true;
                return self.note(format!("worker {id} hangs before {command:?}"));
            }
            let takes = match &command {
                ProcessCommand::StartListeners(_) if worker.plan.ready.is_none() => {
                    worker.busy_until = Timestamp::MAX;
                    return;
                }
                ProcessCommand::StartListeners(_) => worker.plan.ready,
                ProcessCommand::Freeze => worker.plan.hand_over,
                ProcessCommand::Send(Message::Quiesced) => worker.plan.quiesce,
                _ => None,
            };
            if let Some(takes) = takes.filter(|takes| !takes.is_zero()) {
                worker.has_worked = true;
                worker.busy_until = now + takes;
                worker.todo.push_front(command);
                return self.at(now + takes, Happening::Runs(id));
            }
        }
        self.carry_out(id, command);
    }

    fn carry_out(&mut self, id: WorkerId, command: ProcessCommand<Values>) {
        let now = self.now;
        let pre_stop = self.shutdown.pre_stop;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match command {
            ProcessCommand::Send(message) => self.send_to_supervisor(id, message),
            ProcessCommand::StartListeners(_) if worker.plan.dies_taking_over => {
                worker.has_failed = true;
                worker.todo.clear();
                worker.inbox.push_front(ProcessEvent::CommandFailed);
            }
            ProcessCommand::StartListeners(state) => {
                worker.counted += state.total;
                (worker.is_accepting, worker.has_connections) = (true, true);
                let is_asked = worker.was_told_to_serve && worker.reported.is_none();
                self.assert(is_asked, || format!("worker {id} accepts before it was told to"));
                self.check_overrides_of(id);
            }
            ProcessCommand::Freeze => worker.frozen = Some(worker.counted),
            ProcessCommand::Unfreeze => worker.frozen = None,
            ProcessCommand::ApplyOverrides((serial, list)) => {
                (worker.overrides_serial, worker.overrides) = (serial, list);
            }
            ProcessCommand::ImportReport(report) => worker.counted += report.count,
            ProcessCommand::SetServingState(ServingState::PreStop) => {
                worker.pre_stop_since = Some(now);
            }
            ProcessCommand::SetServingState(ServingState::DrainingStopped) => {
                let has_waited = worker.is_forced
                    || worker.pre_stop_since.is_some_and(|since| since + pre_stop <= now);
                self.assert(has_waited, || {
                    format!("worker {id} drains, and was not unready for `pre_stop`")
                });
            }
            ProcessCommand::Drain => {
                worker.is_accepting = false;
                // What its successor knows, it does not report.
                worker.reported = Some(worker.frozen.take().unwrap_or(worker.counted));
                let drain = worker.plan.drain.map(|drain| drain.min(self.shutdown.longest()));
                if let Some(drain) = drain {
                    self.later(drain, Happening::Arrives(id, ProcessEvent::Drained));
                }
            }
            ProcessCommand::EndUpgraded => {
                self.later(Duration::ZERO, Happening::Arrives(id, ProcessEvent::Drained));
            }
            ProcessCommand::Abort => {
                worker.is_cut = true;
                if worker.plan.drain.is_some() {
                    let after = Duration::from_millis(700);
                    self.later(after, Happening::Arrives(id, ProcessEvent::Drained));
                }
            }
            ProcessCommand::StopServices => {
                // Requests that are dropped now are counted as well.
                worker.counted += u64::from(worker.has_connections);
                (worker.has_connections, worker.is_accepting) = (false, false);
                let after = worker.plan.exit;
                self.later(after, Happening::Arrives(id, ProcessEvent::ServicesStopped));
            }
            ProcessCommand::Exit => self.exit_worker(id),
            ProcessCommand::WarnUnchecked(_)
            | ProcessCommand::LogDraining
            | ProcessCommand::WarnUnfinished
            | ProcessCommand::OpenAdminPort
            | ProcessCommand::CloseAdminPort
            | ProcessCommand::ReopenAdminPort
            | ProcessCommand::RetireAdminPort
            | ProcessCommand::ShowStats(())
            | ProcessCommand::SetServingState(_)
            | ProcessCommand::StopBackground
            | ProcessCommand::ResendFiles => {}
        }
    }

    fn send_to_supervisor(&mut self, id: WorkerId, message: Message) {
        let serial = self.next_serial();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let may_send = !worker.is_quiesced || message == Message::Quiesced;
        self.assert(may_send, || format!("worker {id} is quiesced, and sends {message:?}"));
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let event = match message {
            Message::Warm => WorkerEvent::Warm,
            Message::Ready => {
                if let Some((after, end)) = worker.plan.end {
                    self.later(after, Happening::Ends(id, end));
                }
                WorkerEvent::Ready
            }
            // It is lost.
            Message::State if worker.plan.hand_over.is_none() => return,
            Message::State => {
                worker.handed_over = Some(serial);
                let total = worker.frozen.unwrap_or(worker.counted);
                WorkerEvent::State(State { serial, total, handed_over_by: Some(id) })
            }
            Message::Checkpoint => {
                let total = worker.counted;
                WorkerEvent::Checkpoint(State { serial, total, handed_over_by: None })
            }
            Message::Quiesced => {
                worker.is_quiesced = true;
                if worker.plan.quiesce.is_none() {
                    return; // it is lost
                }
                WorkerEvent::Quiesced
            }
            Message::OverridesApplied => WorkerEvent::OverridesApplied {
                serial: worker.overrides_serial,
                version: worker.overrides.version,
            },
            Message::Heartbeat => {
                worker.has_beaten = true;
                WorkerEvent::Heartbeat { hung_threads: worker.hung_threads }
            }
            Message::Report | Message::LastReport => {
                let Some(reported) = worker.reported else { return };
                let count = worker.counted - reported;
                if count == 0 && message == Message::Report {
                    return; // the world would only take longer
                }
                worker.reported = Some(worker.counted);
                WorkerEvent::DrainReport(Report { serial, by: id, count })
            }
            // The life cycle has nothing to do with it.
            Message::Connections | Message::LogLost => return,
        };
        self.message(id, event);
    }

    fn exit_worker(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.has_exited = true;
        let clean = !worker.is_cut && !worker.has_failed;
        let status = if clean { "exit code 0" } else { "exit code 1" };
        let is_reported = worker.reported.is_none_or(|reported| reported == worker.counted);
        let (reported, counted, has_failed) = (worker.reported, worker.counted, worker.has_failed);
        self.assert(is_reported, || {
            format!("worker {id} exits, has counted {counted} and reported {reported:?}")
        });
        if has_failed {
            self.message(id, WorkerEvent::Failed("it cannot".to_owned()));
        }
        self.die(id, Exit { clean, status: status.to_owned() });
    }

    // ── promises of the pair ──

    /// A worker takes over from another, which reports from now on what the new one does not know.
    pub(super) fn expect_reports(&mut self, old: WorkerId) {
        let current = self.service.view(self.now).current().map(|current| current.id);
        let knows = current.and_then(|current| self.workers.get(&current)).and_then(|it| it.knows);
        let Some(worker) = self.workers.get_mut(&old) else { return };
        // One that hands over too late has counted what its last checkpoint does not contain.
        worker.known = knows.filter(|(by, _)| *by == old).map(|(_, total)| total);
    }

    /// All that a worker has sent has arrived.
    pub(super) fn check_reports(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let is_complete =
            worker.has_exited && !worker.is_link_lost && !worker.has_failed && !worker.is_killed;
        let Some(known) = worker.known.filter(|_| is_complete) else { return };
        let kept = self.kept_reports().filter(|report| report.by == id).map(|it| it.count);
        let (received, counted) = (worker.delivered + kept.sum::<u64>(), worker.counted);
        self.assert(known + received == counted, || {
            format!(
                "worker {id} has counted {counted}, has handed over {known}, and its reports \
                 say {received}"
            )
        });
        self.sums.reported += 1;
    }

    /// Workers that were told to end do so. The last one may wait for others.
    pub(super) fn check_ends(&mut self) {
        let now = self.now;
        let has_time = |worker: &FakeWorker| {
            let is_stuck = worker.is_hung || worker.is_deaf || worker.busy_until > now;
            let never_drains = worker.plan.drain.is_none()
                && (!worker.is_orphan || worker.reported.is_none())
                && !worker.is_cut;
            is_stuck
                || worker.is_killed
                || worker.is_quiesced
                || never_drains
                || worker.must_end_by.is_none_or(|by| now < by)
        };
        let mut alive = self.workers.values().filter(|worker| worker.is_alive);
        if alive.clone().any(|worker| worker.must_end_by.is_some() && has_time(worker)) {
            self.had_time_to_end = now;
            return;
        }
        if now <= self.had_time_to_end + END_GRACE {
            return;
        }
        if let Some(late) = alive.find(|worker| !has_time(worker)) {
            self.fail(&format!("worker {} should have ended", late.id));
        }
    }

    /// The supervisor dies. Its workers have to notice it and to end.
    pub(super) fn orphan_all(&mut self) {
        self.note("the supervisor dies".to_owned());
        let all: Vec<WorkerId> = self.workers.keys().copied().collect();
        all.into_iter().for_each(|id| self.lose_link(id));
        let end = self.now + self.shutdown.longest() + Duration::from_secs(20);
        while let Some((when, happening)) = self.take_next(end) {
            self.now = when.max(self.now);
            match happening {
                Happening::Arrives(..) | Happening::Runs(_) | Happening::Dies(..) => {
                    self.happen(happening);
                }
                Happening::Operator(_) | Happening::Input(_) | Happening::Ends(..) => {}
            }
            self.check_ends();
        }
        self.now = end;
        let is_excused =
            |it: &&FakeWorker| it.is_hung || it.is_deaf || it.is_killed || it.busy_until > end;
        let left = self.workers.values().filter(|worker| worker.is_alive);
        if let Some(left) = left.filter(|it| !is_excused(it)).map(|it| it.id).next() {
            self.fail(&format!("worker {left} should have ended: its supervisor is gone"));
        }
        self.sums.orphanings += 1;
    }
}
