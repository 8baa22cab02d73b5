//! The process that owns the listening sockets and starts the workers that serve them.
//!
//! What happens when is decided by [`crate::lifecycle`]; this module is the shell around it. Threads
//! for signals, control clients, workers and the watched file send what they see as an `Input` into
//! one queue. The main thread turns each input into an event of the life cycle and carries out the
//! commands that result (`commands.rs`). It serves no request itself, so there is little that can make
//! it die; and while it lives, the sockets stay open.

mod announce;
mod backends;
mod checkpoint;
mod child;
mod commands;
mod compatibility;
mod config;
pub mod control;
mod exec;
mod exec_state;
mod file;
mod inputs;
mod memory;
mod operator;
mod options;
mod processes;
mod program;
mod request;
mod signals;
mod sockets;
mod status;
mod systemd;
mod target;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime};

pub use self::backends::BackendsQuery;
use self::checkpoint::Checkpoint;
use self::config::{ActiveConfig, ConfigFile, format_bind_errors};
use self::control::{Reply, Request};
pub use self::exec_state::is_compatible;
pub use self::file::{cannot_read, read as read_file};
pub use self::operator::OverrideCommand;
pub use self::options::{Load, Options, SupervisorError};
use self::options::{check_descriptors, system};
use self::processes::Processes;
pub use self::program::Program;
use self::signals::Signals;
pub use self::signals::{hold as hold_signals, hold_for_worker as hold_worker_signals};
use self::sockets::Sockets;
use crate::clock::Clock;
use crate::lifecycle::{Event, Failure, Loaded, Payload, Service, Settings, WorkerId};
use crate::link::{DrainReport, State, ToSupervisor};
use crate::policy::operator::BackendKey;
use crate::time::Timestamp;

/// What the threads of the supervisor send to its main thread.
#[derive(Debug)]
enum Input {
    /// Signals can be read.
    Signals,
    /// A worker sent a message.
    WorkerMessage { worker: WorkerId, message: ToSupervisor },
    /// A worker will send nothing more.
    WorkerLinkClosed { worker: WorkerId },
    /// A command came over the control socket.
    Command(Request, Sender<Reply>),
    /// A client asks for a stop and waits for its end on this connection.
    StopAndWait(UnixStream),
    /// The watched file has other contents, with this hash, or can no longer be read.
    FileChanged(Result<u64, String>),
    /// What a binary responded to a check.
    CompatibilityResult { check: u64, said: String },
}

/// What passes through the life cycle from its events to its commands.
#[derive(Debug)]
enum Values {}

impl Payload for Values {
    type Config = Rc<ActiveConfig>;
    type State = Box<State>;
    type Report = Box<DrainReport>;
    type Caller = Client;

    fn is_empty(report: &Box<DrainReport>) -> bool {
        report.is_empty()
    }

    fn has_backend(config: &Rc<ActiveConfig>, key: &BackendKey) -> bool {
        target::has_backend(&config.config, key)
    }
}

/// A client of the control socket that waits for a result.
#[derive(Debug)]
enum Client {
    /// For the result of a reload or of an override. The thread that serves the client waits.
    Reload(Sender<Reply>),
    /// For the state of backends.
    Backends(Sender<Reply>, BackendsQuery),
    /// For the end of the service.
    End(UnixStream),
}

impl Client {
    fn reply(self, answer: &Reply) {
        match self {
            // The client may have left.
            Self::Reload(reply) | Self::Backends(reply, _) => drop(reply.send(answer.clone())),
            Self::End(stream) => control::reply_at_the_end(stream, answer),
        }
    }
}

struct Supervisor {
    options: Options,
    clock: Clock,
    inputs: Sender<Input>,
    signals: Signals,
    control: Option<control::ControlSocket>,
    service: Service<Values>,
    processes: Processes,
    sockets: Sockets,
    file: ConfigFile,
    checkpoint: Checkpoint,
    figures: Figures,
    /// How the service ended.
    ended: Option<Result<(), Failure>>,
}

/// What is shown to operators and is no part of the life cycle.
struct Figures {
    /// How long the service had been up when this image began.
    uptime_before: Duration,
    /// When the configuration that is served was loaded.
    last_reload_at: SystemTime,
    /// Lines of the log that were lost, as last published.
    log_dropped: u64,
}

impl Figures {
    /// How long the service has been up, previous images included.
    fn uptime(&self, now: Timestamp) -> Duration {
        self.uptime_before + now.since(Timestamp::ZERO)
    }
}

/// Serves until a signal says stop.
///
/// # Errors
/// [`SupervisorError`]; its text is for the operator.
pub fn run(options: Options) -> Result<(), SupervisorError> {
    let (inputs, queue) = mpsc::channel();
    // First of all: the kernel drops a signal for which process 1 has no handler.
    let signals = Signals::listen(&inputs).map_err(system("watch for signals"))?;
    let mut supervisor = match exec_state::inherited_state() {
        Some(inherited) => {
            let log = options.log.clone();
            let resumed = Supervisor::resume(options, inputs, signals, &inherited);
            let (mut supervisor, reason) = match resumed {
                Ok(resumed) => resumed,
                Err(error) => return Err(inherited.exec_rollback(error, &log)),
            };
            let opened = supervisor.open_control();
            let watched = supervisor.watch().map_err(system("watch the file"));
            // These are no reason to stop serving.
            for error in [opened, watched].into_iter().filter_map(Result::err) {
                log::error!("{error}");
            }
            supervisor.finish_resume(reason);
            supervisor
        }
        None => {
            let mut supervisor = Supervisor::begin(options, inputs, signals)?;
            supervisor.open_control()?;
            supervisor.watch().map_err(system("watch the file"))?;
            supervisor.dispatch(Event::Started);
            supervisor
        }
    };
    let result = supervisor.run_loop(&queue);
    announce::announce_end(&result);
    result
}

impl Supervisor {
    /// The first image of a service.
    fn begin(
        options: Options,
        inputs: Sender<Input>,
        signals: Signals,
    ) -> Result<Self, SupervisorError> {
        check_descriptors()?;
        let mut file = ConfigFile::default();
        let active = Rc::new(file.read_and_load(&options)?);
        let service = Service::new(settings(&options), loaded(&active));
        let mut supervisor = Self::new(options, service, inputs, signals);
        supervisor.file = file;
        let given = systemd::sockets().map_err(system("take systemd's sockets"))?;
        let bound = supervisor.sockets.bind_first(&active.addresses(), given);
        bound.map_err(|errors| format_bind_errors(&supervisor.options, &active, &errors))?;
        announce::announce_start(&supervisor.options, &active);
        Ok(supervisor)
    }

    fn new(
        options: Options,
        service: Service<Values>,
        inputs: Sender<Input>,
        signals: Signals,
    ) -> Self {
        let clock = Clock::process();
        let now = clock.now();
        Self {
            options,
            clock,
            inputs,
            signals,
            control: None,
            service,
            processes: Processes::default(),
            sockets: Sockets::default(),
            file: ConfigFile::default(),
            checkpoint: Checkpoint::new(State::default(), now),
            figures: Figures {
                uptime_before: Duration::ZERO,
                last_reload_at: clock.wall(now),
                log_dropped: 0,
            },
            ended: None,
        }
    }

    /// Opens the control socket, unless it is open.
    fn open_control(&mut self) -> Result<(), SupervisorError> {
        if self.control.is_none() {
            let place = &self.options.control;
            let path = || place.path().to_owned();
            self.control = control::listen(place, &self.inputs)
                .map_err(|source| SupervisorError::Control { path: path(), source })?;
        }
        Ok(())
    }

    fn watch(&self) -> io::Result<()> {
        match &self.options.file {
            Some(file) if self.options.watch => {
                watch::start(file, self.active().text.as_deref(), &self.inputs)
            }
            _ => Ok(()),
        }
    }

    fn run_loop(&mut self, queue: &Receiver<Input>) -> Result<(), SupervisorError> {
        loop {
            if let Some(result) = self.ended.take() {
                // A client that has asked meanwhile waits for its reply.
                while let Ok(input) = queue.try_recv() {
                    let _unread_signals = self.handle_input(input);
                }
                return result.map_err(SupervisorError::from);
            }
            let wait = self.service.next_deadline().since(self.clock.now());
            match queue.recv_timeout(wait) {
                Ok(input) => {
                    self.handle_input(input)?;
                    // An exec would lose what waits in the queue: it may follow a tick only.
                    while let Ok(input) = queue.try_recv() {
                        self.handle_input(input)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // We hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.options.log.dropped() != self.figures.log_dropped {
                self.publish_stats();
            }
            self.dispatch(Event::Tick);
        }
    }

    /// Gives an event to the life cycle and carries out what results, until nothing more does.
    fn dispatch(&mut self, event: Event<Values>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for command in self.service.handle(event, self.clock.now()) {
                events.extend(self.execute(command));
            }
        }
    }

    fn active(&self) -> Rc<ActiveConfig> {
        Rc::clone(&self.service.view(self.clock.now()).active.config)
    }
}

fn loaded(active: &Rc<ActiveConfig>) -> Loaded<Rc<ActiveConfig>> {
    Loaded { config: Rc::clone(active), shutdown: active.config.shutdown }
}

fn settings(options: &Options) -> Settings {
    Settings {
        ready_timeout: options.ready_timeout,
        hang_timeout: options.hang_timeout,
        keepalive: systemd::watchdog(),
        // The text of a demo names origins that run as threads of this image.
        upgrade_obstacle: options
            .text
            .is_some()
            .then_some("the demo's origins would end with this image"),
        binary_path: options.program.path.display().to_string(),
    }
}
