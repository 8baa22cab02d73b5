//! The life of one worker process, as the process itself decides it. `worker.rs` is the view that the
//! supervisor has of it.
//!
//! ```text
//!  WarmingUp ─ first checks done ─▶ Warm ─ TakeOver ─▶ Serving ─ Drain, link closed ─▶ Draining
//!                                                         │                              ▲  │ last
//!                                                         └─ Stop, signal ─▶ PreStop ────┘  │ connection
//!                                          others drain, and the service stops              ▼ closed
//!  Ended ◀─ services stopped ─ ShuttingDown ◀──────────────────────────── AwaitingOthers ◀──┘
//! ```
//! [`WorkerProcess`] decides and does nothing else: it knows no link, no socket and no clock. The shell
//! in `src/worker` reports each [`ProcessEvent`] and carries out each [`ProcessCommand`] in order.
//! States, reports and figures pass through as values of a [`ProcessPayload`].

mod command;
mod event;
mod orders;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use self::command::{Message, ProcessCommand};
pub use self::event::ProcessEvent;
use super::serving_state::ServingState;
use crate::policy::watchdog::Watchdog;
use crate::time::Timestamp;

/// How often the whole state is sent to the supervisor, in case this process dies.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);
/// How often a draining worker reports its counts. The totals of the successor lag by this.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How long requests may take to end, and be logged, once they were aborted.
const ABORT_TIMEOUT: Duration = Duration::from_millis(1500);

/// The values that pass through the machine from an event to a command.
pub trait ProcessPayload: fmt::Debug {
    /// The last known state of the service.
    type State: fmt::Debug;
    /// What a draining worker has done since its last report.
    type Report: fmt::Debug;
    /// The figures of the supervisor.
    type Stats: fmt::Debug;
    /// What operators have set on backends.
    type Overrides: fmt::Debug;
}

/// What the life of a worker depends on.
#[derive(Debug, Clone, Copy)]
pub struct ProcessSettings {
    /// How long the first health checks may take.
    pub first_checks_max: Duration,
    /// How long a worker that stops still accepts connections.
    pub pre_stop: Duration,
    /// How long requests may take to end while it drains.
    pub drain: Duration,
    /// How long it may be silent at first; `None`: it sends no heartbeats.
    pub hang_timeout: Option<Duration>,
}

/// Why a worker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A successor serves: drain at once.
    Replaced,
    /// The service stops: report it on `/readyz` first, then drain.
    Stopped,
    /// The supervisor is gone: another Weir may need its addresses.
    Orphaned,
}

/// What the worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessPhase {
    WarmingUp {
        until: Timestamp,
    },
    Warm,
    Serving {
        next_checkpoint: Timestamp,
    },
    /// The service stops, and clients have time to notice it.
    PreStop {
        until: Timestamp,
    },
    Draining(Drain),
    /// All its connections are closed. It is the last worker, and shows the counts of the others.
    AwaitingOthers,
    ShuttingDown {
        /// It served, so it has something to report.
        has_drained: bool,
        /// Only the permission to send is missing.
        is_done: bool,
    },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drain {
    end: End,
    next_report: Timestamp,
    /// When upgraded connections are ended if the supervisor is gone: no other process is left that
    /// could end them. `None`: they were.
    end_upgraded_at: Option<Timestamp>,
    /// Requests were aborted, and have until then.
    abort_deadline: Option<Timestamp>,
    /// The last connection is closed, and the last report waits for the permission to send.
    is_over: bool,
}

/// One worker process.
#[derive(Debug)]
pub struct WorkerProcess<P: ProcessPayload> {
    settings: ProcessSettings,
    phase: ProcessPhase,
    is_link_open: bool,
    /// The supervisor is about to replace itself, and would lose what is sent.
    is_quiesced: bool,
    /// It was ordered to stop at once.
    is_aborting: bool,
    /// Former workers still drain.
    others_drain: bool,
    hang_timeout: Option<Duration>,
    next_heartbeat: Timestamp,
    commands: Vec<ProcessCommand<P>>,
}

impl<P: ProcessPayload> WorkerProcess<P> {
    /// A worker that has loaded its configuration and checks its backends.
    #[must_use]
    pub fn new(settings: ProcessSettings, now: Timestamp) -> Self {
        Self {
            phase: ProcessPhase::WarmingUp { until: now + settings.first_checks_max },
            is_link_open: true,
            is_quiesced: false,
            is_aborting: false,
            others_drain: false,
            hang_timeout: settings.hang_timeout,
            next_heartbeat: now,
            commands: Vec::new(),
            settings,
        }
    }

    /// Decides what follows from an event.
    pub fn handle(&mut self, event: ProcessEvent<P>, now: Timestamp) -> Vec<ProcessCommand<P>> {
        match event {
            ProcessEvent::ChecksDone => self.on_checks_done(),
            ProcessEvent::TakeOver(state) => self.on_take_over(state, now),
            ProcessEvent::Order(order) => self.on_order(order, now),
            ProcessEvent::AddCounts(report) => self.on_add_counts(report),
            ProcessEvent::Overrides(list) => {
                // At any time: a worker must never serve by an older list.
                self.commands.push(ProcessCommand::ApplyOverrides(list));
                self.send(Message::OverridesApplied);
            }
            ProcessEvent::Stats { hang_timeout, others_drain, stats } => {
                self.on_stats(hang_timeout, others_drain, stats, now);
            }
            ProcessEvent::StopSignal => self.on_signal(now),
            ProcessEvent::Drained => self.on_drained(),
            ProcessEvent::ServicesStopped => self.on_services_stopped(),
            ProcessEvent::CommandFailed => self.shut_down(),
            ProcessEvent::LinkClosed => self.on_link_closed(now),
            ProcessEvent::Tick => self.on_tick(now),
        }
        std::mem::take(&mut self.commands)
    }

    /// When the next [`ProcessEvent::Tick`] is needed; [`Timestamp::MAX`]: never.
    #[must_use]
    pub fn next_deadline(&self) -> Timestamp {
        let of_phase = match self.phase {
            ProcessPhase::WarmingUp { until } | ProcessPhase::PreStop { until } => until,
            ProcessPhase::Serving { next_checkpoint } => next_checkpoint,
            ProcessPhase::Draining(drain) => self.drain_deadline(&drain),
            ProcessPhase::Warm
            | ProcessPhase::AwaitingOthers
            | ProcessPhase::ShuttingDown { .. }
            | ProcessPhase::Ended => Timestamp::MAX,
        };
        if self.sends_heartbeats() { of_phase.min(self.next_heartbeat) } else { of_phase }
    }

    fn drain_deadline(&self, drain: &Drain) -> Timestamp {
        if drain.is_over {
            return Timestamp::MAX;
        }
        let end_upgraded = drain.end_upgraded_at.filter(|_| !self.is_link_open);
        let next = drain.abort_deadline.unwrap_or(drain.next_report);
        end_upgraded.into_iter().chain([next]).min().unwrap_or(next)
    }

    /// Whether it has decided to exit.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.phase, ProcessPhase::Ended)
    }

    /// Whether it waits for the first health checks.
    #[must_use]
    pub const fn is_warming_up(&self) -> bool {
        matches!(self.phase, ProcessPhase::WarmingUp { .. })
    }

    /// Whether it waits for its last connection to close.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        matches!(self.phase, ProcessPhase::Draining(drain) if !drain.is_over)
    }

    const fn sends_heartbeats(&self) -> bool {
        let is_phase = !matches!(
            self.phase,
            ProcessPhase::WarmingUp { .. } | ProcessPhase::Warm | ProcessPhase::Ended
        );
        is_phase && self.hang_timeout.is_some()
    }

    fn on_tick(&mut self, now: Timestamp) {
        if let Some(timeout) = self.hang_timeout
            && self.sends_heartbeats()
            && self.next_heartbeat <= now
        {
            self.send(Message::Heartbeat);
            self.next_heartbeat = now + Watchdog::interval(timeout);
        }
        match self.phase {
            ProcessPhase::WarmingUp { until } if until <= now => {
                let waited = self.settings.first_checks_max;
                self.commands.push(ProcessCommand::WarnUnchecked(waited));
                self.on_checks_done();
            }
            ProcessPhase::Serving { next_checkpoint } if next_checkpoint <= now => {
                self.send(Message::Checkpoint);
                self.send(Message::Connections);
                self.phase = ProcessPhase::Serving { next_checkpoint: now + CHECKPOINT_INTERVAL };
            }
            ProcessPhase::PreStop { until } if until <= now => self.start_drain(End::Stopped, now),
            ProcessPhase::Draining(drain) if !drain.is_over => self.on_drain_tick(drain, now),
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

    fn on_drain_tick(&mut self, mut drain: Drain, now: Timestamp) {
        if drain.abort_deadline.is_some_and(|deadline| deadline <= now) {
            self.commands.push(ProcessCommand::WarnUnfinished);
            return self.on_drained();
        }
        if !self.is_link_open && drain.end_upgraded_at.take_if(|at| *at <= now).is_some() {
            self.commands.push(ProcessCommand::EndUpgraded);
        }
        if drain.abort_deadline.is_none() && drain.next_report <= now {
            self.send(Message::Report);
            drain.next_report = now + REPORT_INTERVAL;
        }
        self.phase = ProcessPhase::Draining(drain);
    }

    fn on_checks_done(&mut self) {
        if matches!(self.phase, ProcessPhase::WarmingUp { .. }) {
            self.phase = ProcessPhase::Warm;
            self.send(Message::Warm);
        }
    }

    /// The last connection is closed, or those that are left were aborted and had their time.
    fn on_drained(&mut self) {
        let ProcessPhase::Draining(drain) = self.phase else { return };
        if self.is_quiesced {
            // What is sent while the supervisor replaces itself would be lost.
            self.phase = ProcessPhase::Draining(Drain { is_over: true, ..drain });
            return;
        }
        self.finish_drain(drain);
    }

    fn finish_drain(&mut self, drain: Drain) {
        self.send(Message::LastReport);
        let is_last = drain.end == End::Stopped && self.is_link_open && !self.is_aborting;
        if is_last && self.others_drain {
            self.phase = ProcessPhase::AwaitingOthers;
        } else {
            self.shut_down();
        }
    }

    fn on_services_stopped(&mut self) {
        let ProcessPhase::ShuttingDown { has_drained, .. } = self.phase else { return };
        if self.is_quiesced {
            self.phase = ProcessPhase::ShuttingDown { has_drained, is_done: true };
        } else {
            self.exit(has_drained);
        }
    }

    fn exit(&mut self, has_drained: bool) {
        if has_drained {
            // What was counted after the drain.
            self.send(Message::LastReport);
        }
        self.send(Message::LogLost);
        self.commands.push(ProcessCommand::Exit);
        self.phase = ProcessPhase::Ended;
    }

    fn shut_down(&mut self) {
        let has_drained = match self.phase {
            ProcessPhase::ShuttingDown { .. } | ProcessPhase::Ended => return,
            ProcessPhase::Draining(_) | ProcessPhase::AwaitingOthers => true,
            ProcessPhase::WarmingUp { .. }
            | ProcessPhase::Warm
            | ProcessPhase::Serving { .. }
            | ProcessPhase::PreStop { .. } => false,
        };
        self.commands.push(ProcessCommand::StopServices);
        self.phase = ProcessPhase::ShuttingDown { has_drained, is_done: false };
    }

    fn start_drain(&mut self, end: End, now: Timestamp) {
        let state = match end {
            End::Stopped => ServingState::DrainingStopped,
            End::Replaced | End::Orphaned => {
                self.commands
                    .extend([ProcessCommand::LogDraining, ProcessCommand::RetireAdminPort]);
                ServingState::DrainingReplaced
            }
        };
        self.commands.extend([
            ProcessCommand::SetServingState(state),
            // Remaining requests use the last health check results.
            ProcessCommand::StopBackground,
            ProcessCommand::Drain,
        ]);
        let abort_deadline = self.is_aborting.then(|| now + ABORT_TIMEOUT);
        if self.is_aborting {
            self.commands.push(ProcessCommand::Abort);
        }
        self.phase = ProcessPhase::Draining(Drain {
            end,
            next_report: now,
            end_upgraded_at: Some(now + self.settings.drain),
            abort_deadline,
            is_over: false,
        });
    }

    /// Sends a message, unless the supervisor would lose it.
    fn send(&mut self, message: Message) {
        if !self.is_quiesced {
            self.commands.push(ProcessCommand::Send(message));
        }
    }
}
