//! The long operations of the service: reload, upgrade and stop.

use std::mem;

use log::Level;

use super::candidate::Purpose;
use super::command::{Command, Failure, KillReason, Order};
use super::op_queue::{Allowed, Operation};
use super::service::{Phase, STOPPING, Service};
use super::stop::{Repeated, Stop};
use super::upgrade::Upgrade;
use super::worker::Worker;
use super::{Loaded, Payload};

impl<P: Payload> Service<P> {
    // ── reload ──

    pub(super) fn request_reload(&mut self, reply: Option<P::Reply>) {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ended(_)) {
            return self.reply_failed(reply.into_iter().collect(), STOPPING);
        }
        self.queue.request_reload(reply);
    }

    /// Starts an operation that waits, if nothing else is under way.
    pub(super) fn start_next(&mut self) {
        let is_free = matches!(self.phase, Phase::Serving) && !self.workers.has_candidate();
        let upgrade = is_free && self.workers.current.is_some();
        match self.queue.next(Allowed { reload: is_free, upgrade }) {
            Some(Operation::Reload(replies)) => {
                self.phase = Phase::Loading(replies);
                self.commands.extend([Command::NotifyReloading, Command::LoadConfig]);
            }
            Some(Operation::Upgrade) => {
                self.log(Level::Info, "replacing the supervisor".to_owned());
                self.upgrades.checks += 1;
                let check = self.upgrades.checks;
                self.phase = Phase::Upgrading(Upgrade::check(check, self.now));
                self.commands.push(Command::CheckCompatibility { check });
            }
            None => {}
        }
    }

    pub(super) fn on_config_loaded(&mut self, result: Result<Loaded<P::Config>, String>) {
        // A stop may have replied to the clients meanwhile.
        let Phase::Loading(replies) = &mut self.phase else { return };
        let replies = mem::take(replies);
        self.phase = Phase::Serving;
        match result {
            Ok(loaded) => self.spawn(loaded, Purpose::Reload(replies)),
            Err(why) => self.reject_reload(&why, replies),
        }
    }

    /// The active configuration stays active.
    pub(super) fn reject_reload(&mut self, why: &str, replies: Vec<P::Reply>) {
        self.log(Level::Error, format!("reload rejected: {why}"));
        self.counters.reloads_rejected += 1;
        self.counters.last_reload_ok = false;
        self.commands.push(Command::CloseUnused(self.active.config.clone()));
        self.reply_failed(replies, why);
        self.commands.extend([Command::PublishStats, Command::NotifyReady]);
    }

    pub(super) fn reply_failed(&mut self, replies: Vec<P::Reply>, why: &str) {
        if !replies.is_empty() {
            self.commands.push(Command::ReplyFailed(replies, why.to_owned()));
        }
    }

    // ── upgrade ──

    pub(super) fn resume(&mut self, rollback: Option<String>) {
        self.commands.push(Command::CloseUnused(self.active.config.clone()));
        self.unquiesce_workers();
        if let Some(why) = rollback {
            if let Some(current) = self.workers.current.as_ref().map(Worker::id) {
                self.restart.keep_binary();
                self.commands.push(Command::KeepBinary(current));
            }
            return self.reject_upgrade(format!("the new binary could not go on: {why}"));
        }
        self.counters.upgrades_done += 1;
        self.commands.push(Command::PublishStats);
    }

    pub(super) fn request_upgrade(&mut self) {
        match self.phase {
            // One that is under way does for both.
            Phase::Stopping(_) | Phase::Ended(_) | Phase::Upgrading(_) => {}
            Phase::Starting | Phase::Serving | Phase::Loading(_) => {
                if let Some(obstacle) = self.settings.upgrade_obstacle {
                    return self.reject_upgrade(obstacle.to_owned());
                }
                if !self.is_settled() {
                    self.log(
                        Level::Info,
                        "supervisor to be replaced once a worker serves and no other is on its way"
                            .to_owned(),
                    );
                }
                self.queue.request_upgrade();
            }
        }
    }

    /// Whether a worker serves and nothing is about to replace it.
    pub(super) fn is_settled(&self) -> bool {
        let is_calm = matches!(self.phase, Phase::Serving | Phase::Upgrading(_));
        is_calm && self.workers.current.is_some() && !self.workers.has_candidate()
    }

    pub(super) fn on_checked(&mut self, check: u64, result: Result<(), String>) {
        let is_it = matches!(&self.phase, Phase::Upgrading(upgrade) if upgrade.is_check(check));
        match result {
            _ if !is_it => {}
            Err(why) => self.reject_upgrade(why),
            Ok(()) if self.is_settled() => {
                self.workers.all_mut().for_each(Worker::request_quiesce);
                self.send_to_all(Order::Quiesce);
                self.phase = Phase::Upgrading(Upgrade::quiesce(self.now));
            }
            Ok(()) => self.postpone_upgrade(),
        }
    }

    pub(super) fn advance_upgrade(&mut self) {
        let Phase::Upgrading(upgrade) = &mut self.phase else { return };
        // The next image would not get a report that is kept.
        if upgrade.is_quiet(self.workers.all()) && self.kept_reports.is_empty() {
            *upgrade = Upgrade::Executing;
            self.commands.push(Command::Exec);
        } else if let Some(why) = upgrade.timeout(&self.settings.binary_path, self.now) {
            self.reject_upgrade(why);
        }
    }

    /// Everything continues as before.
    pub(super) fn reject_upgrade(&mut self, why: String) {
        self.log(Level::Error, format!("upgrade rejected: {why}"));
        self.counters.upgrades_rejected += 1;
        self.upgrades.last_rejection = Some(why);
        self.abort_upgrade();
        self.commands.push(Command::PublishStats);
    }

    pub(super) fn abort_upgrade(&mut self) {
        if matches!(self.phase, Phase::Upgrading(_))
            && let Phase::Upgrading(upgrade) = mem::replace(&mut self.phase, Phase::Serving)
        {
            self.undo_upgrade(&upgrade);
        }
    }

    pub(super) fn undo_upgrade(&mut self, upgrade: &Upgrade) {
        match upgrade {
            Upgrade::Checking { .. } => self.commands.push(Command::CancelCheck),
            Upgrade::Quiescing { .. } | Upgrade::Executing => self.unquiesce_workers(),
        }
    }

    fn unquiesce_workers(&mut self) {
        self.workers.all_mut().for_each(Worker::record_unquiesce);
        self.send_to_all(Order::Unquiesce);
    }

    /// The worker that serves is gone, and a new one comes first.
    pub(super) fn postpone_upgrade(&mut self) {
        if matches!(self.phase, Phase::Upgrading(_)) {
            self.abort_upgrade();
            self.queue.request_upgrade();
        }
    }

    // ── stop ──

    pub(super) fn on_stop_signal(&mut self, signal: &str) {
        let Phase::Stopping(stop) = &mut self.phase else { return self.stop() };
        match stop.repeat(self.now) {
            Repeated::Ignored => {
                self.log(
                    Level::Info,
                    format!("signal ignored: signal={signal}, the stop has just begun"),
                );
            }
            Repeated::StopNow => {
                self.log(Level::Warn, format!("stopping at once: signal={signal}"));
                self.send_to_all(Order::StopNow);
            }
            Repeated::Kill => {
                self.log(Level::Warn, format!("stopping at once: signal={signal}"));
                self.kill_all();
            }
        }
    }

    pub(super) fn stop_and_wait(&mut self, reply: P::Reply) {
        self.stop();
        match &mut self.phase {
            Phase::Stopping(stop) => {
                stop.waiting.push(reply);
                let waiting = stop.waiting.len();
                self.log(Level::Debug, format!("clients wait for the end: count={waiting}"));
            }
            Phase::Ended(result) => {
                let (result, replies) = (result.clone(), vec![reply]);
                self.commands.push(Command::ReplyEnded { result, replies });
            }
            Phase::Starting | Phase::Serving | Phase::Loading(_) | Phase::Upgrading(_) => {}
        }
    }

    /// Stops gracefully, unless a stop is under way.
    pub(super) fn stop(&mut self) {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ended(_)) {
            return;
        }
        self.log(Level::Info, "stopping".to_owned());
        self.commands.push(Command::NotifyStopping);
        // A candidate that may have accepted already is stopped like the worker it takes over from.
        let accepting = self.workers.candidates().filter(|candidate| candidate.may_accept());
        let settings = accepting.map(|candidate| candidate.loaded.shutdown);
        let stop = Stop::new(settings.chain([self.active.shutdown]), self.now);
        let mut replies = self.queue.cancel();
        match mem::replace(&mut self.phase, Phase::Stopping(stop)) {
            Phase::Upgrading(upgrade) => self.undo_upgrade(&upgrade),
            Phase::Loading(waiting) => replies.extend(waiting),
            Phase::Starting | Phase::Serving | Phase::Stopping(_) | Phase::Ended(_) => {}
        }
        self.restart.cancel();
        let mut unneeded = Vec::new();
        for candidate in self.workers.candidates_mut() {
            if candidate.is_taking_over() {
                self.commands.push(Command::Send(candidate.id(), Order::Stop));
            } else {
                candidate.fail(STOPPING.to_owned());
                unneeded.push(candidate.id());
            }
        }
        unneeded.into_iter().for_each(|id| self.kill(id, KillReason::NotNeeded));
        if let Some(current) = &self.workers.current {
            self.commands.push(Command::Send(current.id(), Order::Stop));
        }
        self.reply_failed(replies, STOPPING);
    }

    pub(super) fn expire_stop(&mut self) {
        let Phase::Stopping(stop) = &mut self.phase else { return };
        if stop.take_close(self.now) {
            self.commands.push(Command::CloseSockets);
        }
        if stop.take_kill(self.now) {
            self.log(Level::Warn, "workers killed, they did not stop".to_owned());
            self.kill_all();
        }
    }

    pub(super) fn end_if_stopped(&mut self) {
        let Phase::Stopping(stop) = &mut self.phase else { return };
        if self.workers.ids().next().is_some() {
            return;
        }
        let why = stop.why.take().unwrap_or_else(|| "stopped before all was done".to_owned());
        let result = if stop.is_cut { Err(Failure::ForcedStop(why)) } else { Ok(()) };
        let replies = mem::take(&mut stop.waiting);
        self.phase = Phase::Ended(result.clone());
        if !replies.is_empty() {
            self.commands.push(Command::ReplyEnded { result: result.clone(), replies });
        }
        self.commands.push(Command::Exit(result));
    }
}
