//! Pingora's `HttpProxy` with Weir's own connector for HTTP/2 backends.
//!
//! Pingora makes an `HttpProxy` with a custom connector only inside a service of its own, which binds
//! and accepts by itself and does not give the proxy away. Weir accepts connections itself, so the
//! proxy is read out of that service.
//!
//! This is needed until Pingora has a public constructor of `HttpProxy` with a custom connector.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;

use pingora_core::connectors::ConnectorOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};

use crate::proxy::Proxy;
use crate::upstream::connector::Connector;

/// Sends requests to backends.
pub type Engine = HttpProxy<Proxy, Connector>;

/// Builds the engine. `None` if Pingora's service has no proxy, which a new version could cause.
#[must_use]
pub fn build(conf: &Arc<ServerConf>, proxy: Proxy) -> Option<Engine> {
    let connector = Connector::new(ConnectorOptions::from_server_conf(conf));
    // Never called: no client connection has a custom protocol.
    let no_session: ProcessCustomSession<Proxy, Connector> =
        Arc::new(|_, _, _| Box::pin(async { None }));
    let service = ProxyServiceBuilder::new(conf, proxy).custom(connector, no_session).build();
    let service = ManuallyDrop::new(service);
    let engine = service.app_logic()?;
    #[expect(unsafe_code, reason = "a service does not give its proxy away")]
    // SAFETY: `engine` points to a valid value. It is owned from here on. The service never uses it
    // again, because it is not dropped; a name and an empty list of it are leaked.
    let engine = unsafe { ptr::read(engine) };
    Some(engine)
}
