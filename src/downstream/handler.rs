//! What client connections need of the code that serves their requests.

use std::net::IpAddr;
use std::sync::Arc;

use pingora_core::apps::HttpServerApp;

use super::connection_state::ConnectionState;
use super::early_refusal::EarlyRefusal;

/// Serves the requests of client connections. A connection knows nothing else about the proxy.
pub trait SessionHandler: Send + Sync + 'static {
    /// The application of Pingora that serves a session.
    type App: HttpServerApp + Send + Sync + 'static;

    /// The application that serves every session.
    fn app(&self) -> &Arc<Self::App>;

    /// Whether this client is a proxy in front of Weir, whose connections belong to many clients.
    fn is_trusted_proxy(&self, client: IpAddr) -> bool;

    /// Logs and counts a refusal for which there was no request.
    fn record_refusal(&self, refusal: &EarlyRefusal, connection: &ConnectionState);
}
