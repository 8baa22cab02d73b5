//! Replacing the supervisor itself, by exec: same process number, sockets and workers kept.
//!
//! Everything that it knows goes into a file in memory whose descriptor the new image finds in its
//! environment, and every descriptor that it needs is kept open over the exec. Workers are told to
//! hold their tongue first, because a message half read would be lost with the old image.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::child::Child;
use super::{Draining, Supervisor, reload};
use crate::link::{State, ToWorker};
use crate::metrics::Supervision;
use crate::sockets::inherited;

/// Where the new image finds what the old one knew.
const VARIABLE: &str = "WEIR_RESUME";
/// How long workers may take to fall silent.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// What the old image knew.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    sockets: Vec<(SocketAddr, RawFd)>,
    current: Option<Worker>,
    draining: Vec<(Worker, Duration)>,
    text: Option<String>,
    version: String,
    checkpoint: State,
    facts: Supervision,
}

#[derive(Debug, Serialize, Deserialize)]
struct Worker {
    generation: u64,
    pid: i32,
    link: RawFd,
    age: Duration,
    connections: u64,
}

/// Signals must wait while no image has a handler for them.
fn signals() -> SigSet {
    [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGUSR2]
        .into_iter()
        .collect()
}

/// Lets in the signals that were kept waiting over an exec.
pub(super) fn let_signals_in() -> io::Result<()> {
    Ok(pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&signals()), None)?)
}

/// What the image before this one left, if there was one.
pub(super) fn remembered() -> io::Result<Option<Memory>> {
    let Some(number) = env::var(VARIABLE).ok().and_then(|text| text.parse().ok()) else {
        return Ok(None);
    };
    let mut file = File::from(inherited(number)?);
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

impl Memory {
    /// The text and the version that the workers serve.
    pub(super) fn served(&self) -> (Option<String>, String) {
        (self.text.clone(), self.version.clone())
    }
}

impl Supervisor {
    /// Begins to replace this image: waits until the workers are silent.
    pub(super) fn upgrade(&mut self) {
        if self.candidate.is_some() || self.current.is_none() || self.stopping.is_some() {
            log::error!("supervisor not replaced: a worker is just being started or stopped");
            return;
        }
        log::info!("replacing the supervisor");
        self.everyone().for_each(|child| child.tell(&ToWorker::Hold));
        self.silent.clear();
        self.upgrade_until = Some(self.clock.now() + HOLD_MAX);
    }

    /// A worker is silent.
    pub(super) fn held(&mut self, generation: u64) {
        self.silent.insert(generation);
    }

    /// Nobody is left whose word could be lost. One that has ended says nothing either.
    pub(super) fn replace_if_silent(&mut self) {
        let settled = self.current.is_some() && self.candidate.is_none() && self.stopping.is_none();
        if self.upgrade_until.is_some()
            && settled
            && self.everyone().all(|child| self.silent.contains(&child.generation))
        {
            self.upgrade_until = None;
            let error = self.replace();
            log::error!("supervisor not replaced: {error}");
            self.go_on();
        }
    }

    /// The replacement came to nothing.
    pub(super) fn go_on(&mut self) {
        self.upgrade_until = None;
        self.everyone().for_each(|child| child.tell(&ToWorker::Speak));
        self.next_reload();
    }

    /// Returns only if it failed.
    fn replace(&self) -> io::Error {
        self.try_replace().err().unwrap_or_else(|| io::Error::other("exec returned"))
    }

    fn try_replace(&self) -> io::Result<()> {
        let memory = self.memory();
        let mut file = File::from(memfd_create("weir", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&memory)?)?;
        let error = self.exec(&file);
        // Whatever failed, no worker may inherit what was meant for the next image.
        self.keep_over_exec(&file, FdFlags::CLOEXEC)?;
        Err(error.err().unwrap_or_else(|| io::Error::other("exec returned")))
    }

    fn keep_over_exec(&self, file: &File, flags: FdFlags) -> io::Result<()> {
        let links = self.everyone().map(|child| child.link().as_fd());
        let sockets = self.sockets.values().map(AsFd::as_fd);
        for descriptor in links.chain(sockets).chain([file.as_fd()]) {
            fcntl_setfd(descriptor, flags)?;
        }
        Ok(())
    }

    fn exec(&self, file: &File) -> io::Result<()> {
        self.keep_over_exec(file, FdFlags::empty())?;
        let arguments: Vec<OsString> = env::args_os().skip(1).collect();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&signals()), None)?;
        let error = Command::new(&self.options.program.path)
            .args(arguments)
            .env(VARIABLE, file.as_raw_fd().to_string())
            .exec();
        let_signals_in()?;
        Err(error)
    }

    fn memory(&self) -> Memory {
        let now = self.clock.now();
        let worker = |child: &Child| Worker {
            generation: child.generation,
            pid: child.pid.as_raw_nonzero().get(),
            link: child.link().as_fd().as_raw_fd(),
            age: child.age(now),
            connections: child.connections,
        };
        let sockets = self.sockets.iter();
        let draining = self.draining.iter();
        Memory {
            sockets: sockets.map(|(address, socket)| (*address, socket.as_raw_fd())).collect(),
            current: self.current.as_ref().map(worker),
            draining: draining.map(|one| (worker(&one.child), one.until.since(now))).collect(),
            text: self.served.text.clone(),
            version: self.served.version.clone(),
            checkpoint: self.checkpoint.clone(),
            facts: self.facts.clone(),
        }
    }

    /// Goes on where the image before left off.
    pub(super) fn resume(&mut self, memory: Memory) -> io::Result<()> {
        for (address, number) in memory.sockets {
            self.sockets.insert(address, TcpListener::from(kept(number)?));
        }
        let now = self.clock.now();
        match memory.current {
            Some(worker) => self.current = Some(self.adopt(&worker)?),
            None => self.restart_at = Some(now),
        }
        for (worker, left) in memory.draining {
            let child = self.adopt(&worker)?;
            self.draining.push_back(Draining { child, until: now + left });
        }
        self.checkpoint = memory.checkpoint;
        self.facts = memory.facts;
        self.ever_ready = true;
        self.go_on();
        self.tell_facts();
        let wanted = reload::addresses(&self.served.config);
        self.sockets.retain(|address, _| wanted.contains(address));
        log::info!("supervisor replaced: workers={}", self.everyone().count());
        Ok(())
    }

    fn adopt(&self, worker: &Worker) -> io::Result<Child> {
        let link = kept(worker.link)?;
        Child::adopt(
            (worker.generation, worker.pid, worker.connections, worker.age),
            link,
            &self.events,
            self.clock.now(),
        )
    }
}

/// A descriptor that was kept open over the exec; it is not to be inherited any further.
fn kept(number: RawFd) -> io::Result<OwnedFd> {
    let descriptor = inherited(number)?;
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}
