//! Signals of the supervisor, read from the kernel when the main thread handles them.
//!
//! They are blocked in every thread, from before there is a second one, and read from a descriptor
//! (signalfd(2)). A signal that was not read stays with the process over an exec, where the next
//! image finds it: none is lost between the two.
//!
//! A signal without a meaning for Weir is blocked as well, because its default action would end the
//! process. Workers inherit all of that, and unblock only SIGTERM and SIGCHLD: `pkill -HUP weir`
//! reaches them too, and a terminal's Ctrl-C or a service manager may.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

use super::Input;

/// The signals that mean something to a supervisor.
const HANDLED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR2,
    Signal::SIGTERM,
    Signal::SIGCHLD,
];
/// Signals whose default action would end the process, and that say nothing about its state.
/// SIGXFSZ: a log file that may not grow is an error of that write, and no reason to die.
const IGNORED: [Signal; 8] = [
    Signal::SIGUSR1,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
    Signal::SIGXFSZ,
];

/// Everything that is blocked in a supervisor, and read from the descriptor.
fn blocked() -> SigSet {
    HANDLED.into_iter().chain(IGNORED).collect()
}

/// Makes the signals of a supervisor wait until they are read. To be called before any thread is
/// started: threads inherit it.
///
/// # Errors
/// The system refuses.
pub fn hold() -> io::Result<()> {
    Ok(pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked()), None)?)
}

/// Makes a worker ignore every signal but SIGTERM and SIGCHLD, by leaving them blocked. To be called
/// before any thread is started. An older supervisor may have blocked fewer of them.
///
/// # Errors
/// The system refuses.
pub fn hold_for_worker() -> io::Result<()> {
    hold()?;
    let let_in: SigSet = [Signal::SIGTERM, Signal::SIGCHLD].into_iter().collect();
    Ok(pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&let_in), None)?)
}

/// The signals that wait.
#[derive(Debug)]
pub(super) struct Signals {
    waiting: Arc<SignalFd>,
    acknowledged: Sender<()>,
}

impl Signals {
    /// Sends [`Input::Signals`] when a signal waits.
    pub(super) fn listen(inputs: &Sender<Input>) -> io::Result<Self> {
        hold()?;
        // The process that started us may ignore it, and then the system would reap our children itself.
        signal_hook::flag::register(
            libc_number(Signal::SIGCHLD),
            Arc::new(AtomicBool::new(false)),
        )?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let waiting = Arc::new(SignalFd::with_flags(&blocked(), flags)?);
        let (acknowledged, handled) = channel();
        let (descriptor, inputs) = (Arc::clone(&waiting), inputs.clone());
        let notify = move || notify(&descriptor, &inputs, &handled);
        thread::Builder::new().name("signals".to_owned()).spawn(notify)?;
        Ok(Self { waiting, acknowledged })
    }

    /// The next signal that waits.
    pub(super) fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            match self.waiting.read_signal() {
                Ok(None) => return Ok(None),
                Ok(Some(found)) => {
                    let number = i32::try_from(found.ssi_signo).unwrap_or_default();
                    if let Ok(signal) = Signal::try_from(number) {
                        return Ok(Some(signal));
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All waiting signals have been handled: report the next one.
    pub(super) fn acknowledge(&self) {
        // The notifier is gone only if the inputs' queue is.
        let _gone = self.acknowledged.send(());
    }
}

/// Sends [`Input::Signals`] when a signal waits, and then waits until all have been handled.
fn notify(waiting: &SignalFd, inputs: &Sender<Input>, handled: &Receiver<()>) {
    loop {
        match poll(&mut [PollFd::new(waiting, PollFlags::IN)], None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                log::error!("signals can no longer be received: error=\"{error}\"");
                return;
            }
        }
        if inputs.send(Input::Signals).is_err() || handled.recv().is_err() {
            return;
        }
    }
}

#[expect(clippy::as_conversions, reason = "the number is what the enum is")]
fn libc_number(signal: Signal) -> i32 {
    signal as i32
}
