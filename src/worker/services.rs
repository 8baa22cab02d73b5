//! Pingora's services, on sockets that are bound already.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::listeners::{ListenerConfig, Listeners};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_runtime::{Runtime, RuntimeBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Parts;
use crate::config::{Config, limits};
use crate::proxy::accept::{Accept, AcceptLimits};
use crate::proxy::line::LineTimeouts;

/// The read buffer of a client connection. Small heads fit; a large one saves nothing and costs
/// its size for every idle connection.
const READ_BUFFER: usize = 4 * 1024;
/// The write buffer: one segment on most networks, so that a small head and body leave as one.
const WRITE_BUFFER: usize = 1460;
/// Idle connections kept to backends, per thread.
const KEPT_CONNECTIONS: usize = 1024;

/// Listening sockets, each with its address.
pub(super) type Sockets = Vec<(SocketAddr, TcpListener)>;

/// A service on a runtime of its own.
pub(super) struct Running {
    runtime: Runtime,
    ended: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Serves `sockets` with `app`. They are Pingora's from now on, which looks them up by the
    /// address as written.
    pub(super) fn start<A>(name: &str, threads: usize, sockets: Sockets, app: A) -> Self
    where
        A: ServerApp + Send + Sync + 'static,
    {
        let mut fds = Fds::new();
        let mut endpoints = Listeners::new();
        for (address, socket) in sockets {
            let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
            endpoints.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffers));
            fds.add(address.to_string(), socket.into_raw_fd());
        }
        let mut service = Service::with_listeners(name.to_owned(), endpoints, app);
        // With one thread there is nothing to steal, and the simpler scheduler is cheaper.
        let steal = threads > 1;
        let runtime =
            RuntimeBuilder::new(threads, &format!("weir-{name}")).work_steal(steal).build();
        let (stop, stopped) = watch::channel(false);
        let fds = Some(Arc::new(parking_lot::Mutex::new(fds)));
        let ended =
            runtime.get_handle().spawn(async move { service.start_service(fds, stopped, 1).await });
        Self { runtime, ended, stop }
    }

    /// Stops accepting.
    pub(super) fn close(&self) {
        self.stop.send_replace(true);
    }

    /// Stops accepting, and returns when the app has cleaned up after its last connection.
    pub(super) async fn drained(&mut self) {
        self.close();
        if let Err(error) = (&mut self.ended).await {
            log::error!("a service did not end well: error=\"{error}\"");
        }
    }

    /// Ends what still runs; it gets `patience` to notice.
    pub(super) fn stop(self, patience: Duration) {
        self.stop.send_replace(true);
        self.runtime.shutdown_timeout(patience);
    }
}

/// What serves clients.
pub(super) fn accept(config: &Config, parts: &Parts, threads: usize) -> Accept {
    let conf = Arc::new(ServerConf {
        threads,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        // Pingora's own bound counts attempts too; ours is the retry policy.
        max_retries: usize::from(limits::ATTEMPTS_MAX) + 1,
        ..ServerConf::default()
    });
    let mut proxy = pingora_proxy::http_proxy(&conf, parts.proxy.clone());
    let mut options = HttpServerOptions::default();
    // So that CONNECT comes as far as our own 405, and into the log.
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    let limits = AcceptLimits {
        connections: config.limits.connections.get(),
        timeouts: LineTimeouts {
            header: config.limits.header_timeout,
            keepalive: config.limits.keepalive,
        },
        drain: config.shutdown.drain,
    };
    Accept::new(proxy, parts.proxy.clone(), Arc::clone(&parts.connections), limits)
}

/// An app that several services share.
pub(super) struct Shared<A>(pub(super) Arc<A>);

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Shared<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.0.process_new_http(session, shutdown).await
    }
}
