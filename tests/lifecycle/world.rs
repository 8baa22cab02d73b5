//! The fake world of a service: its clock, its sockets, its operators and its workers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use weir::config::Shutdown;
use weir::lifecycle::Memory;
use weir::lifecycle::process::{ProcessEvent, ProcessSettings};
use weir::lifecycle::view::Role;
use weir::lifecycle::{
    Command, Event, Exit, Failure, KillReason, Loaded, Order, Payload, Service, Settings, Step,
    WorkerEvent, WorkerId,
};
use weir::policy::operator::{BackendKey, OverrideList};
use weir::time::Timestamp;

use crate::sabotage::Sabotage;
use crate::worker::{Death, End, FakeWorker, Plan};

mod operator;
mod process;

/// When operators and faults end, so that the service has to recover.
const QUIET_FROM: Duration = Duration::from_secs(240);
/// When it has to have recovered.
const RECOVERED_BY: Duration = Duration::from_secs(360);
const HANG_TIMEOUT: Duration = Duration::from_secs(10);
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// More events than any good day has.
const EVENTS_MAX: u64 = 200_000;

#[derive(Debug)]
pub(crate) enum Values {}

impl Payload for Values {
    type Config = Config;
    type State = State;
    type Report = Report;
    type Caller = Caller;

    fn is_empty(_report: &Report) -> bool {
        false
    }

    fn has_backend(config: &Config, key: &BackendKey) -> bool {
        operator::has_backend(*config, key)
    }
}

/// Which configuration: each has addresses of its own, and one that all have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config(pub(crate) u64);

impl Config {
    fn addresses(self) -> [u64; 2] {
        [0, 1 + self.0 % 4]
    }
}

/// What a worker knows, by a number of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    serial: u64,
    /// How many requests it has counted, those of its predecessors included.
    total: u64,
    /// Which worker has handed over by it; `None`: it is a checkpoint.
    handed_over_by: Option<WorkerId>,
}

/// What a draining worker has counted since its last one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    serial: u64,
    by: WorkerId,
    count: u64,
}

/// A client that waits.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) u64);

/// What happened, over a day or many.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) events: u64,
    pub(crate) reloads_done: u64,
    pub(crate) reloads_rejected: u64,
    pub(crate) upgrades_done: u64,
    pub(crate) upgrades_rejected: u64,
    pub(crate) restarts: u64,
    pub(crate) hangs: u64,
    pub(crate) drains_ended: u64,
    pub(crate) handovers_late: u64,
    pub(crate) stops_forced: u64,
    pub(crate) replies: u64,
    /// Workers that have reported all that they had counted since their handover.
    pub(crate) reported: u64,
    /// Days on which the supervisor died.
    pub(crate) orphanings: u64,
    /// Overrides that operators have set.
    pub(crate) overrides: u64,
}

impl Sums {
    pub(crate) fn add(&mut self, day: &Self) {
        let sums = [
            (&mut self.events, day.events),
            (&mut self.reloads_done, day.reloads_done),
            (&mut self.reloads_rejected, day.reloads_rejected),
            (&mut self.upgrades_done, day.upgrades_done),
            (&mut self.upgrades_rejected, day.upgrades_rejected),
            (&mut self.restarts, day.restarts),
            (&mut self.hangs, day.hangs),
            (&mut self.drains_ended, day.drains_ended),
            (&mut self.handovers_late, day.handovers_late),
            (&mut self.stops_forced, day.stops_forced),
            (&mut self.replies, day.replies),
            (&mut self.reported, day.reported),
            (&mut self.orphanings, day.orphanings),
            (&mut self.overrides, day.overrides),
        ];
        sums.into_iter().for_each(|(sum, one)| *sum += one);
    }
}

/// What is going to happen.
#[derive(Debug)]
enum Happening {
    Operator(Action),
    Input(Event<Values>),
    /// Something reaches a worker.
    Arrives(WorkerId, ProcessEvent<Values>),
    /// A worker goes on, or looks at its deadlines.
    Runs(WorkerId),
    /// The process of a worker ends.
    Dies(WorkerId, Exit),
    Ends(WorkerId, End),
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Reload,
    ReloadByCommand,
    Storm,
    Upgrade,
    Crash,
    SetOverride,
    SupervisorDies,
    Stop,
    StopAndWait,
    StopSignal,
}

/// How a stop has to go.
#[derive(Debug)]
struct Stopping {
    since: Timestamp,
    /// When it has to be complete.
    by: Timestamp,
    close_from: Timestamp,
    unclean: bool,
}

/// What is known of the states that the worker that serves was asked for.
#[derive(Debug, Default)]
struct Asked {
    orders: u64,
    last_order: Timestamp,
    delivered: u64,
    newest: Option<u64>,
}

pub(crate) struct World {
    seed: u64,
    dice: Rng,
    sabotage: Option<Sabotage>,
    now: Timestamp,
    service: Service<Values>,
    settings: Settings,
    shutdown: Shutdown,
    queue: BinaryHeap<Reverse<(Timestamp, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    serial: u64,
    workers: BTreeMap<WorkerId, FakeWorker>,
    asked: BTreeMap<WorkerId, Asked>,
    bound: BTreeSet<u64>,
    unlistened: BTreeSet<u64>,
    are_sockets_closed: bool,
    config_changes: bool,
    /// A file is being read.
    loading: bool,
    newest_config: Config,
    /// The newest state that was stored, and every one that was.
    stored: Option<State>,
    ever_stored: BTreeSet<u64>,
    /// Reports of draining workers that came, and those of them that a worker has got.
    reports: BTreeMap<u64, Report>,
    delivered_reports: BTreeSet<u64>,
    /// What operators have set on backends.
    words: operator::Words,
    /// Clients that have set it.
    operators: BTreeSet<u64>,
    /// Clients that wait: when they asked.
    waiting: BTreeMap<u64, (Timestamp, bool)>,
    answered: BTreeSet<u64>,
    check: u64,
    has_started: bool,
    stopping: Option<Stopping>,
    ended: Option<Result<(), Failure>>,
    is_supervisor_dead: bool,
    /// The last moment at which a worker that was told to end still had time for it.
    had_time_to_end: Timestamp,
    trace: VecDeque<String>,
    is_traced: bool,
    sums: Sums,
}

fn at(after: Duration) -> Timestamp {
    Timestamp::ZERO + after
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut dice = Rng::with_seed(seed);
        let seconds = Duration::from_secs;
        let shutdown = Shutdown {
            pre_stop: if dice.bool() { Duration::ZERO } else { seconds(dice.u64(1..15)) },
            drain: seconds(dice.u64(5..30)),
            tunnels: if dice.bool() { Duration::ZERO } else { seconds(dice.u64(10..60)) },
            draining_workers: NonZeroUsize::new(dice.usize(1..5)).unwrap(),
        };
        let settings = Settings {
            ready_timeout: Duration::from_millis(dice.u64(1_000..10_000)),
            hang_timeout: (dice.u8(0..4) > 0).then_some(HANG_TIMEOUT),
            keepalive: dice.bool().then_some(seconds(5)),
            upgrade_obstacle: None,
            binary_path: "/usr/bin/weir".to_owned(),
        };
        let config = Config(0);
        let service = Service::new(settings.clone(), Loaded { config, shutdown });
        Self {
            seed,
            dice,
            sabotage,
            now: Timestamp::ZERO,
            service,
            settings,
            shutdown,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            serial: 0,
            workers: BTreeMap::new(),
            asked: BTreeMap::new(),
            bound: config.addresses().into_iter().collect(),
            unlistened: BTreeSet::new(),
            are_sockets_closed: false,
            config_changes: false,
            loading: false,
            newest_config: config,
            stored: None,
            ever_stored: BTreeSet::new(),
            reports: BTreeMap::new(),
            delivered_reports: BTreeSet::new(),
            words: operator::Words::default(),
            operators: BTreeSet::new(),
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
            check: 0,
            has_started: false,
            stopping: None,
            ended: None,
            is_supervisor_dead: false,
            had_time_to_end: Timestamp::ZERO,
            trace: VecDeque::new(),
            is_traced: std::env::var_os("TRACE").is_some(),
            sums: Sums::default(),
        }
    }

    fn fail(&self, what: &str) -> ! {
        let trace = self.trace.iter().cloned().collect::<Vec<_>>().join("\n  ");
        let now = Duration::from_nanos(self.now.as_nanos());
        panic!("seed {}, {now:?}: {what}\n  {trace}\n{:#?}", self.seed, self.view_text());
    }

    fn view_text(&self) -> String {
        format!("{:?}", self.service.view(self.now))
    }

    fn assert(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }

    fn note(&mut self, what: String) {
        let line = format!("{:?} {what}", Duration::from_nanos(self.now.as_nanos()));
        if self.is_traced {
            println!("{line}");
        }
        self.trace.push_back(line);
        if self.trace.len() > 60 {
            self.trace.pop_front();
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.u64(range))
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.at(self.now + after, happening);
    }

    fn at(&mut self, when: Timestamp, happening: Happening) {
        let serial = self.next_serial();
        self.queue.push(Reverse((when, serial)));
        self.happenings.insert(serial, happening);
    }

    // ── a day ──

    pub(crate) fn live_a_day(mut self) -> Sums {
        self.plan_the_day();
        self.dispatch(Event::Started);
        self.tick();
        while self.ended.is_none() && !self.is_supervisor_dead {
            let next = self.queue.peek().map_or(Timestamp::MAX, |Reverse((when, _))| *when);
            self.now = next.min(self.service.next_deadline()).max(self.now);
            while self.ended.is_none()
                && !self.is_supervisor_dead
                && let Some((_, happening)) = self.take_next(self.now)
            {
                self.happen(happening);
            }
            if self.ended.is_none() {
                self.tick();
            }
            self.check_progress();
        }
        if self.is_supervisor_dead {
            self.orphan_all();
        } else {
            self.check_the_end();
        }
        let counters = self.service.view(self.now).counters;
        self.sums.reloads_done = counters.reloads_done;
        self.sums.reloads_rejected = counters.reloads_rejected;
        self.sums.upgrades_done = counters.upgrades_done;
        self.sums.upgrades_rejected = counters.upgrades_rejected;
        self.sums.restarts = counters.restarts;
        self.sums.hangs = counters.hangs;
        self.sums
    }

    /// What happens next, not after `until`.
    fn take_next(&mut self, until: Timestamp) -> Option<(Timestamp, Happening)> {
        let Reverse((when, serial)) =
            self.queue.peek().copied().filter(|next| next.0.0 <= until)?;
        self.queue.pop();
        let happening = self.happenings.remove(&serial);
        happening.map(|happening| (when, happening))
    }

    fn plan_the_day(&mut self) {
        let actions = [
            Action::Reload,
            Action::ReloadByCommand,
            Action::ReloadByCommand,
            Action::Storm,
            Action::Upgrade,
            Action::Upgrade,
            Action::Crash,
            Action::SetOverride,
            Action::SetOverride,
            Action::SetOverride,
        ];
        for _ in 0..self.dice.u64(2..40) {
            let action = *self.dice.choice(&actions).unwrap();
            // Often together, because what happens at the same time is what goes wrong.
            let when = at(Duration::from_millis(self.dice.u64(0..48) * 5_000));
            let when = when + self.millis(0..3_000);
            if when < at(QUIET_FROM) {
                self.at(when, Happening::Operator(action));
            }
        }
        if self.dice.u8(0..10) == 0 {
            let when = at(self.millis(0..240_000));
            self.at(when, Happening::Operator(Action::SupervisorDies));
        }
        let stops = [Action::Stop, Action::StopAndWait, Action::StopSignal];
        let stop = *self.dice.choice(&stops).unwrap();
        let early = self.dice.bool();
        let when = if early { self.millis(0..240_000) } else { RECOVERED_BY + self.millis(1..99) };
        self.at(at(when), Happening::Operator(stop));
        for _ in 0..self.dice.u64(0..4) {
            let again = *self.dice.choice(&[Action::StopSignal, Action::StopAndWait]).unwrap();
            let when = when + self.millis(0..20_000);
            self.at(at(when), Happening::Operator(again));
        }
    }

    fn is_quiet(&self) -> bool {
        self.now >= at(QUIET_FROM)
    }

    fn tick(&mut self) {
        self.dispatch(Event::Tick);
        if self.ended.is_none() && self.service.next_deadline() <= self.now {
            // An exec has made a new service just now.
            self.dispatch(Event::Tick);
        }
        let next = self.service.next_deadline();
        let is_over = self.ended.is_some();
        self.assert(is_over || next > self.now, || {
            "the loop would spin: a deadline has passed".into()
        });
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Operator(action) => self.operate(action),
            Happening::Input(event) => self.input(event),
            Happening::Arrives(id, event) => self.arrive(id, event),
            Happening::Runs(id) => self.run_worker(id),
            Happening::Dies(id, exit) => self.die(id, exit),
            Happening::Ends(id, end) => self.end_of(id, end),
        }
    }

    fn operate(&mut self, action: Action) {
        self.note(format!("operator: {action:?}"));
        match action {
            Action::Reload => {
                self.config_changes = true;
                self.dispatch(Event::ReloadRequested(None));
            }
            Action::ReloadByCommand => {
                self.config_changes = true;
                self.ask_reload();
            }
            Action::Storm => {
                for _ in 0..self.dice.u64(2..12) {
                    let after = self.millis(0..1_500);
                    let action = [Action::Reload, Action::ReloadByCommand, Action::Upgrade];
                    let action = *self.dice.choice(&action).unwrap();
                    self.later(after, Happening::Operator(action));
                }
            }
            Action::Upgrade => self.dispatch(Event::UpgradeRequested),
            Action::Crash => {
                let running = self.workers.values().filter(|worker| worker.is_alive);
                let running: Vec<WorkerId> = running.map(|worker| worker.id).collect();
                if let Some(id) = self.dice.choice(&running).copied() {
                    let exit = Exit { clean: false, status: "signal 9".to_owned() };
                    self.die(id, exit);
                }
            }
            Action::SetOverride => {
                self.sums.overrides += 1;
                self.set_override();
            }
            Action::SupervisorDies => self.is_supervisor_dead = true,
            Action::Stop => {
                self.begin_stop();
                self.dispatch(Event::StopRequested);
            }
            Action::StopAndWait => {
                self.begin_stop();
                let reply = self.client(true);
                self.dispatch(Event::StopAndWait(reply));
            }
            Action::StopSignal => {
                self.begin_stop();
                if self.dice.bool() {
                    // The whole group of processes gets it.
                    let all: Vec<WorkerId> = self.workers.keys().copied().collect();
                    for id in all {
                        let after = self.millis(0..3);
                        self.later(after, Happening::Arrives(id, ProcessEvent::StopSignal));
                    }
                }
                self.dispatch(Event::StopSignal("SIGTERM"));
            }
        }
    }

    fn begin_stop(&mut self) {
        let longest = self.shutdown.pre_stop + self.shutdown.longest();
        let now = self.now;
        self.stopping.get_or_insert(Stopping {
            since: now,
            // Its grace, and as long as an exit is waited for.
            by: now + longest + Duration::from_secs(5 + 6),
            close_from: now + self.shutdown.pre_stop,
            unclean: false,
        });
    }

    fn client(&mut self, waits_for_end: bool) -> Caller {
        let client = self.next_serial();
        self.waiting.insert(client, (self.now, waits_for_end));
        Caller(client)
    }

    fn ask_reload(&mut self) {
        let reply = self.client(false);
        self.dispatch(Event::ReloadRequested(Some(reply)));
    }

    // ── workers ──

    /// A message that arrives after all that this worker sent before.
    fn message(&mut self, id: WorkerId, event: WorkerEvent<Values>) {
        let is_slow = self.dice.u8(0..20) == 0;
        let latency = if is_slow { self.millis(0..200) } else { self.millis(0..4) };
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_alive) else {
            return;
        };
        if worker.is_link_lost {
            return;
        }
        let when = (now + latency).max(worker.last_message_at);
        worker.last_message_at = when;
        self.at(when, Happening::Input(Event::Worker(id, event)));
    }

    fn end_of(&mut self, id: WorkerId, end: End) {
        if self.is_quiet() {
            return;
        }
        let is_watched = self.settings.hang_timeout.is_some();
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_alive) else {
            return;
        };
        match end {
            End::Crash => {
                let exit = Exit { clean: false, status: "signal 6".to_owned() };
                self.die(id, exit);
            }
            // Where workers are not watched, nothing would ever notice.
            End::Hang => worker.is_hung = is_watched,
            End::DataThreadsHang => worker.hung_threads = u64::from(is_watched),
            End::LoseLink => {
                self.message(id, WorkerEvent::LinkClosed);
                self.lose_link(id);
            }
            End::StopReading => worker.is_deaf = true,
        }
        self.note(format!("worker {id}: {end:?}"));
    }

    /// A process ends. Its link closes and it is reaped, one after the other.
    fn die(&mut self, id: WorkerId, exit: Exit) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_alive) else {
            return;
        };
        (worker.is_alive, worker.is_accepting) = (false, false);
        let after = worker.last_message_at;
        self.note(format!("worker {id} dies: {}", exit.status));
        // The thread that reads the link may be late.
        let late = if self.dice.u8(0..10) == 0 { self.millis(0..500) } else { self.millis(0..5) };
        let closed = after.max(self.now) + late;
        let reaped = self.now + self.millis(0..20);
        self.at(closed, Happening::Input(Event::Worker(id, WorkerEvent::LinkClosed)));
        self.at(reaped, Happening::Input(Event::Worker(id, WorkerEvent::Exited(exit))));
    }

    // ── the life cycle ──

    /// Something reaches the supervisor.
    fn input(&mut self, event: Event<Values>) {
        if let Event::Worker(id, said) = &event {
            match said {
                WorkerEvent::State(state) => {
                    let asked = self.asked.entry(*id).or_default();
                    asked.delivered += 1;
                    asked.newest = Some(state.serial);
                }
                WorkerEvent::LinkClosed => {
                    self.check_reports(*id);
                    if let Some(worker) = self.workers.get_mut(id) {
                        worker.is_link_closed = true;
                    }
                }
                WorkerEvent::DrainReport(of) => {
                    let view = self.service.view(self.now);
                    if view.draining().any(|draining| draining == *id) {
                        self.reports.insert(of.serial, *of);
                    }
                }
                WorkerEvent::Exited(exit) => {
                    let view = self.service.view(self.now);
                    let counts = view.workers.iter().any(|worker| {
                        worker.id == *id && matches!(worker.role, Role::Serving | Role::Draining)
                    });
                    if let Some(worker) = self.workers.get_mut(id) {
                        worker.is_reaped = true;
                    }
                    if let Some(stopping) = &mut self.stopping {
                        stopping.unclean |= counts && !exit.clean;
                    }
                }
                _ => {}
            }
        }
        self.loading &= !matches!(event, Event::ConfigLoaded(_));
        self.dispatch(event);
    }

    fn dispatch(&mut self, event: Event<Values>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if self.ended.is_some() {
                return;
            }
            self.sums.events += 1;
            if self.sums.events > EVENTS_MAX {
                self.fail("it does not come to rest");
            }
            if !matches!(event, Event::Tick | Event::Worker(_, WorkerEvent::Heartbeat { .. })) {
                self.note(format!("{event:?}"));
            }
            let mut commands = self.service.handle(event, self.now);
            if let Some(sabotage) = self.sabotage {
                commands =
                    commands.into_iter().flat_map(|command| sabotage.change(command)).collect();
            }
            let mut has_executed = false;
            for command in commands {
                self.assert(!has_executed, || format!("after an exec: {command:?}"));
                has_executed = matches!(command, Command::Exec);
                events.extend(self.execute(command));
            }
        }
        self.check_promises();
    }

    fn execute(&mut self, command: Command<Values>) -> Option<Event<Values>> {
        let is_reply = matches!(command, Command::ReplyRound(_));
        self.assert(self.ended.is_none() || is_reply, || format!("after the end: {command:?}"));
        if !matches!(command, Command::PublishStats | Command::StoreState(..)) {
            self.note(format!("    → {command:?}"));
        }
        match command {
            Command::LoadConfig => {
                let loaded = Event::ConfigLoaded(self.load_config());
                if self.dice.u8(0..4) > 0 {
                    return Some(loaded);
                }
                let after = self.millis(0..800);
                self.loading = true;
                self.later(after, Happening::Input(loaded));
            }
            Command::Spawn { worker, config, overrides, .. } => {
                return self.spawn(worker, config, overrides);
            }
            Command::SendOverrides { worker, serial, list } => {
                return self.send_overrides(worker, serial, list);
            }
            Command::ReplyRound(result) => self.reply_round(*result),
            Command::Send(id, order) => return self.send(id, order),
            Command::TakeOver { worker, listen } => return self.tell_to_take_over(worker, listen),
            Command::Kill(id, reason) => self.kill(id, &reason),
            Command::Release(id) => {
                let worker = self.workers.get(&id);
                let is_dead = worker.is_some_and(|worker| !worker.is_alive);
                self.assert(is_dead, || format!("worker {id} is released and runs"));
            }
            Command::StoreState(id, state) => self.store_state(id, &state),
            Command::SendReport(id, report) => return self.send_report(id, report),
            Command::CloseUnused(config) => {
                self.bound.retain(|address| config.addresses().contains(address));
                self.unlistened.clear();
            }
            Command::CloseSockets => self.close_sockets(),
            Command::ReportReload { callers, worker, after, .. } => {
                self.report_reload(worker, after, callers);
            }
            Command::ReplyFailed(callers, _) => self.answer(callers, false),
            Command::CheckCompatibility { check } => self.start_check(check),
            Command::Exec => return self.exec(),
            Command::PublishStats => return self.publish_stats(),
            Command::MeasureMemory => return Some(Event::MemoryMeasured(self.measure())),
            Command::ReplyEnded { callers, result } => {
                let is_stop = self.stopping.is_some();
                self.assert(is_stop, || {
                    format!("a stop is reported, and was not asked: {result:?}")
                });
                self.answer(callers, true);
            }
            Command::Exit(result) => self.exit(result),
            Command::AdoptNames(id) => {
                let is_killed = self.workers.get(&id).is_some_and(|worker| worker.is_killed);
                self.assert(!is_killed, || format!("worker {id} serves, and was killed"));
            }
            Command::Log(..)
            | Command::StoreNames(..)
            | Command::ForgetInFlight
            | Command::KeepBinary(_)
            | Command::CancelCheck
            | Command::NotifyReady
            | Command::NotifyReloading
            | Command::NotifyStopping
            | Command::NotifyAlive => {}
        }
        None
    }

    fn report_reload(&mut self, worker: WorkerId, after: Config, callers: Vec<Caller>) {
        self.forget_missing(after);
        let view = self.service.view(self.now);
        let is_current = view.current().is_some_and(|current| current.id == worker);
        self.assert(is_current, || "a reload is reported before it is done".into());
        self.answer(callers, false);
    }

    fn close_sockets(&mut self) {
        let stopping = self.stopping.as_ref();
        let is_time = stopping.is_some_and(|stopping| stopping.close_from <= self.now);
        self.assert(is_time, || "the sockets are closed before `pre_stop`".into());
        self.are_sockets_closed = true;
        self.bound.clear();
    }

    fn store_state(&mut self, id: WorkerId, state: &State) {
        let is_current =
            self.service.view(self.now).current().is_some_and(|current| current.id == id);
        self.assert(is_current, || format!("the state of worker {id}, which does not serve"));
        let is_new = self.ever_stored.insert(state.serial);
        self.assert(is_new, || format!("state {} is stored twice", state.serial));
        self.stored = Some(*state);
    }

    fn load_config(&mut self) -> Result<Loaded<Config>, String> {
        if self.dice.u8(0..6) == 0 && !self.is_quiet() {
            return Err("the file is wrong".to_owned());
        }
        let config =
            Config(if self.config_changes { self.dice.u64(0..8) } else { self.newest_config.0 });
        self.newest_config = config;
        for address in config.addresses() {
            if self.bound.insert(address) {
                self.unlistened.insert(address);
            }
        }
        Ok(Loaded { config, shutdown: self.shutdown })
    }

    fn spawn(
        &mut self,
        id: WorkerId,
        config: Config,
        overrides: Arc<OverrideList>,
    ) -> Option<Event<Values>> {
        self.assert(!self.workers.contains_key(&id), || format!("worker {id} exists already"));
        for address in config.addresses() {
            let is_bound = self.bound.contains(&address);
            self.assert(is_bound, || format!("address {address} of worker {id} is not bound"));
        }
        let timeout = self.settings.ready_timeout;
        let is_first = id.0 == 1 && self.dice.u8(0..8) > 0;
        let plan = if self.is_quiet() || is_first {
            Plan::good(&mut self.dice)
        } else {
            Plan::any(&mut self.dice, timeout)
        };
        if plan.dies_warming == Some(Death::AtSpawn) {
            let why = "too many processes".to_owned();
            return Some(Event::Worker(id, WorkerEvent::SpawnFailed(why)));
        }
        let settings = ProcessSettings {
            first_checks_max: plan.first_checks_max,
            pre_stop: self.shutdown.pre_stop,
            drain: self.shutdown.drain,
            hang_timeout: self.settings.hang_timeout,
        };
        let mut worker = FakeWorker::new(id, config, plan, settings, self.now);
        worker.last_message_at = self.now;
        let version = overrides.version;
        if worker.knows_overrides {
            worker.overrides = overrides;
        }
        let knows_overrides = worker.knows_overrides;
        self.workers.insert(id, worker);
        if knows_overrides {
            self.message(id, WorkerEvent::OverridesApplied { serial: 0, version });
        }
        self.warm_up(id);
        None
    }

    fn send(&mut self, id: WorkerId, order: Order) -> Option<Event<Values>> {
        let worker = self.workers.get(&id)?;
        if worker.is_deaf && worker.is_alive {
            return Some(Event::Worker(id, WorkerEvent::SendTimedOut));
        }
        match order {
            Order::HandOver => {
                let is_fine = self.stopping.is_none();
                self.assert(is_fine, || format!("worker {id} stops and is asked to hand over"));
                let now = self.now;
                let asked = self.asked.entry(id).or_default();
                asked.orders += 1;
                asked.last_order = now;
            }
            Order::Drain | Order::Stop => {
                let is_needed = self.stopping.is_none()
                    && self.service.view(self.now).current().is_some_and(|it| it.id == id);
                self.assert(!is_needed, || format!("worker {id} serves and is told to go"));
                let pre_stop =
                    if order == Order::Stop { self.shutdown.pre_stop } else { Duration::ZERO };
                let until = self.now + pre_stop + self.shutdown.longest();
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.has_until.get_or_insert(until);
                }
            }
            Order::Unquiesce if self.dice.u8(0..3) == 0 && !self.is_quiet() => {
                // An operator whose upgrade was rejected tries again at once.
                let after = self.millis(0..300);
                self.later(after, Happening::Operator(Action::Upgrade));
            }
            Order::Resume | Order::StopNow | Order::Quiesce | Order::Unquiesce => {}
        }
        if order == Order::Drain {
            self.expect_reports(id);
        }
        self.order(id, ProcessEvent::Order(order));
        None
    }

    fn tell_to_take_over(&mut self, id: WorkerId, listen: bool) -> Option<Event<Values>> {
        let view = self.service.view(self.now);
        let others = view
            .workers
            .iter()
            .filter(|other| other.id != id && other.role == Role::Candidate(Step::TakingOver));
        let other = others.map(|other| other.id).find(|other| {
            self.workers.get(other).is_some_and(|other| other.is_alive && !other.is_killed)
        });
        let is_failing = other.and_then(|other| self.workers.get(&other));
        let is_failing = is_failing.is_some_and(|other| other.is_ending);
        self.assert(other.is_none() || is_failing, || {
            format!("the state is given to worker {id}, and worker {other:?} has it")
        });
        let asked = view.current().and_then(|current| self.asked.get(&current.id));
        let current = view.current().map(|current| current.id);
        if let (Some(asked), Some(current)) = (asked, current) {
            if asked.delivered == asked.orders {
                self.assert(self.stored.map(|it| it.serial) >= asked.newest, || {
                    format!(
                        "worker {id} did not get the state that worker {current} handed over: \
                         {:?} and not {:?}",
                        self.stored, asked.newest
                    )
                });
            } else {
                let is_late = asked.last_order + HANDOVER_TIMEOUT <= self.now;
                self.assert(is_late, || format!("worker {current} still has time to hand over"));
                self.sums.handovers_late += 1;
            }
        }
        if listen {
            if self.dice.u8(0..30) == 0 && !self.is_quiet() {
                self.unlistened.clear();
                let why = "address in use".to_owned();
                return Some(Event::Worker(id, WorkerEvent::ListenFailed(why)));
            }
            self.unlistened.clear();
        }
        let stored = self.stored;
        let worker = self.workers.get_mut(&id)?;
        let is_first = worker.got.is_none();
        let stored = stored.unwrap_or_default();
        worker.got = Some(stored.serial);
        // One that was asked again may have counted more since.
        let asked = stored.handed_over_by.and_then(|by| self.asked.get(&by));
        let is_newest = asked.is_some_and(|asked| asked.delivered == asked.orders);
        let handed_over_by = stored.handed_over_by.filter(|_| is_newest);
        worker.knows = handed_over_by.map(|by| (by, stored.total));
        self.assert(is_first, || format!("worker {id} takes over twice"));
        for address in self.workers.get(&id)?.config.addresses() {
            let is_fine = self.bound.contains(&address) && !self.unlistened.contains(&address);
            self.assert(is_fine, || format!("address {address} is not bound, or not listened on"));
        }
        if self.dice.u8(0..60) == 0 && !self.is_quiet() {
            // Two workers may accept by now.
            let after = self.millis(0..60);
            self.later(after, Happening::Operator(Action::StopSignal));
        }
        self.order(id, ProcessEvent::TakeOver(stored));
        None
    }

    fn kill(&mut self, id: WorkerId, reason: &KillReason) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let is_again = std::mem::replace(&mut worker.is_killed_by_this_image, true);
        worker.runs_until = self.now + worker.plan.dies_after.min(Duration::from_millis(20));
        worker.is_killed = true;
        let after = worker.plan.dies_after;
        let is_reaped = worker.is_reaped;
        let has_until = worker.has_until;
        self.assert(!is_reaped, || format!("worker {id} is killed, and was reaped"));
        if *reason == KillReason::DrainTimeout {
            let is_late = has_until.is_some_and(|until| until <= self.now);
            self.assert(is_late, || format!("worker {id} still has time to drain"));
        }
        if !matches!(reason, KillReason::NotNeeded) {
            self.sums.drains_ended += 1;
        }
        self.assert(!is_again, || format!("worker {id} is killed twice"));
        let exit = Exit { clean: false, status: "signal 9".to_owned() };
        self.later(after, Happening::Dies(id, exit));
    }

    /// A worker that is gone gets nothing, and neither does one that does not read.
    fn send_report(&mut self, id: WorkerId, report: Report) -> Option<Event<Values>> {
        let worker = self.workers.get(&id)?;
        let timed_out = worker.is_deaf && worker.is_alive;
        if timed_out || !worker.is_alive || worker.is_link_closed {
            return Some(Event::Worker(id, WorkerEvent::ReportNotSent { report, timed_out }));
        }
        if let Some(by) = self.workers.get_mut(&report.by) {
            by.delivered += report.count;
        }
        let is_new = self.delivered_reports.insert(report.serial);
        self.assert(is_new, || format!("report {} is sent twice", report.serial));
        self.order(id, ProcessEvent::AddCounts(report));
        None
    }

    /// The worker that serves gets the figures of the supervisor.
    fn publish_stats(&mut self) -> Option<Event<Values>> {
        let view = self.service.view(self.now);
        let others_drain = view.draining().next().is_some();
        let id = view.current()?.id;
        let worker = self.workers.get(&id)?;
        if worker.is_deaf && worker.is_alive {
            return Some(Event::Worker(id, WorkerEvent::SendTimedOut));
        }
        let hang_timeout = self.settings.hang_timeout;
        self.order(id, ProcessEvent::Stats { hang_timeout, others_drain, stats: () });
        None
    }

    /// The report of a draining worker that no worker has got.
    fn lost_report(&self) -> Option<u64> {
        self.kept_reports().next().map(|report| report.serial)
    }

    fn kept_reports(&self) -> impl Iterator<Item = &Report> {
        let is_kept = |report: &&Report| !self.delivered_reports.contains(&report.serial);
        self.reports.values().filter(is_kept)
    }

    fn answer(&mut self, callers: Vec<Caller>, at_the_end: bool) {
        for Caller(client) in callers {
            self.sums.replies += 1;
            let is_new = self.answered.insert(client);
            self.assert(is_new, || format!("client {client} was answered twice"));
            let Some((_, waits_for_end)) = self.waiting.remove(&client) else {
                self.fail(&format!("client {client} did not ask"));
            };
            self.assert(waits_for_end == at_the_end || self.ended.is_some(), || {
                format!("client {client} waits for something else")
            });
        }
    }

    fn start_check(&mut self, check: u64) {
        self.assert(check > self.check, || format!("check {check} again"));
        self.check = check;
        let (after, result) = match self.dice.u8(0..10) {
            0 => (self.millis(10..500), Err("it is another program".to_owned())),
            1 => return,
            2 => (self.millis(4_900..9_000), Ok(())),
            _ => (self.millis(10..2_000), Ok(())),
        };
        self.later(after, Happening::Input(Event::CompatibilityChecked { check, result }));
    }

    fn exec(&mut self) -> Option<Event<Values>> {
        let serving = self.service.view(self.now).workers.into_iter();
        let serving: Vec<WorkerId> = serving
            .map(|worker| {
                let is_candidate = matches!(worker.role, Role::Candidate(_));
                self.assert(!is_candidate, || format!("candidate {} is left behind", worker.id));
                worker.id
            })
            .collect();
        for id in &serving {
            let worker = self.workers.get(id);
            let is_quiet = worker
                .is_none_or(|it| !it.is_alive || it.is_quiesced || it.is_hung || it.is_link_lost);
            self.assert(is_quiet, || format!("worker {id} may still send"));
        }
        let in_flight = self.happenings.values().find(|happening| match happening {
            Happening::Input(Event::Worker(id, said)) => {
                let is_end = matches!(said, WorkerEvent::LinkClosed | WorkerEvent::Exited(_));
                serving.contains(id) && !is_end
            }
            _ => false,
        });
        self.assert(in_flight.is_none(), || format!("in flight during an exec: {in_flight:?}"));
        let lost = self.lost_report();
        self.assert(lost.is_none(), || format!("report {lost:?} is left behind"));
        let is_serving = self.service.view(self.now).current().is_some();
        self.assert(is_serving, || "no worker serves while the supervisor is replaced".into());
        if self.dice.u8(0..8) == 0 {
            return Some(Event::ExecFailed("no such file".to_owned()));
        }
        let mut saved = self.service.save(self.now);
        if self.sabotage == Some(Sabotage::ForgetAtExec) {
            saved.overrides = OverrideList::default();
        }
        let active = self.service.view(self.now).active.clone();
        self.service = Service::restore(self.settings.clone(), active, &saved, self.now);
        let now = self.now;
        let mut closed = Vec::new();
        for worker in self.workers.values_mut() {
            worker.is_killed_by_this_image = false;
            if worker.is_link_closed && serving.contains(&worker.id) {
                closed.push(worker.id);
            }
        }
        // The new image reads the end of these links once more.
        for id in closed {
            self.at(now, Happening::Input(Event::Worker(id, WorkerEvent::LinkClosed)));
        }
        // The connections of clients are closed with the old image: they ask again.
        let waiting = std::mem::take(&mut self.waiting);
        for client in waiting.into_keys() {
            // What was to be set is set, and the client may ask again.
            if self.is_operator(client) {
                continue;
            }
            self.note(format!("client {client} asks again"));
            self.later(Duration::from_millis(200), Happening::Operator(Action::ReloadByCommand));
        }
        self.check = 0;
        let rollback = (self.dice.u8(0..8) == 0).then(|| "a fault".to_owned());
        Some(Event::Resumed(rollback))
    }

    fn measure(&mut self) -> Memory {
        if self.dice.u8(0..4) > 0 {
            return Memory::default();
        }
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        let resident = ids.into_iter().map(|id| (id, self.dice.u64(10..100))).collect();
        Memory { available: Some(self.dice.u64(0..500)), resident }
    }

    fn exit(&mut self, result: Result<(), Failure>) {
        match (&result, &self.stopping) {
            (Err(Failure::FirstWorker(_)), _) => {
                self.assert(!self.has_started, || "it gives up, and has served".into());
            }
            (_, None) => self.fail("it ends, and was not asked to"),
            (Ok(()), Some(stopping)) => {
                let is_clean = !stopping.unclean;
                self.assert(is_clean, || "a stop that cut something is called a good one".into());
            }
            (Err(Failure::ForcedStop(_)), Some(_)) => self.sums.stops_forced += 1,
        }
        self.ended = Some(result);
    }

    // ── promises ──

    /// What holds after every event.
    fn check_promises(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let view = self.service.view(self.now);
        let current = view.current().map(|current| current.id);
        self.has_started |= current.is_some();
        let candidates =
            view.workers.iter().filter(|worker| matches!(worker.role, Role::Candidate(_)));
        let is_on_its_way = candidates.clone().next().is_some() || view.restart_in.is_some();
        if self.stopping.is_none() {
            self.assert(current.is_some() || is_on_its_way, || {
                "no worker serves, and no restart is scheduled".into()
            });
            for address in view.active.config.addresses() {
                let is_bound = self.bound.contains(&address);
                self.assert(is_bound, || {
                    format!("address {address}, which is served, is not bound")
                });
            }
        }
        for candidate in candidates {
            let Some(worker) = self.workers.get(&candidate.id) else { continue };
            let is_needed = worker.is_alive && !worker.is_killed && !self.are_sockets_closed;
            for address in worker.config.addresses() {
                let is_bound = self.bound.contains(&address) || !is_needed;
                self.assert(is_bound, || {
                    format!("address {address} of candidate {} is not bound", candidate.id)
                });
            }
        }
        let roles = view.workers.iter().map(|worker| worker.role);
        let has = |step: Step| roles.clone().any(|role| role == Role::Candidate(step));
        let waits = view.workers.iter().any(|worker| {
            let is_fit =
                self.workers.get(&worker.id).is_some_and(|it| it.is_alive && !it.is_killed);
            worker.role == Role::Candidate(Step::Queued) && is_fit
        });
        self.assert(!waits || has(Step::TakingOver), || {
            "a candidate waits for another one, and there is none".into()
        });
        if !is_on_its_way && self.stopping.is_none() && !self.loading {
            let used = view.active.config.addresses();
            let unused = self.bound.iter().find(|address| !used.contains(address));
            self.assert(unused.is_none(), || format!("address {unused:?} is bound for nothing"));
        }
        let draining = view.draining().filter(|id| {
            self.workers.get(id).is_some_and(|worker| worker.is_alive && !worker.is_killed)
        });
        let (draining, max) = (draining.count(), self.shutdown.draining_workers.get());
        self.assert(draining <= max, || format!("{draining} workers drain, allowed are {max}"));
    }

    /// What holds between two moments.
    fn check_progress(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.check_ends();
        if let Some(stopping) = &self.stopping {
            let since = Duration::from_nanos(stopping.since.as_nanos());
            let is_in_time = self.now <= stopping.by;
            return self
                .assert(is_in_time, || format!("the stop does not end, it began at {since:?}"));
        }
        if self.now < at(RECOVERED_BY) {
            return;
        }
        let view = self.service.view(self.now);
        let Some(current) = view.current() else {
            self.fail("no worker serves after a quiet minute");
        };
        let Some(worker) = self.workers.get(&current.id) else { self.fail("it is no worker") };
        let is_serving = worker.is_alive && worker.is_accepting && !worker.is_hung;
        self.assert(is_serving, || format!("worker {} should serve, and does not", worker.id));
        self.assert(!worker.is_link_closed, || {
            format!("worker {} cannot be controlled", worker.id)
        });
        self.assert(worker.frozen.is_none() || worker.is_busy(self.now), || {
            format!("worker {} serves, and shows frozen pages", worker.id)
        });
        self.check_all_overrides(worker.id);
        let is_active = worker.config == view.active.config;
        self.assert(is_active, || "the worker serves another configuration".into());
        let is_calm = view.workers.iter().all(|worker| !matches!(worker.role, Role::Candidate(_)));
        self.assert(is_calm, || "a candidate is on its way for ever".into());
        if let Some(client) = self.waiting.keys().next() {
            self.fail(&format!("client {client} was never answered"));
        }
        let lost = self.lost_report();
        self.assert(lost.is_none(), || format!("report {lost:?} of a draining worker is lost"));
    }

    fn check_the_end(&mut self) {
        if let Some(client) = self.waiting.keys().next() {
            self.fail(&format!("client {client} was never answered"));
        }
        self.ask_for_a_stop_after_the_end();
    }

    /// Clients whose stop comes too late get the result of the end.
    fn ask_for_a_stop_after_the_end(&mut self) {
        let late = self.client(true);
        let was_forced = matches!(self.ended, Some(Err(Failure::ForcedStop(_))));
        for command in self.service.handle(Event::StopAndWait(late), self.now) {
            match command {
                Command::ReplyEnded { result, callers } => {
                    self.assert(result.is_err() == was_forced, || {
                        format!("a late stop gets {result:?}")
                    });
                    self.answer(callers, true);
                }
                other => self.fail(&format!("after the end: {other:?}")),
            }
        }
        self.assert(self.waiting.is_empty(), || "a late stop was never answered".into());
    }
}
