//! The process that owns the listening sockets and starts the workers that serve them.
//!
//! ```text
//!            file checked, sockets bound, worker started
//!   serving ───────────────────────────────────────────▶ a candidate warms up
//!      ▲                                                        │ Warm
//!      │ candidate failed, died or was late: it is ended,       ▼
//!      ├◀──────────── the old worker goes on ────────── the old worker hands over its state
//!      │                                                        │ State
//!      │ Ready: the candidate serves, the old worker drains      ▼
//!      └◀────────────────────────────────────────────── the candidate takes over
//! ```
//! It does one thing after the other, on one thread: everything that happens (a signal, a word of
//! a worker, a command, a change of the file) is an event in one queue. It serves no request
//! itself, so there is little that can make it die; and while it lives, the sockets stay open.

mod candidate;
mod child;
pub mod control;
mod lives;
mod reload;
mod signals;
mod status;
mod systemd;
mod upgrade;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroI32;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rustix::process::WaitStatus;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};

use self::candidate::Candidate;
use self::child::Child;
pub use self::child::Program;
use self::control::{Answer, Request};
use crate::clock::Clock;
use crate::config::{Config, Problems};
use crate::link::{State, ToSupervisor, ToWorker};
use crate::metrics::{Counts, Supervision};
use crate::sockets::BindError;
use crate::time::Timestamp;

/// Workers that may drain at once. One more, and the oldest is ended.
const DRAINING_MAX: usize = 3;
/// How long a worker may take beyond its own drain deadline before it is killed.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// The wait before a worker that died is replaced: none if it had lived well, else this, doubled
/// each time up to the longest.
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// A worker that lived so long did not die of its start.
const LIVED_WELL: Duration = Duration::from_secs(10);
/// How often the supervisor looks after what no event tells of.
const TICK: Duration = Duration::from_secs(1);

/// Turns a text into its meaning and its version.
pub type Load = Box<dyn Fn(Option<&[u8]>) -> Result<(Config, String), Problems>>;

/// What to supervise.
pub struct Options {
    /// How a worker is started.
    pub program: Program,
    /// The configuration file; none if flags or environment say all.
    pub file: Option<PathBuf>,
    /// Turns the file's text into its meaning, flags and environment included.
    pub load: Load,
    /// The text of a file that does not exist, such as the demo's.
    pub text: Option<String>,
    /// Where commands come in.
    pub control: control::Place,
    /// How long a new worker may take until it serves.
    pub ready_timeout: Duration,
    /// Whether changes of the file are reloads.
    pub watch: bool,
    /// Called once, when requests are accepted for the first time.
    pub ready: Option<Box<dyn FnOnce()>>,
}

impl Options {
    /// Tells whoever waits for it that requests are accepted.
    fn announce_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            ready();
        }
        systemd::ready();
    }
}

/// The supervisor could not start, or ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The configuration is refused.
    #[error("{0}")]
    Refused(String),
    /// An address could not be had.
    #[error("weir: {0}")]
    Bind(#[from] BindError),
    /// The first worker could not serve.
    #[error("weir: {0}")]
    Worker(String),
    /// The system refused something.
    #[error("weir: cannot {doing}: {source}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A second signal, or a worker that did not drain in time.
    #[error("weir: {0}")]
    Cut(String),
}

/// Everything that can happen.
#[derive(Debug)]
enum Event {
    /// A signal arrived.
    Signal(i32),
    /// A worker said something.
    Said { generation: u64, said: ToSupervisor },
    /// A worker will say nothing more.
    Silent { generation: u64 },
    /// A command came over the control socket.
    Command(Request, Sender<Answer>),
    /// The watched file has other contents.
    FileChanged,
}

/// What is being served.
struct Served {
    config: Config,
    text: Option<String>,
    version: String,
}

struct Supervisor {
    options: Options,
    clock: Clock,
    events: Sender<Event>,
    sockets: BTreeMap<SocketAddr, TcpListener>,
    served: Served,
    current: Option<Child>,
    candidate: Option<Candidate>,
    draining: VecDeque<Draining>,
    checkpoint: State,
    facts: Supervision,
    restart_at: Option<Timestamp>,
    restart_wait: Duration,
    reload_again: bool,
    waiting: Vec<Sender<Answer>>,
    /// What drained workers counted while there was nobody to inherit it.
    orphans: Vec<Counts>,
    /// Workers that hold their tongue, and how long the others may take to.
    silent: BTreeSet<u64>,
    /// Workers that will say nothing more, and processes that have ended.
    mute: BTreeSet<u64>,
    dead: HashMap<NonZeroI32, WaitStatus>,
    upgrade_until: Option<Timestamp>,
    stopping: Option<Stopping>,
    ever_ready: bool,
    /// How often systemd wants to hear that we live, and when next.
    watchdog: Option<Duration>,
    alive_at: Timestamp,
}

struct Draining {
    child: Child,
    until: Timestamp,
}

/// Asked to stop.
struct Stopping {
    /// When our copies of the sockets are closed, so that nobody waits for an accept.
    close_at: Timestamp,
    /// When a worker that has not ended is killed.
    kill_at: Timestamp,
    /// A worker was cut, or failed.
    cut: bool,
    /// What it said of it.
    why: Option<String>,
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::System { doing, source }
}

/// Serves until a signal says stop.
///
/// # Errors
/// [`SupervisorError`]; its text is for the operator.
pub fn run(options: Options) -> Result<(), SupervisorError> {
    let (events, queue) = mpsc::channel();
    // First of all: the kernel drops a signal for which process 1 has no handler.
    signals::listen(&events).map_err(system("watch for signals"))?;
    let memory = upgrade::remembered().map_err(system("remember what was served"))?;
    let (text, version) = match &memory {
        Some(memory) => memory.served(),
        None => (reload::read(&options)?, String::new()),
    };
    let (config, loaded) = reload::load(&options, text.as_deref())?;
    let version = if memory.is_some() { version } else { loaded };
    let served = Served { config, text, version };
    let mut supervisor = Supervisor::new(options, served, events);
    let resumed = memory.is_some();
    match memory {
        Some(memory) => supervisor.resume(memory).map_err(system("go on from before"))?,
        None => {
            let given = systemd::sockets().map_err(system("take systemd's sockets"))?;
            supervisor.bind_first(given)?;
        }
    }
    let _control = control::listen(&supervisor.options.control, &supervisor.events)
        .map_err(system("open the control socket"))?;
    if supervisor.options.watch
        && let Some(file) = &supervisor.options.file
    {
        watch::start(file, &supervisor.events).map_err(system("watch the file"))?;
    }
    if !resumed {
        supervisor.start().map_err(SupervisorError::Worker)?;
    }
    supervisor.live(&queue)
}

impl Supervisor {
    fn new(options: Options, served: Served, events: Sender<Event>) -> Self {
        let clock = Clock::process();
        Self {
            options,
            clock,
            events,
            sockets: BTreeMap::new(),
            served,
            current: None,
            candidate: None,
            draining: VecDeque::new(),
            checkpoint: State::default(),
            facts: Supervision {
                generation: 0,
                reloads_done: 0,
                reloads_refused: 0,
                restarts: 0,
                draining_workers: 0,
                draining_connections: 0,
                last_reload_ok: true,
                last_reload_at: clock.wall(clock.now()),
            },
            restart_at: None,
            restart_wait: Duration::ZERO,
            reload_again: false,
            waiting: Vec::new(),
            orphans: Vec::new(),
            silent: BTreeSet::new(),
            mute: BTreeSet::new(),
            dead: HashMap::new(),
            upgrade_until: None,
            stopping: None,
            ever_ready: false,
            watchdog: systemd::watchdog(),
            alive_at: Timestamp::ZERO,
        }
    }

    fn live(&mut self, queue: &Receiver<Event>) -> Result<(), SupervisorError> {
        loop {
            match queue.recv_timeout(self.patience()) {
                Ok(event) => {
                    self.happened(event)?;
                    // All there is, before anything is done that would lose the rest.
                    while let Ok(event) = queue.try_recv() {
                        self.happened(event)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // We hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.look_after();
            if let Some(stopping) = &self.stopping
                && self.current.is_none()
                && self.candidate.is_none()
                && self.draining.is_empty()
            {
                let why = stopping
                    .why
                    .clone()
                    .unwrap_or_else(|| "stopped before all was done".to_owned());
                return if stopping.cut { Err(SupervisorError::Cut(why)) } else { Ok(()) };
            }
        }
    }

    /// How long nothing needs looking after.
    fn patience(&self) -> Duration {
        let now = self.clock.now();
        let due = [
            self.restart_at,
            self.candidate.as_ref().map(|candidate| candidate.until),
            self.stopping.as_ref().map(|stopping| stopping.close_at),
            self.watchdog.map(|_| self.alive_at),
        ];
        let next = due.into_iter().flatten().min();
        next.map_or(TICK, |at| at.since(now).min(TICK))
    }

    fn happened(&mut self, event: Event) -> Result<(), SupervisorError> {
        match event {
            Event::Signal(SIGHUP) => self.reload(None),
            Event::Signal(SIGTERM | SIGINT) => self.stop(),
            Event::Signal(SIGCHLD) => return self.reap(),
            Event::Signal(SIGUSR2) => self.upgrade(),
            Event::Signal(_) => {}
            Event::Said { generation, said } => self.heard(generation, said),
            Event::Silent { generation } => return self.fell_silent(generation),
            Event::Command(request, answer) => self.command(request, answer),
            Event::FileChanged => {
                log::info!("file changed: reloading");
                self.reload(None);
            }
        }
        Ok(())
    }

    fn look_after(&mut self) {
        let now = self.clock.now();
        if let Some(every) = self.watchdog
            && self.alive_at <= now
        {
            systemd::alive();
            self.alive_at = now + every;
        }
        if self.candidate.as_ref().is_some_and(|candidate| candidate.until <= now) {
            let patience = humantime::format_duration(self.options.ready_timeout);
            self.candidate_failed(&format!("the new worker was not ready within {patience}"));
        }
        self.hurry_candidate(now);
        self.replace_if_silent();
        if self.upgrade_until.is_some_and(|until| until <= now) {
            log::error!("supervisor not replaced: a worker does not answer");
            self.go_on();
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart();
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.close_at <= now
        {
            stopping.close_at = Timestamp::MAX;
            self.sockets.clear();
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at <= now
        {
            log::warn!("workers killed, they did not stop");
            stopping.kill_at = Timestamp::MAX;
            stopping.cut = true;
            self.everyone().for_each(Child::kill);
        }
        for draining in &self.draining {
            if draining.until <= now {
                log::warn!(
                    "worker killed, it did not drain: generation={}",
                    draining.child.generation
                );
                draining.child.kill();
            }
        }
    }

    fn everyone(&self) -> impl Iterator<Item = &Child> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.child);
        let draining = self.draining.iter().map(|draining| &draining.child);
        self.current.iter().chain(candidate).chain(draining)
    }

    fn tell_facts(&mut self) {
        self.facts.draining_workers = u64::try_from(self.draining.len()).unwrap_or(u64::MAX);
        self.facts.draining_connections =
            self.draining.iter().map(|draining| draining.child.connections).sum();
        if let Some(current) = &self.current {
            current.tell(&ToWorker::Supervised(self.facts.clone()));
        }
    }
}
