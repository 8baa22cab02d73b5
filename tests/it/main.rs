//! Integration tests: the real binary, real sockets, counted at the backend.

mod support;

mod balancing;
mod commands;
mod limits;
mod metrics;
mod probe;
mod shutdown;
