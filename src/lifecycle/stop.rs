//! A stop of the service.
//!
//! ```text
//!  request ─▶ workers wait `pre_stop`, then drain ─▶ the last one has exited ─▶ exit
//!                 │ a further signal: they abort what is in flight
//!                 │ a third one, or their time is over: they are killed
//! ```

use std::mem;

use log::Level;

use super::Payload;
use super::command::{Command, Failure, KillReason, Order};
use super::service::{Phase, STOPPING, Service};
use super::stop_deadlines::{Repeated, Stop};

impl<P: Payload> Service<P> {
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

    pub(super) fn stop_and_wait(&mut self, caller: P::Caller) {
        self.stop();
        match &mut self.phase {
            Phase::Stopping(stop) => {
                stop.waiting.push(caller);
                let waiting = stop.waiting.len();
                self.log(Level::Debug, format!("clients wait for the end: count={waiting}"));
            }
            Phase::Ended(result) => {
                let (result, callers) = (result.clone(), vec![caller]);
                self.commands.push(Command::ReplyEnded { result, callers });
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
        let accepting = self.workers.candidates().filter(|candidate| candidate.step.may_accept());
        let settings = accepting.map(|candidate| candidate.loaded.shutdown);
        let stop = Stop::new(settings.chain([self.active.shutdown]), self.now);
        let mut callers = self.operator.queue.cancel();
        match mem::replace(&mut self.phase, Phase::Stopping(stop)) {
            Phase::Upgrading(upgrade) => self.undo_upgrade(&upgrade),
            Phase::Loading(waiting) => callers.extend(waiting),
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
        self.reply_failed(callers, STOPPING);
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
        let result = if stop.has_aborted { Err(Failure::ForcedStop(why)) } else { Ok(()) };
        let callers = mem::take(&mut stop.waiting);
        self.phase = Phase::Ended(result.clone());
        if !callers.is_empty() {
            self.commands.push(Command::ReplyEnded { result: result.clone(), callers });
        }
        self.commands.push(Command::Exit(result));
    }
}
