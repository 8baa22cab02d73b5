//! The attempts of one exchange.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::policy::retry::AttemptFailure;
use crate::runtime::backend::Backend;
use crate::runtime::ids::{BackendId, PoolId};

/// One attempt to send an exchange to one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The backend, within the pool.
    pub backend: BackendId,
    /// Why it failed, if it did.
    pub failure: Option<AttemptFailure>,
    /// It was not retried because the retry budget was exhausted.
    pub budget_exhausted: bool,
}

/// The attempts of one exchange. Nearly all have one, few more than two.
pub(super) type Attempts = SmallVec<[Attempt; 2]>;

/// Where to send an attempt, with its timeouts.
#[derive(Debug)]
pub struct Target {
    /// The pool.
    pub pool: PoolId,
    /// The backend, within the pool.
    pub id: BackendId,
    /// The same backend.
    pub backend: Arc<Backend>,
    /// The wait before the attempt.
    pub backoff: Duration,
    /// For a connection, never beyond the exchange's deadline.
    pub connect_timeout: Duration,
    /// For a response, never beyond the exchange's deadline.
    pub response_timeout: Duration,
    /// How long the connection may stay idle afterwards.
    pub idle_timeout: Duration,
    /// The idle timeout of an upgraded connection; `None` if the client does not ask for an
    /// upgrade, or the pool uses only HTTP/2.
    pub tunnel_timeout: Option<Duration>,
}
