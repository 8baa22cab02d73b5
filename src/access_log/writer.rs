//! The thread that writes.
//!
//! It sleeps until there is a line, takes every other line that is there by then, and writes them
//! in one go: line by line while there is little to do, in big pieces under load, with no timer.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel};
use std::thread;
use std::time::Duration;

use log::{error, info};
use prometheus::IntCounter;

/// How long the thread looks away after it has written all there was. A line that comes
/// meanwhile need not wake it, and is written together with those that follow.
const PAUSE: Duration = Duration::from_millis(5);
/// How much is written in one go.
const BATCH_BYTES: usize = 64 * 1024;

/// The thread that writes, to be stopped at the end.
#[derive(Debug)]
pub struct Writer {
    stopping: Arc<AtomicBool>,
    lines: SyncSender<String>,
    /// Nothing is ever sent: the other end is gone when the thread is.
    ended: Receiver<()>,
}

impl Writer {
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        lines: SyncSender<String>,
        queue: Receiver<String>,
        lost: IntCounter,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (running, ended) = channel();
        let stop = Arc::clone(&stopping);
        thread::Builder::new().name("access log".to_owned()).spawn(move || {
            Batch::new(sink, lost).run(&queue, &stop);
            // First the queue: once the end is known, no line may be taken for written any more.
            drop(queue);
            drop(running);
        })?;
        Ok(Self { stopping, lines, ended })
    }

    /// In place of a thread, where nothing is to be written.
    pub(super) fn idle(lines: SyncSender<String>) -> Self {
        Self { stopping: Arc::default(), lines, ended: channel().1 }
    }

    /// Writes what is queued and ends the thread. False if that took longer than `patience`; what
    /// is still queued then is lost. Blocks.
    pub fn stop(self, patience: Duration) -> bool {
        self.stopping.store(true, Ordering::Release);
        // Wakes a thread that sleeps. A full queue needs no waking.
        self.lines.try_send(String::new()).ok();
        self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Lines on their way out.
struct Batch<W> {
    sink: W,
    bytes: Vec<u8>,
    lines: u64,
    failing: bool,
    lost: IntCounter,
}

impl<W: Write> Batch<W> {
    fn new(sink: W, lost: IntCounter) -> Self {
        Self { sink, bytes: Vec::with_capacity(BATCH_BYTES), lines: 0, failing: false, lost }
    }

    fn run(mut self, queue: &Receiver<String>, stopping: &AtomicBool) {
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
            if drained {
                if stopping.load(Ordering::Acquire) {
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
        if self.failing && self.bytes.is_empty() {
            // The write that failed may have left half a line behind.
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line.as_bytes());
        self.lines += 1;
    }

    /// Writes what was taken in. A failure costs these lines; a run of failures is told once.
    fn write(&mut self) {
        if self.lines == 0 {
            return;
        }
        let written = self.sink.write_all(&self.bytes).and_then(|()| self.sink.flush());
        let failed_before = std::mem::replace(&mut self.failing, written.is_err());
        match written {
            Ok(()) if failed_before => info!("access log is written again"),
            Ok(()) => {}
            Err(error) => {
                self.lost.inc_by(self.lines);
                if !failed_before {
                    error!("access log cannot be written: error=\"{error}\"");
                }
            }
        }
        self.bytes.clear();
        self.lines = 0;
    }
}
