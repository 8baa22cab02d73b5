//! What the supervisor is to do.

use std::sync::Arc;

use log::Level;

use super::restart::Binary;
use super::rounds::RoundResult;
use super::worker::Hang;
use super::{Payload, WorkerId};
use crate::policy::operator::OverrideList;

/// Something to do. Commands are carried out in their order.
#[derive(Debug)]
pub enum Command<P: Payload> {
    /// Log a message. Being a command, it is in order with what the other commands log.
    Log(Level, String),
    /// Read the file, check it and bind its new addresses; respond by `ConfigLoaded`.
    LoadConfig,
    /// Start a worker and send it its configuration, sockets and the last known state; respond by
    /// `SpawnFailed` if that fails.
    Spawn {
        /// Its number.
        worker: WorkerId,
        /// What it serves.
        config: P::Config,
        /// Which binary it runs.
        binary: Binary,
        /// No other worker serves: it responds on the admin port from its first moment.
        is_alone: bool,
        /// What operators have set on backends.
        overrides: Arc<OverrideList>,
    },
    /// Send an order to a worker; respond by `SendTimedOut` if it does not read.
    Send(WorkerId, Order),
    /// Send a worker what operators have set on backends. It responds by `OverridesApplied`; respond by
    /// `SendTimedOut` if it does not read.
    SendOverrides {
        /// The worker.
        worker: WorkerId,
        /// The number of the newest round, which it sends back.
        serial: u64,
        /// All that is set.
        list: Arc<OverrideList>,
    },
    /// All workers have confirmed an override or sent their state, or are late: reply to the client.
    ReplyRound(Box<RoundResult<P::Caller>>),
    /// Send it the last known state and let it accept connections.
    TakeOver {
        /// The worker.
        worker: WorkerId,
        /// It serves what a reload has loaded: listen first on the addresses that were bound for it;
        /// respond by `ListenFailed` if that fails.
        listen: bool,
    },
    /// Kill a worker.
    Kill(WorkerId, KillReason),
    /// A worker has exited: release what belongs to it.
    Release(WorkerId),
    /// Keep this as the last known state of the service; it comes from this worker.
    StoreState(WorkerId, P::State),
    /// Keep what a candidate found out about the host names of its configuration.
    StoreNames(WorkerId, P::State),
    /// A worker serves now: its host names become part of the last known state.
    AdoptNames(WorkerId),
    /// A worker that served is gone: forget its requests in flight.
    ForgetInFlight,
    /// Send the report of a draining worker to the one that serves; respond by `ReportNotSent` if it
    /// does not get it.
    SendReport(WorkerId, P::Report),
    /// Keep the binary that this worker runs: it is known to serve.
    KeepBinary(WorkerId),
    /// Close every listening socket that this configuration does not use.
    CloseUnused(P::Config),
    /// Close all listening sockets.
    CloseSockets,
    /// A reload has succeeded: log what changed, and send it to the clients that wait for it.
    ReportReload {
        /// The worker that serves now.
        worker: WorkerId,
        /// The configuration until now.
        before: P::Config,
        /// The configuration from now on.
        after: P::Config,
        /// The clients.
        callers: Vec<P::Caller>,
    },
    /// Send a failure to clients.
    ReplyFailed(Vec<P::Caller>, String),
    /// Check whether the binary on disk can continue; respond by `CompatibilityChecked`.
    CheckCompatibility {
        /// The number of this check.
        check: u64,
    },
    /// Kill the process of a check, and ignore its result.
    CancelCheck,
    /// Replace this image by the binary on disk; respond by `ExecFailed` if that fails.
    Exec,
    /// Measure memory; respond by `MemoryMeasured`.
    MeasureMemory,
    /// Send the counters to the worker that serves.
    PublishStats,
    /// Tell the service manager that the service is ready.
    NotifyReady,
    /// Tell the service manager that a reload has begun.
    NotifyReloading,
    /// Tell the service manager that the service stops.
    NotifyStopping,
    /// Tell the service manager that the supervisor is alive.
    NotifyAlive,
    /// The service has ended: send the result of the stop to clients that wait for it.
    ReplyEnded {
        /// How it ended.
        result: Result<(), Failure>,
        /// The clients.
        callers: Vec<P::Caller>,
    },
    /// The service has ended: end this process. What follows only replies to clients, releases
    /// workers, or publishes the counters.
    Exit(Result<(), Failure>),
}

impl<P: Payload> Command<P> {
    pub(super) fn reply_round(result: RoundResult<P::Caller>) -> Self {
        Self::ReplyRound(Box::new(result))
    }
}

/// An order that the supervisor sends to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Freeze the admin port and send the state: a successor is warm.
    HandOver,
    /// The successor failed: respond on the admin port again.
    Resume,
    /// Stop accepting, finish what is in flight and exit.
    Drain,
    /// Report 503 on `/readyz`, wait `pre_stop`, then drain.
    Stop,
    /// Abort what is in flight, log it and exit.
    StopNow,
    /// Send nothing more: the supervisor is about to replace itself.
    Quiesce,
    /// Send again.
    Unquiesce,
}

/// Why a worker is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillReason {
    /// It is not needed, or failed: the log says so elsewhere.
    NotNeeded,
    /// It did not drain within its time.
    DrainTimeout,
    /// More workers drain than are allowed.
    TooManyDraining {
        /// How many are allowed.
        max: usize,
    },
    /// There is too little memory for the next worker.
    MemoryShort {
        /// How much may still be taken, in bytes.
        available: u64,
        /// How much the next worker is expected to take, in bytes.
        wanted: u64,
    },
    /// It hangs.
    Hung(Hang),
    /// It does not read what is sent to it.
    SendTimedOut,
    /// Its link is closed, but its process did not exit.
    LinkLost,
}

/// Why the service did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The first worker could not serve.
    FirstWorker(String),
    /// Requests were aborted by the stop, or a worker failed while it stopped.
    ForcedStop(String),
}
