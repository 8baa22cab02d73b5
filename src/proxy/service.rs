//! The proxy, as client connections use it.

use std::net::IpAddr;
use std::sync::Arc;

use super::Proxy;
use super::pingora::engine::Engine;
use crate::downstream::connection_state::ConnectionState;
use crate::downstream::early_refusal::EarlyRefusal;
use crate::downstream::handler::SessionHandler;
use crate::http::forwarded::is_trusted;

/// Serves the requests of client connections.
pub struct ProxyService {
    engine: Arc<Engine>,
    proxy: Proxy,
}

impl ProxyService {
    /// Serves with `engine`, which was made from `proxy`.
    #[must_use]
    pub fn new(engine: Engine, proxy: Proxy) -> Self {
        Self { engine: Arc::new(engine), proxy }
    }
}

impl SessionHandler for ProxyService {
    type App = Engine;

    fn app(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn is_trusted_proxy(&self, client: IpAddr) -> bool {
        is_trusted(client, &self.proxy.current.snapshot().trusted_proxies)
    }

    fn record_refusal(&self, refusal: &EarlyRefusal, connection: &ConnectionState) {
        self.proxy.record_refusal(refusal, connection);
    }
}
