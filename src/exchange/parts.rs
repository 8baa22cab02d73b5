//! The parts of an exchange's state.

use std::time::Duration;

use super::refusal::{Outcome, Refusal};
use crate::runtime::ids::PoolId;
use crate::runtime::lease::Lease;
use crate::runtime::pool::Pick;
use crate::runtime::request_limit::RequestGuard;
use crate::runtime::tunnels::TunnelGuard;
use crate::runtime::waiters::WaitHandle;
use crate::time::Timestamp;

/// Times of the exchange.
#[derive(Debug)]
pub(super) struct Times {
    /// When the first byte of the request arrived.
    pub(super) started: Timestamp,
    /// [`Timestamp::MAX`] until a route sets it, with `request: off`, and after an upgrade. The
    /// `grpc-timeout` of a request sets it before.
    pub(super) deadline: Timestamp,
    pub(super) last_event: Timestamp,
    /// How long it has waited for places at backends, up to the end of its last wait.
    pub(super) queued: Duration,
}

/// Where the request goes.
#[derive(Debug, Default)]
pub(super) struct Destination {
    /// The position of the route that matched.
    pub(super) route: Option<usize>,
    /// The rewritten path for the backend.
    pub(super) new_path: Option<String>,
    /// The outcome, if the route sends the response itself.
    pub(super) direct_outcome: Option<Outcome>,
    pub(super) pool: Option<PoolId>,
}

/// The attempt that is under way.
#[derive(Debug)]
pub(super) struct CurrentAttempt {
    pub(super) lease: Option<Lease>,
    /// It waits for a place at a backend.
    pub(super) waiting: Option<Box<WaitHandle<Pick>>>,
    /// When its backend was picked, and its back-off was over.
    pub(super) picked: Timestamp,
    /// It has less time than the pool's timeout, because the deadline is nearer.
    pub(super) until_deadline: bool,
    /// A random number.
    pub(super) roll: u64,
    /// It is a retry that holds a token of the pool's retry budget.
    pub(super) token: bool,
    /// It holds a token for the retry that follows if it takes longer than `retry.try_timeout`, or
    /// because it is moved.
    pub(super) reserved: bool,
    /// It was moved to another backend before its timeout.
    pub(super) moved: bool,
    /// When its response headers are due because of `retry.try_timeout`.
    pub(super) try_deadline: Timestamp,
    /// How long the backend of the attempt before wants not to be asked again (`Retry-After`).
    pub(super) retry_after: Duration,
}

/// The request body, and how much of it was read.
#[derive(Debug, Default)]
pub(super) struct BodySize {
    /// There is none, and the request can be sent twice.
    pub(super) plain: bool,
    /// In the current attempt, in bytes.
    pub(super) bytes: u64,
    /// In the attempt that sent most of it, in bytes.
    pub(super) most: u64,
}

/// The upgrade to a WebSocket: the client asks for it, and the backend accepts with 101. From then
/// on the request's deadline does not apply; only the idle timeout or a drain ends it.
#[derive(Debug, Default)]
pub(super) struct UpgradeState {
    /// The client asks for it, and the pool may use HTTP/1.
    pub(super) wanted: bool,
    pub(super) tunnel: Option<Tunnel>,
}

/// An open tunnel (upgraded connection).
#[derive(Debug)]
pub(super) struct Tunnel {
    /// When it was upgraded.
    pub(super) since: Timestamp,
    /// Counts it, until it is closed.
    pub(super) counted: Option<TunnelGuard>,
}

impl Tunnel {
    /// The tunnel is closed, and is not counted from now on.
    pub(super) fn ended(&mut self) {
        self.counted = None;
    }
}

/// The response for the client.
#[derive(Debug, Default)]
pub(super) struct ResponseFacts {
    /// When its headers arrived.
    pub(super) first_byte: Option<Timestamp>,
    /// The gRPC status sent to the client; the last one counts.
    pub(super) grpc_status: Option<u16>,
}

/// How the exchange ends.
#[derive(Debug, Default)]
pub(super) struct Conclusion {
    /// Counts it among the requests in progress until it is complete, if their number is limited.
    pub(super) counted: Option<RequestGuard>,
    pub(super) refusal: Option<Refusal>,
    /// The detail of the rejection, as a stable code.
    pub(super) detail: Option<&'static str>,
    /// Whether the outcome was reported to the observer.
    pub(super) reported: bool,
}
