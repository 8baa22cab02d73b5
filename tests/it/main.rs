//! Integration tests: the real binary, real sockets, counted at the backend.

mod support;

mod balancing;
mod commands;
mod faults;
mod forwarding;
mod framing;
mod hostile;
mod limits;
mod metrics;
mod probe;
mod retry;
mod shutdown;
mod timeouts;
