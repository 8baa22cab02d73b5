//! The options of a supervisor, and its errors.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::program::Program;
use super::{control, systemd};
use crate::config::{Config, Problems};
use crate::lifecycle::Failure;
use crate::log::Log;

/// Checks the text of a file and returns its configuration and version.
pub type Load = Box<dyn Fn(Option<&[u8]>) -> Result<(Config, String), Problems>>;

/// What to supervise.
pub struct Options {
    /// How a worker is started.
    pub program: Program,
    /// The configuration file; `None` if flags or the environment define everything.
    pub file: Option<PathBuf>,
    /// Checks the file's text and applies flags and the environment.
    pub load: Load,
    /// The flags and variables that replace parts of the file, separated by commas.
    pub overridden_by: String,
    /// The text of a file that does not exist, such as the demo's.
    pub text: Option<String>,
    /// The path of the control socket.
    pub control: control::SocketPath,
    /// How long a new worker may take until it serves.
    pub ready_timeout: Duration,
    /// For how long a worker may make no progress before it is replaced; `None`: for ever.
    pub hang_timeout: Option<Duration>,
    /// Whether changes of the file are reloads.
    pub watch: bool,
    /// The log of this process.
    pub log: Log,
    /// Called once, when requests are accepted for the first time.
    pub ready: Option<Box<dyn FnOnce()>>,
}

impl Options {
    /// Reports that requests are accepted, to the caller and to the service manager.
    pub(super) fn announce_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            ready();
        }
        systemd::ready();
    }
}

/// The supervisor could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The configuration is rejected.
    #[error("{0}")]
    Rejected(String),
    /// Addresses that cannot be bound, each on a line.
    #[error("{0}")]
    Bind(String),
    /// A worker could not open what it needs to serve at all.
    #[error(
        "weir: too few file descriptors: limit={limit} minimum={DESCRIPTORS_MIN} (help: raise the limit \
         to 1024 or more, `ulimit -n` or LimitNOFILE=)"
    )]
    FewDescriptors {
        /// How many it may have.
        limit: u64,
    },
    /// The first worker could not serve.
    #[error("weir: {0}")]
    Worker(String),
    /// The control socket at an explicit path cannot be opened.
    #[error(
        "weir: cannot open the control socket: path={} error=\"{source}\" (help: {})",
        path.display(),
        control::help_to_listen(source)
    )]
    Control {
        /// Its path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A system call failed.
    #[error("weir: cannot {doing}: {source}")]
    System {
        /// What it was for.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
    /// A second signal, or a worker that did not drain in time.
    #[error("weir: {0}")]
    ForcedStop(String),
}

impl From<Failure> for SupervisorError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::FirstWorker(why) => Self::Worker(why),
            Failure::ForcedStop(why) => Self::ForcedStop(why),
        }
    }
}

/// A worker needs 42 file descriptors to become ready, with 1 to 16 threads, and some more to serve.
const DESCRIPTORS_MIN: u64 = 64;

/// Fails if the processes of this service may have too few file descriptors.
pub(super) fn check_descriptors() -> Result<(), SupervisorError> {
    // A worker raises its soft limit to the hard one.
    match rlimit::Resource::NOFILE.get_hard() {
        Ok(limit) if limit < DESCRIPTORS_MIN => Err(SupervisorError::FewDescriptors { limit }),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::System { doing, source }
}
