//! The operator's port: `/metrics`, `/status`, `/healthz`, `/readyz`.
//!
//! It has an address and a runtime of its own, so that it answers while the balancer is busy and
//! is never reached by the balancer's clients. It only tells; nothing can be changed through it.

mod readiness;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::debug;
use parking_lot::RwLock;
use pingora::http::{Method, ResponseHeader};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_error::Result;
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};
use tokio::time::timeout;

pub use readiness::{NotReady, Readiness};

use crate::clock::Clock;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// For the head of a request, and between two requests of a connection. Longer than any usual
/// interval between two scrapes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(75);
/// For whatever else a client makes us wait for.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

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
    /// What time it is.
    pub clock: Clock,
    /// When the configuration was loaded.
    pub loaded: Timestamp,
    /// What is told from the moment on at which a successor was.
    pub last_word: RwLock<Option<LastWord>>,
}

/// The pages with totals, as they were just before a successor was told these.
#[derive(Debug)]
pub struct LastWord {
    metrics: Page,
    status: Page,
}

/// An answer.
#[derive(Debug, Clone)]
struct Page {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Page {
    fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into().into_bytes() }
    }

    fn head(&self) -> Result<ResponseHeader> {
        let mut head = ResponseHeader::build(self.status, Some(4))?;
        head.append_header("Content-Type", self.content_type)?;
        head.append_header("Content-Length", self.body.len())?;
        head.append_header("Cache-Control", "no-store")?;
        if self.status == 405 {
            head.append_header("Allow", "GET, HEAD")?;
        }
        Ok(head)
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

    fn page(&self, method: &Method, path: &str) -> Page {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Page::text(405, "only GET and HEAD\n");
        }
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
        match self.readiness.check(&self.live.load()) {
            Ok(()) => Page::text(200, "ready\n"),
            Err(reason) => Page::text(503, format!("not ready: {reason}\n")),
        }
    }

    fn exposition(&self) -> Page {
        self.metrics.refresh(&self.live.load());
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.metrics.gather(), &mut body) {
            Ok(()) => Page { status: 200, content_type: TEXT_FORMAT, body },
            Err(error) => Page::text(500, format!("the metrics cannot be written: {error}\n")),
        }
    }

    fn status(&self) -> Page {
        let facts = status::Facts {
            snapshot: &self.live.load(),
            totals: self.metrics.totals(),
            supervision: self.metrics.supervision(),
            downstream_connections: self.metrics.connections().open.get(),
            uptime: self.clock.now().since(Timestamp::ZERO),
            age: self.clock.now().since(self.loaded),
            wall: &|at| self.clock.wall(at),
        };
        match status::json(&facts) {
            Ok(body) => Page { status: 200, content_type: JSON, body },
            Err(error) => Page::text(500, format!("the status cannot be written: {error}\n")),
        }
    }

    /// Reads one request and answers it. False if there was none that could be answered.
    async fn exchange(&self, session: &mut ServerSession) -> Result<bool> {
        let Ok(arrived) = timeout(REQUEST_TIMEOUT, session.read_request()).await else {
            return Ok(false);
        };
        if !arrived? {
            return Ok(false);
        }
        session.set_write_timeout(Some(CLIENT_TIMEOUT));
        session.set_total_drain_timeout(Some(CLIENT_TIMEOUT));
        let request = session.req_header();
        let bodiless = request.method == Method::HEAD;
        let page = self.page(&request.method, request.uri.path());
        session.write_response_header(Box::new(page.head()?)).await?;
        if !bodiless {
            session.write_response_body(page.body.into(), true).await?;
        }
        Ok(true)
    }
}

/// Not by way of Pingora's `ServeHttp`, which waits for a request for ever and logs every client
/// that leaves as an error.
#[async_trait]
impl HttpServerApp for Admin {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let keepalive = (!*shutdown.borrow()).then_some(REQUEST_TIMEOUT.as_secs());
        session.set_keepalive(keepalive);
        match self.exchange(&mut session).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                debug!("admin request not answered: error=\"{error}\"");
                return None;
            }
        }
        let settings = HttpPersistentSettings::for_session(&session);
        // What is left of a request's body is read, or the connection is closed: it must not be
        // taken for the next request.
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}
