//! What runs: the meaning of a configuration turned into the things that requests use.
//!
//! A [`Snapshot`](snapshot::Snapshot) is everything that a request needs, at one version. It is
//! immutable but for the atomics inside its backends and limiters, so a request that has pinned
//! one sees one world from its first byte to its last.

pub mod action;
pub mod backend;
pub mod debits;
pub mod endpoint;
pub mod handoff;
pub mod in_flight;
pub mod loops;
pub mod pool;
pub mod routes;
pub mod set;
pub mod snapshot;
pub mod tunnels;
