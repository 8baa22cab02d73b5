//! The accept side: Pingora's `ServerApp` around its own `HttpProxy`.
//!
//! Every client connection is a line (`line.rs`): counted, timed and drained here. Pingora reads and
//! answers the requests. The connection's task polls both, Pingora first, so that a verdict of
//! the line is carried out at once and no other task is ever involved.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::Proxy;
use super::guard::GuardedStream;
use super::line::{Line, LineTimeouts};
use crate::clock::Clock;
use crate::exchange::refusal::Refusal;
use crate::http::request_id;
use crate::time::Timestamp;

/// How long the rest of an unwanted request body is read before its connection is closed.
const BODY_DRAIN: Duration = Duration::from_secs(5);

/// A connection that was accepted last is counted only when its task first runs. That long it gets
/// before a worker without any other may end.
const SETTLE: Duration = Duration::from_millis(50);

/// Pingora's word for "keep the connection, without a timeout of yours".
const KEEPALIVE: Option<u64> = Some(0);

/// Every open client connection.
#[derive(Debug)]
pub struct Connections {
    lines: Mutex<HashMap<u64, Arc<Line>>>,
    next: AtomicU64,
    open: AtomicUsize,
    gauge: IntGauge,
    emptied: Notify,
}

impl Connections {
    /// None yet. Their number is also kept in `gauge`.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            lines: Mutex::default(),
            next: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            gauge,
            emptied: Notify::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Returns once there is none.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            let mut emptied = pin!(emptied);
            emptied.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Tells every connection that draining has begun.
    pub fn drain(&self, now: Timestamp) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.values().for_each(|line| line.drain(now));
    }

    /// A place for one more, unless there are `most` already.
    fn enter(self: &Arc<Self>, line: &Arc<Line>, most: usize) -> Option<Place> {
        self.gauge.inc();
        if self.open.fetch_add(1, Relaxed) >= most {
            self.leave();
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.insert(id, Arc::clone(line));
        Some(Place { connections: Arc::clone(self), id })
    }

    fn leave(&self) {
        self.gauge.dec();
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.emptied.notify_waiters();
        }
    }
}

/// One open connection among the others, until it is dropped.
struct Place {
    connections: Arc<Connections>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.connections.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.remove(&self.id);
        drop(lines);
        self.connections.leave();
    }
}

/// What the accept side has to know.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// Client connections at once.
    pub connections: usize,
    /// How long a client may take for what.
    pub timeouts: LineTimeouts,
    /// How long connections may take to end once accepting has stopped.
    pub drain: Duration,
}

/// Serves client connections through Pingora.
pub struct Accept {
    proxy: Arc<HttpProxy<Proxy>>,
    shared: Proxy,
    connections: Arc<Connections>,
    limits: AcceptLimits,
}

impl Accept {
    /// Serves with `proxy`, which was made from `shared`.
    #[must_use]
    pub fn new(
        proxy: HttpProxy<Proxy>,
        shared: Proxy,
        connections: Arc<Connections>,
        limits: AcceptLimits,
    ) -> Self {
        Self { proxy: Arc::new(proxy), shared, connections, limits }
    }

    async fn serve(&self, stream: GuardedStream, line: &Line, shutdown: &ShutdownWatch) {
        let mut session = ServerSession::new_http1(Box::new(stream));
        session.set_keepalive(KEEPALIVE);
        loop {
            // A client that has said all it has to say still gets its answer.
            session.set_abort_on_close(false);
            session.set_pipelining_enabled(true);
            session.set_total_drain_timeout(Some(BODY_DRAIN));
            let done = self.proxy.process_new_http(session, shutdown).await;
            let Some(reusable) = done else { return };
            let (stream, settings) = reusable.consume();
            line.answered(self.shared.clock.now());
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            session.set_keepalive(KEEPALIVE);
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
        let clock = self.shared.clock;
        let line = Arc::new(Line::new(peer(&stream), self.limits.timeouts, clock.now()));
        let Some(_place) = self.connections.enter(&line, self.limits.connections) else {
            let refusal = Refusal::TooManyConnections;
            let id = request_id::from_roll(fastrand::u128(..));
            self.shared.refused(refusal, id, &line);
            super::answer::turn_away(stream, refusal, id).await;
            return None;
        };
        if *shutdown.borrow() {
            line.drain(clock.now());
        }
        let stream = GuardedStream::new(stream, Arc::clone(&line), clock);
        let serving = pin!(self.serve(stream, &line, shutdown));
        watched(serving, &line, clock).await;
        if let Some((refusal, id)) = line.refusal() {
            self.shared.refused(refusal, id, &line);
        }
        None
    }

    async fn cleanup(&self) {
        // Accepting has stopped. Whoever is left finishes, but not for ever.
        self.connections.drain(self.shared.clock.now());
        tokio::time::sleep(SETTLE).await;
        let drained = tokio::time::timeout(self.limits.drain, self.connections.empty()).await;
        if drained.is_err() {
            log::warn!("drain deadline passed: connections={}", self.connections.open());
        }
        self.proxy.http_cleanup().await;
    }
}

fn peer(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().map(std::net::SocketAddr::ip)
}

/// Runs `serving` until it ends, or until the line has to be cut.
async fn watched(mut serving: Pin<&mut impl Future<Output = ()>>, line: &Line, clock: Clock) {
    let mut alarm = Alarm { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), at: None, clock };
    poll_fn(|context| {
        line.register(context.waker());
        loop {
            if serving.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            match alarm.attend(line, context) {
                Attended::Wait => return Poll::Pending,
                Attended::Verdict => {}
                Attended::Cut => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// What has come of a look at the line.
enum Attended {
    /// Nothing is due.
    Wait,
    /// The line has a verdict: the stream must be read to hear of it.
    Verdict,
    /// The verdict was not heard in time.
    Cut,
}

/// Rings when the line may be due.
///
/// It is only ever set to an earlier time, and set anew when it rings too early: most requests
/// end without touching it, and setting it is what costs.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Timestamp>,
    clock: Clock,
}

impl Alarm {
    fn attend(&mut self, line: &Line, context: &mut Context<'_>) -> Attended {
        loop {
            if self.at.is_none_or(|at| line.due() < at) {
                self.set(line.due());
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return Attended::Wait;
            }
            self.at = None;
            let now = self.clock.now();
            if line.due() <= now {
                return if line.check(now) { Attended::Verdict } else { Attended::Cut };
            }
        }
    }

    fn set(&mut self, due: Timestamp) {
        let at = due.min(self.clock.now() + ALARM_MAX);
        self.at = Some(at);
        self.sleep.as_mut().reset(self.clock.instant(at).into());
    }
}

/// Far enough for any timeout, near enough for every timer.
const ALARM_MAX: Duration = Duration::from_secs(24 * 60 * 60);
