//! Pingora's services, on sockets that are bound already.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::listeners::{ListenerConfig, Listeners};
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds};
use pingora_core::services::listening::Service;
use pingora_core::services::{Service as AnyService, ServiceReadyNotifier, ServiceWithDependents};
use pingora_runtime::{Runtime, RuntimeBuilder};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::budget::Budget;
use super::{Components, memory};
use crate::config::{Config, limits};
use crate::downstream::connection_state::DownstreamTimeouts;
use crate::downstream::listener_app::ListenerApp;
use crate::downstream::server::{DownstreamLimits, DownstreamServer};
use crate::proxy::pingora::engine;
use crate::proxy::service::ProxyService;
use crate::sockets;

/// The read buffer of a client connection. Small heads fit; a large one saves nothing and costs
/// its size for every idle connection.
const READ_BUFFER: usize = 4 * 1024;
/// The write buffer: one segment on most networks, so that a small head and body leave as one.
const WRITE_BUFFER: usize = 1460;

/// Listening sockets, each with its address.
pub(super) type Sockets = Vec<(SocketAddr, TcpListener)>;

/// One of Pingora's background services.
pub(super) type Background = Box<dyn ServiceWithDependents>;

/// The threads of a runtime.
pub(super) struct RuntimeThreads {
    pub(super) name: &'static str,
    pub(super) threads: usize,
    /// Whether a thread takes work of others. A runtime that may end before the process does needs it:
    /// a thread of the other kind leaves its runtime behind for the next thread with its number
    /// (Pingora's `CURRENT_HANDLE`), and whatever that one spawns is lost.
    pub(super) steals: bool,
}

/// A service on a runtime of its own.
pub(super) struct Running {
    runtime: Runtime,
    services: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Serves each listener's sockets with its app. They are Pingora's from now on, which looks
    /// them up by the address as written.
    pub(super) fn start<A>(on: RuntimeThreads, listeners: Vec<(Sockets, A)>) -> Self
    where
        A: ServerApp + Send + Sync + 'static,
    {
        let RuntimeThreads { name, threads, steals } = on;
        let runtime =
            RuntimeBuilder::new(threads, &format!("weir-{name}")).work_steal(steals).build();
        let (stop, _) = watch::channel(false);
        let mut services = JoinSet::new();
        for (sockets, app) in listeners {
            let (mut service, fds) = service(name, sockets, app);
            let stopped = stop.subscribe();
            services.spawn_on(
                async move { AnyService::start_service(&mut service, fds, stopped, 1).await },
                runtime.get_handle(),
            );
        }
        Self { runtime, services, stop }
    }

    /// The threads that it runs on.
    pub(super) const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Runs background services on a thread of their own.
    pub(super) fn background(name: &str, background: Vec<Background>) -> Self {
        let runtime = RuntimeBuilder::new(1, &format!("weir-{name}")).build();
        let (stop, _) = watch::channel(false);
        let mut services = JoinSet::new();
        for mut service in background {
            let stopped = stop.subscribe();
            // Nothing depends on them by Pingora's means.
            let ready = ServiceReadyNotifier::new(watch::Sender::new(false));
            services.spawn_on(
                async move { service.start_service(None, stopped, 1, ready).await },
                runtime.get_handle(),
            );
        }
        Self { runtime, services, stop }
    }

    /// Stops accepting, or what runs in the background.
    pub(super) fn close(&self) {
        self.stop.send_replace(true);
    }

    /// Stops accepting, and returns when the app has cleaned up after its last connection.
    pub(super) async fn drained(&mut self) {
        self.close();
        while let Some(ended) = self.services.join_next().await {
            if let Err(error) = ended {
                log::error!("a service did not end well: error=\"{error}\"");
            }
        }
    }

    /// Ends what still runs; it has `timeout` to notice.
    pub(super) fn stop(self, timeout: Duration) {
        self.stop.send_replace(true);
        self.runtime.shutdown_timeout(timeout);
    }
}

/// A service of Pingora's over sockets that are bound already.
fn service<A>(name: &str, sockets: Sockets, app: A) -> (Service<A>, Option<ListenFds>)
where
    A: ServerApp + Send + Sync + 'static,
{
    let mut fds = Fds::new();
    let mut endpoints = Listeners::new();
    for (address, socket) in sockets {
        if let Err(error) = sockets::limit_unsent(&socket) {
            log::warn!("send buffers not limited: listener={address} error=\"{error}\"");
        }
        let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
        endpoints.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffers));
        fds.add(address.to_string(), socket.into_raw_fd());
    }
    let service = Service::with_listeners(name.to_owned(), endpoints, app);
    (service, Some(Arc::new(parking_lot::Mutex::new(fds))))
}

/// What serves clients: one app for each listener, with its socket.
pub(super) fn listener_apps(
    config: &Config,
    components: &Components,
    threads: usize,
    sockets: Sockets,
) -> io::Result<Vec<(Sockets, ListenerApp<ProxyService>)>> {
    let server = Arc::new(server(config, components, threads)?);
    let app = |(address, socket): (SocketAddr, TcpListener)| {
        // A listener that only a newer supervisor knows is not served.
        let context = components.listeners.iter().find(|it| it.listener.address == address)?;
        Some((vec![(address, socket)], ListenerApp::new(Arc::clone(&server), context.clone())))
    };
    Ok(sockets.into_iter().filter_map(app).collect())
}

fn server(
    config: &Config,
    components: &Components,
    threads: usize,
) -> io::Result<DownstreamServer<ProxyService>> {
    let budget = Budget::of_process(threads, &config.limits);
    let conf = Arc::new(ServerConf {
        threads,
        upstream_keepalive_pool_size: budget.keepalive,
        ca_file: Some(components.proxy.upstreams.roots()),
        // Pingora's own bound counts attempts too; ours is the retry policy.
        max_retries: usize::from(limits::ATTEMPTS_MAX) + 1,
        ..ServerConf::default()
    });
    let mut proxy = engine::build(&conf, components.proxy.clone())
        .ok_or_else(|| io::Error::other("Pingora gives no access to it"))?;
    let mut options = HttpServerOptions::default();
    // So that CONNECT comes as far as our own 405, and into the log.
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    let limits = DownstreamLimits {
        connections: budget.connections,
        rejected: budget.rejected,
        per_client: config.limits.connections_per_client.map_or(usize::MAX, NonZero::get),
        head: config.limits.head,
        http2: config.limits.http2,
        min_rate: config.limits.min_rate,
        half_closed: config.limits.half_closed,
        response_buffers: config.limits.response_buffers.bytes(memory::memory_limit()),
        timeouts: DownstreamTimeouts {
            request_header: config.limits.header_timeout,
            keepalive_idle: config.limits.keepalive,
            tunnel_drain: config.shutdown.tunnels,
            max_requests: config.limits.requests_per_connection,
        },
        drain: config.shutdown.drain,
    };
    let (clock, connections) = (components.proxy.clock, Arc::clone(&components.connections));
    let service = ProxyService::new(proxy, components.proxy.clone());
    Ok(DownstreamServer::new(service, clock, connections, &components.connection_metrics, limits))
}
