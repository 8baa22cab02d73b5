//! The process that serves: it wires everything, and is the only place that names all edges.
//!
//! ```text
//! bind ─▶ look names up ─▶ first probes ─▶ accept ─▶ signal ─▶ pre_stop ─▶ drain ─▶ exit
//! ```
//! Three runtimes keep what must not wait for each other apart: requests, the admin port, and
//! probes with signals. The supervisor, which will own the sockets over reloads, stands above.

mod services;
mod signals;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pingora_core::services::background::BackgroundService as _;
use pingora_runtime::RuntimeBuilder;
use prometheus::Registry;
use tokio::sync::watch;

use self::services::{Running, Sockets};
use self::signals::Signals;
use crate::access_log::{AccessLog, Writer};
use crate::admin::{Admin, Readiness};
use crate::clock::Clock;
use crate::config::{Config, Threads};
use crate::exchange::event::{Event, Observer};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::probe::Prober;
use crate::proxy::Proxy;
use crate::proxy::accept::Connections;
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
    #[error("stopped before all was done: connections={0}")]
    Cut(usize),
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> WorkerError {
    move |source| WorkerError::System { doing, source }
}

/// How long the last log lines may take to be written, and the last scrape to be answered.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Serves until a signal says stop. `ready` is called once requests are accepted.
///
/// # Errors
/// [`WorkerError`], before anything is served if the start fails.
pub fn run(config: &Config, version: &str, ready: impl FnOnce()) -> Result<(), WorkerError> {
    let control = RuntimeBuilder::new(1, "weir-control").build();
    // First of all: the kernel drops a signal for which process 1 has no handler.
    let signals = {
        let _inside = control.get_handle().enter();
        Signals::new().map_err(system("watch for signals"))?
    };
    raise_file_limit();
    let (data_sockets, admin_sockets) = bind_all(config)?;
    let snapshot = Snapshot::new(config, version, fastrand::u64(..), look_up)?;
    let (parts, admin, log_writer) = assemble(config, snapshot)?;
    let admin = Running::start("admin", 1, admin_sockets, admin);
    let threads = threads(config.threads);
    let start = || {
        let accept = services::accept(config, &parts, threads);
        Running::start("data", threads, data_sockets, accept)
    };
    let (done, data) =
        control.get_handle().block_on(conduct(config, &parts, signals, start, ready));
    // What still runs was given its time.
    if let Some(data) = data {
        data.stop(Duration::ZERO);
    }
    admin.stop(FLUSH_MAX);
    control.shutdown_timeout(Duration::ZERO);
    if !log_writer.stop(FLUSH_MAX) {
        log::warn!("access log: its last lines could not be written in time");
    }
    done
}

/// What the parts of a worker share.
struct Parts {
    proxy: Proxy,
    connections: Arc<Connections>,
    readiness: Arc<Readiness>,
    prober: Arc<Prober>,
}

fn assemble(config: &Config, snapshot: Snapshot) -> Result<(Parts, Admin, Writer), WorkerError> {
    let clock = Clock::process();
    let registry = Registry::new();
    let metrics = Arc::new(Metrics::new(&registry, &snapshot)?);
    metrics.config_loaded(clock.wall(clock.now()));
    count_panics(&metrics);
    let (access_log, log_writer) =
        AccessLog::start(config.access_log, clock, &metrics.access_log_dropped())
            .map_err(system("start the access log"))?;
    let live = Arc::new(Live::new(snapshot));
    let readiness = Arc::new(Readiness::new());
    let parts = Parts {
        proxy: Proxy {
            live: Arc::clone(&live),
            observer: Arc::new(Watchers(Arc::clone(&metrics), access_log)),
            clock,
            draining: Arc::default(),
        },
        connections: Arc::new(Connections::new(metrics.downstream_connections())),
        readiness: Arc::clone(&readiness),
        prober: Arc::new(Prober::new(Arc::clone(&live), clock)),
    };
    let admin = Admin { live, metrics, registry, readiness, clock, loaded: clock.now() };
    Ok((parts, admin, log_writer))
}

/// From the first probe to the last connection. The service is given back, because a runtime
/// cannot be ended from within another.
async fn conduct(
    config: &Config,
    parts: &Parts,
    mut signals: Signals,
    start: impl FnOnce() -> Running,
    ready: impl FnOnce(),
) -> (Result<(), WorkerError>, Option<Running>) {
    let (_stops_with_us, probing) = watch::channel(false);
    let prober = Arc::clone(&parts.prober);
    tokio::spawn(async move { prober.start(probing).await });
    tokio::select! {
        () = parts.prober.first_pass() => {}
        () = signals.next() => return (Ok(()), None),
    }
    let mut data = start();
    parts.readiness.accept();
    warn_of_file_limit(config);
    ready();

    signals.next().await;
    log::info!("stopping: connections={}", parts.connections.open());
    parts.readiness.drain();
    tokio::select! {
        () = drain(config, parts, &mut data) => {}
        () = signals.next() => {}
    }
    let done = match parts.connections.open() {
        0 => Ok(()),
        open => Err(WorkerError::Cut(open)),
    };
    (done, Some(data))
}

async fn drain(config: &Config, parts: &Parts, data: &mut Running) {
    tokio::time::sleep(config.shutdown.pre_stop).await;
    parts.proxy.draining.store(true, Relaxed);
    data.drained().await;
}

/// The sockets for clients, and that of the admin port.
fn bind_all(config: &Config) -> Result<(Sockets, Sockets), BindError> {
    let one = |address: SocketAddr| bind(address).map(|socket| (address, socket));
    let data = config.listeners.iter().map(|listener| one(listener.address));
    Ok((data.collect::<Result<_, _>>()?, vec![one(config.admin.address)?]))
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

/// Says so if there may be more clients than descriptors: a client's connection takes one, and one
/// more to a backend for its request; and we need some ourselves.
fn warn_of_file_limit(config: &Config) {
    let wanted = u64::try_from(config.limits.connections.get()).unwrap_or(u64::MAX) * 2 + 256;
    if let Ok((limit, _)) = rlimit::Resource::NOFILE.get()
        && limit < wanted
    {
        log::warn!(
            "too few file descriptors: limit={limit} wanted={wanted} (help: raise the limit, \
             `ulimit -Hn` or LimitNOFILE=, or lower limits.connections)"
        );
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
