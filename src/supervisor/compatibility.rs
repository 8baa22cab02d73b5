//! Whether the binary on disk can continue in place of this one, before this one makes way for it.
//!
//! The binary is started as a child. It gets the state of the supervisor on its standard input, reads
//! it and the configuration as it would after the exec, and prints one word. Anything else that it
//! prints is the reason why it is rejected.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::Input;
use super::program::{Image, Program};

/// What a binary prints that can continue.
pub(super) const COMPATIBLE: &str = "understood";
/// The subcommand that checks.
const SUBCOMMAND: &str = "upgrade-check";
/// How many bytes of its output are read.
const OUTPUT_BYTES_MAX: u64 = 4096;

/// The process of a check.
pub(super) struct CompatibilityCheck {
    pid: Pid,
    /// Its number may be another process's by now.
    is_reaped: bool,
}

impl CompatibilityCheck {
    /// Starts a check. What it prints comes as an input.
    pub(super) fn start(
        program: &Program,
        state: File,
        check: u64,
        inputs: Sender<Input>,
    ) -> io::Result<Self> {
        let flags = program.arguments.get(1..).unwrap_or_default();
        let mut child = program
            .command(&Image::OnDisk)
            .arg(SUBCOMMAND)
            .args(flags)
            .stdin(Stdio::from(state))
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the supervisor.
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let process = Self { pid, is_reaped: false };
        let read = move || {
            let mut said = Vec::new();
            let read = output.take(OUTPUT_BYTES_MAX).read_to_end(&mut said);
            let said = match read {
                Ok(_) => String::from_utf8_lossy(&said).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            let _supervisor_gone = inputs.send(Input::CompatibilityResult { check, said });
        };
        if let Err(error) = thread::Builder::new().name("upgrade check".to_owned()).spawn(read) {
            process.kill();
            return Err(error);
        }
        Ok(process)
    }

    pub(super) fn kill(&self) {
        if self.is_reaped {
            return;
        }
        if let Err(error) = kill_process(self.pid, Signal::KILL) {
            log::debug!("compatibility check not killed: error=\"{error}\"");
        }
    }

    pub(super) fn record_reaped(&mut self, pid: Pid) {
        self.is_reaped |= self.pid == pid;
    }
}

/// The result of a check that printed this.
pub(super) fn result(said: &str, program: &Program) -> Result<(), String> {
    verdict(said).map_err(|why| with_path(&why, program))
}

pub(super) fn with_path(why: &str, program: &Program) -> String {
    format!("{why} path={}", program.path.display())
}

/// What the output of a binary means: it can continue, or why not.
fn verdict(said: &str) -> Result<(), String> {
    match said {
        COMPATIBLE => Ok(()),
        "" => Err("the new binary ended without a word (is it weir?):".to_owned()),
        why => Err(format!("the new binary: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_word_lets_a_binary_continue() {
        assert_eq!(verdict(COMPATIBLE), Ok(()));
        for said in ["understood it", "Understood", "error: understood", "Usage: cat [FILE]"] {
            assert_eq!(verdict(said), Err(format!("the new binary: {said}")));
        }
        assert!(verdict("").unwrap_err().contains("is it weir?"));
    }
}
