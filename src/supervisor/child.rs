//! The process of a worker, and the link to it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::memory;
use super::program::{Image, Program};
use super::{Input, WorkerId};
use crate::link::{Link, Start, ToSupervisor, ToWorker};
use crate::runtime::handoff::Handoff;
use crate::runtime::in_flight::InFlight;
use crate::runtime::report::BackendReport;

/// The process of a worker.
#[derive(Debug)]
pub(super) struct Child {
    worker: WorkerId,
    pid: Pid,
    link: Arc<Link>,
    /// It did not read a message to its end, so no other one can follow.
    cannot_send: bool,
    /// Client connections, as it last reported.
    pub(super) connections: u64,
    /// Its requests in flight, as it last reported.
    pub(super) in_flight: Vec<InFlight>,
    /// What it found out about the host names of its configuration.
    pub(super) names: Handoff,
    /// Its backends, as it last reported.
    pub(super) backends: Vec<BackendReport>,
    /// How these names differ from those of the worker before it.
    pub(super) name_changes: Vec<String>,
}

/// What a worker runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Executable<'a> {
    pub(super) program: &'a Program,
    pub(super) image: &'a Image,
}

/// The first message to a worker, and the sockets that follow it.
#[derive(Debug)]
pub(super) struct StartMessage<'a> {
    pub(super) start: Start,
    pub(super) sockets: &'a [&'a TcpListener],
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// The worker is gone.
    Gone,
    /// The worker does not read.
    TimedOut,
}

impl Child {
    /// Starts a worker and sends it what to serve. Its messages come as inputs.
    pub(super) fn start(
        executable: Executable<'_>,
        worker: WorkerId,
        message: StartMessage<'_>,
        inputs: &Sender<Input>,
    ) -> io::Result<Self> {
        let (link, theirs) = Link::pair()?;
        let pid = spawn(executable, &theirs)?;
        drop(theirs);
        let child = Self::new(worker, pid, link);
        child.listen(inputs.clone())?;
        match child.send_start(message) {
            Ok(()) => Ok(child),
            Err(error) => {
                child.kill();
                Err(error)
            }
        }
    }

    /// A worker that another image of this supervisor started.
    pub(super) fn reattach(
        worker: WorkerId,
        pid: i32,
        link: OwnedFd,
        inputs: &Sender<Input>,
    ) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let child = Self::new(worker, pid, Link::from(UnixStream::from(link)));
        child.listen(inputs.clone())?;
        Ok(child)
    }

    fn new(worker: WorkerId, pid: Pid, link: Link) -> Self {
        Self {
            worker,
            pid,
            link: Arc::new(link),
            cannot_send: false,
            connections: 0,
            in_flight: Vec::new(),
            names: Handoff::default(),
            backends: Vec::new(),
            name_changes: Vec::new(),
        }
    }

    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The binary that it runs.
    pub(super) fn image(&self) -> Image {
        Image::of(self.pid)
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        memory::resident(self.pid)
    }

    fn send_start(&self, message: StartMessage<'_>) -> io::Result<()> {
        self.link.send(&ToWorker::Start(Box::new(message.start)))?;
        self.link.send_sockets(message.sockets.iter().copied())
    }

    fn listen(&self, inputs: Sender<Input>) -> io::Result<()> {
        let (link, worker) = (Arc::clone(&self.link), self.worker);
        let listen = move || {
            loop {
                match link.receive::<ToSupervisor>() {
                    Ok(Some(message)) => {
                        let _supervisor_gone =
                            inputs.send(Input::WorkerMessage { worker, message });
                    }
                    Ok(None) => break,
                    Err(error) => {
                        log::error!(
                            "invalid message from worker: generation={worker} error=\"{error}\""
                        );
                        break;
                    }
                }
            }
            let _supervisor_gone = inputs.send(Input::WorkerLinkClosed { worker });
        };
        thread::Builder::new().name(format!("worker {worker}")).spawn(listen).map(drop)
    }

    /// Sends a message. A worker that is gone is noticed when it is reaped.
    pub(super) fn send(&mut self, message: &ToWorker) -> Result<(), SendError> {
        if self.cannot_send {
            return Err(SendError::Gone);
        }
        let Err(error) = self.link.send(message) else { return Ok(()) };
        log::debug!("message not sent to worker: generation={} error=\"{error}\"", self.worker);
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            self.cannot_send = true;
            return Err(SendError::TimedOut);
        }
        Err(SendError::Gone)
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        if let Err(error) = kill_process(self.pid, Signal::KILL) {
            log::debug!("worker not killed: generation={} error=\"{error}\"", self.worker);
        }
    }
}

/// Starts the process of a worker, whose standard input is `link`.
fn spawn(executable: Executable<'_>, link: &OwnedFd) -> io::Result<Pid> {
    let Executable { program, image } = executable;
    let start = |image: &Image| {
        program
            .command(image)
            .args(&program.arguments)
            .stdin(Stdio::from(link.as_fd().try_clone_to_owned()?))
            // A terminal's Ctrl-C is for the supervisor, which stops the workers.
            .process_group(0)
            .spawn()
    };
    let process = start(image).or_else(|error| {
        match image {
            Image::Running => return Err(error),
            Image::OnDisk => log::warn!(
                "binary cannot be started, the running one is: path={} error=\"{error}\" \
                 (help: put a binary there)",
                program.path.display()
            ),
            Image::Served(_) => log::warn!(
                "binary of the last worker cannot be started, the running one is: error=\"{error}\" \
                 (help: make its file executable, or reload)"
            ),
        }
        // The first error says more.
        start(&Image::Running).map_err(|_as_well| error)
    })?;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("a process without a number"))
}
