//! Life cycles that break a promise: the commands of the real one are changed on their way to the
//! world.

use std::sync::Arc;

use weir::lifecycle::process::{Message, ProcessCommand};
use weir::lifecycle::serving_state::ServingState;
use weir::lifecycle::{Command, Failure, KillReason, Order};

use crate::world::{Caller, Config, State, Values};

/// How the commands are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    ForgetReply,
    ReplyTwice,
    ForgetRestart,
    CloseUsedSockets,
    LoseState,
    LoseReport,
    NeverExit,
    LetAllDrain,
    ExecAtOnce,
    ForgetOverrides,
    LoseOverrides,
    ForgetAtExec,
    // Those of a worker.
    SpeakWhileQuiesced,
    LoseLastReport,
    StayFrozen,
    KeepAccepting,
    AcceptEarly,
    SkipPreStop,
    KeepUpgraded,
    StayForever,
    ConfirmWithoutApplying,
}

impl Sabotage {
    /// The commands that are carried out in place of `command`.
    pub(crate) fn change(self, command: Command<Values>) -> Vec<Command<Values>> {
        match (self, command) {
            (Self::ForgetReply, Command::ReplyFailed(..))
            | (Self::LoseState, Command::StoreState(..))
            | (Self::LoseReport, Command::SendReport(..))
            | (Self::LoseOverrides, Command::SendOverrides { .. })
            | (Self::NeverExit, Command::Exit(Ok(()) | Err(Failure::ForcedStop(_))))
            | (Self::LetAllDrain, Command::Kill(_, KillReason::TooManyDraining { .. })) => vec![],
            (Self::ReplyTwice, Command::ReplyFailed(callers, why)) => {
                let again = callers.iter().map(|caller| Caller(caller.0)).collect();
                vec![Command::ReplyFailed(callers, why.clone()), Command::ReplyFailed(again, why)]
            }
            (Self::ForgetRestart, Command::Spawn { worker, is_alone: true, .. })
                if worker.0 > 1 =>
            {
                vec![]
            }
            (Self::CloseUsedSockets, Command::CloseUnused(_)) => {
                vec![Command::CloseUnused(Config(0))]
            }
            (Self::ForgetOverrides, Command::Spawn { worker, config, binary, is_alone, .. }) => {
                let overrides = Arc::default();
                vec![Command::Spawn { worker, config, binary, is_alone, overrides }]
            }
            (Self::ExecAtOnce, Command::Send(_, Order::Quiesce)) => vec![Command::Exec],
            (_, command) => vec![command],
        }
    }
    /// The commands that a worker carries out in place of `command`.
    pub(crate) fn change_worker(
        self,
        command: ProcessCommand<Values>,
    ) -> Vec<ProcessCommand<Values>> {
        match (self, command) {
            (Self::LoseLastReport, ProcessCommand::Send(Message::LastReport))
            | (Self::StayFrozen, ProcessCommand::Unfreeze)
            | (Self::KeepAccepting, ProcessCommand::Drain)
            | (Self::SkipPreStop, ProcessCommand::SetServingState(ServingState::PreStop))
            | (Self::KeepUpgraded, ProcessCommand::EndUpgraded)
            | (Self::StayForever, ProcessCommand::Exit) => vec![],
            (Self::SpeakWhileQuiesced, ProcessCommand::Send(Message::Quiesced)) => {
                vec![
                    ProcessCommand::Send(Message::Quiesced),
                    ProcessCommand::Send(Message::Checkpoint),
                ]
            }
            (Self::ConfirmWithoutApplying, ProcessCommand::ApplyOverrides((serial, _))) => {
                vec![ProcessCommand::ApplyOverrides((serial, Arc::default()))]
            }
            (Self::AcceptEarly, ProcessCommand::Send(Message::Warm)) => {
                vec![ProcessCommand::StartListeners(State::default())]
            }
            (_, command) => vec![command],
        }
    }
}
