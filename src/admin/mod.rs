//! The operator's port: `/metrics`, `/status`, `/healthz`, `/readyz`.
//!
//! It has an address and a runtime of its own, so that it answers while the balancer is busy and
//! is never reached by the balancer's clients. It only tells; nothing can be changed through it.

mod connection;
mod page;
mod readiness;
mod server;
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
pub use self::server::{Bounds, Server};

use crate::clock::Clock;
use crate::config::ReadyWhen;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::time::{Timestamp, nanos};

/// What a path that is not there is answered with.
const PATHS: &str = "not found; there are:
/healthz     the process lives
/readyz      requests are welcome
/metrics     Prometheus metrics
/status      JSON, also at /lb-metrics
";

/// Answers the operator.
pub struct Admin {
    /// What runs.
    pub live: Arc<Live>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// Where `metrics` are registered.
    pub registry: Registry,
    /// Whether requests are welcome.
    pub readiness: Arc<Readiness>,
    /// Which pools have to have a healthy backend for that.
    pub ready_when: ReadyWhen,
    /// What time it is.
    pub clock: Clock,
    /// When the configuration was loaded, as far as this process knows.
    pub loaded: Timestamp,
    /// How long the service was up before this process, in nanoseconds.
    pub uptime_before_ns: AtomicU64,
    /// What is told from the moment on at which a successor was.
    pub last_word: RwLock<Option<LastWord>>,
}

/// The pages with totals, as they were just before a successor was told these.
#[derive(Debug)]
pub struct LastWord {
    metrics: Page,
    status: Page,
}

/// What the admin port says, from the first moment of a worker on.
#[derive(Default)]
pub struct Pages {
    admin: OnceLock<Arc<Admin>>,
}

impl Pages {
    /// The worker serves: from now on there is something to tell.
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
    /// What `hand_over` takes is never less than what anybody was or will be told here: a scrape
    /// that comes late must not see totals that the successor has yet to hear of.
    pub fn fall_silent<T>(&self, hand_over: impl FnOnce() -> T) -> T {
        let mut last_word = self.last_word.write();
        *last_word = Some(LastWord { metrics: self.exposition(), status: self.status() });
        hand_over()
    }

    /// There is no successor after all.
    pub fn speak_again(&self) {
        *self.last_word.write() = None;
    }

    fn page(&self, path: &str) -> Page {
        let last_word = self.last_word.read();
        match path {
            "/healthz" => Page::text(200, "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" => {
                last_word.as_ref().map_or_else(|| self.exposition(), |last| last.metrics.clone())
            }
            "/status" | "/lb-metrics" => {
                last_word.as_ref().map_or_else(|| self.status(), |last| last.status.clone())
            }
            _ => Page::text(404, PATHS),
        }
    }

    fn readyz(&self) -> Page {
        match self.readiness.check(&self.live.load(), &self.ready_when) {
            Ok(without) if without.0.is_empty() => Page::text(200, "ready\n"),
            Ok(without) => Page::text(200, format!("ready\n{without}\n")),
            Err(reason) => Page::text(503, format!("not ready: {reason}\n")),
        }
    }

    fn exposition(&self) -> Page {
        self.metrics.refresh(&self.live.load());
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.metrics.gather(), &mut body) {
            Ok(()) => Page { status: 200, content_type: TEXT_FORMAT, body: body.into() },
            Err(error) => Page::text(500, format!("the metrics cannot be written: {error}\n")),
        }
    }

    /// Takes in how long the service is up, by the supervisor's clock.
    pub fn note_uptime(&self, service: Duration) {
        // The message was under way for a moment: the longest time is the truest.
        let before = service.saturating_sub(self.lived());
        self.uptime_before_ns.fetch_max(nanos(before), Relaxed);
    }

    /// How long this process lives.
    fn lived(&self) -> Duration {
        self.clock.now().since(Timestamp::ZERO)
    }

    /// How long the configuration is in use: a worker that replaced another has loaded it again.
    fn configuration_age(&self) -> Duration {
        let now = self.clock.now();
        let supervision = self.metrics.supervision();
        let age = supervision
            .and_then(|told| self.clock.wall(now).duration_since(told.last_reload_at).ok());
        age.unwrap_or_else(|| now.since(self.loaded))
    }

    fn status(&self) -> Page {
        let facts = status::Facts {
            snapshot: &self.live.load(),
            totals: self.metrics.totals(),
            supervision: self.metrics.supervision(),
            downstream_connections: self.metrics.connections().open.get(),
            uptime: self.lived() + Duration::from_nanos(self.uptime_before_ns.load(Relaxed)),
            age: self.configuration_age(),
            wall: &|at| self.clock.wall(at),
        };
        match status::json(&facts) {
            Ok(body) => Page { status: 200, content_type: JSON, body: body.into() },
            Err(error) => Page::text(500, format!("the status cannot be written: {error}\n")),
        }
    }
}
