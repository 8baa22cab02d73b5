//! Weir, an HTTP load balancer on Pingora.
//!
//! The map, from the bottom up. A module imports only from those above it in this list
//! (`tests/tidy.rs` holds the finer table); everything in the first half is pure: no socket,
//! no clock, no random source.
//!
//! - [`time`], [`sync`], [`name`]: a timestamp, atomics, names that cannot be mixed up.
//! - [`http`]: the rules of HTTP that need no socket.
//! - [`policy`]: one decision a file: selectors, token buckets, hysteresis, back-off, retries.
//! - [`config`]: from the text of a file to what it means, or every problem with it.
//! - [`runtime`]: what runs: the snapshot of pools, backends and routes that a request pins.
//! - [`exchange`]: the decisions of one request, in order.

pub mod config;
pub mod exchange;
pub mod http;
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
pub mod demo;
#[cfg(feature = "server")]
pub mod descriptors;
#[cfg(feature = "server")]
pub mod downstream;
#[cfg(feature = "server")]
pub mod link;
#[cfg(feature = "server")]
pub mod live;
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
