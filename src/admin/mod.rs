//! The admin port: `/metrics`, `/status`, `/healthz`, `/readyz`.
//!
//! It has its own address and runtime. So it responds while the proxy threads are busy, and clients
//! cannot reach it. It is read-only.

mod connection;
mod page;
mod readiness;
mod server;
mod shared;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};

use self::page::{JSON, Page};
pub use self::readiness::{NotReady, Readiness};
pub use self::server::Server;
pub use self::shared::ServerLimits;

use crate::clock::Clock;
use crate::config::ReadyWhen;
use crate::current::CurrentSnapshot;
use crate::metrics::Metrics;
use crate::time::{Timestamp, nanos};

/// The response to an unknown path.
const PATHS: &str = "not found; there are:
/healthz     liveness
/readyz      readiness for traffic
/metrics     Prometheus metrics
/status      JSON, also at /lb-metrics
";

/// The pages of a serving worker.
pub struct Admin {
    /// The current snapshot.
    pub current: Arc<CurrentSnapshot>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where `metrics` are registered.
    pub registry: Registry,
    /// Whether this worker is ready for traffic.
    pub readiness: Readiness,
    /// Which pools need a healthy backend for that.
    pub ready_when: ReadyWhen,
    /// The clock.
    pub clock: Clock,
    /// When this process loaded the configuration.
    pub loaded: Timestamp,
    /// The uptime of the service before this process started, in nanoseconds.
    pub uptime_before_ns: AtomicU64,
    /// The pages with totals that are served after the handover to a successor.
    pub frozen: RwLock<Option<FrozenPages>>,
}

/// The pages with totals, as they were when the totals were handed over to a successor.
#[derive(Debug)]
pub struct FrozenPages {
    metrics: Page,
    status: Page,
}

/// The pages of the admin port, also while the worker still starts.
#[derive(Default)]
pub struct Pages {
    admin: OnceLock<Arc<Admin>>,
}

impl Pages {
    /// Sets the pages of the worker, once it serves.
    pub fn begin(&self, admin: Arc<Admin>) {
        let _first = self.admin.set(admin);
    }

    fn page(&self, method: &str, path: &str) -> Page {
        if !matches!(method, "GET" | "HEAD") {
            return Page::text(405, "only GET and HEAD\n");
        }
        match self.admin.get() {
            Some(admin) => admin.page(path),
            None => match path {
                "/healthz" => Page::text(200, "ok\n"),
                "/readyz" | "/metrics" | "/status" | "/lb-metrics" => {
                    Page::text(503, format!("not ready: {}\n", NotReady::Starting))
                }
                _ => Page::text(404, PATHS),
            },
        }
    }
}

impl Admin {
    /// Freezes the pages with totals, then calls `hand_over`. A scrape after this point must not see
    /// totals that the successor does not have yet.
    pub fn freeze<T>(&self, hand_over: impl FnOnce() -> T) -> T {
        let mut frozen = self.frozen.write();
        *frozen = Some(FrozenPages { metrics: self.exposition(), status: self.status() });
        hand_over()
    }

    /// Serves current totals again, because there is no successor after all.
    pub fn unfreeze(&self) {
        *self.frozen.write() = None;
    }

    fn page(&self, path: &str) -> Page {
        let frozen = self.frozen.read();
        match path {
            "/healthz" => Page::text(200, "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" => {
                frozen.as_ref().map_or_else(|| self.exposition(), |pages| pages.metrics.clone())
            }
            "/status" | "/lb-metrics" => {
                frozen.as_ref().map_or_else(|| self.status(), |pages| pages.status.clone())
            }
            _ => Page::text(404, PATHS),
        }
    }

    fn readyz(&self) -> Page {
        match self.readiness.check(&self.current.snapshot(), &self.ready_when) {
            Ok(unhealthy) if unhealthy.0.is_empty() => Page::text(200, "ready\n"),
            Ok(unhealthy) => Page::text(200, format!("ready\n{unhealthy}\n")),
            Err(reason) => Page::text(503, format!("not ready: {reason}\n")),
        }
    }

    fn exposition(&self) -> Page {
        self.metrics.refresh(&self.current.snapshot(), self.clock.now());
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.metrics.gather(), &mut body) {
            Ok(()) => Page { status: 200, content_type: TEXT_FORMAT, body: body.into() },
            Err(error) => Page::text(500, format!("the metrics cannot be encoded: {error}\n")),
        }
    }

    /// Records the uptime of the service, measured by the supervisor.
    pub fn note_uptime(&self, service: Duration) {
        // The message took a moment to arrive, so the longest value is the most accurate.
        let before = service.saturating_sub(self.process_uptime());
        self.uptime_before_ns.fetch_max(nanos(before), Relaxed);
    }

    /// The uptime of this process.
    fn process_uptime(&self) -> Duration {
        self.clock.now().since(Timestamp::ZERO)
    }

    /// How long the configuration has been active. A worker that replaces a crashed one loads it
    /// again, so its own load time is used only without a supervisor.
    fn configuration_age(&self) -> Duration {
        let now = self.clock.now();
        let supervision = self.metrics.supervision();
        let age = supervision
            .and_then(|stats| self.clock.wall(now).duration_since(stats.last_reload_at).ok());
        age.unwrap_or_else(|| now.since(self.loaded))
    }

    fn status(&self) -> Page {
        let snapshot = self.current.snapshot();
        let inputs = status::Inputs {
            snapshot: &snapshot,
            sources: &self.current.sources(),
            totals: self.metrics.totals(),
            supervision: self.metrics.supervision(),
            downstream_connections: self.metrics.connections().open.get(),
            uptime: self.process_uptime()
                + Duration::from_nanos(self.uptime_before_ns.load(Relaxed)),
            age: self.configuration_age(),
            now: self.clock.now(),
            wall: &|at| self.clock.wall(at),
        };
        match status::json(&inputs) {
            Ok(body) => Page { status: 200, content_type: JSON, body: body.into() },
            Err(error) => Page::text(500, format!("the status cannot be encoded: {error}\n")),
        }
    }
}
