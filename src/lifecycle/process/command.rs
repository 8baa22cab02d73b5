//! What a worker process is to do.

use std::time::Duration;

use super::ProcessPayload;
use crate::lifecycle::serving_state::ServingState;

/// Something to do. Commands are carried out in their order. If one fails, those after it are
/// dropped, and the machine gets [`ProcessEvent::CommandFailed`](super::ProcessEvent::CommandFailed).
#[derive(Debug)]
pub enum ProcessCommand<P: ProcessPayload> {
    /// Log that not all backends were checked within this time.
    WarnUnchecked(Duration),
    /// Log that the worker drains.
    LogDraining,
    /// Log that connections have not ended, although they were aborted.
    WarnUnfinished,
    /// Send a message to the supervisor.
    Send(Message),
    /// Import the last known state of the service, and accept connections.
    StartListeners(P::State),
    /// Respond on the admin port, unless it already does.
    OpenAdminPort,
    /// Stop accepting on the admin port: another worker may take over.
    CloseAdminPort,
    /// Accept on the admin port again: the other worker has failed.
    ReopenAdminPort,
    /// Close the admin port for good: another worker serves, or the supervisor is gone.
    RetireAdminPort,
    /// Freeze the pages with totals, and take the state that [`Message::State`] sends.
    Freeze,
    /// Show current totals again.
    Unfreeze,
    /// Add what a draining worker has counted to the own counts.
    ImportReport(P::Report),
    /// Apply what operators have set on backends.
    ApplyOverrides(P::Overrides),
    /// Show the figures of the supervisor.
    ShowStats(P::Stats),
    /// Set whether the worker accepts requests or drains.
    SetServingState(ServingState),
    /// Stop health checks and lookups of names.
    StopBackground,
    /// Stop accepting, close connections after their request, and count for reports; respond by
    /// `Drained` once the last connection is closed.
    Drain,
    /// End upgraded connections, which have no deadline of their own.
    EndUpgraded,
    /// Abort all requests.
    Abort,
    /// The supervisor may be a new image: send the contents of TLS files with the next checkpoint.
    ResendFiles,
    /// Stop everything that still runs, and write the last lines of both logs; respond by
    /// `ServicesStopped`.
    StopServices,
    /// End this process.
    Exit,
}

/// A message to the supervisor. What it contains is put together when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// It can take over.
    Warm,
    /// It accepts connections.
    Ready,
    /// Its state, in response to [`Order::HandOver`](crate::lifecycle::Order::HandOver).
    State,
    /// Its state, in case it dies.
    Checkpoint,
    /// Its number of client connections.
    Connections,
    /// It sends nothing until it may again.
    Quiesced,
    /// It applies the last list of overrides; with the state of its backends.
    OverridesApplied,
    /// It is alive.
    Heartbeat,
    /// What it did since its last report.
    Report,
    /// The same for the last time, complete.
    LastReport,
    /// How many lines of its log were lost without a report in the log, if there are any.
    LogLost,
}
