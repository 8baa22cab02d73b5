//! Weir, an HTTP load balancer on Pingora.
//!
//! The pure modules, from the bottom up. They use no socket, no clock and no random source. A module
//! imports only from modules earlier in this list; `tests/tidy.rs` has the complete table.
//!
//! - [`time`], [`sync`], [`name`]: timestamps, atomics, names of pools and routes.
//! - [`http`]: the rules of HTTP.
//! - [`policy`]: one decision per file: selectors, token buckets, hysteresis, back-off, retries.
//! - [`config`]: from the text of a file to its meaning, or to every problem with it.
//! - [`runtime`]: the snapshot of pools, backends and routes that a request uses.
//! - [`exchange`]: the decisions of one request, in order.
//! - [`lifecycle`]: the decisions about the workers of one service: start, reload, upgrade, stop.
//!
//! The other modules connect them to sockets, processes and Pingora; `docs/ARCHITECTURE.md` lists them.

pub mod config;
pub mod exchange;
pub mod http;
pub mod lifecycle;
pub mod name;
pub mod policy;
pub mod runtime;
pub mod sync;
pub mod time;

#[cfg(feature = "server")]
pub mod access_log;
#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod current;
#[cfg(feature = "server")]
pub(crate) mod delegate;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod descriptors;
#[cfg(feature = "server")]
pub mod downstream;
#[cfg(feature = "server")]
pub mod link;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod probe;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod resolve;
#[cfg(feature = "server")]
pub mod sockets;
#[cfg(feature = "server")]
pub mod supervisor;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod upstream;
#[cfg(feature = "server")]
pub mod worker;

#[cfg(all(test, feature = "server"))]
mod fixture;
