//! The program's own log, which no thread ever waits for.
//!
//! `log` and `env_logger` decide which lines there are and what they look like. Where a line goes
//! is decided here: into a bounded queue, which one thread writes to a descriptor of its own. A
//! reader of standard error that stalls costs lines, which are counted and reported; it never
//! stops a thread that serves, checks, supervises or stops.

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
use self::queue::{Lines, LossReport, Writer};
use self::throttle::{Decision, Throttle};
use crate::clock::Clock;

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// Their bytes.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The log of this process. All copies are the same log.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Lines,
    writer: Arc<Mutex<Option<Writer>>>,
}

impl Log {
    /// Starts the log of this process: every `log` line that passes `filter`, and the message of
    /// every panic, from now on. `dropped` counts the lines that are lost.
    ///
    /// # Errors
    /// The thread cannot be started, or this process has a log already.
    pub fn start(filter: &str, dropped: IntCounter) -> io::Result<Self> {
        // Where every descriptor is in use, the standard library's will do: nobody shares it.
        let sink: Box<dyn Write + Send> = match Descriptor::stderr() {
            Ok(descriptor) => Box::new(descriptor),
            Err(_no_more) => Box::new(io::stderr()),
        };
        let limits = queue::Limits { lines: LINES_MAX, bytes: BYTES_MAX };
        let (lines, writer) = queue::start("log", sink, limits, (dropped, Box::new(Losses)))?;
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

    /// Writes this text as it is, without a time and a level, at the end of what is queued.
    pub fn print(&self, text: &str) {
        self.lines.push(format!("{text}\n"));
    }

    /// Counts the lines that are lost.
    #[must_use]
    pub fn dropped_counter(&self) -> &IntCounter {
        self.lines.dropped_counter()
    }

    /// Lines that were lost so far, those that were [taken over](Self::take_over) included.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Lines that are queued and not written yet.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.lines.unwritten()
    }

    /// Lost lines that the log has not reported yet.
    #[must_use]
    pub fn unreported(&self) -> u64 {
        self.lines.unreported()
    }

    /// Goes on from what an image of this process before this one has lost, and not reported.
    pub fn take_over(&self, dropped: u64, unreported: u64) {
        self.lines.take_over(dropped, unreported);
    }

    /// Reports these lines as well. Another process has lost and counted them.
    pub fn report(&self, lost: u64) {
        self.lines.report(lost);
    }

    /// Waits until everything that is queued is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.lines.flush(patience);
    }

    /// Writes what is queued and ends the log, within `patience`; lines that come later are lost.
    /// Gives the number of lost lines that nobody will find in the log. The second time it does
    /// nothing.
    pub fn stop(&self, patience: Duration) -> u64 {
        match self.writer.lock().take() {
            Some(writer) => {
                writer.stop(patience);
                self.lines.unreported()
            }
            None => 0,
        }
    }
}

/// The log of a command that ends by itself: written at once, by the thread that logs.
///
/// # Errors
/// This process has a log already.
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

/// As `NO_COLOR` (no-color.org) and the terminal want it.
fn is_coloured() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}

/// What the `log` macros call.
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

    /// Nothing waits here: [`Log::flush`] does.
    fn flush(&self) {}
}

/// Where the formatter writes: each write is one line.
struct Pipe(Lines);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        if let Some(line) = capture_if_asked(line) {
            self.0.push(line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    /// What this thread logs, while it does not go into the queue.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Gives the line back if this thread's lines go into the queue.
fn capture_if_asked(line: String) -> Option<String> {
    CAPTURED.with_borrow_mut(|captured| match captured {
        Some(text) => {
            text.push_str(&line);
            None
        }
        None => Some(line),
    })
}

/// The lines that this thread logs in `log`.
fn captured(log: impl FnOnce()) -> String {
    CAPTURED.set(Some(String::new()));
    log();
    CAPTURED.take().unwrap_or_default()
}

/// Reports lost lines in the log itself, ahead of the queue: there it could be lost as well.
struct Losses;

impl LossReport for Losses {
    fn failed(&self, _error: &io::Error) {}

    fn lost(&self, lines: u64) -> String {
        captured(|| log::warn!("log lines lost: count={lines}"))
    }
}
