//! A bounded queue of lines, and the thread that writes them.
//!
//! The thread sleeps until there is a line, takes every other line that is there by then, and
//! writes them in one go: line by line while there is little to do, in big pieces under load, with
//! no timer. What does not fit into the queue, or cannot be written, is lost and counted; once
//! lines are written again, the loss is reported.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use crate::clock::Clock;
use crate::time::Timestamp;

/// How long the thread looks away after it has written all there was. A line that comes
/// meanwhile need not wake it, and is written together with those that follow.
const PAUSE: Duration = Duration::from_millis(5);
/// How much is written in one go.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a loss is reported while the queue is never empty.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How much may wait to be written.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lines.
    pub lines: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

/// Reports what was lost. Both are called by the thread that writes.
pub trait LossReport: Send {
    /// A write has failed after one that has not.
    fn failed(&self, error: &io::Error);

    /// So many lines were lost since the last report, and lines are written again. What this gives
    /// is written next.
    fn lost(&self, lines: u64) -> String;
}

/// The end of a queue that lines are put into. All copies are of the same queue.
#[derive(Debug, Clone)]
pub struct Lines {
    sender: SyncSender<String>,
    bytes_max: usize,
    shared: Arc<Shared>,
}

/// What both ends know.
#[derive(Debug)]
struct Shared {
    dropped: IntCounter,
    /// Of those, as many were reported.
    reported: AtomicU64,
    /// Lines that somebody else has lost and counted, to be reported here.
    foreign: AtomicU64,
    waiting_bytes: AtomicUsize,
    queued: AtomicU64,
    /// Lines that left the queue, written or lost.
    settled: Mutex<u64>,
    has_settled: Condvar,
    stopping: AtomicBool,
}

impl Shared {
    fn new(dropped: IntCounter) -> Self {
        Self {
            reported: AtomicU64::new(dropped.get()),
            dropped,
            foreign: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            queued: AtomicU64::new(0),
            settled: Mutex::new(0),
            has_settled: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    fn unreported(&self) -> u64 {
        let own = self.dropped.get().saturating_sub(self.reported.load(Ordering::Relaxed));
        own + self.foreign.load(Ordering::Relaxed)
    }

    /// Counts what is being reported as reported, and gives its number.
    fn take_unreported(&self) -> u64 {
        let dropped = self.dropped.get();
        let reported = self.reported.swap(dropped, Ordering::Relaxed);
        dropped.saturating_sub(reported) + self.foreign.swap(0, Ordering::Relaxed)
    }

    fn unwritten(&self) -> u64 {
        self.queued.load(Ordering::Relaxed).saturating_sub(*self.settled.lock())
    }

    fn settle(&self, lines: u64) {
        *self.settled.lock() += lines;
        self.has_settled.notify_all();
    }
}

impl Lines {
    /// Puts a line, with its newline, into the queue. It is lost if there is no room. Never waits.
    pub fn push(&self, line: String) {
        let shared = &self.shared;
        let bytes = line.len();
        let waiting = shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting.saturating_add(bytes) <= self.bytes_max && self.sender.try_send(line).is_ok() {
            shared.queued.fetch_add(1, Ordering::Relaxed);
        } else {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.dropped.inc();
        }
    }

    pub(super) fn dropped_counter(&self) -> &IntCounter {
        &self.shared.dropped
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }

    pub(super) fn unreported(&self) -> u64 {
        self.shared.unreported()
    }

    pub(super) fn unwritten(&self) -> u64 {
        self.shared.unwritten()
    }

    pub(super) fn take_over(&self, dropped: u64, unreported: u64) {
        // In this order a report between the two has nothing to say.
        self.shared.reported.fetch_add(dropped, Ordering::Relaxed);
        self.shared.dropped.inc_by(dropped);
        self.report(unreported);
    }

    pub(super) fn report(&self, lost: u64) {
        if lost > 0 {
            self.shared.foreign.fetch_add(lost, Ordering::Relaxed);
            self.wake();
        }
    }

    pub(super) fn flush(&self, patience: Duration) {
        let target = self.shared.queued.load(Ordering::Relaxed);
        let mut settled = self.shared.settled.lock();
        let is_waiting = |settled: &mut u64| *settled < target;
        self.shared.has_settled.wait_while_for(&mut settled, is_waiting, patience);
    }

    /// Wakes the thread if it sleeps. A full queue needs no waking.
    fn wake(&self) {
        self.sender.try_send(String::new()).ok();
    }
}

/// The thread that writes, to be stopped at the end.
#[derive(Debug)]
pub struct Writer {
    lines: Lines,
    /// Nothing is ever sent: the other end is gone when the thread is.
    ended: Receiver<()>,
}

impl Writer {
    /// Writes what is queued and ends the thread. False if that took longer than `patience`: what
    /// is still queued then is lost, and counted so. Blocks.
    pub fn stop(self, patience: Duration) -> bool {
        self.lines.shared.stopping.store(true, Ordering::Release);
        self.lines.wake();
        let has_ended = self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected);
        if !has_ended {
            self.lines.shared.dropped.inc_by(self.lines.unwritten());
        }
        has_ended
    }
}

/// Starts the thread `name`, which writes to `sink`. Lines that are lost are counted by the first
/// of `loss` and reported by the second.
///
/// # Errors
/// The thread could not be started.
pub fn start(
    name: &str,
    sink: impl Write + Send + 'static,
    limits: Limits,
    loss: (IntCounter, Box<dyn LossReport>),
) -> io::Result<(Lines, Writer)> {
    let (dropped, report) = loss;
    let (sender, queue) = sync_channel(limits.lines);
    let shared = Arc::new(Shared::new(dropped));
    let (running, ended) = channel();
    let batch = Batch {
        sink,
        bytes: Vec::with_capacity(BATCH_BYTES),
        lines: 0,
        failing: false,
        reported_at: Timestamp::ZERO,
        report,
        shared: Arc::clone(&shared),
    };
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        batch.run(&queue);
        // First the queue: once the end is known, no line may be taken for written any more.
        drop(queue);
        drop(running);
    })?;
    let lines = Lines { sender, bytes_max: limits.bytes, shared };
    Ok((lines.clone(), Writer { lines, ended }))
}

/// Lines on their way out.
struct Batch<W> {
    sink: W,
    bytes: Vec<u8>,
    lines: u64,
    failing: bool,
    reported_at: Timestamp,
    report: Box<dyn LossReport>,
    shared: Arc<Shared>,
}

impl<W: Write> Batch<W> {
    fn run(mut self, queue: &Receiver<String>) {
        while let Ok(line) = queue.recv() {
            self.push(&line);
            let mut drained = false;
            while !drained && self.bytes.len() < BATCH_BYTES {
                match queue.try_recv() {
                    Ok(line) => self.push(&line),
                    Err(_empty) => drained = true,
                }
            }
            self.write();
            self.report_loss(drained);
            if drained {
                if self.shared.stopping.load(Ordering::Acquire) {
                    return;
                }
                thread::park_timeout(PAUSE);
            }
        }
    }

    fn push(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.shared.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if self.failing && self.bytes.is_empty() {
            // The write that failed may have left half a line behind.
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line.as_bytes());
        self.lines += 1;
    }

    /// Writes what was taken in. A failure costs these lines.
    fn write(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let written = self.sink.write_all(&self.bytes).and_then(|()| self.sink.flush());
        let failed_before = std::mem::replace(&mut self.failing, written.is_err());
        if let Err(error) = written {
            self.shared.dropped.inc_by(self.lines);
            if !failed_before {
                self.report.failed(&error);
            }
        }
        self.bytes.clear();
        self.shared.settle(std::mem::take(&mut self.lines));
    }

    fn report_loss(&mut self, drained: bool) {
        if self.failing || self.shared.unreported() == 0 {
            return;
        }
        let now = Clock::process().now();
        if drained || now >= self.reported_at + REPORT_EVERY {
            self.reported_at = now;
            let text = self.report.lost(self.shared.take_unreported());
            self.bytes.extend_from_slice(text.as_bytes());
            self.write();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Longer than any of these tests should take.
    const PATIENCE: Duration = Duration::from_secs(20);
    const LIMITS: Limits = Limits { lines: 4, bytes: 100 };

    /// Sends each write, and waits to be told what comes of it.
    struct Sink {
        written: Sender<String>,
        results: Receiver<io::Result<()>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).ok();
            // Once nobody tells, everything is written.
            self.results.recv().unwrap_or(Ok(()))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes the number of what was lost.
    struct Told;

    impl LossReport for Told {
        fn failed(&self, _error: &io::Error) {}

        fn lost(&self, lines: u64) -> String {
            format!("lost {lines}\n")
        }
    }

    struct Queue {
        lines: Lines,
        writer: Writer,
        written: Receiver<String>,
        results: Sender<io::Result<()>>,
    }

    impl Queue {
        fn start() -> Self {
            let ((written, seen), (results, told)) = (channel(), channel());
            let dropped = IntCounter::new("dropped", "lost lines").unwrap();
            let sink = Sink { written, results: told };
            let (lines, writer) = start("log", sink, LIMITS, (dropped, Box::new(Told))).unwrap();
            Self { lines, writer, written: seen, results }
        }

        fn push(&self, text: &str) {
            self.lines.push(format!("{text}\n"));
        }

        fn next(&self) -> String {
            self.written.recv_timeout(PATIENCE).unwrap()
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_reported_after_the_next_write() {
        let queue = Queue::start();
        queue.push("first");
        assert_eq!(queue.next(), "first\n");
        for number in 0..LIMITS.lines + 3 {
            queue.push(&number.to_string());
        }
        assert_eq!((queue.lines.dropped(), queue.lines.unreported()), (3, 3));
        drop(queue.results);
        let (mut text, all) = (String::new(), "0\n1\n2\n3\nlost 3\n".len());
        while text.len() < all {
            text += &queue.written.recv_timeout(PATIENCE).unwrap();
        }
        // The report may come before or after the lines that waited.
        for line in ["0\n1\n2\n3\n", "lost 3\n"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(queue.writer.stop(PATIENCE));
        assert_eq!((queue.lines.dropped(), queue.lines.unreported()), (3, 0));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::start();
        queue.push("first");
        queue.next();
        queue.push(&"x".repeat(60));
        queue.push(&"y".repeat(60));
        assert_eq!(queue.lines.dropped(), 1);
        queue.push("fits");
        assert_eq!(queue.lines.dropped(), 1);
        drop(queue.results);
        queue.writer.stop(PATIENCE);
    }

    #[test]
    fn a_run_of_failures_is_reported_once_it_is_over() {
        let queue = Queue::start();
        for (text, is_first) in [("one", true), ("two", false)] {
            queue.push(text);
            let newline = if is_first { "" } else { "\n" };
            assert_eq!(queue.next(), format!("{newline}{text}\n"));
            queue.results.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        }
        queue.push("three");
        assert_eq!(queue.next(), "\nthree\n");
        queue.results.send(Ok(())).unwrap();
        assert_eq!(queue.next(), "lost 2\n");
        drop(queue.results);
        assert!(queue.writer.stop(PATIENCE));
    }

    #[test]
    fn a_flush_returns_when_all_is_written_or_its_time_is_up() {
        let queue = Queue::start();
        queue.push("first");
        queue.next();
        queue.lines.flush(Duration::from_millis(1));
        assert_eq!(queue.lines.unwritten(), 1);
        drop(queue.results);
        queue.lines.flush(PATIENCE);
        assert_eq!(queue.lines.unwritten(), 0);
        queue.writer.stop(PATIENCE);
    }

    #[test]
    fn what_is_not_written_at_a_stop_is_counted_as_lost() {
        let queue = Queue::start();
        queue.push("first");
        queue.next();
        queue.push("second");
        assert!(!queue.writer.stop(Duration::from_millis(1)));
        assert_eq!(queue.lines.dropped(), 2);
        drop(queue.results);
    }

    #[test]
    fn what_somebody_else_has_lost_is_reported_and_not_counted() {
        let queue = Queue::start();
        queue.lines.take_over(7, 2);
        assert_eq!(queue.next(), "lost 2\n");
        queue.lines.report(3);
        queue.results.send(Ok(())).unwrap();
        assert_eq!(queue.next(), "lost 3\n");
        assert_eq!(queue.lines.dropped(), 7);
        drop(queue.results);
        queue.writer.stop(PATIENCE);
    }
}
