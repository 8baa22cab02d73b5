//! Pingora's `HttpProxy` with our own connector for HTTP/2.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;

use pingora_core::connectors::ConnectorOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};

use crate::proxy::Proxy;
use crate::upstream::http2::Connector;

/// What carries requests to backends.
pub type Engine = HttpProxy<Proxy, Connector>;

/// Makes it. `None` if Pingora has changed.
///
/// Pingora makes an `HttpProxy` with a connector of one's own only inside a service of its own,
/// which binds and accepts, and gives it to nobody; ours has to be where connections are accepted.
#[must_use]
pub fn build(conf: &Arc<ServerConf>, proxy: Proxy) -> Option<Engine> {
    let connector = Connector::new(ConnectorOptions::from_server_conf(conf));
    // No client's connection is led there: none has a protocol that Pingora does not know.
    let nobody: ProcessCustomSession<Proxy, Connector> =
        Arc::new(|_, _, _| Box::pin(async { None }));
    let service = ProxyServiceBuilder::new(conf, proxy).custom(connector, nobody).build();
    let service = ManuallyDrop::new(service);
    let engine = service.app_logic()?;
    #[expect(unsafe_code, reason = "a value cannot be had of a service otherwise")]
    // SAFETY: `engine` points to a whole value. It is owned from here on, and never used by the
    // service again, which is not dropped: the rest of it, a name and an empty list, is left.
    let engine = unsafe { ptr::read(engine) };
    Some(engine)
}
