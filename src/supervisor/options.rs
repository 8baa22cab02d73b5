//! What a supervisor is given, and how it ends.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::program::Program;
use super::{control, systemd};
use crate::config::{Config, Problems};
use crate::lifecycle::Failure;
use crate::log::Log;
use crate::sockets::BindError;

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
    /// The flags and variables that replace parts of the file, separated by commas.
    pub overridden_by: String,
    /// The text of a file that does not exist, such as the demo's.
    pub text: Option<String>,
    /// Where commands come in.
    pub control: control::Place,
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
    /// Tells whoever waits for it that requests are accepted.
    pub(super) fn announce_ready(&mut self) {
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
    /// The control socket that was asked for cannot be had.
    #[error(
        "weir: cannot open the control socket: path={} error=\"{source}\" (help: {})",
        path.display(),
        control::help_to_listen(source)
    )]
    Control {
        /// Where it was to be.
        path: PathBuf,
        /// Why it is not there.
        source: io::Error,
    },
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

pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::System { doing, source }
}
