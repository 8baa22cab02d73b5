//! A worker process, as the supervisor sees it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Event;
use super::program::{Image, Program};
use crate::link::{Link, Start, ToSupervisor, ToWorker};
use crate::policy::watchdog::Watchdog;
use crate::runtime::in_flight::InFlight;
use crate::time::Timestamp;

/// A worker process.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) generation: u64,
    pub(super) pid: Pid,
    started: Timestamp,
    /// How long it had lived when this image of the supervisor began.
    lived_before: Duration,
    /// Client connections, as it last told.
    pub(super) connections: u64,
    /// Its requests in flight, as it last told.
    pub(super) in_flight: Vec<InFlight>,
    /// From its first heartbeat on, what is known of its progress.
    pub(super) watchdog: Option<Watchdog>,
    /// Data threads that hang, as it last said.
    pub(super) hung_threads: u64,
    link: Arc<Link>,
}

impl Child {
    /// Starts a worker and tells it what to serve. What it says comes as events.
    pub(super) fn start(
        program: (&Program, &Image),
        generation: u64,
        (start, sockets): (&Start, &[&TcpListener]),
        events: &Sender<Event>,
        now: Timestamp,
    ) -> io::Result<Self> {
        let (link, theirs) = Link::pair()?;
        let pid = spawn(program, &theirs)?;
        drop(theirs);
        let child = Self {
            generation,
            pid,
            started: now,
            lived_before: Duration::ZERO,
            connections: 0,
            in_flight: Vec::new(),
            watchdog: None,
            hung_threads: 0,
            link: Arc::new(link),
        };
        child.listen(events.clone())?;
        match child.begin(start, sockets) {
            Ok(()) => Ok(child),
            Err(error) => {
                child.kill();
                Err(error)
            }
        }
    }

    /// A worker that the image before this one started.
    pub(super) fn adopt(
        (generation, pid, connections, lived_before): (u64, i32, u64, Duration),
        link: OwnedFd,
        events: &Sender<Event>,
        started: Timestamp,
    ) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let link = Arc::new(Link::from(UnixStream::from(link)));
        let (watchdog, hung_threads) = (None, 0);
        let child = Self {
            generation,
            pid,
            started,
            lived_before,
            connections,
            in_flight: Vec::new(),
            watchdog,
            hung_threads,
            link,
        };
        child.listen(events.clone())?;
        Ok(child)
    }

    /// How long it has lived.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.started) + self.lived_before
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    fn begin(&self, start: &Start, sockets: &[&TcpListener]) -> io::Result<()> {
        self.link.send(&ToWorker::Start(Box::new(start.clone())))?;
        self.link.send_sockets(sockets.iter().copied())
    }

    fn listen(&self, events: Sender<Event>) -> io::Result<()> {
        let (link, generation) = (Arc::clone(&self.link), self.generation);
        let listen = move || {
            loop {
                match link.receive::<ToSupervisor>() {
                    Ok(Some(said)) => {
                        let _unheard = events.send(Event::Said { generation, said });
                    }
                    Ok(None) => break,
                    Err(error) => {
                        log::error!("worker unintelligible: generation={generation} {error}");
                        break;
                    }
                }
            }
            // Nobody hears it if the supervisor is gone, too.
            let _unheard = events.send(Event::Silent { generation });
        };
        thread::Builder::new().name(format!("worker {generation}")).spawn(listen).map(drop)
    }

    /// Tells it something. A worker that is gone is noticed when it is reaped.
    pub(super) fn tell(&self, message: &ToWorker) {
        let Err(error) = self.link.send(message) else { return };
        log::debug!("worker not told: generation={} error=\"{error}\"", self.generation);
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            // It hangs, and half a message is worse than none.
            log::error!("worker killed, it does not listen: generation={}", self.generation);
            self.kill();
        }
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        if let Err(error) = kill_process(self.pid, Signal::KILL) {
            log::debug!("worker not killed: generation={} error=\"{error}\"", self.generation);
        }
    }
}

/// Starts the process of a worker, whose standard input is `link`.
fn spawn((program, image): (&Program, &Image), link: &OwnedFd) -> io::Result<Pid> {
    let start = |image: &Image| {
        program
            .command(image)
            .args(&program.arguments)
            .stdin(Stdio::from(link.as_fd().try_clone_to_owned()?))
            // A terminal's Ctrl-C is for the supervisor, which tells the workers.
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
