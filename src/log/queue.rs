//! A bounded queue of lines, and the thread that writes them.
//!
//! The thread sleeps until there is a line, takes all other queued lines, and writes them in one
//! batch. So it writes line by line under low load and large batches under high load, without a
//! timer. Lines that do not fit into the queue, or cannot be written, are lost and counted. Once
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

/// How long the thread pauses after it has emptied the queue. Lines that arrive meanwhile need not
/// wake it, and are written as one batch.
const PAUSE: Duration = Duration::from_millis(5);
/// Maximum size of a batch.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a loss is reported while the queue is never empty.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The limits of the queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Number of lines.
    pub lines: usize,
    /// Total bytes.
    pub bytes: usize,
}

/// Reports lost lines. Both methods are called by the writer thread.
pub trait LossReport: Send {
    /// A write has failed after a successful one.
    fn failed(&self, error: &io::Error);

    /// `lines` lines were lost since the last report, and writing works again. The returned text is
    /// written next.
    fn lost(&self, lines: u64) -> String;
}

/// The sending end of the queue. All clones are of the same queue.
#[derive(Debug, Clone)]
pub struct Lines {
    sender: SyncSender<String>,
    bytes_max: usize,
    shared: Arc<QueueState>,
}

/// State shared by both ends.
#[derive(Debug)]
struct QueueState {
    dropped: IntCounter,
    /// How many of those have been reported.
    reported: AtomicU64,
    /// Lines lost and counted by another process, to be reported here.
    foreign: AtomicU64,
    waiting_bytes: AtomicUsize,
    queued: AtomicU64,
    /// Lines that left the queue, written or lost.
    settled: Mutex<u64>,
    has_settled: Condvar,
    stopping: AtomicBool,
}

impl QueueState {
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

    /// Marks all unreported lines as reported, and returns their number.
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
    /// Queues a line, which includes its newline. The line is lost if the queue is full. Never
    /// blocks.
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
        // In this order, a report between the two statements finds nothing to report.
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

    pub(super) fn flush(&self, limit: Duration) {
        let target = self.shared.queued.load(Ordering::Relaxed);
        let mut settled = self.shared.settled.lock();
        let is_waiting = |settled: &mut u64| *settled < target;
        self.shared.has_settled.wait_while_for(&mut settled, is_waiting, limit);
    }

    /// Wakes the thread if it sleeps. With a full queue it is awake.
    fn wake(&self) {
        self.sender.try_send(String::new()).ok();
    }
}

/// The writer thread, to be stopped at the end.
#[derive(Debug)]
pub struct QueueWriter {
    lines: Lines,
    /// Nothing is ever sent: the channel closes when the thread ends.
    ended: Receiver<()>,
}

impl QueueWriter {
    /// Writes the queued lines and ends the thread. Returns false if that took longer than `limit`;
    /// the lines still queued are lost then, and counted as lost. Blocks.
    pub fn stop(self, limit: Duration) -> bool {
        self.lines.shared.stopping.store(true, Ordering::Release);
        self.lines.wake();
        let has_ended = self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        if !has_ended {
            self.lines.shared.dropped.inc_by(self.lines.unwritten());
        }
        has_ended
    }
}

/// Starts the thread `name`, which writes to `sink`. The first of `loss` counts lost lines, the
/// second reports them.
///
/// # Errors
/// The thread could not be started.
pub fn start(
    name: &str,
    sink: impl Write + Send + 'static,
    limits: QueueLimits,
    loss: (IntCounter, Box<dyn LossReport>),
) -> io::Result<(Lines, QueueWriter)> {
    let (dropped, report) = loss;
    let (sender, queue) = sync_channel(limits.lines);
    let shared = Arc::new(QueueState::new(dropped));
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
        // The queue is dropped first: once the end is visible, no line may be accepted.
        drop(queue);
        drop(running);
    })?;
    let lines = Lines { sender, bytes_max: limits.bytes, shared };
    Ok((lines.clone(), QueueWriter { lines, ended }))
}

/// Lines to be written.
struct Batch<W> {
    sink: W,
    bytes: Vec<u8>,
    lines: u64,
    failing: bool,
    reported_at: Timestamp,
    report: Box<dyn LossReport>,
    shared: Arc<QueueState>,
}

impl<W: Write> Batch<W> {
    fn run(mut self, queue: &Receiver<String>) {
        while let Ok(line) = queue.recv() {
            self.push(&line);
            if self.write_batch(queue) {
                if self.shared.stopping.load(Ordering::Acquire) {
                    // Lines may have come since the queue was found empty.
                    while !self.write_batch(queue) {}
                    return;
                }
                thread::park_timeout(PAUSE);
            }
        }
    }

    /// Writes what is queued, at most one batch. Returns whether the queue was found empty.
    fn write_batch(&mut self, queue: &Receiver<String>) -> bool {
        let mut drained = false;
        while !drained && self.bytes.len() < BATCH_BYTES {
            match queue.try_recv() {
                Ok(line) => self.push(&line),
                Err(_empty) => drained = true,
            }
        }
        self.write();
        self.report_loss(drained);
        drained
    }

    fn push(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.shared.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        if self.failing && self.bytes.is_empty() {
            // The write that failed may have written a part of a line.
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line.as_bytes());
        self.lines += 1;
    }

    /// Writes the batch. If that fails, its lines are lost.
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
    const TIMEOUT: Duration = Duration::from_secs(20);
    const LIMITS: QueueLimits = QueueLimits { lines: 4, bytes: 100 };

    /// Sends each write to the test, and waits for the result to return.
    struct Sink {
        written: Sender<String>,
        results: Receiver<io::Result<()>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).ok();
            // Once the test is over, every write succeeds.
            self.results.recv().unwrap_or(Ok(()))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes the number of lost lines.
    struct Report;

    impl LossReport for Report {
        fn failed(&self, _error: &io::Error) {}

        fn lost(&self, lines: u64) -> String {
            format!("lost {lines}\n")
        }
    }

    struct Queue {
        lines: Lines,
        writer: QueueWriter,
        written: Receiver<String>,
        results: Sender<io::Result<()>>,
    }

    impl Queue {
        fn start() -> Self {
            let ((written, seen), (results, outcomes)) = (channel(), channel());
            let dropped = IntCounter::new("dropped", "lost lines").unwrap();
            let sink = Sink { written, results: outcomes };
            let (lines, writer) = start("log", sink, LIMITS, (dropped, Box::new(Report))).unwrap();
            Self { lines, writer, written: seen, results }
        }

        fn push(&self, text: &str) {
            self.lines.push(format!("{text}\n"));
        }

        fn next(&self) -> String {
            self.written.recv_timeout(TIMEOUT).unwrap()
        }
    }

    #[test]
    fn a_line_that_comes_during_a_write_is_written_before_the_thread_stops() {
        let queue = Queue::start();
        queue.push("first");
        assert_eq!(queue.next(), "first\n");
        // That write goes on until its result is sent.
        queue.push("last");
        queue.lines.shared.stopping.store(true, Ordering::Release);
        drop(queue.results);
        assert!(queue.writer.stop(TIMEOUT));
        assert_eq!(queue.written.recv_timeout(TIMEOUT).as_deref(), Ok("last\n"));
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_reported_after_the_next_write() {
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
            text += &queue.written.recv_timeout(TIMEOUT).unwrap();
        }
        // The report may come before or after the lines that waited.
        for line in ["0\n1\n2\n3\n", "lost 3\n"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(queue.writer.stop(TIMEOUT));
        assert_eq!((queue.lines.dropped(), queue.lines.unreported()), (3, 0));
    }

    #[test]
    fn bytes_are_limited_too() {
        let queue = Queue::start();
        queue.push("first");
        queue.next();
        queue.push(&"x".repeat(60));
        queue.push(&"y".repeat(60));
        assert_eq!(queue.lines.dropped(), 1);
        queue.push("fits");
        assert_eq!(queue.lines.dropped(), 1);
        drop(queue.results);
        queue.writer.stop(TIMEOUT);
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
        assert!(queue.writer.stop(TIMEOUT));
    }

    #[test]
    fn a_flush_returns_when_all_is_written_or_its_limit_is_reached() {
        let queue = Queue::start();
        queue.push("first");
        queue.next();
        queue.lines.flush(Duration::from_millis(1));
        assert_eq!(queue.lines.unwritten(), 1);
        drop(queue.results);
        queue.lines.flush(TIMEOUT);
        assert_eq!(queue.lines.unwritten(), 0);
        queue.writer.stop(TIMEOUT);
    }

    #[test]
    fn lines_not_written_at_a_stop_are_counted_as_lost() {
        let queue = Queue::start();
        queue.push("first");
        queue.next();
        queue.push("second");
        assert!(!queue.writer.stop(Duration::from_millis(1)));
        assert_eq!(queue.lines.dropped(), 2);
        drop(queue.results);
    }

    #[test]
    fn lines_lost_by_another_process_are_reported_and_not_counted() {
        let queue = Queue::start();
        queue.lines.take_over(7, 2);
        assert_eq!(queue.next(), "lost 2\n");
        queue.lines.report(3);
        queue.results.send(Ok(())).unwrap();
        assert_eq!(queue.next(), "lost 3\n");
        assert_eq!(queue.lines.dropped(), 7);
        drop(queue.results);
        queue.writer.stop(TIMEOUT);
    }
}
