//! A worker process of the fake world: the machine that production runs, and what goes wrong with it
//! when, decided by dice at its birth.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use weir::lifecycle::WorkerId;
use weir::lifecycle::process::{ProcessCommand, ProcessEvent, ProcessSettings, WorkerProcess};
use weir::policy::operator::OverrideList;
use weir::time::Timestamp;

use crate::world::{Config, Values};

/// How a worker behaves.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How long its first health checks take; `None`: for ever.
    pub(crate) warm: Option<Duration>,
    /// How long it waits for them.
    pub(crate) first_checks_max: Duration,
    /// What it does in place of warming up to the end.
    pub(crate) dies_warming: Option<Death>,
    /// From its order to take over to its `Ready`; `None`: never.
    pub(crate) ready: Option<Duration>,
    /// It gets the order to accept connections, and cannot.
    pub(crate) dies_taking_over: bool,
    /// How long it takes to hand over; `None`: its state is lost.
    pub(crate) hand_over: Option<Duration>,
    /// How long it drains; `None`: until it gets the order to abort, or is killed.
    pub(crate) drain: Option<Duration>,
    /// How long it takes to acknowledge that it sends nothing more; `None`: that is lost.
    pub(crate) quiesce: Option<Duration>,
    /// After how long of serving it dies or hangs.
    pub(crate) end: Option<(Duration, End)>,
    /// From the signal to the end of its process.
    pub(crate) dies_after: Duration,
    /// How long its services take to stop.
    pub(crate) exit: Duration,
    /// Before which of its commands it dies.
    pub(crate) dies_at_step: Option<u32>,
    /// Before which of its commands it hangs.
    pub(crate) hangs_at_step: Option<u32>,
    /// It is of an older version, which does not know overrides.
    pub(crate) is_old: bool,
}

/// How a worker dies that warms up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// It exits.
    Silently,
    /// It says why, and exits.
    WithReason,
    /// It could not even be started.
    AtSpawn,
}

/// What happens to a worker that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Crash,
    /// It sends nothing more and does nothing.
    Hang,
    /// Its data threads hang.
    DataThreadsHang,
    /// Its link closes, and its process goes on.
    LoseLink,
    /// It does not read what is sent to it.
    StopReading,
}

fn millis(dice: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(dice.u64(range))
}

impl Plan {
    /// A worker that does all it should, and soon.
    pub(crate) fn good(dice: &mut Rng) -> Self {
        Self {
            warm: Some(millis(dice, 20..1500)),
            first_checks_max: Duration::from_secs(15),
            dies_warming: None,
            ready: Some(millis(dice, 1..50)),
            dies_taking_over: false,
            hand_over: Some(millis(dice, 1..50)),
            drain: Some(millis(dice, 0..20_000)),
            quiesce: Some(millis(dice, 1..50)),
            end: None,
            dies_after: millis(dice, 1..20),
            exit: millis(dice, 1..500),
            dies_at_step: None,
            hangs_at_step: None,
            is_old: false,
        }
    }

    /// A worker that does one thing or other wrong, often. `ready_timeout`: when it is given up.
    pub(crate) fn any(dice: &mut Rng, ready_timeout: Duration) -> Self {
        let mut plan = Self::good(dice);
        match dice.u8(0..20) {
            0 => plan.dies_warming = Some(Death::Silently),
            1 => plan.dies_warming = Some(Death::WithReason),
            2 => plan.dies_warming = Some(Death::AtSpawn),
            3 => {
                plan.warm = None;
                plan.first_checks_max = millis(dice, 500..15_000);
            }
            4 => {
                plan.warm = Some(ready_timeout + millis(dice, 0..200) - Duration::from_millis(100))
            }
            5 => plan.ready = None,
            6 => plan.dies_taking_over = true,
            7 => {
                // Its `Ready` and its deadline come at the same time.
                plan.warm = Some(ready_timeout - Duration::from_millis(60));
                plan.ready = Some(millis(dice, 0..120));
            }
            _ => {}
        }
        plan.is_old = dice.u8(0..20) == 0;
        match dice.u8(0..12) {
            0 => plan.hand_over = None,
            1 => plan.hand_over = Some(millis(dice, 1_000..9_000)),
            _ => {}
        }
        match dice.u8(0..10) {
            0 | 1 => plan.drain = None,
            2 => plan.drain = Some(millis(dice, 20_000..90_000)),
            _ => {}
        }
        match dice.u8(0..12) {
            0 => plan.quiesce = None,
            1 => plan.quiesce = Some(millis(dice, 1_500..4_000)),
            _ => {}
        }
        let after = millis(dice, 1..60_000);
        plan.end = match dice.u8(0..20) {
            0 | 1 => Some((after, End::Crash)),
            2 => Some((after, End::Hang)),
            3 => Some((after, End::DataThreadsHang)),
            4 => Some((after, End::LoseLink)),
            5 => Some((after, End::StopReading)),
            _ => None,
        };
        // Most of its commands are those of its first and last seconds.
        let step = if dice.bool() { dice.u32(1..12) } else { dice.u32(1..400) };
        match dice.u8(0..25) {
            0 => plan.dies_at_step = Some(step),
            1 => plan.hangs_at_step = Some(step),
            _ => {}
        }
        if dice.u8(0..15) == 0 {
            // It hangs in the kernel.
            plan.dies_after = millis(dice, 1_000..90_000);
        }
        plan
    }
}

/// The process of a worker.
#[derive(Debug)]
pub(crate) struct FakeWorker {
    pub(crate) id: WorkerId,
    pub(crate) config: Config,
    pub(crate) plan: Plan,
    pub(crate) is_alive: bool,
    pub(crate) is_accepting: bool,
    pub(crate) is_hung: bool,
    pub(crate) is_deaf: bool,
    pub(crate) is_killed: bool,
    /// The next image of the supervisor does not know of it and may kill it again.
    pub(crate) is_killed_by_this_image: bool,
    pub(crate) is_link_closed: bool,
    /// Its number may be another process's by now.
    pub(crate) is_reaped: bool,
    pub(crate) is_quiesced: bool,
    /// What was asked of it cannot be undone: it will end.
    pub(crate) is_ending: bool,
    /// Until when it may drain, once it was told to go.
    pub(crate) has_until: Option<Timestamp>,
    /// The newest state that it has sent in response to an order.
    pub(crate) handed_over: Option<u64>,
    /// The state that it got when it took over.
    pub(crate) got: Option<u64>,
    pub(crate) hung_threads: u64,
    /// Its messages arrive in order: not before this one.
    pub(crate) last_message_at: Timestamp,
    pub(crate) last_order_at: Timestamp,
    // ── what operators have set on backends ──
    pub(crate) knows_overrides: bool,
    pub(crate) overrides: Arc<OverrideList>,
    pub(crate) overrides_serial: u64,
    /// When it was last told to send again.
    pub(crate) loud_since: Timestamp,
    // ── its machine, and what is on its way to it and from it ──
    pub(crate) process: WorkerProcess<Values>,
    pub(crate) inbox: VecDeque<ProcessEvent<Values>>,
    pub(crate) todo: VecDeque<ProcessCommand<Values>>,
    pub(crate) busy_until: Timestamp,
    /// It was killed by then. It may take longer to die.
    pub(crate) runs_until: Timestamp,
    /// The first command has taken its time.
    pub(crate) has_worked: bool,
    pub(crate) wakes_at: Timestamp,
    /// How many commands it has begun.
    pub(crate) steps: u32,
    /// Neither it nor the supervisor gets what is sent from now on.
    pub(crate) is_link_lost: bool,
    // ── what it was told, and what it did ──
    pub(crate) was_told_to_serve: bool,
    pub(crate) has_connections: bool,
    pub(crate) has_beaten: bool,
    /// It was told to drain at once, so it must not accept.
    pub(crate) is_to_refuse: bool,
    pub(crate) is_to_unfreeze: bool,
    pub(crate) pre_stop_since: Option<Timestamp>,
    /// It may drain before `pre_stop` is over.
    pub(crate) is_forced: bool,
    pub(crate) is_orphan: bool,
    pub(crate) is_cut: bool,
    pub(crate) has_failed: bool,
    /// Its machine has decided to exit.
    pub(crate) has_exited: bool,
    pub(crate) must_end_by: Option<Timestamp>,
    // ── its counts, those of its predecessors included ──
    pub(crate) counted: u64,
    /// What its pages show since it was asked to hand over.
    pub(crate) frozen: Option<u64>,
    /// What it has handed over and reported, from its drain on.
    pub(crate) reported: Option<u64>,
    /// What it knows since it took over: from which worker, and the counts of that one.
    pub(crate) knows: Option<(WorkerId, u64)>,
    /// What its successor got of its counts when it took over.
    pub(crate) known: Option<u64>,
    /// What other workers got of its reports since.
    pub(crate) delivered: u64,
}

impl FakeWorker {
    pub(crate) fn new(
        id: WorkerId,
        config: Config,
        plan: Plan,
        settings: ProcessSettings,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            config,
            knows_overrides: !plan.is_old,
            overrides: Arc::default(),
            overrides_serial: 0,
            loud_since: Timestamp::ZERO,
            plan,
            is_alive: true,
            is_accepting: false,
            is_hung: false,
            is_deaf: false,
            is_killed: false,
            is_killed_by_this_image: false,
            is_link_closed: false,
            is_reaped: false,
            is_quiesced: false,
            is_ending: false,
            has_until: None,
            handed_over: None,
            got: None,
            hung_threads: 0,
            last_message_at: Timestamp::ZERO,
            last_order_at: Timestamp::ZERO,
            process: WorkerProcess::new(settings, now),
            inbox: VecDeque::new(),
            todo: VecDeque::new(),
            busy_until: now,
            runs_until: Timestamp::MAX,
            has_worked: false,
            wakes_at: Timestamp::ZERO,
            steps: 0,
            is_link_lost: false,
            was_told_to_serve: false,
            has_connections: false,
            has_beaten: false,
            is_to_refuse: false,
            is_to_unfreeze: false,
            pre_stop_since: None,
            is_forced: false,
            is_orphan: false,
            is_cut: false,
            has_failed: false,
            has_exited: false,
            must_end_by: None,
            counted: 0,
            frozen: None,
            reported: None,
            knows: None,
            known: None,
            delivered: 0,
        }
    }

    /// Whether it has something to do at the moment.
    pub(crate) fn is_busy(&self, now: Timestamp) -> bool {
        now <= self.last_order_at || self.busy_until > now || !self.inbox.is_empty()
    }
}
