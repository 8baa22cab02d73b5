//! Active health checks of every backend.
//!
//! Each backend has its own task, so a probe that hangs delays no other. All backends are probed at
//! once at the start, because no backend gets requests before its first success. The second probe
//! then follows after a random part of the interval, and the interval itself varies, so that many
//! backends (and many balancers) do not probe at the same time.

mod grpc;
mod http;
mod target;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use humantime::format_duration;
use log::{info, warn};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use pingora_error::{Error, ErrorType};
use pingora_load_balancing::health_check;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::config::{self, HealthCheck};
use crate::current::CurrentSnapshot;
use crate::descriptors::Reserve;
use crate::name::PoolName;
use crate::probe::grpc::GrpcProbe;
use crate::probe::http::HttpProbe;
use crate::probe::target::{UNEXPECTED, target};
use crate::probe::tcp::TcpProbe;
use crate::runtime::backend::Backend;
use crate::runtime::ids::PoolId;
use crate::runtime::pool::{Pick, Pool};
use crate::runtime::waiters::Waiters;
use crate::upstream::shortage::{self, Shortage};
use crate::upstream::{UpstreamPeers, error_kinds, tls_error};

/// Pingora's interface for one health check of one backend. It may be dropped at any time, and has
/// no timeout of its own.
type Probe = dyn health_check::HealthCheck + Send + Sync;

/// Each result is reported; `Hysteresis` counts consecutive ones.
const EACH_RESULT: usize = 1;

/// Descriptors reserved for probes, to be used when clients have taken all others. Each is released
/// for one probe at a time, so a few are enough for many backends.
const DESCRIPTORS_RESERVED: usize = 8;

/// Why a probe failed.
#[derive(Debug)]
enum ProbeFailure {
    /// The backend failed.
    Backend(String),
    /// Weir could not probe because it lacked a descriptor or memory. The backend's health is
    /// unknown.
    Local(String),
}

/// Probes every backend of every pool that has a health check.
#[derive(Debug)]
pub struct Prober {
    current: Arc<CurrentSnapshot>,
    upstreams: Arc<UpstreamPeers>,
    clock: Clock,
    /// Notified when the host name of a backend has been resolved.
    resolved: watch::Receiver<()>,
    reserve: Arc<Reserve>,
    /// The backends of the start that the worker waits for, by their addresses in memory.
    awaited: HashSet<usize>,
    /// How many of them have no result yet.
    missing: Arc<watch::Sender<usize>>,
}

impl Prober {
    /// Probes the backends of the current snapshot. `resolved` is notified when the host
    /// name of a backend has been resolved.
    #[must_use]
    pub fn new(
        current: Arc<CurrentSnapshot>,
        upstreams: Arc<UpstreamPeers>,
        clock: Clock,
        resolved: watch::Receiver<()>,
    ) -> Self {
        let snapshot = current.snapshot();
        let checked = snapshot.pools.iter().filter(|pool| pool.health_check.is_some());
        let backends = checked.flat_map(|pool| pool.members.iter().map(|member| &member.backend));
        let awaited = backends.filter(|backend| is_awaited(backend));
        let awaited: HashSet<usize> = awaited.map(|backend| Arc::as_ptr(backend).addr()).collect();
        let missing = watch::Sender::new(awaited.len());
        let reserve = Arc::new(Reserve::new(DESCRIPTORS_RESERVED));
        Self { current, upstreams, clock, resolved, reserve, awaited, missing: Arc::new(missing) }
    }

    /// Waits until every backend with unknown health has had its first result. While the prober
    /// runs, this takes at most the longest timeout of a health check. If the prober is stopped
    /// before, it never completes.
    pub async fn initial_probes_done(&self) {
        // `self` owns the sender, so the channel cannot be closed.
        self.missing.subscribe().wait_for(|missing| *missing == 0).await.ok();
    }

    /// Starts the loops of backends that are new, and ends those of backends that are gone.
    fn follow(&self, running: &mut RunningProbes) {
        let snapshot = self.current.snapshot();
        let mut gone = std::mem::take(&mut running.loops);
        for (id, pool) in snapshot.pools.entries() {
            let Some(check) = &pool.health_check else { continue };
            let mut probe: Option<Arc<Probe>> = None;
            for backend in pool.members.iter().map(|member| &member.backend) {
                let key = Arc::as_ptr(backend).addr();
                if let Some(known) = gone.remove(&key) {
                    running.loops.insert(key, known);
                    continue;
                }
                let probe = probe.get_or_insert_with(|| self.probe(id, check));
                let Some(probe_loop) = self.probe_loop(id, pool, backend, probe) else { continue };
                let task = running.tasks.spawn(probe_loop.run());
                running.loops.insert(key, RunningLoop { task, _backend: Arc::clone(backend) });
            }
        }
        gone.values().for_each(|gone| gone.task.abort());
        // Forgets the tasks that have ended.
        while running.tasks.try_join_next().is_some() {}
    }

    fn probe(&self, pool: PoolId, check: &HealthCheck) -> Arc<Probe> {
        let options = self.upstreams.connector_options(pool);
        match &check.probe {
            config::Probe::Tcp => Arc::new(TcpProbe::new(options)),
            config::Probe::Grpc { service } => Arc::new(GrpcProbe::new(service, options)),
            config::Probe::Http { path, host, status, body } => {
                let (host, body) = (host.as_deref(), body.as_deref());
                Arc::new(HttpProbe::new(path, host, status, body, options))
            }
        }
    }

    fn probe_loop(
        &self,
        id: PoolId,
        pool: &Pool,
        backend: &Arc<Backend>,
        probe: &Arc<Probe>,
    ) -> Option<ProbeLoop> {
        let is_awaited = self.awaited.contains(&Arc::as_ptr(backend).addr());
        Some(ProbeLoop {
            pool: pool.name.clone(),
            pool_id: id,
            waiters: pool.waiters.clone(),
            backend: Arc::clone(backend),
            upstreams: Arc::clone(&self.upstreams),
            check: pool.health_check.clone()?,
            probe: Arc::clone(probe),
            clock: self.clock,
            resolved: self.resolved.clone(),
            reserve: Arc::clone(&self.reserve),
            missing: is_awaited.then(|| Missing(Arc::clone(&self.missing))),
        })
    }
}

/// The loops that run.
#[derive(Default)]
struct RunningProbes {
    tasks: JoinSet<()>,
    /// By the address of the backend in memory, which stays the same as long as it is here.
    loops: HashMap<usize, RunningLoop>,
}

struct RunningLoop {
    task: AbortHandle,
    _backend: Arc<Backend>,
}

/// A first result that the worker waits for. Dropping it ends the wait: the result is there, or the
/// backend is gone.
struct Missing(Arc<watch::Sender<usize>>);

impl Drop for Missing {
    fn drop(&mut self) {
        self.0.send_modify(|missing| *missing = missing.saturating_sub(1));
    }
}

#[async_trait]
impl BackgroundService for Prober {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut replaced = self.current.subscribe();
        let mut running = RunningProbes::default();
        loop {
            self.follow(&mut running);
            tokio::select! {
                // An error means that the sender is gone, which is also a stop. Dropping the tasks
                // aborts them.
                _stop = shutdown.wait_for(|stop| *stop) => return,
                changed = replaced.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Whether a worker should wait for the first result before it serves. A result of the previous
/// worker is enough, and a host name may stay unresolved for long.
fn is_awaited(backend: &Backend) -> bool {
    backend.address().is_some() && !backend.health().known
}

/// The probes of one backend, one after the other.
struct ProbeLoop {
    pool: PoolName,
    pool_id: PoolId,
    /// Requests that wait for a place at a backend of the pool.
    waiters: Option<Arc<Waiters<Pick>>>,
    backend: Arc<Backend>,
    upstreams: Arc<UpstreamPeers>,
    check: HealthCheck,
    probe: Arc<Probe>,
    clock: Clock,
    resolved: watch::Receiver<()>,
    /// For use when all other descriptors are taken.
    reserve: Arc<Reserve>,
    /// Dropped after the first probe, if the worker waits for it.
    missing: Option<Missing>,
}

impl ProbeLoop {
    async fn run(mut self) {
        let backend = Arc::clone(&self.backend);
        let is_resolved = |(): &()| backend.address().is_some();
        if self.resolved.wait_for(is_resolved).await.is_err() && backend.address().is_none() {
            return; // its name will not be resolved
        }
        self.round().await;
        drop(self.missing.take());
        sleep(self.check.interval.mul_f64(fastrand::f64())).await;
        loop {
            let start = self.clock.now();
            self.round().await;
            let took = self.clock.now().since(start);
            sleep(jittered(self.check.interval, fastrand::f64()).saturating_sub(took)).await;
        }
    }

    async fn round(&self) {
        let result = match self.probe_with_reserve().await {
            Ok(()) => Ok(()),
            Err(ProbeFailure::Backend(reason)) => Err(match self.check.port {
                Some(port) => format!("port {port}: {reason}"),
                None => reason,
            }),
            Err(ProbeFailure::Local(reason)) => {
                let (pool, backend) = (&self.pool, &self.backend.label);
                warn!("probe not made: pool={pool} backend={backend} reason=\"{reason}\"");
                return;
            }
        };
        let now = self.clock.now();
        let (pool, backend) = (&self.pool, &self.backend.label);
        // The reason is logged in quotes.
        let reason = result.as_ref().err().map_or_else(String::new, |why| why.replace('"', "'"));
        match self.backend.probed(result, now) {
            Some(true) => {
                info!("backend healthy: pool={pool} backend={backend}");
                self.waiters.iter().for_each(|waiters| waiters.dispatch(now));
            }
            Some(false) => {
                warn!("backend unhealthy: pool={pool} backend={backend} reason=\"{reason}\"");
            }
            None => {}
        }
    }

    /// Probes; if there is no descriptor left, once more with a reserved one.
    async fn probe_with_reserve(&self) -> Result<(), ProbeFailure> {
        match self.probe().await {
            Err(ProbeFailure::Local(_)) if self.reserve.release() => {
                let result = self.probe().await;
                self.reserve.refill();
                result
            }
            result => result,
        }
    }

    /// Runs in its own task, so that a probe that panics only counts as failed.
    async fn probe(&self) -> Result<(), ProbeFailure> {
        // The peer is created for each probe, because its certificates may have been renewed.
        let address = self.backend.address().map(|mut address| {
            address.set_port(self.check.port.map_or(address.port(), NonZeroU16::get));
            address
        });
        let peer = address.and_then(|to| self.upstreams.peer(self.pool_id, &self.backend, to));
        let Some(mut peer) = peer else {
            return Err(ProbeFailure::Local("its host name is not resolved".to_owned()));
        };
        // Pingora reuses an HTTP/2 connection while it has room for another stream. A health check
        // must find out whether a new connection can be made.
        peer.options.max_h2_streams = 1;
        let (probe, backend) = (Arc::clone(&self.probe), target(&self.backend, *peer));
        let limit = self.check.timeout;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let late = |_| {
                let after = format_duration(limit);
                Err(ProbeFailure::Backend(format!("timed out after {after}")))
            };
            let checked = timeout(limit, probe.check(&backend)).await;
            checked.map_or_else(late, |checked| {
                checked.map_err(|error| explain(&error, &backend.addr))
            })
        });
        let ended = task.join_next().await;
        let broken = || Err(ProbeFailure::Backend("the probe itself failed".to_owned()));
        ended.and_then(Result::ok).unwrap_or_else(broken)
    }
}

/// The interval, up to 10 % shorter or longer. `roll` is from 0 to 1.
fn jittered(interval: Duration, roll: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * roll)
}

/// Translates an error on the way to this address for the operator.
fn explain(error: &Error, to: &SocketAddr) -> ProbeFailure {
    if *error.etype() == UNEXPECTED {
        return ProbeFailure::Backend(
            error.context.as_ref().map_or("", |why| why.as_str()).to_owned(),
        );
    }
    if let Some((_, why)) = tls_error::explain(error) {
        return ProbeFailure::Backend(why);
    }
    let text = error_kinds::meaning(error.etype()).text.as_str().to_owned();
    if let Some(shortage) = Shortage::of(error, to) {
        return ProbeFailure::Local(format!("out of {shortage}"));
    }
    match shortage::cause(error) {
        Some(cause) if shortage::is_no_local_address(cause) => {
            ProbeFailure::Backend(shortage::NO_LOCAL_ADDRESS.to_owned())
        }
        // The system refuses this address: it knows no IPv6, or a filter forbids it. So it would for requests.
        Some(cause) if *error.etype() == ErrorType::InternalError => {
            ProbeFailure::Backend(cause.to_string())
        }
        None if *error.etype() == ErrorType::InternalError => ProbeFailure::Local(text),
        _ => ProbeFailure::Backend(text),
    }
}
