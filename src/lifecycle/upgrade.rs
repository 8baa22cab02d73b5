//! The replacement of the supervisor by the binary on disk.
//!
//! ```text
//!  request ─▶ Checking ──────▶ Quiescing ─────────▶ Executing ─▶ the new image continues
//!                │ incompatible    │ a worker does not   │ exec fails, or the new image cannot
//!                │ or too late     │ respond             │ continue and gives control back
//!                ▼                 ▼                     ▼
//!             rejected: everything continues as before, and the workers send again
//! ```
//! Workers are quiesced first, because a message that is half read would be lost with this image.

use std::mem;

use log::Level;

use super::Payload;
use super::command::{Command, Order};
use super::service::{Phase, Service};
use super::upgrade_step::Upgrade;
use super::worker::Worker;

impl<P: Payload> Service<P> {
    pub(super) fn resume(&mut self, rollback: Option<String>) {
        self.commands.push(Command::CloseUnused(self.active.config.clone()));
        self.unquiesce_workers();
        if let Some(why) = rollback {
            if let Some(current) = self.workers.current.as_ref().map(Worker::id) {
                self.restart.keep_binary();
                self.commands.push(Command::KeepBinary(current));
            }
            return self.reject_upgrade(format!("the new binary failed: {why}"));
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
                self.operator.queue.request_upgrade();
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
        } else if let Some(why) =
            upgrade.timeout(&self.settings.binary_path, self.workers.all(), self.now)
        {
            self.reject_upgrade(why);
        }
    }

    /// Everything continues as before.
    pub(super) fn reject_upgrade(&mut self, why: String) {
        self.log(Level::Error, format!("upgrade rejected: {why}"));
        self.counters.upgrades_rejected += 1;
        self.rejections.upgrade = Some(why);
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
        // A worker did not confirm while it was quiet.
        self.operate(|operator, rest| operator.send_lists(rest));
    }

    /// The worker that serves is gone, and a new one comes first.
    pub(super) fn postpone_upgrade(&mut self) {
        if matches!(self.phase, Phase::Upgrading(_)) {
            self.abort_upgrade();
            self.operator.queue.request_upgrade();
        }
    }
}
