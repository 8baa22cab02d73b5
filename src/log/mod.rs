//! The program's own log, which never blocks the thread that logs.
//!
//! `log` and `env_logger` filter and format lines. This module passes them to a bounded queue,
//! which one thread writes to its own descriptor. If the reader of standard error stalls, lines are
//! lost, counted and reported. It never stops a thread that serves, checks, supervises or stops.

mod descriptor;
pub mod filter;
mod panic;
pub mod queue;
mod throttle;

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::time::Duration;

use env_logger::{Target, WriteStyle};
use log::{LevelFilter, Metadata, Record};
use parking_lot::Mutex;
use prometheus::IntCounter;

pub use self::descriptor::Descriptor;
use self::queue::{Lines, LossReport, QueueWriter};
use self::throttle::{Decision, Throttle};
use crate::clock::Clock;

/// Maximum number of queued lines.
const LINES_MAX: usize = 4096;
/// Maximum size of queued lines.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The log of this process. All clones are the same log.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Lines,
    writer: Arc<Mutex<Option<QueueWriter>>>,
}

impl Log {
    /// Starts the log of this process: from now on it gets every `log` line that passes `filter`,
    /// and the message of every panic. `dropped` counts the lost lines.
    ///
    /// # Errors
    /// The thread cannot be started, or this process already has a log.
    pub fn start(filter: &str, dropped: IntCounter) -> io::Result<Self> {
        // If no descriptor is available, the standard library's handle is used; no other code
        // shares it.
        let sink: Box<dyn Write + Send> = match Descriptor::stderr() {
            Ok(descriptor) => Box::new(descriptor),
            Err(_no_more) => Box::new(io::stderr()),
        };
        let limits = queue::QueueLimits { lines: LINES_MAX, bytes: BYTES_MAX };
        let (lines, writer) = queue::start("log", sink, limits, (dropped, Box::new(LogLosses)))?;
        let style = if is_coloured() { WriteStyle::Always } else { WriteStyle::Never };
        let formatter = env_logger::Builder::new()
            .parse_filters(filter)
            .format_timestamp_millis()
            .write_style(style)
            .target(Target::Pipe(Box::new(Pipe(lines.clone()))))
            .build();
        let level = formatter.filter();
        install(Logger { formatter, throttle: Throttle::default() }, level)?;
        panic::log_panics();
        Ok(Self { lines, writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Queues this text without a time and a level.
    pub fn print(&self, text: &str) {
        self.lines.push(format!("{text}\n"));
    }

    /// The counter of lost lines.
    #[must_use]
    pub fn dropped_counter(&self) -> &IntCounter {
        self.lines.dropped_counter()
    }

    /// The number of lines lost so far, including those [imported](Self::take_over).
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Queued lines that are not written yet.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.lines.unwritten()
    }

    /// Lost lines that have not been reported in the log yet.
    #[must_use]
    pub fn unreported(&self) -> u64 {
        self.lines.unreported()
    }

    /// Adds the lines that the previous image of this process has lost, and those it has not
    /// reported.
    pub fn take_over(&self, dropped: u64, unreported: u64) {
        self.lines.take_over(dropped, unreported);
    }

    /// Reports these lost lines too. Another process has counted them.
    pub fn report(&self, lost: u64) {
        self.lines.report(lost);
    }

    /// Waits until all queued lines are written, for at most `limit`.
    pub fn flush(&self, limit: Duration) {
        self.lines.flush(limit);
    }

    /// Writes the queued lines and ends the log, within `limit`; later lines are lost. Returns the
    /// number of lost lines that the log does not report. A second call does nothing.
    pub fn stop(&self, limit: Duration) -> u64 {
        match self.writer.lock().take() {
            Some(writer) => {
                writer.stop(limit);
                self.lines.unreported()
            }
            None => 0,
        }
    }
}

/// A log for a command that ends by itself: lines are written at once, by the thread that logs.
///
/// # Errors
/// This process already has a log.
pub fn start_blocking(filter: &str) -> io::Result<()> {
    let formatter =
        env_logger::Builder::new().parse_filters(filter).format_timestamp_millis().build();
    let level = formatter.filter();
    install(Logger { formatter, throttle: Throttle::default() }, level)
}

fn install(logger: Logger, level: LevelFilter) -> io::Result<()> {
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Whether `NO_COLOR` (no-color.org) and the terminal allow colours.
fn is_coloured() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}

/// The backend of the `log` macros.
struct Logger {
    formatter: env_logger::Logger,
    throttle: Throttle,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.formatter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.formatter.matches(record) {
            return;
        }
        match self.throttle.decide(record, Clock::process().now()) {
            Decision::Log { suppressed: 0 } => self.formatter.log(record),
            Decision::Log { suppressed } => {
                self.formatter.log(
                    &Record::builder()
                        .metadata(record.metadata().clone())
                        .module_path(record.module_path())
                        .file(record.file())
                        .line(record.line())
                        .args(format_args!("{} suppressed={suppressed}", record.args()))
                        .build(),
                );
            }
            Decision::Suppress => {}
        }
    }

    /// Does nothing; [`Log::flush`] waits.
    fn flush(&self) {}
}

/// The formatter's output: each write is one line.
struct Pipe(Lines);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        if let Some(line) = capture_if_enabled(line) {
            self.0.push(line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    /// The lines of this thread, while they are captured instead of queued.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Returns the line if this thread's lines are not captured.
fn capture_if_enabled(line: String) -> Option<String> {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(text) => {
            text.push_str(&line);
            None
        }
        None => Some(line),
    })
}

/// Captures the lines that this thread logs in `log`.
fn captured(log: impl FnOnce()) -> String {
    CAPTURED.set(Some(String::new()));
    log();
    CAPTURED.take().unwrap_or_default()
}

/// Reports lost lines directly in the output: in the queue, the report could be lost as well.
struct LogLosses;

impl LossReport for LogLosses {
    fn failed(&self, _error: &io::Error) {}

    fn lost(&self, lines: u64) -> String {
        captured(|| log::warn!("log lines lost: count={lines}"))
    }
}
