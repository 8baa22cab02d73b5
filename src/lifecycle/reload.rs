//! Reloads. A reload is rejected, and the active configuration goes on, if
//!
//! - the file is wrong, or an address cannot be bound ([`Event::ConfigLoaded`](super::Event));
//! - its worker cannot be started, fails, exits, or is not ready in time: `on_candidate_gone`
//!   (`handover.rs`) calls `reject_reload`.
//!
//! A stop does not count as a rejection: the clients that wait get the reply that the service stops.

use std::mem;

use log::Level;

use super::candidate::Purpose;
use super::command::Command;
use super::service::{Phase, STOPPING, Service};
use super::{Loaded, Payload};

impl<P: Payload> Service<P> {
    pub(super) fn request_reload(&mut self, caller: Option<P::Caller>) {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ended(_)) {
            return self.reply_failed(caller.into_iter().collect(), STOPPING);
        }
        self.operator.queue.request_reload(caller);
    }

    pub(super) fn on_config_loaded(&mut self, result: Result<Loaded<P::Config>, String>) {
        // A stop that came meanwhile has replied to the clients.
        let Phase::Loading(callers) = &mut self.phase else { return };
        let callers = mem::take(callers);
        self.phase = Phase::Serving;
        match result {
            Ok(loaded) => self.spawn(loaded, Purpose::Reload(callers)),
            Err(why) => self.reject_reload(&why, callers),
        }
    }

    /// The active configuration stays active.
    pub(super) fn reject_reload(&mut self, why: &str, callers: Vec<P::Caller>) {
        self.log(Level::Error, format!("reload rejected: {why}"));
        self.counters.reloads_rejected += 1;
        self.counters.last_reload_ok = false;
        self.rejections.record_reload(why, self.now);
        self.commands.push(Command::CloseUnused(self.active.config.clone()));
        self.reply_failed(callers, why);
        self.commands.extend([Command::PublishStats, Command::NotifyReady]);
    }
}
