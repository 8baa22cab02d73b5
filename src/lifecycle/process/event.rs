//! What can happen to a worker process.

use std::time::Duration;

use super::ProcessPayload;
use crate::lifecycle::Order;

/// Something that happened.
#[derive(Debug)]
pub enum ProcessEvent<P: ProcessPayload> {
    /// The first health checks of all backends are done.
    ChecksDone,
    /// The supervisor orders to accept connections, with the last known state of the service.
    TakeOver(P::State),
    /// The supervisor sends another order.
    Order(Order),
    /// The supervisor passes on what a draining worker has counted.
    AddCounts(P::Report),
    /// The supervisor sends what operators have set on backends.
    Overrides(P::Overrides),
    /// The supervisor sends its figures.
    Stats {
        /// How long this worker may be silent; `None`: it sends no heartbeats.
        hang_timeout: Option<Duration>,
        /// Whether former workers still drain.
        others_drain: bool,
        /// The figures.
        stats: P::Stats,
    },
    /// A signal asks for a stop.
    StopSignal,
    /// The last connection is closed.
    Drained,
    /// The result of [`ProcessCommand::StopServices`](super::ProcessCommand::StopServices).
    ServicesStopped,
    /// A command could not be carried out.
    CommandFailed,
    /// The supervisor is gone.
    LinkClosed,
    /// A deadline may have passed.
    Tick,
}
