//! What one image of the supervisor leaves to the next.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::fexecve;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::child::Child;
use super::trial::UNDERSTOOD;
use super::{Draining, Load, Supervisor, SupervisorError, control};
use crate::link::State;
use crate::log::Log;
use crate::metrics::Supervision;
use crate::policy::watchdog::Watchdog;
use crate::sockets::{inherited, lent};

/// Where the new image finds what the old one knew, where it finds the old image, and why that
/// one had to go on after all.
pub(super) const MEMORY: &str = "WEIR_RESUME";
pub(super) const FORMER: &str = "WEIR_FORMER";
pub(super) const WENT_BACK: &str = "WEIR_WENT_BACK";
/// All of them. They are for the next image of a supervisor alone.
pub(super) const VARIABLES: [&str; 3] = [MEMORY, FORMER, WENT_BACK];
/// The form of [`Memory`]. To be raised when what an older binary wrote cannot be read any more.
const FORM: u32 = 1;

/// How long the lines that are queued may take to be written before an exec.
pub(super) const LOG_FLUSH_MAX: Duration = Duration::from_millis(500);

/// The first thing that is read of a memory.
#[derive(Debug, Deserialize)]
struct Form {
    #[serde(default)]
    form: u32,
}

/// What the old image knew.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) form: u32,
    pub(super) program: PathBuf,
    pub(super) sockets: Vec<(SocketAddr, RawFd)>,
    /// The control socket: who connects during the exec waits and is answered.
    pub(super) control: Option<RawFd>,
    /// Which file it is; an older image does not say.
    #[serde(default)]
    pub(super) control_file: Option<control::FileId>,
    pub(super) current: Option<Worker>,
    pub(super) draining: Vec<(Worker, Duration)>,
    pub(super) text: Option<String>,
    pub(super) version: String,
    pub(super) checkpoint: State,
    pub(super) facts: Supervision,
    /// Lines of the log that are lost without a report of it, at the latest by the exec.
    #[serde(default)]
    pub(super) log_unreported: u64,
    pub(super) reload_again: bool,
    pub(super) upgrade_again: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Worker {
    generation: u64,
    pid: i32,
    link: RawFd,
    age: Duration,
    connections: u64,
    /// Whether it sends heartbeats.
    #[serde(default)]
    watched: bool,
}

/// Whether this binary could go on from what a supervisor wrote. The answer is one word, or why
/// not.
///
/// # Errors
/// Why not.
pub fn understands(memory: impl Read, load: &Load) -> Result<&'static str, String> {
    let memory = Memory::read(memory).map_err(|error| error.to_string())?;
    match load(memory.text.as_deref().map(str::as_bytes)) {
        Ok(_) => Ok(UNDERSTOOD),
        Err(problems) => Err(format!("the configuration is rejected: {problems}")),
    }
}

impl Memory {
    fn read(mut from: impl Read) -> io::Result<Self> {
        let mut text = Vec::new();
        from.read_to_end(&mut text)?;
        let Form { form } = serde_json::from_slice(&text)?;
        if form != FORM {
            let why = format!("the memory has form {form}, only {FORM} is understood");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(serde_json::from_slice(&text)?)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let draining = self.draining.iter().map(|(worker, _)| worker.link);
        let sockets = self.sockets.iter().map(|(_, socket)| *socket);
        let current = self.current.iter().map(|worker| worker.link);
        current.chain(draining).chain(sockets).chain(self.control).collect()
    }
}

/// What the image before this one left, by the numbers of its descriptors. Nothing of it is closed
/// before this image is sure to go on.
#[derive(Debug)]
pub(super) struct Left {
    memory: RawFd,
    former: Option<RawFd>,
}

/// What the image before this one left, if there was one.
pub(super) fn left_behind() -> Option<Left> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    Some(Left { memory: number(MEMORY)?, former: number(FORMER) })
}

impl Left {
    pub(super) fn read(&self) -> io::Result<Memory> {
        let mut file = File::from(lent(self.memory)?);
        file.rewind()?;
        Memory::read(file)
    }

    /// Closes what the image before kept open for this one, which has copies.
    pub(super) fn close(&self, memory: &Memory) -> io::Result<()> {
        for number in memory.descriptors().into_iter().chain([self.memory]).chain(self.former) {
            drop(inherited(number)?);
        }
        Ok(())
    }

    /// Makes way for the image before. Returns only if there is none, or it cannot be had.
    pub(super) fn go_back(&self, error: SupervisorError, log: &Log) -> SupervisorError {
        let Some(former) = self.former else { return error };
        log::error!("supervisor cannot go on, the one before does: {error}");
        log.flush(LOG_FLUSH_MAX);
        let back = || -> io::Result<Infallible> {
            let why = error.to_string();
            let variables = [(MEMORY, self.memory.to_string()), (WENT_BACK, why)];
            let former = inherited(former)?;
            fcntl_setfd(&former, FdFlags::CLOEXEC)?;
            Ok(fexecve(former, &arguments()?, &environment(&variables)?)?)
        };
        let Err(failed) = back();
        log::error!("nor does the one before: {failed}");
        error
    }
}

/// What this image was started with, for the next one.
pub(super) fn arguments() -> io::Result<Vec<CString>> {
    env::args_os().map(|argument| Ok(CString::new(argument.into_vec())?)).collect()
}

/// This image's environment, with these variables in place of what it was told itself.
pub(super) fn environment(ours: &[(&str, String)]) -> io::Result<Vec<CString>> {
    let kept = env::vars_os().filter(|(name, _)| !VARIABLES.iter().any(|ours| name == ours));
    let kept = kept.map(|(name, value)| [name.into_vec(), value.into_vec()]);
    let ours =
        ours.iter().map(|(name, value)| [name.as_bytes().to_vec(), value.as_bytes().to_vec()]);
    kept.chain(ours).map(|pair| Ok(CString::new(pair.join(&b'='))?)).collect()
}

impl Supervisor {
    /// All that the next image has to know.
    pub(super) fn memory(&self) -> Memory {
        let now = self.clock.now();
        let worker = |child: &Child| Worker {
            generation: child.generation,
            pid: child.pid.as_raw_nonzero().get(),
            link: child.link().as_fd().as_raw_fd(),
            age: child.age(now),
            connections: child.connections,
            watched: child.watchdog.is_some(),
        };
        let sockets = self.sockets.iter();
        let draining = self.draining.iter();
        let log = &self.options.log;
        // What is queued now ends with this image.
        let lost = log.unwritten();
        Memory {
            form: FORM,
            program: self.options.program.path.clone(),
            sockets: sockets.map(|(address, socket)| (*address, socket.as_raw_fd())).collect(),
            control: self.control.as_ref().map(|control| control.as_fd().as_raw_fd()),
            control_file: self.control.as_ref().and_then(control::Open::file),
            current: self.current.as_ref().map(worker),
            draining: draining.map(|one| (worker(&one.child), one.until.since(now))).collect(),
            text: self.served.text.clone(),
            version: self.served.version.clone(),
            checkpoint: self.aged_checkpoint(),
            facts: Supervision {
                log_dropped: log.dropped() + lost,
                uptime: self.uptime(),
                ..self.facts.clone()
            },
            log_unreported: log.unreported() + lost,
            reload_again: self.reload_again,
            upgrade_again: self.upgrade_again,
        }
    }

    /// Takes up what the image before left. Its own descriptors stay open.
    pub(super) fn recall(&mut self, memory: &Memory) -> io::Result<()> {
        for (address, number) in &memory.sockets {
            self.sockets.insert(*address, TcpListener::from(lent(*number)?));
        }
        if let Some(number) = memory.control {
            let (listener, path) = (UnixListener::from(lent(number)?), self.options.control.path());
            let file = memory.control_file.or_else(|| control::file_at(path));
            self.control = Some(control::serve(listener, (path, file), &self.events)?);
        }
        let now = self.clock.now();
        match &memory.current {
            Some(worker) => self.current = Some(self.adopt(worker)?),
            None => self.restart_at = Some(now),
        }
        for (worker, left) in &memory.draining {
            let child = self.adopt(worker)?;
            self.draining.push_back(Draining { child, until: now + *left });
        }
        Ok(())
    }

    fn adopt(&self, worker: &Worker) -> io::Result<Child> {
        let now = self.clock.now();
        let mut child = Child::adopt(
            (worker.generation, worker.pid, worker.connections, worker.age),
            lent(worker.link)?,
            &self.events,
            now,
        )?;
        let timeout = self.options.hang_timeout.filter(|_| worker.watched);
        child.watchdog = timeout.map(|timeout| Watchdog::new(timeout, now));
        Ok(child)
    }
}
