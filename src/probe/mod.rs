//! Asks every backend, again and again, whether it works.
//!
//! Each backend has a task of its own, so a probe that hangs delays no other. All are asked at
//! once at the start, because no backend takes requests before its first pass; after that, a
//! random share of the interval passes before the second probe, and the interval itself varies,
//! so that many backends (and many balancers) do not probe in step.

mod grpc;
mod http;
mod target;
mod tcp;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use humantime::format_duration;
use log::{info, warn};
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use pingora_error::{Error, ErrorType};
use pingora_load_balancing::health_check;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::config::{self, HealthCheck};
use crate::descriptors::Reserve;
use crate::live::Live;
use crate::name::PoolName;
use crate::probe::grpc::GrpcProbe;
use crate::probe::http::HttpProbe;
use crate::probe::target::{UNFIT, target};
use crate::probe::tcp::TcpProbe;
use crate::runtime::backend::Backend;
use crate::upstream::ours::Shortage;
use crate::upstream::{Upstreams, handshake};

/// Asks one backend once: Pingora's interface for that. It may be dropped at any moment, and need
/// not watch the time.
type Probe = dyn health_check::HealthCheck + Send + Sync;

/// A probe tells each result; how many in a row count is `Hysteresis`'s to know.
const EACH_RESULT: usize = 1;

/// Descriptors that are kept for probes, so that they can be made when clients have taken all others.
/// One after the other, so few are enough for many backends.
const DESCRIPTORS_KEPT: usize = 8;

/// Why a probe did not pass.
#[derive(Debug)]
enum Failure {
    /// The backend does not work.
    Backend(String),
    /// We could not ask, for want of a descriptor or memory. That says nothing about the backend.
    Ours(String),
}

/// Probes every backend of every pool that has a health check.
#[derive(Debug)]
pub struct Prober {
    live: Arc<Live>,
    upstreams: Arc<Upstreams>,
    clock: Clock,
    /// Is notified when a backend's name has got its address.
    resolved: watch::Receiver<()>,
    reserve: Arc<Reserve>,
    /// How many backends have no result yet.
    missing: Arc<watch::Sender<usize>>,
}

impl Prober {
    /// Of the backends that `live` has now. `resolved` is notified when one whose name could not be
    /// looked up has got its address.
    #[must_use]
    pub fn new(
        live: Arc<Live>,
        upstreams: Arc<Upstreams>,
        clock: Clock,
        resolved: watch::Receiver<()>,
    ) -> Self {
        let snapshot = live.load();
        let checked = snapshot.pools.iter().filter(|pool| pool.health_check.is_some());
        let backends = checked.flat_map(|pool| pool.members.iter().map(|member| &member.backend));
        let missing = watch::Sender::new(backends.filter(|backend| is_awaited(backend)).count());
        let reserve = Arc::new(Reserve::new(DESCRIPTORS_KEPT));
        Self { live, upstreams, clock, resolved, reserve, missing: Arc::new(missing) }
    }

    /// Done when every backend of which nothing is known has had its first result. While the prober
    /// runs, that takes no longer than the longest timeout of a health check; if it is stopped
    /// before, for ever.
    pub async fn first_pass(&self) {
        // The other end is in `self`, so it cannot be gone.
        self.missing.subscribe().wait_for(|missing| *missing == 0).await.ok();
    }

    fn rounds(&self) -> Vec<Rounds> {
        let snapshot = self.live.load();
        let mut rounds = Vec::new();
        for (index, pool) in snapshot.pools.iter().enumerate() {
            let Some(check) = &pool.health_check else { continue };
            let options = self.upstreams.connector_options(index);
            let probe: Arc<Probe> = match &check.probe {
                config::Probe::Tcp => Arc::new(TcpProbe::new(options)),
                config::Probe::Grpc { service } => Arc::new(GrpcProbe::new(service, options)),
                config::Probe::Http { path, host, status, body } => {
                    let (host, body) = (host.as_deref(), body.as_deref());
                    Arc::new(HttpProbe::new(path, host, status, body, options))
                }
            };
            rounds.extend(pool.members.iter().enumerate().map(|(place, member)| Rounds {
                pool: pool.name.clone(),
                backend: Arc::clone(&member.backend),
                upstreams: Arc::clone(&self.upstreams),
                place: (index, place),
                check: check.clone(),
                probe: Arc::clone(&probe),
                clock: self.clock,
                resolved: self.resolved.clone(),
                reserve: Arc::clone(&self.reserve),
                missing: is_awaited(&member.backend).then(|| Arc::clone(&self.missing)),
            }));
        }
        rounds
    }
}

#[async_trait]
impl BackgroundService for Prober {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut tasks = JoinSet::new();
        for rounds in self.rounds() {
            tasks.spawn(rounds.run());
        }
        // An error says that nobody is left to tell, which is the end as well. Dropping the tasks
        // ends them where they are.
        shutdown.wait_for(|stop| *stop).await.ok();
    }
}

/// Whether a worker should wait for its first result before it serves. What a predecessor has found
/// is good enough, and a name without an address may stay so for long.
fn is_awaited(backend: &Backend) -> bool {
    backend.address().is_some() && !backend.health().known
}

/// The probes of one backend, one after the other.
struct Rounds {
    pool: PoolName,
    backend: Arc<Backend>,
    upstreams: Arc<Upstreams>,
    /// Of its pool, and its own there.
    place: (usize, usize),
    check: HealthCheck,
    probe: Arc<Probe>,
    clock: Clock,
    resolved: watch::Receiver<()>,
    /// For when all other descriptors are taken.
    reserve: Arc<Reserve>,
    /// To be counted down after the first round, if it is waited for.
    missing: Option<Arc<watch::Sender<usize>>>,
}

impl Rounds {
    async fn run(mut self) {
        let backend = Arc::clone(&self.backend);
        let is_resolved = |(): &()| backend.address().is_some();
        if self.resolved.wait_for(is_resolved).await.is_err() && backend.address().is_none() {
            return; // nobody looks its name up any more
        }
        self.round().await;
        if let Some(missing) = self.missing.take() {
            missing.send_modify(|missing| *missing = missing.saturating_sub(1));
        }
        sleep(self.check.interval.mul_f64(fastrand::f64())).await;
        loop {
            let start = self.clock.now();
            self.round().await;
            let took = self.clock.now().since(start);
            sleep(jittered(self.check.interval, fastrand::f64()).saturating_sub(took)).await;
        }
    }

    async fn round(&self) {
        let result = match self.ask_by_all_means().await {
            Ok(()) => Ok(()),
            Err(Failure::Backend(reason)) => Err(reason),
            Err(Failure::Ours(reason)) => {
                let (pool, backend) = (&self.pool, &self.backend.label);
                warn!("probe not made: pool={pool} backend={backend} reason=\"{reason}\"");
                return;
            }
        };
        let now = self.clock.now();
        let (pool, backend) = (&self.pool, &self.backend.label);
        // It stands between quotes.
        let reason = result.as_ref().err().map_or_else(String::new, |why| why.replace('"', "'"));
        match self.backend.probed(result, now) {
            Some(true) => info!("backend healthy: pool={pool} backend={backend}"),
            Some(false) => {
                warn!("backend unhealthy: pool={pool} backend={backend} reason=\"{reason}\"");
            }
            None => {}
        }
    }

    /// Where there is no descriptor left, with one of those that are kept for this.
    async fn ask_by_all_means(&self) -> Result<(), Failure> {
        match self.ask().await {
            Err(Failure::Ours(_)) if self.reserve.release() => {
                let result = self.ask().await;
                self.reserve.refill();
                result
            }
            result => result,
        }
    }

    /// In a task of its own: a probe that panics has failed, and the next one comes all the same.
    async fn ask(&self) -> Result<(), Failure> {
        // Each time anew: its certificates may have been renewed.
        let peer = self
            .backend
            .address()
            .and_then(|address| self.upstreams.peer(self.place.0, self.place.1, address));
        let Some(mut peer) = peer else {
            return Err(Failure::Ours("its address is not known".to_owned()));
        };
        // Pingora keeps a connection of HTTP/2 for the next request as long as it has room for
        // another stream. A check must find out whether a new connection can be made.
        peer.options.max_h2_streams = 1;
        let (probe, backend) = (Arc::clone(&self.probe), target(&self.backend, *peer));
        let patience = self.check.timeout;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let late = |_| {
                let after = format_duration(patience);
                Err(Failure::Backend(format!("timed out after {after}")))
            };
            let checked = timeout(patience, probe.check(&backend)).await;
            checked.map_or_else(late, |checked| checked.map_err(|error| explain(&error)))
        });
        let ended = task.join_next().await;
        let broken = || Err(Failure::Backend("the probe itself failed".to_owned()));
        ended.and_then(Result::ok).unwrap_or_else(broken)
    }
}

/// The interval, 10 % shorter or longer at most. `roll` is from 0 to 1.
fn jittered(interval: Duration, roll: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * roll)
}

/// What an operator reads of an error on the wire.
fn explain(error: &Error) -> Failure {
    if *error.etype() == UNFIT {
        return Failure::Backend(error.context.as_ref().map_or("", |why| why.as_str()).to_owned());
    }
    if let Some((_, why)) = handshake::failure(error) {
        return Failure::Backend(why);
    }
    let known = EXPLANATIONS.iter().find(|(kind, _)| kind == error.etype());
    let text = known.map_or_else(|| error.etype().as_str(), |(_, text)| text).to_owned();
    if let Some(shortage) = Shortage::of(error) {
        return Failure::Ours(format!("out of {shortage}"));
    }
    if *error.etype() == ErrorType::InternalError {
        return Failure::Ours(text);
    }
    Failure::Backend(text)
}

const EXPLANATIONS: [(ErrorType, &str); 12] = [
    (ErrorType::ConnectRefused, "connection refused"),
    (ErrorType::ConnectNoRoute, "no route to the host"),
    (ErrorType::ConnectTimedout, "timed out while connecting"),
    (ErrorType::ConnectError, "the connection could not be made"),
    (ErrorType::ConnectionClosed, "the connection was closed before the answer was complete"),
    (ErrorType::ReadError, "the connection broke while the answer was read"),
    (ErrorType::WriteError, "the connection broke while the request was sent"),
    (ErrorType::InvalidHTTPHeader, "the answer is not valid HTTP"),
    (ErrorType::H1Error, "the answer is not valid HTTP"),
    (ErrorType::H2Error, "the connection broke, or is not HTTP/2"),
    (ErrorType::InvalidH2, "it speaks no HTTP/2"),
    (ErrorType::InternalError, "no socket could be had for the probe"),
];
