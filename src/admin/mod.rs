//! (in the making)
use std::sync::Arc;
pub struct Admin {
    pub registry: prometheus::Registry,
    pub metrics: Arc<crate::metrics::Metrics>,
    pub live: Arc<crate::live::Live>,
    pub connections: Arc<crate::proxy::accept::Connections>,
    pub readiness: Arc<Readiness>,
    pub clock: crate::clock::Clock,
}
#[derive(Default)]
pub struct Readiness;
impl Readiness {
    pub fn accepting(&self, _: bool) {}
    pub fn draining(&self, _: bool) {}
}
impl Admin {
    pub async fn serve(self, _l: std::net::TcpListener, mut s: tokio::sync::watch::Receiver<bool>) {
        s.changed().await.ok();
    }
}
