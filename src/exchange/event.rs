//! Events of an exchange for observers: metrics, the access log, a test's checker.

use std::time::Duration;

use crate::exchange::Exchange;
use crate::exchange::refusal::{Outcome, Scope};
use crate::http::metric_label::MethodLabel;
use crate::policy::retry::AttemptFailure;
use crate::policy::wait_queue::QueueRefusal;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::ids::{BackendId, PoolId};
use crate::time::Timestamp;

/// An event.
#[derive(Debug)]
pub enum ExchangeEvent<'a> {
    /// A new connection to a backend was made for this exchange.
    Connected {
        /// The pool.
        pool: PoolId,
        /// The backend, within the pool.
        backend: BackendId,
        /// The time from the end of the back-off to the connection.
        took: Duration,
    },
    /// An attempt failed.
    AttemptFailed {
        /// The pool.
        pool: PoolId,
        /// The backend, within the pool.
        backend: BackendId,
        /// Why.
        failure: AttemptFailure,
        /// Whether another attempt follows.
        retried: bool,
    },
    /// The circuit breaker of a backend changed its state.
    Breaker {
        /// The pool.
        pool: PoolId,
        /// What has changed.
        change: BreakerChange,
    },
    /// A failed attempt was not retried, because the retry budget of its pool was exhausted.
    RetryBudgetExhausted {
        /// The pool.
        pool: PoolId,
    },
    /// A request has waited for a place at a backend.
    Queued {
        /// The pool.
        pool: PoolId,
        /// How long.
        waited: Duration,
    },
    /// A request was rejected because no backend had a free place.
    QueueRefused {
        /// The pool.
        pool: PoolId,
        /// Why; `None` if the pool has no queue.
        reason: Option<QueueRefusal>,
    },
    /// The current attempt was upgraded to a WebSocket.
    Upgraded {
        /// The pool.
        pool: PoolId,
    },
    /// A request was rejected by a rate limit.
    RateLimited(Scope),
    /// A request was rejected because the worker handles as many as it may.
    Shed,
    /// The exchange is complete. Reported exactly once, and last.
    Finished(Summary<'a>),
}

/// A completed exchange.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Its decisions.
    pub exchange: &'a Exchange,
    /// Its outcome.
    pub ending: Outcome,
    /// The data of its request and response; `None` if no request headers were read.
    pub wire: Option<&'a Wire<'a>>,
    /// When.
    pub ended: Timestamp,
}

/// The edge's data of an exchange.
#[derive(Debug)]
pub struct Wire<'a> {
    /// For metrics.
    pub method_label: MethodLabel,
    /// As received.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host used for routing; empty if there is none.
    pub host: &'a str,
    /// The target's path, as received.
    pub path: &'a str,
    /// The target's query, as received.
    pub query: Option<&'a str>,
    /// Such as `HTTP/1.1`.
    pub protocol: &'static str,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The `X-Request-Id` for backend and client.
    pub request_id: &'a str,
    /// The response status; 499 if the client disconnected before.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

/// Observes exchanges. Called on the request path, so it must not block.
pub trait Observer: Send + Sync {
    /// Handles an event.
    fn observe(&self, event: &ExchangeEvent<'_>);
}
