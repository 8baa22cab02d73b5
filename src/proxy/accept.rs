//! The accept side: Pingora's `ServerApp` around its own `HttpProxy`.
//!
//! Every client connection is a line (`line.rs`): counted, timed and drained here. Pingora reads and
//! answers the requests. The connection's task polls both, Pingora first, so that a verdict of
//! the line is carried out at once and no other task is ever involved.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;

use super::build::Engine;
use super::connection::Connection;
use super::connections::{Connections, OfClient, Place};
use super::guard::GuardedStream;
use super::line::{Line, LineTimeouts};
use super::opening::{self, Door, Failures, Opened, Unopened};
use super::stalled::Stalled;
use super::watch::{Ended, watched};
use super::{Proxy, answer, http2};
use crate::config::{HalfClosed, Http2};
use crate::exchange::refusal::{Abort, Refusal};
use crate::http::forwarded::is_trusted;
use crate::http::scan::{Limits as HeadLimits, Scanner};
use crate::metrics::ConnectionMetrics;
use crate::policy::transfer_rate::MinTransferRate;

/// How long the rest of an unwanted request body is read before its connection is closed.
pub(super) const BODY_DRAIN: Duration = Duration::from_secs(5);

/// A connection that was accepted last is counted only when its task first runs. That long it gets
/// before a worker without any other may end.
const SETTLE: Duration = Duration::from_millis(50);

/// How long connections may take to end, and be logged, once their time is up.
const ABORT_MAX: Duration = Duration::from_secs(2);

/// Pingora's word for "keep the connection, without a timeout of yours".
const KEEPALIVE: Option<u64> = Some(0);

/// What the accept side has to know.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// Client connections at once.
    pub connections: usize,
    /// Rejected connections that get a response at once; further ones are only closed.
    pub rejected: usize,
    /// Those of one client.
    pub of_client: usize,
    /// How much the head of a request may have.
    pub head: HeadLimits,
    /// What an HTTP/2 connection may ask for.
    pub http2: Http2,
    /// How slow a client may be.
    pub pace: Option<MinTransferRate>,
    /// What becomes of a request whose client closes its side of the connection.
    pub half_closed: HalfClosed,
    /// How long a client may take for what.
    pub timeouts: LineTimeouts,
    /// What responses and tunnels may hold that are not read, in bytes.
    pub response_buffers: Option<u64>,
    /// How long connections may take to end once accepting has stopped.
    pub drain: Duration,
}

/// What serves client connections, whichever listener they come by.
pub struct Server {
    pub(super) proxy: Arc<Engine>,
    pub(super) shared: Proxy,
    connections: Arc<Connections>,
    pub(super) failures: Failures,
    pub(super) limits: AcceptLimits,
    pub(super) http2: H2Options,
    pub(super) stalled: Arc<Stalled>,
    /// Whoever is turned away is no connection any more; so these are counted by themselves.
    turned_away: Semaphore,
}

impl Server {
    /// Serves with `proxy`, which was made from `shared`. Connections are counted in
    /// `metrics`.
    #[must_use]
    pub fn new(
        proxy: Engine,
        shared: Proxy,
        connections: Arc<Connections>,
        metrics: &ConnectionMetrics,
        limits: AcceptLimits,
    ) -> Self {
        let failures = Failures::new(&metrics.failures, shared.clock);
        let http2 = http2::options(&limits.http2, &limits.head);
        let turned_away = Semaphore::new(limits.rejected);
        let stalled = Stalled::new(limits.response_buffers, shared.clock, metrics);
        Self {
            proxy: Arc::new(proxy),
            shared,
            connections,
            failures,
            limits,
            http2,
            stalled,
            turned_away,
        }
    }

    /// The drain's deadline has passed. Tunnels have one of their own, which their lines watch.
    async fn only_tunnels(&self) {
        let (tunnels, others) = self.connections.tunnels();
        if others > 0 {
            log::warn!("drain deadline passed: connections={others}");
        }
        self.connections.cut_others(self.shared.clock.now(), Abort::DrainTimeout);
        let timeouts = &self.limits.timeouts;
        let longer = if tunnels > 0 { timeouts.tunnels } else { Duration::ZERO };
        let longer = longer.saturating_sub(self.limits.drain) + ABORT_MAX;
        if tokio::time::timeout(longer, self.connections.empty()).await.is_err() {
            log::warn!("connections did not end: connections={}", self.connections.open());
        }
    }

    async fn serve(&self, stream: GuardedStream, line: &Line, shutdown: &ShutdownWatch) {
        let mut stream = Box::new(stream);
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            // What has begun already is in Pingora's hands, and nothing more may come. What is no
            // HTTP is answered at once.
            if line.is_idle() && !stream.is_broken() && !stream.first_byte().await {
                return;
            }
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            session.set_keepalive(KEEPALIVE);
            session.set_abort_on_close(self.limits.half_closed == HalfClosed::Abort);
            session.set_pipelining_enabled(true);
            session.set_total_drain_timeout(Some(BODY_DRAIN));
            let done = self.proxy.process_new_http(session, shutdown).await;
            let Some(reusable) = done else { return };
            let (reused, kept) = reusable.consume();
            line.answered(self.shared.clock.now());
            let Ok(guarded) = reused.into_any().downcast() else { return };
            (stream, settings) = (guarded, kept);
        }
    }

    /// A place among the connections of the same client. A proxy that we trust is many clients.
    fn of_client(&self, connection: &Connection) -> Result<Option<OfClient>, Refusal> {
        let (client, most) = (connection.client_ip(), self.limits.of_client);
        if most == usize::MAX || is_trusted(client, &self.shared.live.load().trusted_proxies) {
            return Ok(None);
        }
        let place = self.connections.enter_of(client, most);
        place.map(Some).ok_or(Refusal::TooManyConnectionsPerClient)
    }
}

/// Serves the connections of one listener, as an app of Pingora's.
pub struct Accept {
    server: Arc<Server>,
    door: Door,
}

impl Accept {
    /// What comes by `door` is served by `server`.
    #[must_use]
    pub fn new(server: Arc<Server>, door: Door) -> Self {
        Self { server, door }
    }

    /// Answers a connection that is one too many.
    async fn turn_away(&self, stream: Stream, connection: Connection, refusal: Refusal) {
        let Server { failures, turned_away, .. } = &*self.server;
        let why = Unopened::TurnedAway(refusal);
        failures.tell(why, connection.client(), self.door.listener.address);
        // Over TLS an answer would cost a handshake, which is what we cannot afford.
        let is_clear = self.door.terminator.is_none();
        if let (true, Ok(_one)) = (is_clear, turned_away.try_acquire()) {
            answer::turn_away(stream, refusal).await;
        }
    }

    async fn speak(
        &self,
        opened: Opened,
        connection: Connection,
        place: Place,
        shutdown: &ShutdownWatch,
    ) {
        let Server { shared, limits, .. } = &*self.server;
        let clock = shared.clock;
        let line = Arc::new(Line::new(Arc::new(connection), limits.timeouts, clock.now()));
        line.stalled.get_or_init(|| Arc::clone(&self.server.stalled));
        place.speaks(&line);
        let place = Arc::new(place);
        let _until_the_end = Arc::clone(&place);
        let http2 = self.door.listener.http2;
        let speaking = async {
            match opened.decided(http2, &line, clock).await {
                Some(Opened::Http2(stream)) => {
                    // Boxed, as it is much larger than what serves HTTP/1.
                    let open = Arc::clone(&place);
                    Box::pin(http2::serve(&self.server, stream, &line, open, shutdown)).await;
                }
                Some(Opened::Http1(stream)) => {
                    let scanner = Some(Scanner::new(limits.head));
                    let stream =
                        GuardedStream::new(stream, Arc::clone(&line), clock, scanner, limits.pace);
                    self.server.serve(stream, &line, shutdown).await;
                }
                Some(Opened::Clear(_)) | None => {}
            }
        };
        let ended = watched(speaking, &line, clock).await;
        if let Some(early) = line.refusal() {
            shared.refused(early, &line);
        }
        match (ended, line.take_left()) {
            (Ended::ByItself, Some(stream)) => answer::linger(stream).await,
            (Ended::Panicked, Some(stream)) => {
                if let Some(request) = line.panicked.get() {
                    answer::after_panic(stream, request).await;
                }
            }
            _ => {}
        }
    }
}

#[async_trait]
impl ServerApp for Accept {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let Server { connections, failures, limits, shared, .. } = &*self.server;
        let (mut socket, mut connection) = opening::socket(stream)?;
        let Some(place) = connections.enter(limits.connections) else {
            self.turn_away(socket, connection, Refusal::TooManyConnections).await;
            return None;
        };
        let until = shared.clock.instant(shared.clock.now() + limits.timeouts.header);
        if let Err(why) = self.door.named(&mut socket, &mut connection, until).await {
            failures.tell(why, connection.peer, self.door.listener.address);
            return None;
        }
        // As soon as it is known whose it is: a handshake that does not come would be a place that
        // is everybody's.
        let _of_client = match self.server.of_client(&connection) {
            Ok(of_client) => of_client,
            Err(refusal) => {
                drop(place);
                self.turn_away(socket, connection, refusal).await;
                return None;
            }
        };
        // Boxed, so that what a handshake needs is given back after it.
        match Box::pin(self.door.open(socket, &mut connection, until, shared.clock)).await {
            Ok(opened) => self.speak(opened, connection, place, shutdown).await,
            Err(why) => failures.tell(why, connection.peer, self.door.listener.address),
        }
        None
    }

    async fn cleanup(&self) {
        // Accepting has stopped. Whoever is left finishes, but not for ever.
        let Server { connections, shared, limits, proxy, .. } = &*self.server;
        connections.drain(shared.clock.now());
        tokio::time::sleep(SETTLE).await;
        let drained = tokio::time::timeout(limits.drain, connections.empty()).await;
        if drained.is_err() {
            self.server.only_tunnels().await;
        }
        proxy.http_cleanup().await;
    }
}
