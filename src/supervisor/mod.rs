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

mod announce;
mod bind;
mod candidate;
mod care;
mod child;
pub mod control;
mod file;
mod handover;
mod hang;
mod lives;
mod memory;
mod options;
mod program;
mod reload;
mod room;
mod signals;
mod status;
mod systemd;
mod trial;
mod upgrade;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroI32;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::WaitStatus;

use self::candidate::Candidate;
use self::child::Child;
use self::control::{Answer, Request};
pub use self::file::read as read_file;
pub use self::memory::understands;
use self::options::system;
pub use self::options::{Load, Options, SupervisorError};
use self::program::Image;
pub use self::program::Program;
use self::signals::Signals;
pub use self::signals::{hold as hold_signals, hold_for_worker as hold_worker_signals};
use self::upgrade::Upgrade;
use crate::clock::Clock;
use crate::config::Config;
use crate::link::{DrainReport, State, ToSupervisor, ToWorker};
use crate::metrics::Supervision;
use crate::time::Timestamp;

/// How long a worker may take beyond its own drain deadline before it is killed.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// How long a worker that was told to stop at once may take before it is killed.
const ABORT_GRACE: Duration = Duration::from_secs(4);
/// The wait before a worker that died is replaced: none if it had lived well, else this, doubled
/// each time up to the longest.
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// A worker that lived so long did not die of its start.
const LIVED_WELL: Duration = Duration::from_secs(10);
/// How long after the beginning of a stop a further signal still belongs to the first: `timeout`
/// and process groups deliver the same stop twice within a moment.
const STOP_REPEAT: Duration = Duration::from_millis(500);
/// How often the supervisor looks after what no event tells of.
const TICK: Duration = Duration::from_secs(1);

/// Everything that can happen.
#[derive(Debug)]
enum Event {
    /// Signals wait.
    Signals,
    /// A worker said something.
    Said { generation: u64, said: ToSupervisor },
    /// A worker will say nothing more.
    Silent { generation: u64 },
    /// A command came over the control socket.
    Command(Request, Sender<Answer>),
    /// Somebody wants it to stop, and waits for the end.
    Finish(UnixStream),
    /// The watched file has other contents, by their hash, or cannot be read any more.
    FileChanged(Result<u64, String>),
    /// What a binary said that was tried, and which trial that was.
    Tried { number: u64, said: String },
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
    signals: Signals,
    sockets: BTreeMap<SocketAddr, TcpListener>,
    /// Those of them that are bound for the candidate and get no connection yet.
    unlistened: BTreeSet<SocketAddr>,
    control: Option<control::Open>,
    served: Served,
    current: Option<Child>,
    /// The worker of a reload, and one for what is served, which has none.
    candidate: Option<Candidate>,
    replacement: Option<Candidate>,
    /// Killed, and not gone yet.
    discarded: Vec<Child>,
    draining: VecDeque<Draining>,
    checkpoint: State,
    /// When the checkpoint came.
    checkpoint_at: Timestamp,
    facts: Supervision,
    /// How long the service had been up when this image began.
    uptime_before: Duration,
    restart_at: Option<Timestamp>,
    restart_wait: Duration,
    /// Which binary the next replacement of a worker that died runs. The one of this process, until a
    /// worker is ready.
    restart_image: Image,
    /// A hash of the file as it was read last, whatever came of it.
    last_read: Option<u64>,
    reload_again: bool,
    upgrade_again: bool,
    waiting: Vec<Sender<Answer>>,
    /// What drained workers counted while there was nobody to inherit it.
    orphans: Vec<DrainReport>,
    /// Workers that will say nothing more, and processes that have ended.
    mute: BTreeSet<u64>,
    dead: HashMap<NonZeroI32, WaitStatus>,
    upgrade: Option<Upgrade>,
    /// Why the last one was refused.
    upgrade_refusal: Option<String>,
    trials: u64,
    stopping: Option<Stopping>,
    awaiting_end: Vec<UnixStream>,
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
    /// From when on a further signal ends everything at once.
    force_from: Timestamp,
    /// When our copies of the sockets are closed, so that nobody waits for an accept.
    close_at: Timestamp,
    /// When a worker that has not ended is killed.
    kill_at: Timestamp,
    /// A worker was cut, or failed.
    cut: bool,
    /// The workers were told to stop at once.
    at_once: bool,
    /// What it said of it.
    why: Option<String>,
}

/// Serves until a signal says stop.
///
/// # Errors
/// [`SupervisorError`]; its text is for the operator.
pub fn run(options: Options) -> Result<(), SupervisorError> {
    let (events, queue) = mpsc::channel();
    // First of all: the kernel drops a signal for which process 1 has no handler.
    let signals = Signals::listen(&events).map_err(system("watch for signals"))?;
    let left = memory::left_behind();
    let (resumed, log) = (left.is_some(), options.log.clone());
    let mut supervisor = match left {
        Some(left) => match Supervisor::resume(options, events, signals, &left) {
            Ok(supervisor) => supervisor,
            Err(error) => return Err(left.go_back(error, &log)),
        },
        None => Supervisor::begin(options, events, signals)?,
    };
    let opened = supervisor.open();
    let watched = supervisor.watch().map_err(system("watch the file"));
    if resumed {
        // What is served is not given up for these.
        for error in [opened, watched].into_iter().filter_map(Result::err) {
            log::error!("{error}");
        }
    } else {
        opened?;
        watched?;
        supervisor.start().map_err(SupervisorError::Worker)?;
    }
    let ended = supervisor.live(&queue);
    announce::announce_end(&ended);
    supervisor.tell_end(&ended);
    ended
}

impl Supervisor {
    /// The first image of a service.
    fn begin(
        options: Options,
        events: Sender<Event>,
        signals: Signals,
    ) -> Result<Self, SupervisorError> {
        let text = reload::read(&options)?;
        let (config, version) = reload::load(&options, text.as_deref())?;
        let served = Served { config, text, version };
        let mut supervisor = Self::new(options, served, events, signals);
        // It is the running binary: its path was compared with it just now. By its path it also starts
        // where `/proc/self/exe` is a tool around it, such as valgrind or an emulator.
        supervisor.restart_image = Image::OnDisk;
        let given = systemd::sockets().map_err(system("take systemd's sockets"))?;
        supervisor.bind_first(given)?;
        supervisor.announce_start();
        Ok(supervisor)
    }

    fn new(options: Options, served: Served, events: Sender<Event>, signals: Signals) -> Self {
        let clock = Clock::process();
        let facts = Supervision::at(clock.wall(clock.now()), options.hang_timeout);
        let last_read = served.text.as_deref().map(|text| watch::hash(text.as_bytes()));
        Self {
            options,
            clock,
            events,
            signals,
            sockets: BTreeMap::new(),
            unlistened: BTreeSet::new(),
            control: None,
            served,
            current: None,
            candidate: None,
            replacement: None,
            discarded: Vec::new(),
            draining: VecDeque::new(),
            checkpoint: State::default(),
            checkpoint_at: clock.now(),
            facts,
            uptime_before: Duration::ZERO,
            restart_at: None,
            restart_wait: Duration::ZERO,
            restart_image: Image::Running,
            last_read,
            reload_again: false,
            upgrade_again: false,
            waiting: Vec::new(),
            orphans: Vec::new(),
            mute: BTreeSet::new(),
            dead: HashMap::new(),
            upgrade: None,
            upgrade_refusal: None,
            trials: 0,
            stopping: None,
            awaiting_end: Vec::new(),
            ever_ready: false,
            watchdog: systemd::watchdog(),
            alive_at: Timestamp::ZERO,
        }
    }

    /// Opens the control socket, unless it is open.
    fn open(&mut self) -> Result<(), SupervisorError> {
        if self.control.is_none() {
            let place = &self.options.control;
            let path = || place.path().to_owned();
            self.control = control::listen(place, &self.events)
                .map_err(|source| SupervisorError::Control { path: path(), source })?;
        }
        Ok(())
    }

    fn watch(&self) -> io::Result<()> {
        match &self.options.file {
            Some(file) if self.options.watch => {
                watch::start(file, self.served.text.as_deref(), &self.events)
            }
            _ => Ok(()),
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
                && self.candidates().next().is_none()
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

    fn happened(&mut self, event: Event) -> Result<(), SupervisorError> {
        match event {
            Event::Signals => return self.take_signals(),
            Event::Said { generation, said } => self.heard(generation, said),
            Event::Silent { generation } => return self.fell_silent(generation),
            Event::Command(request, answer) => self.command(request, answer),
            Event::Finish(waiting) => self.finish(waiting),
            Event::FileChanged(contents) => self.file_changed(contents),
            Event::Tried { number, said } => self.tried(number, &said),
        }
        Ok(())
    }

    fn take_signals(&mut self) -> Result<(), SupervisorError> {
        while let Some(signal) = self.signals.next().map_err(system("read signals"))? {
            self.signalled(signal)?;
        }
        self.signals.answer();
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are ignored")]
    fn signalled(&mut self, signal: Signal) -> Result<(), SupervisorError> {
        match signal {
            Signal::SIGHUP => self.reload(None),
            Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => self.stop_by_signal(signal),
            Signal::SIGCHLD => return self.reap(),
            Signal::SIGUSR2 => self.upgrade(),
            other => log::info!(
                "signal ignored: signal={other} (help: SIGHUP reloads, SIGUSR2 upgrades, SIGTERM stops)"
            ),
        }
        Ok(())
    }

    fn everyone(&self) -> impl Iterator<Item = &Child> {
        let candidates = self.candidates().map(|candidate| &candidate.child);
        let draining = self.draining.iter().map(|draining| &draining.child);
        self.current.iter().chain(candidates).chain(draining).chain(&self.discarded)
    }

    /// How long the service has been up, former images included.
    fn uptime(&self) -> Duration {
        self.uptime_before + self.clock.now().since(Timestamp::ZERO)
    }

    fn tell_facts(&mut self) {
        self.facts.log_dropped = self.options.log.dropped();
        self.facts.uptime = self.uptime();
        self.facts.draining_workers = u64::try_from(self.draining.len()).unwrap_or(u64::MAX);
        self.facts.draining_connections =
            self.draining.iter().map(|draining| draining.child.connections).sum();
        let in_flight = self.draining.iter().flat_map(|draining| &draining.child.in_flight);
        self.facts.draining_requests = in_flight.cloned().collect();
        if let Some(current) = &self.current {
            // Others may have been started since, and have failed.
            let generation = current.generation;
            let facts = Supervision { generation, ..self.facts.clone() };
            current.tell(&ToWorker::Supervised(facts));
        }
    }
}
