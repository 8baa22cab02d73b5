//! TLS with clients: certificates and their renewal, handshakes, sessions, client certificates.
//!
//! Listeners are plain TCP for Pingora; we shake hands ourselves. So a handshake has the time that
//! we say, tickets outlive a reload, and what a client's certificate says is known to the hooks.

pub mod check;
mod client;
pub mod facts;
mod files;
pub mod kept;
mod stream;
mod table;
pub mod terminator;
pub mod tickets;
pub mod upstream;
pub mod watched;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
