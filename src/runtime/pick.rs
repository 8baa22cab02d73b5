//! What a request asks of a pool, and what it gets.

use crate::runtime::backend_set::BackendSet;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::ids::BackendId;
use crate::runtime::lease::Lease;
use crate::time::Timestamp;

/// A backend that was picked.
#[derive(Debug)]
pub struct Pick {
    /// Which.
    pub id: BackendId,
    /// One request in flight to it.
    pub lease: Lease,
    /// Whether this request has tried it before, because no other backend was eligible.
    pub again: bool,
    /// What this pick has changed. Empty, without an allocation, for nearly all.
    pub changes: Vec<BreakerChange>,
}

/// Why no backend was picked.
#[derive(Debug)]
pub struct NoPick {
    /// There are backends that could be picked, but none of them has a free place.
    pub is_full: bool,
    /// What this pick has changed.
    pub changes: Vec<BreakerChange>,
}

/// What a request asks of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The backends at which it has failed.
    pub tried: &'a BackendSet,
    /// Those of them to which no connection could be made.
    pub unreachable: &'a BackendSet,
    /// A hash of the client.
    pub key: u64,
    /// A random number.
    pub roll: u64,
    /// Whether it may be a trial: it can be retried elsewhere.
    pub may_try: bool,
    /// Whether its time to the response headers is comparable: nothing of it is sent after its
    /// headers.
    pub measured: bool,
    /// The time now.
    pub now: Timestamp,
}
