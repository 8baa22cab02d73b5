//! How a command logs, and how it says at its end what went wrong.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use weir::log::{self as program_log, Log, filter};
use weir::metrics;

use super::variable;

const DEFAULT: &str = "info,pingora_core=warn,pingora_proxy=off";
/// How long the last lines may take to be written.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// The same for a binary on trial: the supervisor waits for its end.
const TRIAL_FLUSH_MAX: Duration = Duration::from_millis(200);

/// Who logs through a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logging {
    /// A command of an operator that runs until it is stopped.
    Queued,
    /// A worker: its supervisor has said what is wrong with the filter.
    OfWorker,
    /// A binary on trial: the same.
    OfTrial,
}

/// Ends the log whatever happens, a panic of this thread included.
struct Ending(Log, Duration);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop(self.1);
    }
}

/// Runs a command that must never wait for whoever reads its log.
pub(super) fn with_log(
    logging: Logging,
    command: impl FnOnce(&Log) -> Result<(), String>,
) -> ExitCode {
    let (filter, problem) = chosen();
    let log = metrics::log_dropped().map_err(io::Error::other);
    let log = match log.and_then(|dropped| Log::start(&filter, dropped)) {
        Ok(log) => log,
        Err(error) => return complain(&format!("weir: cannot start the log: {error}")),
    };
    let patience = if logging == Logging::OfTrial { TRIAL_FLUSH_MAX } else { FLUSH_MAX };
    let _ending = Ending(log.clone(), patience);
    if let (Logging::Queued, Some(problem)) = (logging, problem) {
        log::warn!("{problem}");
    }
    match command(&log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            if !complaint.is_empty() {
                log.print(&complaint);
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that ends by itself.
pub(super) fn at_once(command: impl FnOnce() -> Result<(), String>) -> ExitCode {
    let (filter, problem) = chosen();
    if let Err(error) = program_log::start_blocking(&filter) {
        return complain(&format!("weir: cannot start the log: {error}"));
    }
    if let Some(problem) = problem {
        log::warn!("{problem}");
    }
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => complain(&complaint),
    }
}

/// Says why it failed.
pub(super) fn complain(complaint: &str) -> ExitCode {
    if !complaint.is_empty() {
        // Nobody is left to tell if standard error is gone.
        let _gone = writeln!(io::stderr(), "{complaint}");
    }
    ExitCode::FAILURE
}

/// The filter to use, and what is wrong with the one that was given.
fn chosen() -> (String, Option<String>) {
    let debug = variable("WEIR_DEBUG").is_some_and(|value| value == "1");
    let default = if debug { "debug" } else { DEFAULT };
    let Some(given) = variable("WEIR_LOG") else { return (default.to_owned(), None) };
    match filter::problem(&given) {
        None => (given, None),
        Some(problem) => {
            let problem = format!("WEIR_LOG={given} is not used, but {default}: {problem}");
            (default.to_owned(), Some(problem))
        }
    }
}
