//! What one image of the supervisor leaves to the next.

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::unistd::fexecve;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::child::Child;
use super::compatibility::COMPATIBLE;
use super::program::{EXEC_STATE, PREVIOUS_EXE, ROLLED_BACK, arguments, environment};
use super::{Load, Supervisor, SupervisorError, control};
use crate::lifecycle::{Counters, RejectedReload, Saved, SavedWorker, WorkerId};
use crate::link::State;
use crate::log::Log;
use crate::metrics::SupervisorStats;
use crate::policy::operator::OverrideList;
use crate::sockets::{inherited, lent};

/// The version of the format of [`ExecState`]. Raise it when this binary can no longer read
/// what an older one wrote.
const FORMAT_VERSION: u32 = 1;

/// How long the queued lines of the log may take to be written before an exec.
pub(super) const LOG_FLUSH_MAX: Duration = Duration::from_millis(500);

/// What is read first.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(rename = "form", default)]
    format_version: u32,
}

/// The state of a supervisor. Older binaries read it, so the names of its fields stay.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExecState {
    #[serde(rename = "form")]
    format_version: u32,
    pub(super) program: PathBuf,
    sockets: Vec<(SocketAddr, RawFd)>,
    /// The control socket. A client that connects during the exec waits and gets its reply.
    control: Option<RawFd>,
    /// Which file it is; an older image does not say.
    #[serde(default)]
    control_file: Option<control::FileId>,
    current: Option<Worker>,
    draining: Vec<(Worker, Duration)>,
    pub(super) text: Option<String>,
    pub(super) version: String,
    checkpoint: State,
    facts: SupervisorStats,
    /// Why the last reload was rejected; an older image does not say.
    #[serde(default)]
    last_rejection: Option<Rejection>,
    /// Lines of the log that are lost without a report of it, at the latest by the exec.
    #[serde(default)]
    log_unreported: u64,
    #[serde(flatten)]
    waiting: WaitingOperations,
    /// What operators have set on backends; an older image has nothing.
    #[serde(default)]
    overrides: OverrideList,
}

/// Operations that wait for their turn.
#[derive(Debug, Serialize, Deserialize)]
struct WaitingOperations {
    #[serde(rename = "reload_again")]
    reload: bool,
    #[serde(rename = "upgrade_again")]
    upgrade: bool,
}

/// Why a reload was rejected, and when.
#[derive(Debug, Serialize, Deserialize)]
struct Rejection {
    time: SystemTime,
    problem: String,
    has_others: bool,
}

impl Rejection {
    fn of(reload: RejectedReload, now: SystemTime) -> Self {
        Self {
            time: now.checked_sub(reload.age).unwrap_or(now),
            problem: reload.problem.to_string(),
            has_others: reload.has_others,
        }
    }

    /// The rejection as the life cycle has it. Its age is zero if the wall clock was set back.
    fn saved(&self, now: SystemTime) -> RejectedReload {
        RejectedReload {
            age: now.duration_since(self.time).unwrap_or_default(),
            problem: self.problem.as_str().into(),
            has_others: self.has_others,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Worker {
    generation: u64,
    pid: i32,
    link: RawFd,
    age: Duration,
    connections: u64,
    /// Whether it sends heartbeats.
    #[serde(rename = "watched", default)]
    is_watched: bool,
    #[serde(default)]
    knows_overrides: bool,
}

impl Worker {
    const fn saved(&self) -> SavedWorker {
        SavedWorker {
            id: WorkerId(self.generation),
            age: self.age,
            is_watched: self.is_watched,
            knows_overrides: self.knows_overrides,
        }
    }
}

/// Whether this binary could continue from the state that a supervisor wrote. The result is one word.
///
/// # Errors
/// Why it could not.
pub fn is_compatible(state: impl Read, load: &Load) -> Result<&'static str, String> {
    let state = ExecState::read(state).map_err(|error| error.to_string())?;
    match load(state.text.as_deref().map(str::as_bytes)) {
        Ok(_) => Ok(COMPATIBLE),
        Err(problems) => Err(format!("the configuration is rejected: {problems}")),
    }
}

impl ExecState {
    fn read(mut from: impl Read) -> io::Result<Self> {
        let mut text = Vec::new();
        from.read_to_end(&mut text)?;
        let Header { format_version } = serde_json::from_slice(&text)?;
        if format_version != FORMAT_VERSION {
            let why = format!(
                "exec state has format version {format_version}, this binary reads only {FORMAT_VERSION}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// The part that the life cycle continues with. `now` is the time of the wall clock.
    pub(super) fn saved(&self, now: SystemTime) -> Saved {
        // An older image leaves a rejection also if a reload was done since.
        let rejection = self.last_rejection.as_ref().filter(|_| !self.facts.last_reload_ok);
        let draining = self.draining.iter();
        Saved {
            current: self.current.as_ref().map(Worker::saved),
            draining: draining.map(|(worker, left)| (worker.saved(), *left)).collect(),
            counters: Counters {
                generation: self.facts.generation,
                reloads_done: self.facts.reloads_done,
                reloads_rejected: self.facts.reloads_refused,
                last_reload_ok: self.facts.last_reload_ok,
                upgrades_done: self.facts.upgrades_done,
                upgrades_rejected: self.facts.upgrades_refused,
                restarts: self.facts.restarts,
                hangs: self.facts.hangs,
            },
            rejected_reload: rejection.map(|rejection| rejection.saved(now)),
            overrides: self.overrides.clone(),
            reload_waits: self.waiting.reload,
            upgrade_waits: self.waiting.upgrade,
        }
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.current.iter().chain(self.draining.iter().map(|(worker, _)| worker))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let links = self.workers().map(|worker| worker.link);
        let sockets = self.sockets.iter().map(|(_, socket)| *socket);
        links.chain(sockets).chain(self.control).collect()
    }
}

/// What the previous image left, by the numbers of its descriptors. Nothing of it is closed before
/// this image is sure to continue.
#[derive(Debug)]
pub(super) struct InheritedState {
    state: RawFd,
    previous_exe: Option<RawFd>,
}

/// What the previous image left, if there was one.
pub(super) fn inherited_state() -> Option<InheritedState> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    Some(InheritedState { state: number(EXEC_STATE)?, previous_exe: number(PREVIOUS_EXE) })
}

impl InheritedState {
    pub(super) fn read(&self) -> io::Result<ExecState> {
        let mut file = File::from(lent(self.state)?);
        file.rewind()?;
        ExecState::read(file)
    }

    /// Closes what the previous image kept open for this one, which has copies.
    pub(super) fn close(&self, state: &ExecState) -> io::Result<()> {
        let files = [self.state].into_iter().chain(self.previous_exe);
        for number in state.descriptors().into_iter().chain(files) {
            drop(inherited(number)?);
        }
        Ok(())
    }

    /// Gives control back to the previous image. Returns only if there is none, or it cannot be
    /// executed.
    pub(super) fn exec_rollback(&self, error: SupervisorError, log: &Log) -> SupervisorError {
        let Some(previous) = self.previous_exe else { return error };
        log::error!(
            "new supervisor failed, rolling back to the previous binary: error=\"{error}\""
        );
        log.flush(LOG_FLUSH_MAX);
        let roll_back = || -> io::Result<Infallible> {
            let why = error.to_string();
            let variables = [(EXEC_STATE, self.state.to_string()), (ROLLED_BACK, why)];
            let previous = inherited(previous)?;
            fcntl_setfd(&previous, FdFlags::CLOEXEC)?;
            Ok(fexecve(previous, &arguments()?, &environment(&variables)?)?)
        };
        let Err(failed) = roll_back();
        log::error!("previous binary cannot be executed: error=\"{failed}\"");
        error
    }
}

impl Supervisor {
    /// All that the next image has to know.
    pub(super) fn exec_state(&self) -> ExecState {
        let now = self.clock.now();
        let saved = self.service.save(now);
        let worker = |saved: &SavedWorker| {
            let child = self.processes.workers.get(&saved.id)?;
            Some(Worker {
                generation: saved.id.0,
                pid: child.pid().as_raw_nonzero().get(),
                link: child.link().as_fd().as_raw_fd(),
                age: saved.age,
                connections: child.connections,
                is_watched: saved.is_watched,
                knows_overrides: saved.knows_overrides,
            })
        };
        let (draining, rejected) = (saved.draining.iter(), saved.rejected_reload.clone());
        let sockets = self.sockets.iter();
        let log = &self.options.log;
        // What is queued now ends with this image.
        let lost = log.unwritten();
        let active = self.active();
        ExecState {
            format_version: FORMAT_VERSION,
            program: self.options.program.path.clone(),
            sockets: sockets.map(|(address, socket)| (*address, socket.as_raw_fd())).collect(),
            control: self.control.as_ref().map(|control| control.as_fd().as_raw_fd()),
            control_file: self.control.as_ref().and_then(control::ControlSocket::file),
            current: saved.current.as_ref().and_then(worker),
            draining: draining
                .filter_map(|(saved, left)| worker(saved).map(|worker| (worker, *left)))
                .collect(),
            text: active.text.clone(),
            version: active.version.clone(),
            checkpoint: self.checkpoint.aged(now),
            facts: SupervisorStats { log_dropped: log.dropped() + lost, ..self.stats() },
            last_rejection: rejected.map(|reload| Rejection::of(reload, self.clock.wall(now))),
            log_unreported: log.unreported() + lost,
            waiting: WaitingOperations { reload: saved.reload_waits, upgrade: saved.upgrade_waits },
            overrides: saved.overrides,
        }
    }

    /// Takes over the descriptors of the previous image. Its own stay open.
    pub(super) fn reattach(&mut self, state: &ExecState) -> io::Result<()> {
        for (address, number) in &state.sockets {
            self.sockets.restore(*address, TcpListener::from(lent(*number)?));
        }
        if let Some(number) = state.control {
            let (listener, path) = (UnixListener::from(lent(number)?), self.options.control.path());
            let file = state.control_file.or_else(|| control::file_at(path));
            self.control = Some(control::serve(listener, path, file, &self.inputs)?);
        }
        for worker in state.workers() {
            let (id, link) = (WorkerId(worker.generation), lent(worker.link)?);
            let mut child = Child::reattach(id, worker.pid, link, &self.inputs)?;
            child.connections = worker.connections;
            self.processes.workers.insert(id, child);
        }
        Ok(())
    }

    /// Takes over everything else.
    pub(super) fn restore_state(&mut self, state: ExecState) {
        self.checkpoint = Checkpoint::new(state.checkpoint, self.clock.now());
        self.figures.uptime_before = state.facts.uptime;
        self.figures.last_reload_at = state.facts.last_reload_at;
        self.figures.log_dropped = state.facts.log_dropped;
        self.options.log.take_over(state.facts.log_dropped, state.log_unreported);
    }
}
