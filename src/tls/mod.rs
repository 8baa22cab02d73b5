//! TLS with clients: certificates and their renewal, handshakes, sessions, client certificates.
//!
//! Pingora sees listeners as plain TCP; Weir does the handshakes itself. So Weir controls the
//! handshake timeout, session tickets survive a reload, and hooks can read the client's
//! certificate.

pub mod check;
mod client;
mod files;
pub mod handshake_info;
pub mod last_good;
pub mod reloadable;
mod stream;
mod table;
pub mod terminator;
pub mod tickets;
pub mod upstream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
