//! Logs panics.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::panic::{self, PanicHookInfo};
use std::thread;

use log::{Level, Record};

use super::throttle;

/// Logs the message of every panic, in place of the standard library's hook. That hook writes to
/// standard error from the thread that panics, and would block if the reader stalls.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(log));
}

/// The backtrace, if `RUST_BACKTRACE` requests it. Symbols are resolved only if it is logged.
struct Trace(Backtrace);

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.status() == BacktraceStatus::Captured {
            write!(formatter, "\n{}", self.0)?;
        }
        Ok(())
    }
}

fn log(panic: &PanicHookInfo<'_>) {
    let trace = Trace(Backtrace::capture());
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    // The message is logged in quotes.
    let message = panic.payload_as_str().unwrap_or("unknown").replace('"', "'");
    let (file, line) = panic.location().map_or(("", 0), |at| (at.file(), at.line()));
    log::logger().log(
        &Record::builder()
            .level(Level::Error)
            .target(throttle::PANIC)
            .file(Some(file))
            .line(Some(line))
            .args(format_args!(
                "panic: thread={name} location={file}:{line} message=\"{message}\"{trace}"
            ))
            .build(),
    );
}
