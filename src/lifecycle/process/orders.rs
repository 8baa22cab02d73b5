//! What a worker process does when the supervisor or a signal asks for something.

use std::time::Duration;

use super::{
    ABORT_TIMEOUT, Drain, End, Message, ProcessCommand, ProcessPayload, ProcessPhase, WorkerProcess,
};
use crate::lifecycle::Order;
use crate::lifecycle::serving_state::ServingState;
use crate::time::Timestamp;

impl<P: ProcessPayload> WorkerProcess<P> {
    pub(super) fn on_take_over(&mut self, state: P::State, now: Timestamp) {
        if self.is_unserved() && self.phase != ProcessPhase::Warm {
            return self.shut_down();
        }
        if self.phase != ProcessPhase::Warm {
            return;
        }
        self.commands.extend([
            ProcessCommand::StartListeners(state),
            ProcessCommand::SetServingState(ServingState::Accepting),
            ProcessCommand::OpenAdminPort,
        ]);
        self.send(Message::Ready);
        self.next_heartbeat = now;
        self.phase = ProcessPhase::Serving { next_checkpoint: now };
    }

    pub(super) fn on_add_counts(&mut self, report: P::Report) {
        if self.shows_totals() {
            self.commands.push(ProcessCommand::ImportReport(report));
        } else if self.is_unserved() {
            self.shut_down();
        }
    }

    pub(super) fn on_stats(
        &mut self,
        hang_timeout: Option<Duration>,
        others_drain: bool,
        stats: P::Stats,
        now: Timestamp,
    ) {
        if self.is_unserved() {
            return self.shut_down();
        }
        if !self.shows_totals() {
            return;
        }
        if self.hang_timeout != hang_timeout {
            self.hang_timeout = hang_timeout;
            self.next_heartbeat = now;
        }
        self.others_drain = others_drain;
        self.commands.push(ProcessCommand::ShowStats(stats));
        if self.phase == ProcessPhase::AwaitingOthers && !others_drain {
            self.shut_down();
        }
    }

    /// The supervisor has no order for a worker that has not served but to take over, or to exit.
    pub(super) fn on_order(&mut self, order: Order, now: Timestamp) {
        if self.is_unserved() {
            return self.shut_down();
        }
        match order {
            Order::HandOver if self.shows_totals() => {
                self.commands.extend([ProcessCommand::CloseAdminPort, ProcessCommand::Freeze]);
                self.send(Message::State);
            }
            Order::Resume if self.shows_totals() => {
                self.commands.extend([ProcessCommand::Unfreeze, ProcessCommand::ReopenAdminPort]);
            }
            Order::Drain => self.on_drain_order(now),
            Order::Stop if self.is_serving() => self.start_stop(now),
            Order::StopNow => self.on_stop_now(now),
            Order::Quiesce if self.phase != ProcessPhase::Ended => {
                // Each is acknowledged, so that the supervisor can count.
                self.commands.push(ProcessCommand::Send(Message::Quiesced));
                self.is_quiesced = true;
            }
            Order::Unquiesce => {
                self.is_quiesced = false;
                self.commands.push(ProcessCommand::ResendFiles);
                self.send_what_waited();
            }
            Order::HandOver | Order::Resume | Order::Stop | Order::Quiesce => {}
        }
    }

    /// A successor serves.
    fn on_drain_order(&mut self, now: Timestamp) {
        // The successor waits for the others, if it stops as well. It alone learns when they have ended.
        self.others_drain = false;
        match self.phase {
            ProcessPhase::Serving { .. } => self.start_drain(End::Replaced, now),
            ProcessPhase::AwaitingOthers => self.shut_down(),
            ProcessPhase::WarmingUp { .. }
            | ProcessPhase::Warm
            | ProcessPhase::PreStop { .. }
            | ProcessPhase::Draining(_)
            | ProcessPhase::ShuttingDown { .. }
            | ProcessPhase::Ended => {}
        }
    }

    pub(super) fn on_signal(&mut self, now: Timestamp) {
        if self.is_unserved() {
            self.shut_down();
        } else if self.is_serving() {
            self.start_stop(now);
        }
    }

    pub(super) fn on_link_closed(&mut self, now: Timestamp) {
        self.is_link_open = false;
        // The supervisor is gone, so nothing that is sent can be lost.
        self.is_quiesced = false;
        match self.phase {
            ProcessPhase::WarmingUp { .. } | ProcessPhase::Warm => self.shut_down(),
            ProcessPhase::Serving { .. } => self.start_drain(End::Orphaned, now),
            ProcessPhase::PreStop { .. } => {
                self.commands.push(ProcessCommand::RetireAdminPort);
                self.start_drain(End::Stopped, now);
            }
            ProcessPhase::Draining(_) => {
                self.commands.push(ProcessCommand::RetireAdminPort);
                self.send_what_waited();
            }
            ProcessPhase::AwaitingOthers => {
                self.commands.push(ProcessCommand::RetireAdminPort);
                self.shut_down();
            }
            ProcessPhase::ShuttingDown { .. } => self.send_what_waited(),
            ProcessPhase::Ended => {}
        }
    }

    fn start_stop(&mut self, now: Timestamp) {
        self.commands.extend([
            ProcessCommand::LogDraining,
            ProcessCommand::SetServingState(ServingState::PreStop),
        ]);
        if self.is_aborting {
            self.start_drain(End::Stopped, now);
        } else {
            self.phase = ProcessPhase::PreStop { until: now + self.settings.pre_stop };
        }
    }

    fn on_stop_now(&mut self, now: Timestamp) {
        self.is_aborting = true;
        match self.phase {
            ProcessPhase::Serving { .. } => self.start_stop(now),
            ProcessPhase::PreStop { .. } => self.start_drain(End::Stopped, now),
            ProcessPhase::Draining(drain) if drain.abort_deadline.is_none() && !drain.is_over => {
                self.commands.push(ProcessCommand::Abort);
                let abort_deadline = Some(now + ABORT_TIMEOUT);
                self.phase = ProcessPhase::Draining(Drain { abort_deadline, ..drain });
            }
            ProcessPhase::AwaitingOthers => self.shut_down(),
            ProcessPhase::WarmingUp { .. }
            | ProcessPhase::Warm
            | ProcessPhase::Draining(_)
            | ProcessPhase::ShuttingDown { .. }
            | ProcessPhase::Ended => {}
        }
    }

    /// The worker may send again: it continues where that was all it waited for.
    fn send_what_waited(&mut self) {
        match self.phase {
            ProcessPhase::Draining(drain) if drain.is_over => self.finish_drain(drain),
            ProcessPhase::ShuttingDown { has_drained, is_done: true } => self.exit(has_drained),
            ProcessPhase::WarmingUp { .. }
            | ProcessPhase::Warm
            | ProcessPhase::Serving { .. }
            | ProcessPhase::PreStop { .. }
            | ProcessPhase::Draining(_)
            | ProcessPhase::AwaitingOthers
            | ProcessPhase::ShuttingDown { .. }
            | ProcessPhase::Ended => {}
        }
    }

    const fn is_unserved(&self) -> bool {
        matches!(self.phase, ProcessPhase::WarmingUp { .. } | ProcessPhase::Warm)
    }

    const fn is_serving(&self) -> bool {
        matches!(self.phase, ProcessPhase::Serving { .. })
    }

    /// Whether its admin port is the one of the service. The last worker still shows everything while it
    /// drains, its predecessors' counts included.
    const fn shows_totals(&self) -> bool {
        match self.phase {
            ProcessPhase::Serving { .. }
            | ProcessPhase::PreStop { .. }
            | ProcessPhase::AwaitingOthers => true,
            ProcessPhase::Draining(drain) => matches!(drain.end, End::Stopped),
            ProcessPhase::WarmingUp { .. }
            | ProcessPhase::Warm
            | ProcessPhase::ShuttingDown { .. }
            | ProcessPhase::Ended => false,
        }
    }
}
