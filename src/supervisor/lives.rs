//! How workers end, and what follows from it.

use std::num::NonZeroI32;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::candidate::{Candidate, Purpose};
use super::child::Child;
use super::control::{self, Answer};
use super::program::Image;
use super::reload::answer;
use super::{
    ABORT_GRACE, DRAIN_GRACE, LIVED_WELL, RESTART_FIRST, RESTART_LONGEST, STOP_REPEAT, Served,
    Stopping, Supervisor, SupervisorError, systemd,
};
use crate::link::ToWorker;

impl Supervisor {
    /// Stops gracefully; a further signal later on ends everything at once.
    pub(super) fn stop_by_signal(&mut self, signal: Signal) {
        let now = self.clock.now();
        match &mut self.stopping {
            None => self.stop(),
            Some(stopping) if now < stopping.force_from => {
                log::info!("signal ignored: signal={signal}, the stop has just begun");
            }
            Some(stopping) => {
                log::warn!("stopping at once: signal={signal}");
                stopping.cut = true;
                let is_first = !std::mem::replace(&mut stopping.at_once, true);
                // The workers log what they abort. What does not end in time is killed.
                stopping.kill_at = stopping.kill_at.min(now + ABORT_GRACE);
                stopping.force_from = now + STOP_REPEAT;
                let order = |child: &Child| {
                    if is_first { child.tell(&ToWorker::StopNow) } else { child.kill() }
                };
                self.everyone().for_each(order);
            }
        }
    }

    /// Stops gracefully, unless a stop is under way.
    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        log::info!("stopping");
        systemd::stopping();
        // One that may have accepted already is stopped like the one that it takes over from.
        let accepting = self.candidates().filter(|candidate| candidate.is_taking_over());
        let configs = accepting.map(|candidate| &candidate.served.config);
        let times = configs.chain([&self.served.config]).map(|config| config.shutdown);
        let (pre_stop, drain) = times.fold((Duration::ZERO, Duration::ZERO), |longest, one| {
            (longest.0.max(one.pre_stop), longest.1.max(one.longest()))
        });
        let now = self.clock.now();
        let (force_from, close_at) = (now + STOP_REPEAT, now + pre_stop);
        let kill_at = close_at + drain + DRAIN_GRACE;
        self.stopping =
            Some(Stopping { force_from, close_at, kill_at, cut: false, at_once: false, why: None });
        self.restart_at = None;
        self.give_up_upgrade();
        for candidate in self.candidates() {
            if candidate.is_taking_over() {
                candidate.child.tell(&ToWorker::Stop);
            } else {
                candidate.child.kill();
            }
        }
        if let Some(current) = &self.current {
            current.tell(&ToWorker::Stop);
        }
        let waiting = std::mem::take(&mut self.waiting);
        answer(waiting, &Answer::failed("the supervisor is stopping".to_owned()));
    }

    /// In order, unless it does already; `waiting` is answered when all has ended.
    pub(super) fn finish(&mut self, waiting: UnixStream) {
        self.awaiting_end.push(waiting);
        log::debug!("the end is waited for: by={}", self.awaiting_end.len());
        self.stop();
    }

    /// Tells whoever waits for the end how it was.
    pub(super) fn tell_end(&mut self, ended: &Result<(), SupervisorError>) {
        let answer = match ended {
            Ok(()) => Answer::done("stopped".to_owned()),
            Err(error) => Answer::failed(error.to_string()),
        };
        control::tell_the_end(std::mem::take(&mut self.awaiting_end), &answer);
    }

    /// Takes note of every child that has ended: workers, and as process 1 whoever was left over.
    pub(super) fn reap(&mut self) -> Result<(), SupervisorError> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.dead.insert(pid.as_raw_nonzero(), status);
            self.trial_ended(pid);
        }
        self.bury()
    }

    /// A worker has said its last word.
    pub(super) fn fell_silent(&mut self, generation: u64) -> Result<(), SupervisorError> {
        self.mute.insert(generation);
        self.bury()
    }

    /// A worker has ended when it is reaped and all that it said was heard: its last word may be
    /// why.
    fn bury(&mut self) -> Result<(), SupervisorError> {
        let ours: Vec<(u64, NonZeroI32)> =
            self.everyone().map(|child| (child.generation, child.pid.as_raw_nonzero())).collect();
        self.dead.retain(|pid, _| ours.iter().any(|(_, our)| our == pid));
        for (generation, pid) in ours {
            if self.mute.contains(&generation)
                && let Some(status) = self.dead.remove(&pid)
            {
                self.mute.remove(&generation);
                self.ended(generation, status)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, generation: u64, status: WaitStatus) -> Result<(), SupervisorError> {
        let well = status.exit_status() == Some(0);
        if self.current.as_ref().is_some_and(|current| current.generation == generation) {
            self.current_ended(well, &words(status));
        } else if let Some(candidate) = self.candidate_of(generation) {
            let why = candidate.why.take();
            let why = why.unwrap_or_else(|| format!("the new worker ended: {}", words(status)));
            if !self.ever_ready && self.stopping.is_none() {
                return Err(SupervisorError::Worker(why));
            }
            self.candidate_gone(generation, well, &why);
        } else if self.discarded.iter().any(|child| child.generation == generation) {
            self.discarded.retain(|child| child.generation != generation);
        } else {
            self.draining.retain(|one| one.child.generation != generation);
            self.tell_facts();
            if let (false, Some(stopping)) = (well, &mut self.stopping) {
                stopping.cut = true;
            }
        }
        Ok(())
    }

    fn current_ended(&mut self, well: bool, status: &str) {
        let Some(ended) = self.current.take() else { return };
        if let Some(stopping) = &mut self.stopping {
            stopping.cut |= !well;
            return;
        }
        self.current_gone(&ended, status);
    }

    /// The worker that served is gone, and nobody asked for that: it is replaced.
    pub(super) fn current_gone(&mut self, ended: &Child, status: &str) {
        let lived = ended.age(self.clock.now());
        log::error!(
            "worker died: generation={} lived={lived:?} status=\"{status}\"",
            ended.generation
        );
        self.facts.restarts += 1;
        self.checkpoint.counts.forget_in_flight();
        self.restart_wait = if lived >= LIVED_WELL {
            Duration::ZERO
        } else {
            (self.restart_wait * 2).clamp(RESTART_FIRST, RESTART_LONGEST)
        };
        // Its successor may be warm already, and starts from the last checkpoint. One that still
        // warms up may take its time: it is not waited for.
        self.take_over_at_last();
        if !self.candidates().any(Candidate::is_taking_over) {
            self.restart_at = Some(self.clock.now() + self.restart_wait);
        }
        self.put_off_upgrade();
    }

    /// Starts a worker for what is served already.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let served = Served {
            config: self.served.config.clone(),
            text: self.served.text.clone(),
            version: self.served.version.clone(),
        };
        self.launch(served, Purpose::Restart)
    }

    pub(super) fn restart(&mut self) {
        self.restart_at = None;
        if let Err(why) = self.start() {
            log::error!("worker not started: {why}");
            self.restart_image = self.restart_image.next();
            self.restart_later();
        }
    }

    /// What the current worker runs is known to serve: if it dies, its replacement runs the same.
    pub(super) fn keep_image(&mut self) {
        if let Some(current) = &self.current {
            self.restart_image = Image::of(current.pid);
        }
    }

    pub(super) fn restart_later(&mut self) {
        self.restart_wait = (self.restart_wait * 2).clamp(RESTART_FIRST, RESTART_LONGEST);
        self.restart_at = Some(self.clock.now() + self.restart_wait);
    }
}

/// A process's end, in words.
fn words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
