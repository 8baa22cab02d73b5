//! The attempts of one exchange.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::policy::retry::Failure;
use crate::runtime::backend::Backend;

/// One try of an exchange at one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which of the pool's members.
    pub backend: usize,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// The attempts of one exchange. Nearly all have one, few more than two.
pub(super) type Attempts = SmallVec<[Attempt; 2]>;

/// Where to send this attempt, and how long to wait for what.
#[derive(Debug)]
pub struct Target {
    /// Which pool.
    pub pool: usize,
    /// Which of its members.
    pub member: usize,
    /// The same, itself.
    pub backend: Arc<Backend>,
    /// To be waited before the attempt.
    pub backoff: Duration,
    /// For a connection, never beyond the exchange's deadline.
    pub connect_timeout: Duration,
    /// For an answer, never beyond the exchange's deadline.
    pub response_timeout: Duration,
    /// How long the connection may be kept unused afterwards.
    pub idle_timeout: Duration,
    /// How long it may be silent if it becomes a tunnel, which the client asks for.
    pub tunnel_timeout: Option<Duration>,
}
