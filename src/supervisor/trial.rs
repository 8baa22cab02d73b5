//! Trying the next image as a child, before this one makes way for it.
//!
//! It is given what the supervisor knows on its standard input, reads it and the configuration as
//! it would after the exec, and says one word. Whatever else it says is why it is refused.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::program::{Image, Program};
use super::upgrade::Upgrade;
use super::{Event, Supervisor};
use crate::time::Timestamp;

/// The word.
pub(super) const UNDERSTOOD: &str = "understood";
/// The subcommand that says it.
const SUBCOMMAND: &str = "upgrade-check";
/// How long it may take.
const TRIAL_MAX: Duration = Duration::from_secs(5);
/// How much it may say.
const SAID_MAX: u64 = 4096;

/// A binary that is being tried.
pub(super) struct Trial {
    number: u64,
    pid: Pid,
    /// Its number may be another's by now.
    reaped: bool,
    pub(super) until: Timestamp,
}

impl Trial {
    /// What it says comes as an event.
    fn start(
        program: &Program,
        memory: File,
        number: u64,
        events: Sender<Event>,
        now: Timestamp,
    ) -> io::Result<Self> {
        let flags = program.arguments.get(1..).unwrap_or_default();
        let mut child = program
            .command(&Image::OnDisk)
            .arg(SUBCOMMAND)
            .args(flags)
            .stdin(Stdio::from(memory))
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the supervisor.
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let trial = Self { number, pid, reaped: false, until: now + TRIAL_MAX };
        let hear = move || {
            let mut said = Vec::new();
            let read = output.take(SAID_MAX).read_to_end(&mut said);
            let said = match read {
                Ok(_) => String::from_utf8_lossy(&said).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            // Nobody hears it if the supervisor is gone, too.
            let _unheard = events.send(Event::Tried { number, said });
        };
        if let Err(error) = thread::Builder::new().name("trial".to_owned()).spawn(hear) {
            trial.kill();
            return Err(error);
        }
        Ok(trial)
    }

    fn kill(&self) {
        if self.reaped {
            return;
        }
        if let Err(error) = kill_process(self.pid, Signal::KILL) {
            log::debug!("binary on trial not killed: error=\"{error}\"");
        }
    }
}

impl Supervisor {
    pub(super) fn try_binary(&mut self) {
        self.trials += 1;
        let started = self.remember().and_then(|memory| {
            let (number, now) = (self.trials, self.clock.now());
            Trial::start(&self.options.program, memory, number, self.events.clone(), now)
        });
        match started {
            Ok(trial) => self.upgrade = Some(Upgrade::Trying(trial)),
            Err(error) => {
                self.refuse_binary(&format!("the binary cannot be tried: error=\"{error}\""));
            }
        }
    }

    /// It has said what it has to say.
    pub(super) fn tried(&mut self, number: u64, said: &str) {
        let Some(Upgrade::Trying(trial)) = &self.upgrade else { return };
        if trial.number != number {
            return;
        }
        match said {
            UNDERSTOOD => self.silence_workers(),
            "" => self.refuse_binary("the new binary ended without a word (is it weir?):"),
            why => self.refuse_binary(&format!("the new binary: {why}")),
        }
    }

    /// The binary on disk cannot go on in the place of this one.
    fn refuse_binary(&mut self, why: &str) {
        let path = self.options.program.path.display();
        self.refuse_upgrade(&format!("{why} path={path}"));
    }

    /// It has not said in time what it has to say.
    pub(super) fn refuse_silent_binary(&mut self) {
        self.end_trial();
        let longest = humantime::format_duration(TRIAL_MAX);
        self.refuse_binary(&format!(
            "the new binary did not answer within {longest} whether it reads the configuration that is served:"
        ));
    }

    /// Some process has ended.
    pub(super) fn trial_ended(&mut self, pid: Pid) {
        if let Some(Upgrade::Trying(trial)) = &mut self.upgrade {
            trial.reaped |= trial.pid == pid;
        }
    }

    pub(super) fn end_trial(&self) {
        if let Some(Upgrade::Trying(trial)) = &self.upgrade {
            trial.kill();
        }
    }
}
