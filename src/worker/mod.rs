//! The process that serves. It creates and connects all other modules.
//!
//! ```text
//! start ─▶ look names up ─▶ first health checks ─▶ warm ─▶ take over ─▶ ready ─▶ drain ─▶ exit
//! ```
//! Four runtimes separate what must not wait for each other: requests (`weir-data`), the admin port
//! (`weir-admin`), health checks (`weir-background`), and the supervisor's orders (`weir-control`). The
//! sockets belong to the supervisor; a worker has copies.

mod admin_port;
mod budget;
mod cert_watcher;
mod commands;
mod heartbeat;
mod memory;
mod orders;
mod reports;
mod run;
mod services;
mod shutdown;
mod signals;

use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::RwLock;
use pingora_core::services::background::background_service;
use pingora_runtime::RuntimeBuilder;
use prometheus::Registry;

use self::admin_port::AdminPort;
use self::run::{RunParts, WorkerRun};
use self::services::{Background, Sockets};
use self::shutdown::Shutdown;
use self::signals::Signals;
use crate::access_log::{AccessLog, AccessLogWriter};
use crate::admin::{Admin, Readiness};
use crate::clock::Clock;
use crate::config::{Config, Listener, Problem, Problems, Threads};
use crate::current::CurrentSnapshot;
use crate::downstream::handshake::ListenerContext;
use crate::downstream::tracker::ConnectionTracker;
use crate::exchange::event::{ExchangeEvent, Observer};
use crate::lifecycle::serving_state::SharedServingState;
use crate::link::{Link, Start, State, ToSupervisor, ToWorker};
use crate::log::Log;
use crate::metrics::{ConnectionMetrics, Metrics, SnapshotMetrics};
use crate::probe::Prober;
use crate::proxy::Proxy;
use crate::resolve::{Followed, Follower, ResolvedNames};
use crate::runtime::handoff::Handoff;
use crate::runtime::snapshot::Snapshot;
use crate::tls;
use crate::tls::last_good::LastGoodFiles;
use crate::tls::terminator::Terminator;
use crate::tls::tickets::{TicketKeys, Tickets};
use crate::upstream::UpstreamPeers;

/// The worker could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What it was for.
        doing: &'static str,
        /// The error.
        source: std::io::Error,
    },
    /// A metric could not be registered.
    #[error("cannot register the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The configuration is rejected. The supervisor has accepted it, but a newer binary may decide
    /// otherwise.
    #[error("the configuration is rejected:\n{0}")]
    Config(String),
    /// TLS cannot be set up with these settings.
    #[error("no TLS with clients can be made: {0}")]
    Tls(Problem),
    /// Connections were closed by force.
    #[error("stopped before all was done: connections={0}")]
    ForcedStop(usize),
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> WorkerError {
    move |source| WorkerError::System { doing, source }
}

/// How long the last lines of both logs may take to be written, and the last scrape to be answered.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Names the process after the first word of its command line. The kernel names it after the path by which
/// it was started, and that may be `/proc/self/exe` or `/proc/self/fd/9`.
pub fn set_process_name() {
    let word = env::args_os().next();
    let name = word.as_deref().map(Path::new).and_then(Path::file_name);
    let name = name.and_then(|name| CString::new(name.as_bytes()).ok());
    if let Err(error) = rustix::thread::set_name(name.as_deref().unwrap_or(c"weir")) {
        log::debug!("process not named: error=\"{error}\"");
    }
}

/// Serves what the supervisor sends, until it orders a stop. `load` checks the text of a configuration
/// file. The worker has to be ready within `ready_timeout`.
///
/// # Errors
/// [`WorkerError`]; it was sent to the supervisor.
pub fn run(
    load: impl Fn(Option<&[u8]>) -> Result<Config, Problems>,
    ready_timeout: Duration,
    log: &Log,
) -> Result<(), WorkerError> {
    let link = Arc::new(Link::standard_input().map_err(system("find the supervisor"))?);
    let served = serve(&link, load, ready_timeout / 2, log);
    if let Err(error) = &served
        && let Err(gone) = link.send(&ToSupervisor::Failed(error.to_string()))
    {
        log::debug!("message not sent to the supervisor: error=\"{gone}\"");
    }
    served
}

fn serve(
    link: &Arc<Link>,
    load: impl Fn(Option<&[u8]>) -> Result<Config, Problems>,
    first_checks_max: Duration,
    log: &Log,
) -> Result<(), WorkerError> {
    let control = RuntimeBuilder::new(1, "weir-control").build();
    let signals = {
        let _inside = control.get_handle().enter();
        Signals::new().map_err(system("watch for signals"))?
    };
    raise_file_limit();
    let (start, mut sockets) = receive_start(link).map_err(system("receive what to serve"))?;
    let config = load(start.text.as_deref().map(str::as_bytes))
        .map_err(|problems| WorkerError::Config(problems.to_string()))?;
    let mut admin_port = admin_port(&config, &mut sockets);
    if start.is_alone {
        // Before names are looked up and backends are checked, which may take long.
        admin_port.start().map_err(system("serve the admin port"))?;
    }
    let state = start.state.unwrap_or_default();
    let seed = state.handoff.seed().unwrap_or_else(|| fastrand::u64(..));
    let names = ResolvedNames::look_up(&config, &state.handoff);
    let snapshot =
        Snapshot::new(&config, &start.version, seed, |host, port| names.lookup(host, port));
    let snapshot = names.with_members(snapshot, &state.handoff, Clock::process().now());
    // Before it reports that it knows overrides.
    snapshot.overrides.set(Arc::new(start.overrides));
    snapshot.apply_overrides(Clock::process().now());
    report_names(link, &snapshot);
    state.handoff.import_health(&snapshot, Clock::process().now());
    let last_good = state.files.unwrap_or_default();
    let (listeners, tickets) = listeners(&config, state.tickets, &last_good)?;
    let (components, admin, log_writer) =
        assemble(&config, Prepared { snapshot, names, listeners, tickets }, &last_good)?;
    admin.metrics.show_log_dropped(log.dropped_counter())?;
    let shutdown = Shutdown::new(log_writer, log.clone());
    let parts = RunParts { admin, admin_port, sockets, shutdown };
    let mut run = WorkerRun::new(&config, components, Arc::clone(link), parts);
    run.apply_supervisor_state(&start.supervision);
    let orders = orders::listen(link).map_err(system("read the orders of the supervisor"))?;
    let result = control.get_handle().block_on(run.run(orders, signals, first_checks_max));
    control.shutdown_timeout(Duration::ZERO);
    result
}

/// The first message, and the sockets that come with it.
fn receive_start(link: &Link) -> std::io::Result<(Start, Sockets)> {
    let Some(ToWorker::Start(start)) = link.receive()? else {
        return Err(std::io::Error::other("a worker is started by the supervisor alone"));
    };
    let sockets = link.receive_sockets(start.sockets.len())?;
    let sockets = start.sockets.iter().copied().zip(sockets).collect();
    Ok((*start, sockets))
}

/// The admin port, with its socket taken out of `sockets`.
fn admin_port(config: &Config, sockets: &mut Sockets) -> AdminPort {
    let at = sockets.iter().position(|(address, _)| *address == config.admin.address);
    AdminPort::new(at.map(|at| sockets.swap_remove(at).1))
}

/// What the components of a worker share.
struct Components {
    proxy: Proxy,
    connections: Arc<ConnectionTracker>,
    connection_metrics: ConnectionMetrics,
    listeners: Vec<ListenerContext>,
    tickets: Arc<Tickets>,
    prober: Arc<Prober>,
    /// Run from the start until it drains.
    background: Vec<Background>,
}

/// Every listener, with its TLS. The supervisor has looked at the files, but that may be long ago:
/// a broken one must not keep a worker from serving all the rest.
fn listeners(
    config: &Config,
    keys: Option<TicketKeys>,
    last_good: &LastGoodFiles,
) -> Result<(Vec<ListenerContext>, Arc<Tickets>), WorkerError> {
    let clock = Clock::process();
    let now = clock.wall(clock.now());
    let tickets = Tickets::new(now)
        .ok_or_else(|| system("make a key")(std::io::Error::other("no random numbers")))?;
    if let Some(keys) = keys {
        tickets.import(keys);
    }
    let tickets = Arc::new(tickets);
    let context = |listener: &Listener| {
        let mut context = ListenerContext { listener: listener.clone(), terminator: None };
        if let Some(tls) = listener.tls.clone() {
            let made = Terminator::new(listener, tls, Arc::clone(&tickets), last_good, now);
            let (terminator, found) = made.map_err(WorkerError::Tls)?;
            cert_watcher::warn(&found);
            context.terminator = Some(Arc::new(terminator));
        }
        Ok(context)
    };
    let contexts: Result<Vec<_>, WorkerError> = config.listeners.iter().map(context).collect();
    Ok((contexts?, tickets))
}

/// What is made from the configuration and the state of the predecessor.
struct Prepared {
    snapshot: Snapshot,
    names: ResolvedNames,
    listeners: Vec<ListenerContext>,
    tickets: Arc<Tickets>,
}

fn assemble(
    config: &Config,
    prepared: Prepared,
    last_good: &LastGoodFiles,
) -> Result<(Components, Admin, AccessLogWriter), WorkerError> {
    let Prepared { snapshot, names, listeners, tickets } = prepared;
    let clock = Clock::process();
    let registry = Registry::new();
    let trust = tls::upstream::open(config, last_good, clock.wall(clock.now()));
    trust.found.iter().for_each(cert_watcher::warn);
    let upstreams = UpstreamPeers::new(&config.pools, trust);
    let upstreams = Arc::new(upstreams.map_err(system("keep the system's root certificates"))?);
    let metrics = Arc::new(Metrics::new(&registry, &snapshot)?);
    metrics.config_loaded(clock.wall(clock.now()));
    count_panics(&metrics);
    let (access_log, log_writer) =
        AccessLog::start(config.access_log, clock, &metrics.access_log_dropped())
            .map_err(system("start the access log"))?;
    let snapshot = Arc::new(snapshot);
    let observe = move |metrics: SnapshotMetrics| -> Arc<dyn Observer> {
        Arc::new(Observers(metrics, Arc::clone(&access_log)))
    };
    let observer = observe(SnapshotMetrics::new(&metrics));
    let current = Arc::new(CurrentSnapshot::new(snapshot, observer));
    let serving = Arc::new(SharedServingState::default());
    let follower = Follower::new(
        Followed {
            current: Arc::clone(&current),
            metrics: Arc::clone(&metrics),
            observe: Arc::new(observe),
            clock,
        },
        names,
    );
    let resolved = follower.subscribe();
    let prober = Prober::new(Arc::clone(&current), Arc::clone(&upstreams), clock, resolved);
    let checks = background_service("health checks", prober);
    let components = Components {
        proxy: Proxy {
            current: Arc::clone(&current),
            upstreams: Arc::clone(&upstreams),
            clock,
            serving: Arc::clone(&serving),
        },
        connections: Arc::new(ConnectionTracker::new(metrics.connections().open.clone())),
        connection_metrics: metrics.connections().clone(),
        listeners,
        tickets,
        prober: checks.task(),
        background: vec![Box::new(checks), Box::new(background_service("names", follower))],
    };
    let admin = Admin {
        current,
        metrics,
        registry,
        readiness: Readiness::new(serving),
        ready_when: config.admin.ready_when.clone(),
        clock,
        loaded: clock.now(),
        uptime_before_ns: AtomicU64::new(0),
        frozen: RwLock::default(),
    };
    Ok((components, admin, log_writer))
}

/// Sends the addresses of host names to the supervisor, for its report of a reload. It is a checkpoint
/// with nothing else but the version of the overrides; a supervisor that does not know this ignores it.
fn report_names(link: &Link, snapshot: &Snapshot) {
    let overrides = Some(snapshot.overrides.get().version);
    let state = State { handoff: Handoff::export_names(snapshot), overrides, ..State::default() };
    if let Err(error) = link.send(&ToSupervisor::Checkpoint(Box::new(state))) {
        log::debug!("host names not reported: error=\"{error}\"");
    }
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

/// How many file descriptors this process may have.
fn rlimit_of_files() -> u64 {
    rlimit::Resource::NOFILE.get().map_or(1024, |(soft, _)| soft)
}

/// Counts panics. One in a hook ends one request, and must be noticed.
fn count_panics(metrics: &Metrics) {
    let panics = metrics.panics();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        panics.inc();
        // Logs it.
        before(panic);
    }));
}

/// Metrics and access log, in one observer.
struct Observers(SnapshotMetrics, Arc<AccessLog>);

impl Observer for Observers {
    fn observe(&self, event: &ExchangeEvent<'_>) {
        self.0.observe(event);
        self.1.observe(event);
    }
}
