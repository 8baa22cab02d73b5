//! Integration tests: the real binary, real sockets, counted at the backend.

mod support;

mod balancing;
mod body_ends;
mod commands;
mod conf;
mod control;
mod crash;
mod drain;
mod faults;
mod forwarding;
mod framing;
mod grpc;
mod h2_bodies;
mod h2_out;
mod hostile;
mod http2;
mod http2_slow;
mod limits;
mod metrics;
mod probe;
mod proxy_out;
mod proxy_protocol;
mod refused;
mod reload;
mod retry;
mod routing;
mod shutdown;
mod signals;
mod state;
mod timeouts;
mod tls;
mod tls_broken;
mod tls_out;
mod upgrade;
mod websocket;
