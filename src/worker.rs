//! The process that serves: it wires everything, and is the only place that names all edges.
//!
//! ```text
//! bind ─▶ look names up ─▶ first probes ─▶ accept ─▶ signal ─▶ pre_stop ─▶ drain ─▶ exit
//! ```
//! Three runtimes keep what must not wait for each other apart: requests, the admin port, and
//! probes with signals. The supervisor, which will own the sockets over reloads, stands above.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::{ListenerConfig, Listeners};
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds};
use pingora_core::services::Service as _;
use pingora_core::services::background::BackgroundService as _;
use pingora_core::services::listening::Service;
use pingora_runtime::{Runtime, RuntimeBuilder};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::admin::{Admin, Readiness};
use crate::clock::Clock;
use crate::config::{Config, Threads, limits};
use crate::exchange::event::{Event, Observer};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::probe::Prober;
use crate::proxy::Proxy;
use crate::proxy::accept::{Accept, AcceptLimits, Connections};
use crate::proxy::line::LineTimeouts;
use crate::runtime::snapshot::{LookupError, Snapshot};
use crate::sockets::{BindError, bind};

/// The worker could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An address could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A backend's name could not be looked up.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The system refused something that every program may ask for.
    #[error("cannot {doing}: {source}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A metric could not be registered.
    #[error("cannot register the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A second signal came, or the drain deadline passed.
    #[error("stopped with {0} connections still open")]
    Cut(usize),
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> WorkerError {
    move |source| WorkerError::System { doing, source }
}

/// How long the last log lines may take to be written.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The read buffer of a client connection. Small heads fit; a large one saves nothing and costs
/// its size for every idle connection.
const READ_BUFFER: usize = 4 * 1024;
/// The write buffer: one segment on most networks, so that a small head and body leave as one.
const WRITE_BUFFER: usize = 1460;
/// Idle connections kept to backends, per thread.
const KEPT_CONNECTIONS: usize = 1024;

/// Serves until a signal says stop. `ready` is called once requests are accepted.
///
/// # Errors
/// [`WorkerError`], before anything is served if the start fails.
pub fn run(config: &Config, version: &str, ready: impl FnOnce()) -> Result<(), WorkerError> {
    let clock = Clock::process();
    raise_file_limit();
    let (listeners, admin_listener) = bind_all(config)?;
    let seed = fastrand::u64(..);
    let snapshot = Snapshot::new(config, version, seed, look_up)?;
    let registry = prometheus::Registry::new();
    let metrics = Arc::new(Metrics::new(&registry, &snapshot)?);
    metrics.config_loaded(clock.wall(clock.now()));
    let lost = metrics.access_log_dropped();
    let (access_log, log_writer) = AccessLog::start(config.access_log, clock, &lost)
        .map_err(system("start the access log"))?;
    count_panics(&metrics);
    let live = Arc::new(Live::new(snapshot));
    let parts = Parts {
        clock,
        proxy: Proxy {
            live: Arc::clone(&live),
            observer: Arc::new(Watchers(Arc::clone(&metrics), access_log)),
            clock,
            draining: Arc::default(),
        },
        connections: Arc::new(Connections::new(metrics.downstream_connections())),
        readiness: Arc::default(),
        prober: Arc::new(Prober::new(Arc::clone(&live), clock)),
    };
    let served = serve(config, &parts, listeners, (admin_listener, registry, metrics), ready);
    if !log_writer.stop(FLUSH_MAX) {
        log::warn!("access log: its last lines could not be written in time");
    }
    served
}

/// What the parts of a worker share.
struct Parts {
    clock: Clock,
    proxy: Proxy,
    connections: Arc<Connections>,
    readiness: Arc<Readiness>,
    prober: Arc<Prober>,
}

fn serve(
    config: &Config,
    parts: &Parts,
    listeners: Vec<(SocketAddr, TcpListener)>,
    (admin_listener, registry, metrics): (TcpListener, prometheus::Registry, Arc<Metrics>),
    ready: impl FnOnce(),
) -> Result<(), WorkerError> {
    let control = RuntimeBuilder::new(1, "weir-control").build();
    let admin_runtime = RuntimeBuilder::new(1, "weir-admin").build();
    let threads = threads(config.threads);
    let data = RuntimeBuilder::new(threads, "weir-data").work_steal(threads > 1).build();
    let (stop_background, background) = watch::channel(false);

    let admin = Admin {
        registry,
        metrics,
        live: Arc::clone(&parts.proxy.live),
        readiness: Arc::clone(&parts.readiness),
        clock: parts.clock,
        loaded: parts.clock.now(),
    };
    let mut admin = service("admin", [config.admin.address], admin);
    let (admin_fds, stop_admin) =
        (hand_over(vec![(config.admin.address, admin_listener)]), background.clone());
    admin_runtime
        .get_handle()
        .spawn(async move { admin.start_service(Some(admin_fds), stop_admin, 1).await });
    let done = control.get_handle().block_on(conduct(
        config,
        parts,
        (&data, threads),
        listeners,
        background,
        ready,
    ));
    stop_background.send_replace(true);
    // What is still running was given its time.
    data.shutdown_timeout(Duration::ZERO);
    admin_runtime.shutdown_timeout(FLUSH_MAX);
    control.shutdown_timeout(Duration::ZERO);
    done
}

/// From the first probe to the last connection.
async fn conduct(
    config: &Config,
    parts: &Parts,
    (data, threads): (&Runtime, usize),
    listeners: Vec<(SocketAddr, TcpListener)>,
    background: watch::Receiver<bool>,
    ready: impl FnOnce(),
) -> Result<(), WorkerError> {
    let mut signals = Signals::new().map_err(system("watch for signals"))?;
    let probing = Arc::clone(&parts.prober);
    tokio::spawn(async move { probing.start(background).await });
    tokio::select! {
        () = parts.prober.first_pass() => {}
        () = signals.next() => return Ok(()),
    }

    let (stop_accepting, shutdown) = watch::channel(false);
    let mut service = data_service(config, parts, threads, &listeners);
    let fds = hand_over(listeners);
    let mut serving =
        data.get_handle().spawn(async move { service.start_service(Some(fds), shutdown, 1).await });
    parts.readiness.accept();
    ready();

    signals.next().await;
    log::info!("stopping: connections={}", parts.connections.open());
    parts.readiness.drain();
    tokio::select! {
        () = tokio::time::sleep(config.shutdown.pre_stop) => {}
        () = signals.next() => return Err(WorkerError::Cut(parts.connections.open())),
    }
    parts.proxy.draining.store(true, Relaxed);
    stop_accepting.send_replace(true);
    tokio::select! {
        _ended = &mut serving => {}
        () = signals.next() => {}
    }
    match parts.connections.open() {
        0 => Ok(()),
        open => Err(WorkerError::Cut(open)),
    }
}

fn data_service(
    config: &Config,
    parts: &Parts,
    threads: usize,
    listeners: &[(SocketAddr, TcpListener)],
) -> Service<Accept> {
    let conf = Arc::new(ServerConf {
        threads,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        // Pingora's own bound counts attempts too; ours is the retry policy.
        max_retries: usize::from(limits::ATTEMPTS_MAX) + 1,
        ..ServerConf::default()
    });
    let mut proxy = pingora_proxy::http_proxy(&conf, parts.proxy.clone());
    // Our own refusal of CONNECT says which methods are served, and is logged as what it is.
    let mut options = HttpServerOptions::default();
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
    let accept = Accept::new(proxy, parts.proxy.clone(), Arc::clone(&parts.connections), limits);
    service("data", listeners.iter().map(|(address, _)| *address), accept)
}

/// Serves these addresses with `app`.
fn service<A>(name: &str, addresses: impl IntoIterator<Item = SocketAddr>, app: A) -> Service<A> {
    let mut endpoints = Listeners::new();
    for address in addresses {
        let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
        endpoints.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(buffers));
    }
    Service::with_listeners(name.to_owned(), endpoints, app)
}

/// Gives the sockets to Pingora, which looks them up by the address as written.
fn hand_over(listeners: Vec<(SocketAddr, TcpListener)>) -> ListenFds {
    let mut fds = Fds::new();
    for (address, listener) in listeners {
        fds.add(address.to_string(), listener.into_raw_fd());
    }
    Arc::new(parking_lot::Mutex::new(fds))
}

type Bound = (Vec<(SocketAddr, TcpListener)>, TcpListener);

fn bind_all(config: &Config) -> Result<Bound, BindError> {
    let bound = config.listeners.iter().map(|listener| {
        let address = listener.address;
        bind(address).map(|socket| (address, socket))
    });
    Ok((bound.collect::<Result<_, _>>()?, bind(config.admin.address)?))
}

/// The first address of a name, an IPv4 one if there is any: a backend that listens on both is
/// reached either way, one that does not is more often on IPv4.
fn look_up(name: &str, port: u16) -> Result<SocketAddr, String> {
    let found = (name, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| "the name has no address".to_owned())
}

fn threads(threads: Threads) -> usize {
    match threads {
        Threads::Count(count) => count.get(),
        // Knows of CPU affinity and of the cgroup's quota.
        Threads::Auto => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Every connection takes a file descriptor, and the usual soft limit of 1024 is for programs
/// that use `select`.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => log::debug!("file descriptors: limit={limit}"),
        Err(error) => log::warn!("the limit of file descriptors could not be raised: {error}"),
    }
}

/// A panic in a hook ends one request. It must not go unseen.
fn count_panics(metrics: &Metrics) {
    let panics = metrics.panics();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        panics.inc();
        log::error!("panic: {panic}");
        before(panic);
    }));
}

/// Metrics and access log, in one observer.
struct Watchers(Arc<Metrics>, Arc<AccessLog>);

impl Observer for Watchers {
    fn observe(&self, event: &Event<'_>) {
        self.0.observe(event);
        self.1.observe(event);
    }
}

/// The signals that say stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
