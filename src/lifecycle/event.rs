//! What can happen to a service.

use super::{Loaded, Payload, WorkerId};
use crate::policy::operator::OverrideRequest;

/// Something that happened.
#[derive(Debug)]
pub enum Event<P: Payload> {
    /// The service starts: the first configuration is loaded and its addresses are bound.
    Started,
    /// This image of the supervisor has replaced another one. `Some`: the new binary failed and gave
    /// control back, for this reason.
    Resumed(Option<String>),
    /// A worker sent something, or something happened to it.
    Worker(WorkerId, WorkerEvent<P>),
    /// The file is to be read again. A signal has no client that waits for the result.
    ReloadRequested(Option<P::Caller>),
    /// The result of [`Command::LoadConfig`](super::Command::LoadConfig), or why there is none.
    ConfigLoaded(Result<Loaded<P::Config>, String>),
    /// The supervisor is to be replaced by the binary on disk.
    UpgradeRequested,
    /// The result of a check of the binary, or why it cannot be used.
    CompatibilityChecked {
        /// Which check it was.
        check: u64,
        /// `Err`: why the binary cannot be used.
        result: Result<(), String>,
    },
    /// The new binary could not be executed.
    ExecFailed(String),
    /// The result of [`Command::MeasureMemory`](super::Command::MeasureMemory).
    MemoryMeasured(Memory),
    /// A signal that asks for a stop, by its name.
    StopSignal(&'static str),
    /// A command asks for a stop.
    StopRequested,
    /// A command asks for a stop and waits until it is complete.
    StopAndWait(P::Caller),
    /// An operator sets something on a backend. The client waits until every worker does so.
    OverrideRequested {
        /// What.
        request: OverrideRequest,
        /// The client.
        caller: P::Caller,
    },
    /// A client asks for the state of the backends, as every worker has it now.
    ReportRequested(P::Caller),
    /// All events so far are handled: time to look at the deadlines.
    Tick,
}

/// What a worker sends, and what happens to its process.
#[derive(Debug)]
pub enum WorkerEvent<P: Payload> {
    /// Its process could not be started.
    SpawnFailed(String),
    /// Its new addresses could not be listened on, so it got no order to take over.
    ListenFailed(String),
    /// It loaded its configuration, and its first health checks are done, or have taken half of
    /// `--ready-timeout`.
    Warm,
    /// It accepts connections.
    Ready,
    /// Its state, in response to [`Order::HandOver`](super::Order::HandOver).
    State(P::State),
    /// Its state, sent at intervals in case it dies.
    Checkpoint(P::State),
    /// What it did since its last report; it drains.
    DrainReport(P::Report),
    /// It cannot serve, for this reason, and will exit.
    Failed(String),
    /// It sends nothing until [`Order::Unquiesce`](super::Order::Unquiesce).
    Quiesced,
    /// It applies what operators have set on backends. It says so when it starts, and for each list
    /// that it got.
    OverridesApplied {
        /// The number of the round that came with the list; 0 at its start.
        serial: u64,
        /// The version of the list.
        version: u64,
    },
    /// It is alive, and this many of its data threads make no progress.
    Heartbeat {
        /// Data threads that hang.
        hung_threads: u64,
    },
    /// It sent something that does not concern the life cycle, so it is alive.
    Alive,
    /// It does not read what is sent to it. A part of a message may have been sent.
    SendTimedOut,
    /// It did not get this report of a draining worker.
    ReportNotSent {
        /// The report.
        report: P::Report,
        /// It does not read what is sent to it. Otherwise it is gone.
        timed_out: bool,
    },
    /// It will send nothing more.
    LinkClosed,
    /// Its process has exited and is reaped.
    Exited(Exit),
}

impl<P: Payload> WorkerEvent<P> {
    /// Whether the worker sent it itself, so that it is alive.
    pub(super) const fn is_message(&self) -> bool {
        match self {
            Self::Warm
            | Self::Ready
            | Self::State(_)
            | Self::Checkpoint(_)
            | Self::DrainReport(_)
            | Self::Failed(_)
            | Self::Quiesced
            | Self::OverridesApplied { .. }
            | Self::Heartbeat { .. }
            | Self::Alive => true,
            Self::SpawnFailed(_)
            | Self::ListenFailed(_)
            | Self::SendTimedOut
            | Self::ReportNotSent { .. }
            | Self::LinkClosed
            | Self::Exited(_) => false,
        }
    }
}

/// Memory in bytes, as measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// How much may still be taken; `None` where the system does not say.
    pub available: Option<u64>,
    /// How much each worker takes. A worker that is not listed takes nothing.
    pub resident: Vec<(WorkerId, u64)>,
}

impl Memory {
    pub(super) fn of(&self, worker: WorkerId) -> u64 {
        self.resident.iter().find(|(id, _)| *id == worker).map_or(0, |(_, bytes)| *bytes)
    }
}

/// How a process exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Whether its exit code was 0.
    pub clean: bool,
    /// Exit code or signal, for messages.
    pub status: String,
}
