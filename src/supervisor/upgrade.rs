//! Replacing the supervisor itself, by exec: same process number, sockets and workers kept.
//!
//! ```text
//!   SIGUSR2 ─▶ the binary is tried (trial.rs) ─▶ workers hold their tongue ─▶ exec ─▶ they speak
//!                     │ it does not understand         │ one does not              │ the new image
//!                     ▼                                ▼                           ▼ cannot go on
//!                  refused: everything goes on as it was        exec back to this image, refused
//! ```
//! Everything that it knows goes into a file in memory whose descriptor the new image finds in its
//! environment, and every descriptor that it needs is kept open over the exec. Workers are told to
//! hold their tongue first, because a message half read would be lost with the old image. This
//! image's own binary is kept open as well, in case the new one cannot go on after all. One that
//! crashes there cannot be helped: the workers then finish what they have and end.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::mpsc::Sender;
use std::time::Duration;

use nix::unistd::execve;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use super::announce::VERSION;
use super::memory::{
    FORMER, LOG_FLUSH_MAX, Left, MEMORY, Memory, WENT_BACK, arguments, environment,
};
use super::signals::Signals;
use super::trial::Trial;
use super::{Event, Options, Served, Supervisor, SupervisorError, reload, system};
use crate::link::ToWorker;
use crate::metrics::Supervision;
use crate::time::Timestamp;

/// How long workers may take to fall silent.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// A replacement that is under way.
pub(super) enum Upgrade {
    /// The binary is being tried.
    Trying(Trial),
    /// Workers fall silent: those who are, and how long the others may take to.
    Holding { silent: BTreeSet<u64>, until: Timestamp },
}

impl Upgrade {
    pub(super) const fn until(&self) -> Timestamp {
        match self {
            Self::Trying(trial) => trial.until,
            Self::Holding { until, .. } => *until,
        }
    }
}

impl Supervisor {
    /// Replaces this image by the binary on disk, if that understands.
    pub(super) fn upgrade(&mut self) {
        if self.stopping.is_some() || self.upgrade.is_some() {
            return; // one that is under way does for both
        }
        if self.options.text.is_some() {
            return self.refuse_upgrade("the demo's origins would end with this image");
        }
        if !self.is_settled() {
            log::info!("supervisor to be replaced once a worker serves and no other is on its way");
            self.upgrade_again = true;
            return;
        }
        log::info!("replacing the supervisor");
        self.try_binary();
    }

    fn is_settled(&self) -> bool {
        self.current.is_some() && self.candidates().next().is_none() && self.stopping.is_none()
    }

    /// The binary is good: waits until the workers are silent.
    pub(super) fn silence_workers(&mut self) {
        if !self.is_settled() {
            self.put_off_upgrade();
            return;
        }
        self.everyone().for_each(|child| child.tell(&ToWorker::Hold));
        let (silent, until) = (BTreeSet::new(), self.clock.now() + HOLD_MAX);
        self.upgrade = Some(Upgrade::Holding { silent, until });
    }

    /// A worker is silent.
    pub(super) fn held(&mut self, generation: u64) {
        if let Some(Upgrade::Holding { silent, .. }) = &mut self.upgrade {
            silent.insert(generation);
        }
    }

    /// Nobody is left whose word could be lost. One that has ended says nothing either.
    pub(super) fn replace_if_silent(&mut self) {
        let Some(Upgrade::Holding { silent, .. }) = &self.upgrade else { return };
        if self.is_settled() && self.everyone().all(|child| silent.contains(&child.generation)) {
            let Err(error) = self.replace();
            self.refuse_upgrade(&error.to_string());
        }
    }

    /// What takes too long is not waited for.
    pub(super) fn hurry_upgrade(&mut self, now: Timestamp) {
        match &self.upgrade {
            Some(upgrade) if upgrade.until() > now => {}
            Some(Upgrade::Trying(_)) => self.refuse_silent_binary(),
            Some(Upgrade::Holding { .. }) => self.refuse_upgrade("a worker does not answer"),
            None => {}
        }
    }

    /// The replacement came to nothing: everything goes on.
    pub(super) fn refuse_upgrade(&mut self, why: &str) {
        log::error!("upgrade rejected: {why}");
        self.facts.upgrades_refused += 1;
        self.upgrade_refusal = Some(why.to_owned());
        self.give_up_upgrade();
        self.tell_facts();
        self.next();
    }

    pub(super) fn give_up_upgrade(&mut self) {
        self.end_trial();
        if let Some(Upgrade::Holding { .. }) = self.upgrade.take() {
            self.everyone().for_each(|child| child.tell(&ToWorker::Speak));
        }
    }

    /// There is something to be done first.
    pub(super) fn put_off_upgrade(&mut self) {
        if self.upgrade.is_some() {
            self.give_up_upgrade();
            self.upgrade_again = true;
        }
    }

    /// Returns only if it failed.
    fn replace(&self) -> io::Result<Infallible> {
        // The thread that writes them ends with this image.
        self.options.log.flush(LOG_FLUSH_MAX);
        let file = self.remember()?;
        // Not by its path: the file there is another by now.
        let former = File::open("/proc/self/exe")?;
        let failed = self.exec(&file, &former);
        // Whatever failed, no worker may inherit what was meant for the next image.
        self.keep_over_exec(&[&file, &former], FdFlags::CLOEXEC)?;
        failed
    }

    /// A file in memory, from its beginning.
    pub(super) fn remember(&self) -> io::Result<File> {
        let mut file = File::from(memfd_create("weir", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&self.memory())?)?;
        file.rewind()?;
        Ok(file)
    }

    fn keep_over_exec(&self, files: &[&File], flags: FdFlags) -> io::Result<()> {
        let links = self.everyone().map(|child| child.link().as_fd());
        let sockets = self.sockets.values().map(AsFd::as_fd);
        let control = self.control.iter().map(AsFd::as_fd);
        for descriptor in
            links.chain(sockets).chain(control).chain(files.iter().map(|file| file.as_fd()))
        {
            fcntl_setfd(descriptor, flags)?;
        }
        Ok(())
    }

    fn exec(&self, file: &File, former: &File) -> io::Result<Infallible> {
        self.keep_over_exec(&[file, former], FdFlags::empty())?;
        let path = CString::new(self.options.program.path.clone().into_os_string().into_vec())?;
        let number = |file: &File| file.as_raw_fd().to_string();
        let variables = [(MEMORY, number(file)), (FORMER, number(former))];
        // Unlike the standard library's, this exec leaves the signals blocked.
        Ok(execve(&path, &arguments()?, &environment(&variables)?)?)
    }

    /// Goes on where the image before left off. Whatever fails, everything is as it was before.
    pub(super) fn resume(
        mut options: Options,
        events: Sender<Event>,
        signals: Signals,
        left: &Left,
    ) -> Result<Self, SupervisorError> {
        fault().map_err(system("go on"))?;
        let memory = left.read().map_err(system("remember what was served"))?;
        let text = memory.text.clone();
        let (config, _) = reload::load(&options, text.as_deref())?;
        let served = Served { config, text, version: memory.version.clone() };
        // The one before may run from a file that has no path any more.
        options.program.path.clone_from(&memory.program);
        let mut supervisor = Self::new(options, served, events, signals);
        supervisor.recall(&memory).map_err(system("go on from before"))?;
        left.close(&memory).map_err(system("close what was left"))?;
        supervisor.go_on(memory);
        Ok(supervisor)
    }

    fn go_on(&mut self, memory: Memory) {
        self.checkpoint = memory.checkpoint;
        // How long a worker may be silent is this image's flag, and no fact of before.
        self.facts = Supervision { hang_timeout: self.options.hang_timeout, ..memory.facts };
        self.options.log.take_over(self.facts.log_dropped, memory.log_unreported);
        self.uptime_before = self.facts.uptime;
        self.ever_ready = true;
        self.reload_again = memory.reload_again;
        self.upgrade_again = memory.upgrade_again;
        self.close_unused();
        self.everyone().for_each(|child| child.tell(&ToWorker::Speak));
        if let Ok(why) = env::var(WENT_BACK) {
            // It is named after the number of a descriptor.
            if let Err(error) = rustix::thread::set_name(c"weir") {
                log::debug!("not named: error=\"{error}\"");
            }
            self.keep_image();
            return self.refuse_upgrade(&format!("the new binary could not go on: {why}"));
        }
        self.facts.upgrades_done += 1;
        self.tell_facts();
        log::info!("supervisor replaced: workers={} version={VERSION}", self.everyone().count());
        self.next();
    }
}

/// Whether this image is to fail just after the exec: where debug assertions are compiled in, the
/// environment may ask for it (`WEIR_FAULT=resume`), because nothing else can be made to.
fn fault() -> io::Result<()> {
    let asked = || env::var("WEIR_FAULT").is_ok_and(|fault| fault == "resume");
    if cfg!(debug_assertions) && env::var_os(WENT_BACK).is_none() && asked() {
        return Err(io::Error::other("a fault, as the environment asks"));
    }
    Ok(())
}
