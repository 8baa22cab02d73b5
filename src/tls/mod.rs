//! TLS towards clients: what a handshake has found out.

pub mod facts;
