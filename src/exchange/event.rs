//! What happens to an exchange, for those who watch: metrics, the access log, a test's checker.

use std::time::Duration;

use crate::exchange::Exchange;
use crate::exchange::refusal::{Ending, Scope};
use crate::http::metric_label::MethodLabel;
use crate::policy::retry::Failure;
use crate::time::Timestamp;

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A new connection to a backend was made for this exchange.
    Connected {
        /// Which pool.
        pool: usize,
        /// Which of its members.
        backend: usize,
        /// From the pick to the connection.
        took: Duration,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Which pool.
        pool: usize,
        /// Which of its members.
        backend: usize,
        /// Why.
        failure: Failure,
        /// Another attempt follows.
        retried: bool,
    },
    /// The current attempt has become a tunnel.
    Tunnelled {
        /// Which pool.
        pool: usize,
    },
    /// A client was told to slow down.
    RateLimited(Scope),
    /// The exchange is over. Comes exactly once, and last.
    Finished(Summary<'a>),
}

/// An exchange at its end.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Its decisions.
    pub exchange: &'a Exchange,
    /// How it ended.
    pub ending: Ending,
    /// What went over the wire; unknown if the exchange was dropped.
    pub wire: Option<&'a Wire<'a>>,
    /// When.
    pub ended: Timestamp,
}

/// What the edge saw of an exchange.
#[derive(Debug)]
pub struct Wire<'a> {
    /// For metrics.
    pub method_label: MethodLabel,
    /// As sent.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host that routing used; empty if there was none.
    pub host: &'a str,
    /// The target's path, as sent.
    pub path: &'a str,
    /// The target's query, as sent.
    pub query: Option<&'a str>,
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The `X-Request-Id` that backend and client got.
    pub request_id: &'a str,
    /// The status that the client got; 499 if it left before.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

/// Watches exchanges. It is called on the request path and must not block.
pub trait Observer: Send + Sync {
    /// Takes note.
    fn observe(&self, event: &Event<'_>);
}
