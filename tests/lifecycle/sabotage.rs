//! Life cycles that break a promise: the commands of the real one are changed on their way to the
//! world.

use weir::lifecycle::{Command, Failure, KillReason, Order};

use crate::world::{Config, Reply, Values};

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
}

impl Sabotage {
    /// The commands that are carried out in place of `command`.
    pub(crate) fn change(self, command: Command<Values>) -> Vec<Command<Values>> {
        match (self, command) {
            (Self::ForgetReply, Command::ReplyFailed(..))
            | (Self::LoseState, Command::StoreState(..))
            | (Self::LoseReport, Command::SendReport(..))
            | (Self::NeverExit, Command::Exit(Ok(()) | Err(Failure::ForcedStop(_))))
            | (Self::LetAllDrain, Command::Kill(_, KillReason::TooManyDraining { .. })) => vec![],
            (Self::ReplyTwice, Command::ReplyFailed(replies, why)) => {
                let again = replies.iter().map(|reply| Reply(reply.0)).collect();
                vec![Command::ReplyFailed(replies, why.clone()), Command::ReplyFailed(again, why)]
            }
            (Self::ForgetRestart, Command::Spawn { worker, is_alone: true, .. })
                if worker.0 > 1 =>
            {
                vec![]
            }
            (Self::CloseUsedSockets, Command::CloseUnused(_)) => {
                vec![Command::CloseUnused(Config(0))]
            }
            (Self::ExecAtOnce, Command::Send(_, Order::Quiesce)) => vec![Command::Exec],
            (_, command) => vec![command],
        }
    }
}
