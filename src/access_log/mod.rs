//! The access log: one line per request.
//!
//! A line is formatted on the request path, because only there all its data is at hand, and passed
//! to one thread that writes. Between the two is a bounded queue. A slow or closed output must not
//! slow down requests, so lines that do not fit are dropped and counted.

mod line;
mod time;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;

use crate::clock::Clock;
use crate::config::{self, LogFormat, LogTarget};
use crate::exchange::event::{ExchangeEvent, Observer, Summary};
use crate::log::Descriptor;
use crate::log::queue::{self, Lines, LossReport, QueueLimits};

/// Maximum number of queued lines.
const QUEUE_LINES_MAX: usize = 4096;
/// Maximum size of queued lines. 4096 typical lines take 2 MB; of the longest lines, this holds a
/// thousand.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Stops the access log.
#[derive(Debug)]
pub struct AccessLogWriter(Option<queue::QueueWriter>);

impl AccessLogWriter {
    /// Writes the queued lines and ends the thread. Returns false if that took longer than `limit`;
    /// the lines still queued are lost then, and counted as lost. Blocks.
    pub fn stop(self, limit: Duration) -> bool {
        self.0.is_none_or(|writer| writer.stop(limit))
    }
}

/// Reports lost lines in the program's log.
struct AccessLogLosses;

impl LossReport for AccessLogLosses {
    fn failed(&self, error: &io::Error) {
        log::error!("access log cannot be written: error=\"{error}\"");
    }

    fn lost(&self, lines: u64) -> String {
        log::warn!("access log lines lost: count={lines}");
        String::new()
    }
}

/// Writes a line when a request is complete.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    clock: Clock,
    /// `None` if the log is off.
    lines: Option<Lines>,
}

impl AccessLog {
    /// Starts the writer thread. `lost` counts the lines that could not be written.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        config: config::AccessLog,
        clock: Clock,
        lost: &IntCounter,
    ) -> io::Result<(Arc<Self>, AccessLogWriter)> {
        match config.target {
            LogTarget::Stdout => Self::start_to(Descriptor::stdout()?, config.format, clock, lost),
            LogTarget::Stderr => Self::start_to(Descriptor::stderr()?, config.format, clock, lost),
        }
    }

    /// Like [`start`](Self::start), but writes to `sink`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start_to(
        sink: impl Write + Send + 'static,
        format: LogFormat,
        clock: Clock,
        lost: &IntCounter,
    ) -> io::Result<(Arc<Self>, AccessLogWriter)> {
        if format == LogFormat::Off {
            return Ok((Arc::new(Self { format, clock, lines: None }), AccessLogWriter(None)));
        }
        let limits = QueueLimits { lines: QUEUE_LINES_MAX, bytes: QUEUE_BYTES_MAX };
        let losses = Box::new(AccessLogLosses);
        let (lines, writer) = queue::start("access log", sink, limits, (lost.clone(), losses))?;
        Ok((Arc::new(Self { format, clock, lines: Some(lines) }), AccessLogWriter(Some(writer))))
    }

    fn line(&self, summary: &Summary<'_>) -> Option<String> {
        let started = self.clock.wall(summary.exchange.started());
        let mut line = String::with_capacity(line::BYTES_USUAL);
        match self.format {
            LogFormat::Json => line::json(&mut line, summary, started).ok()?,
            LogFormat::Text => line::text(&mut line, summary, started).ok()?,
            LogFormat::Off => return None,
        }
        Some(line)
    }
}

impl Observer for AccessLog {
    fn observe(&self, event: &ExchangeEvent<'_>) {
        let ExchangeEvent::Finished(summary) = event else { return };
        if let Some(lines) = &self.lines
            && let Some(line) = self.line(summary)
        {
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::exchange::refusal::Outcome;
    use crate::fixture;
    use crate::time::Timestamp;

    /// Longer than any of these tests should take.
    const TIMEOUT: Duration = Duration::from_secs(20);

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    /// Signals when a write begins, and blocks it until it is released.
    struct Stuck {
        begun: Sender<()>,
        release: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(()).ok();
            self.release.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed(Sender<()>);

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lost() -> IntCounter {
        IntCounter::new("lost", "lost lines").unwrap()
    }

    fn start(
        sink: impl Write + Send + 'static,
        lost: &IntCounter,
    ) -> (Arc<AccessLog>, AccessLogWriter) {
        AccessLog::start_to(sink, LogFormat::Json, Clock::process(), lost).unwrap()
    }

    fn finish_one(log: &Arc<AccessLog>) {
        let observer: Arc<dyn Observer> = log.clone();
        let mut exchange = fixture::admitted(&fixture::web(), &observer);
        exchange.finished(Outcome::Completed, Some(&fixture::wire(200)), Timestamp::ZERO);
    }

    #[test]
    fn every_exchange_gets_one_line() {
        let (sink, lost) = (Memory::default(), lost());
        let (log, writer) = start(sink.clone(), &lost);
        finish_one(&log);
        finish_one(&log);
        assert!(writer.stop(TIMEOUT), "the writer did not stop");
        let text = sink.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with('\n'), "{text}");
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn an_abandoned_exchange_gets_its_line_too() {
        let sink = Memory::default();
        let (log, writer) = start(sink.clone(), &lost());
        let observer: Arc<dyn Observer> = log;
        drop(fixture::admitted(&fixture::web(), &observer));
        assert!(writer.stop(TIMEOUT), "the writer did not stop");
        assert!(sink.text().contains(r#""reason":"abandoned""#), "{}", sink.text());
    }

    #[test]
    fn lines_queued_at_a_stop_are_still_written() {
        let sink = Memory::default();
        let (log, writer) = start(sink.clone(), &lost());
        for _ in 0..1000 {
            finish_one(&log);
        }
        assert!(writer.stop(TIMEOUT), "the writer did not stop");
        assert_eq!(sink.text().lines().count(), 1000);
    }

    #[test]
    fn a_full_queue_drops_and_counts_lines_and_blocks_no_thread() {
        let lost = lost();
        let (begun, has_begun) = channel();
        let (release, released) = channel();
        let (log, writer) = start(Stuck { begun, release: released }, &lost);
        finish_one(&log);
        has_begun.recv_timeout(TIMEOUT).unwrap();
        for _ in 0..QUEUE_LINES_MAX + 3 {
            finish_one(&log);
        }
        assert_eq!(lost.get(), 3);
        assert!(!writer.stop(Duration::from_millis(1)), "a stuck writer cannot have stopped");
        drop(release);
    }

    #[test]
    fn a_closed_output_only_loses_lines() {
        let lost = lost();
        let (tried, attempts) = channel();
        let (log, writer) = start(Closed(tried), &lost);
        finish_one(&log);
        attempts.recv_timeout(TIMEOUT).unwrap();
        finish_one(&log);
        attempts.recv_timeout(TIMEOUT).unwrap();
        assert!(writer.stop(TIMEOUT), "the writer did not stop");
        assert_eq!(lost.get(), 2);
        assert!(attempts.try_recv().is_err(), "it kept trying without a line to write");
    }

    #[test]
    fn a_line_after_the_stop_is_counted_as_lost() {
        let lost = lost();
        let (log, writer) = start(Memory::default(), &lost);
        assert!(writer.stop(TIMEOUT), "the writer did not stop");
        finish_one(&log);
        assert_eq!(lost.get(), 1);
    }

    #[test]
    fn a_log_that_is_off_writes_and_loses_nothing() {
        let (sink, lost) = (Memory::default(), lost());
        let (log, writer) =
            AccessLog::start_to(sink.clone(), LogFormat::Off, Clock::process(), &lost).unwrap();
        finish_one(&log);
        assert!(writer.stop(TIMEOUT), "there was nothing to stop");
        assert_eq!((sink.text().as_str(), lost.get()), ("", 0));
    }
}
