//! What the supervisor looks after because no event tells of it: time that has passed.

use std::time::Duration;

use super::child::Child;
use super::upgrade::Upgrade;
use super::{Supervisor, TICK, systemd};
use crate::policy::watchdog::Watchdog;
use crate::time::Timestamp;

impl Supervisor {
    /// How long nothing needs looking after.
    pub(super) fn patience(&self) -> Duration {
        let now = self.clock.now();
        let due = [
            self.restart_at,
            self.candidates().map(|candidate| candidate.until).min(),
            self.upgrade.as_ref().map(Upgrade::until),
            self.stopping.as_ref().map(|stopping| stopping.close_at),
            self.watchdog.map(|_| self.alive_at),
        ];
        let next = due.into_iter().flatten().min();
        let tick = self.options.hang_timeout.map_or(TICK, Watchdog::interval).min(TICK);
        next.map_or(tick, |at| at.since(now).min(tick))
    }

    /// Looks after all that no event tells of.
    pub(super) fn look_after(&mut self) {
        let now = self.clock.now();
        if let Some(every) = self.watchdog
            && self.alive_at <= now
        {
            systemd::alive();
            self.alive_at = now + every;
        }
        if self.options.log.dropped() != self.facts.log_dropped {
            self.tell_facts();
        }
        self.end_late_candidates(now);
        self.hurry_candidate(now);
        self.replace_if_silent();
        self.hurry_upgrade(now);
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart();
        }
        self.end_late_workers(now);
        self.replace_hung_workers(now);
    }

    fn end_late_candidates(&mut self, now: Timestamp) {
        let patience = humantime::format_duration(self.options.ready_timeout);
        let why = format!("the new worker was not ready within {patience}");
        for late in self.candidates_mut().filter(|candidate| candidate.until <= now) {
            late.fail(&why);
        }
    }

    fn end_late_workers(&mut self, now: Timestamp) {
        if let Some(stopping) = &mut self.stopping
            && stopping.close_at <= now
        {
            stopping.close_at = Timestamp::MAX;
            self.sockets.clear();
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at <= now
        {
            log::warn!("workers killed, they did not stop");
            stopping.kill_at = Timestamp::MAX;
            stopping.cut = true;
            self.everyone().for_each(Child::kill);
        }
        for draining in &self.draining {
            if draining.until <= now {
                log::warn!(
                    "worker killed, it did not drain: generation={}",
                    draining.child.generation
                );
                draining.child.kill();
            }
        }
    }
}
