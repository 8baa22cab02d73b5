//! The runtime objects built from a configuration.
//!
//! A [`Snapshot`](snapshot::Snapshot) is everything that a request needs, at one version. It is
//! immutable except for the atomics inside its backends and limiters, so a request that has pinned
//! one sees a consistent state from its first byte to its last.

pub mod action;
pub mod backend;
pub mod backend_set;
pub mod balancing;
pub mod breakers;
#[cfg(test)]
mod breakers_tests;
pub mod circuit;
pub mod debits;
pub mod endpoint;
pub mod handoff;
mod health_state;
pub mod ids;
pub mod in_flight;
pub mod lease;
pub mod members;
pub mod moving;
pub mod overrides;
mod packed;
pub mod pick;
pub mod pool;
mod pool_breakers;
pub mod report;
pub mod request_limit;
pub mod routes;
pub mod self_redirects;
pub mod snapshot;
pub mod standing;
pub mod tunnels;
pub mod waiters;
pub mod waiting;
pub mod weight;
