//! Integration tests: the real binary, real sockets, counted at the backend.

mod faults;
mod forwarding;
mod framing;
mod retry;
mod support;
mod timeouts;
