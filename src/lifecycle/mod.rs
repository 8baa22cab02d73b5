//! The life cycle of one service: which worker serves, which one starts, which ones drain, and when.
//!
//! ```text
//!            first worker ready           file checked, addresses bound, worker spawned
//!  Starting ───────────────────▶ Serving ────────────────────────────────▶ a candidate warms up
//!                                  ▲  ▲                                           │ Warm
//!                                  │  │ the candidate fails, exits or is late:     ▼
//!                                  │  └─── the old worker continues ◀──── the old worker hands over
//!                                  │                                              │ State
//!                                  │ Ready: the candidate serves, the old drains  ▼
//!                                  └───────────────────────────────── the candidate takes over
//!  Serving ─ upgrade ─▶ Upgrading (check the binary, quiesce the workers, exec) ─▶ Serving
//!  any phase ─ signal or command ─▶ Stopping ─▶ exit, once the last worker has exited
//! ```
//! [`Service`] decides and does nothing else: it knows no process, no socket and no clock. The
//! supervisor's shell reports what happened as an [`Event`] and carries out each [`Command`] in
//! order. Configurations, states of workers and the clients that wait for a reply pass through as
//! values of a [`Payload`], which this module never looks into.

mod candidate;
mod command;
mod drain;
mod event;
mod exits;
mod handover;
mod kept_reports;
mod op_queue;
mod operator;
mod overrides;
pub mod process;
mod rejections;
mod reload;
mod reports;
mod restart;
mod rounds;
mod save;
mod service;
pub mod serving_state;
mod stop;
mod stop_deadlines;
mod upgrade;
mod upgrade_step;
pub mod view;
mod worker;
mod workers;

use std::fmt;
use std::time::Duration;

pub use self::candidate::Step;
pub use self::command::{Command, Failure, KillReason, Order};
pub use self::event::{Event, Exit, Memory, WorkerEvent};
pub use self::overrides::OverrideResult;
pub use self::rejections::RejectedReload;
pub use self::restart::Binary;
pub use self::rounds::RoundResult;
pub use self::save::{Saved, SavedWorker};
pub use self::service::Service;
pub use self::worker::Hang;
use crate::config::Shutdown;
use crate::policy::operator::BackendKey;

#[cfg(test)]
mod tests;

/// The values that pass through the machine from an event to a command.
pub trait Payload: fmt::Debug {
    /// A checked configuration: a handle that is cheap to clone.
    type Config: Clone + fmt::Debug;
    /// What a worker knows and its successor needs.
    type State: fmt::Debug;
    /// What a draining worker has done since its last report.
    type Report: fmt::Debug;
    /// A client that waits for the result of its command.
    type Caller: fmt::Debug;

    /// Whether a report says that nothing has happened.
    fn is_empty(report: &Self::Report) -> bool;

    /// Whether a configuration has this backend.
    fn has_backend(config: &Self::Config, key: &BackendKey) -> bool;
}

/// The number of a worker, from 1. No two workers of a service have the same one, upgrades included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A configuration, with what the life cycle has to know of it.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// How its workers stop.
    pub shutdown: Shutdown,
}

/// What the operator chose when the supervisor was started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a new worker may take until it serves.
    pub ready_timeout: Duration,
    /// How long a worker may make no progress before it is replaced; `None`: workers are not watched.
    pub hang_timeout: Option<Duration>,
    /// How often the service manager expects a sign of life, if it does.
    pub keepalive: Option<Duration>,
    /// Why this supervisor cannot be upgraded, if it cannot.
    pub upgrade_obstacle: Option<&'static str>,
    /// The path of the binary on disk, for messages.
    pub binary_path: String,
}

/// What has happened to the service, over all upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// The number of the newest worker.
    pub generation: u64,
    /// Reloads that replaced the configuration.
    pub reloads_done: u64,
    /// Reloads that were rejected.
    pub reloads_rejected: u64,
    /// Whether the last reload was not rejected.
    pub last_reload_ok: bool,
    /// Completed upgrades of the supervisor.
    pub upgrades_done: u64,
    /// Upgrades that were rejected.
    pub upgrades_rejected: u64,
    /// Workers that served, died and were replaced.
    pub restarts: u64,
    /// Workers that hung and were killed.
    pub hangs: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            generation: 0,
            reloads_done: 0,
            reloads_rejected: 0,
            last_reload_ok: true,
            upgrades_done: 0,
            upgrades_rejected: 0,
            restarts: 0,
            hangs: 0,
        }
    }
}
