//! Logging of commands, and their final error message.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use weir::log::{self as program_log, Log, filter};
use weir::metrics;

use super::variable;

const DEFAULT: &str = "info,pingora_core=warn,pingora_proxy=off";
/// How long writing the last lines may take.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// The same for a compatibility check: the supervisor waits for it.
const CHECK_FLUSH_MAX: Duration = Duration::from_millis(200);

/// The processes that log through a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogRole {
    /// A command that runs until it is stopped.
    Command,
    /// A worker. Its supervisor reports problems of the log filter.
    Worker,
    /// A compatibility check. Its supervisor reports them too.
    CompatibilityCheck,
}

/// Stops the log when dropped, also after a panic of this thread.
struct StopOnDrop(Log, Duration);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(self.1);
    }
}

/// Runs a command that must never block on its log output.
pub(super) fn run_with_queued_log(
    role: LogRole,
    command: impl FnOnce(&Log) -> Result<(), String>,
) -> ExitCode {
    let (filter, problem) = choose_filter();
    let log = metrics::log_dropped().map_err(io::Error::other);
    let log = match log.and_then(|dropped| Log::start(&filter, dropped)) {
        Ok(log) => log,
        Err(error) => return print_error(&format!("weir: cannot start the log: {error}")),
    };
    let is_check = role == LogRole::CompatibilityCheck;
    let flush_max = if is_check { CHECK_FLUSH_MAX } else { FLUSH_MAX };
    let _stop = StopOnDrop(log.clone(), flush_max);
    if let (LogRole::Command, Some(problem)) = (role, problem) {
        log::warn!("{problem}");
    }
    match command(&log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            if !message.is_empty() {
                log.print(&message);
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that ends by itself, and may block on its log output.
pub(super) fn run_with_blocking_log(command: impl FnOnce() -> Result<(), String>) -> ExitCode {
    run_with_exit_code(|| command().map(|()| ExitCode::SUCCESS))
}

/// The same for a command that chooses its exit code.
pub(super) fn run_with_exit_code(command: impl FnOnce() -> Result<ExitCode, String>) -> ExitCode {
    let (filter, problem) = choose_filter();
    if let Err(error) = program_log::start_blocking(&filter) {
        return print_error(&format!("weir: cannot start the log: {error}"));
    }
    if let Some(problem) = problem {
        log::warn!("{problem}");
    }
    match command() {
        Ok(code) => code,
        Err(message) => print_error(&message),
    }
}

/// Prints why a command failed.
pub(super) fn print_error(message: &str) -> ExitCode {
    if !message.is_empty() {
        // If standard error is closed, there is no other place to report it.
        let _closed = writeln!(io::stderr(), "{message}");
    }
    ExitCode::FAILURE
}

/// The filter to use, and what is wrong with the configured one.
fn choose_filter() -> (String, Option<String>) {
    let debug = variable("WEIR_DEBUG").is_some_and(|value| value == "1");
    let default = if debug { "debug" } else { DEFAULT };
    let Some(given) = variable("WEIR_LOG") else { return (default.to_owned(), None) };
    match filter::problem(&given) {
        None => (given, None),
        Some(problem) => {
            let problem = format!("WEIR_LOG={given} is invalid, {default} is used: {problem}");
            (default.to_owned(), Some(problem))
        }
    }
}
