//! Replacing the supervisor by exec: same process number, sockets and workers kept.
//!
//! All that it knows goes into a file in memory (`exec_state.rs`), whose descriptor the new image finds
//! in its environment. Every descriptor that the new image needs is kept open over the exec. This
//! image's own binary is kept open as well, in case the new one cannot continue. If the new one crashes
//! there, nothing is left to help it: the workers then finish what they have and exit.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::rc::Rc;
use std::sync::mpsc::Sender;

use nix::unistd::execve;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use super::announce::VERSION;
use super::config::{ConfigFile, load};
use super::exec_state::{InheritedState, LOG_FLUSH_MAX};
use super::program::{EXEC_STATE, PREVIOUS_EXE, ROLLED_BACK, arguments, environment};
use super::signals::Signals;
use super::{Input, Options, Supervisor, SupervisorError, loaded, settings, system};
use crate::clock::Clock;
use crate::lifecycle::{Event, Service};

impl Supervisor {
    /// Replaces this image by the binary on disk. Returns only if that failed.
    pub(super) fn exec(&self) -> io::Error {
        match self.try_exec() {
            Err(error) => error,
        }
    }

    fn try_exec(&self) -> io::Result<Infallible> {
        // The thread that writes the log ends with this image.
        self.options.log.flush(LOG_FLUSH_MAX);
        let state = self.save_state()?;
        // Not by its path: the file there is another one by now.
        let previous = File::open("/proc/self/exe")?;
        let failed = self.exec_with(&state, &previous);
        // No worker may inherit what was meant for the next image.
        self.set_descriptor_flags(&[&state, &previous], FdFlags::CLOEXEC)?;
        failed
    }

    /// The state of the supervisor as a file in memory, positioned at its beginning.
    pub(super) fn save_state(&self) -> io::Result<File> {
        let mut file = File::from(memfd_create("weir", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&self.exec_state())?)?;
        file.rewind()?;
        Ok(file)
    }

    fn set_descriptor_flags(&self, files: &[&File], flags: FdFlags) -> io::Result<()> {
        // A killed worker that does not exit is given up: the next image would not know its link.
        let view = self.service.view(self.clock.now());
        let children =
            view.workers.iter().filter_map(|worker| self.processes.workers.get(&worker.id));
        let links = children.map(|child| child.link().as_fd());
        let sockets = self.sockets.iter().map(|(_, socket)| socket.as_fd());
        let control = self.control.iter().map(AsFd::as_fd);
        for descriptor in
            links.chain(sockets).chain(control).chain(files.iter().map(|file| file.as_fd()))
        {
            fcntl_setfd(descriptor, flags)?;
        }
        Ok(())
    }

    fn exec_with(&self, state: &File, previous: &File) -> io::Result<Infallible> {
        self.set_descriptor_flags(&[state, previous], FdFlags::empty())?;
        let path = CString::new(self.options.program.path.clone().into_os_string().into_vec())?;
        let number = |file: &File| file.as_raw_fd().to_string();
        let variables = [(EXEC_STATE, number(state)), (PREVIOUS_EXE, number(previous))];
        // Unlike the standard library's, this exec leaves the signals blocked.
        Ok(execve(&path, &arguments()?, &environment(&variables)?)?)
    }

    /// Continues where the previous image stopped. If anything fails, nothing has changed. Also returns
    /// why the new binary gave control back to this one, if it did.
    pub(super) fn resume(
        mut options: Options,
        inputs: Sender<Input>,
        signals: Signals,
        inherited: &InheritedState,
    ) -> Result<(Self, Option<String>), SupervisorError> {
        injected_fault().map_err(system("go on"))?;
        let state = inherited.read().map_err(system("remember what was served"))?;
        let mut active = load(&options, state.text.clone())?;
        active.version.clone_from(&state.version);
        let active = Rc::new(active);
        // The previous image may run from a file that has been deleted.
        options.program.path.clone_from(&state.program);
        let clock = Clock::process();
        let now = clock.now();
        let saved = state.saved(clock.wall(now));
        let service = Service::restore(settings(&options), loaded(&active), &saved, now);
        let mut supervisor = Self::new(options, service, inputs, signals);
        supervisor.file = ConfigFile::of(&active);
        supervisor.reattach(&state).map_err(system("go on from before"))?;
        inherited.close(&state).map_err(system("close what was left"))?;
        supervisor.restore_state(state);
        Ok((supervisor, env::var(ROLLED_BACK).ok()))
    }

    /// Tells the workers to go on. `rollback`: why the new binary gave control back, if it did.
    pub(super) fn finish_resume(&mut self, rollback: Option<String>) {
        let is_new = rollback.is_none();
        // The kernel named the process after the number of a descriptor.
        if !is_new && let Err(error) = rustix::thread::set_name(c"weir") {
            log::debug!("not named: error=\"{error}\"");
        }
        self.dispatch(Event::Resumed(rollback));
        if is_new {
            log::info!(
                "supervisor replaced: workers={} version={VERSION}",
                self.processes.workers.len()
            );
        }
    }
}

/// Whether this image is to fail just after the exec. Where debug assertions are compiled in, tests ask
/// for it by the environment (`WEIR_FAULT=resume`), because nothing else makes a good binary fail.
fn injected_fault() -> io::Result<()> {
    let asked = || env::var("WEIR_FAULT").is_ok_and(|fault| fault == "resume");
    if cfg!(debug_assertions) && env::var_os(ROLLED_BACK).is_none() && asked() {
        return Err(io::Error::other("a fault, as the environment asks"));
    }
    Ok(())
}
