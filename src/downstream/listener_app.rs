//! The accept side: Pingora's `ServerApp` around its own `HttpProxy`.
//!
//! Every client connection is a line (`line.rs`): counted, timed and drained here. Pingora reads and
//! answers the requests. The connection's task polls both, Pingora first, so that a verdict of
//! the line is carried out at once and no other task is ever involved.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp as _, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use super::connection_info::Connection;
use super::connection_state::Line;
use super::handler::SessionHandler;
use super::handshake::{self, Door, Opened, Unopened};
use super::http1::io::GuardedStream;
use super::linger;
use super::server::DownstreamServer;
use super::tracker::Place;
use super::watchdog::{Ended, watched};
use super::{http1, http2};
use crate::exchange::refusal::Refusal;
use crate::http::scan::Scanner;

/// A connection that was accepted last is counted only when its task first runs. That long it gets
/// before a worker without any other may end.
const SETTLE: Duration = Duration::from_millis(50);

/// Serves the connections of one listener, as an app of Pingora's.
pub struct Accept<H> {
    server: Arc<DownstreamServer<H>>,
    door: Door,
}

impl<H: SessionHandler> Accept<H> {
    /// What comes by `door` is served by `server`.
    #[must_use]
    pub fn new(server: Arc<DownstreamServer<H>>, door: Door) -> Self {
        Self { server, door }
    }

    /// Answers a connection that is one too many.
    async fn turn_away(&self, stream: Stream, connection: Connection, refusal: Refusal) {
        let DownstreamServer { failures, reject_permits, .. } = &*self.server;
        let why = Unopened::TurnedAway(refusal);
        failures.tell(why, connection.client(), self.door.listener.address);
        // Over TLS an answer would cost a handshake, which is what we cannot afford.
        let is_clear = self.door.terminator.is_none();
        if let (true, Ok(_one)) = (is_clear, reject_permits.try_acquire()) {
            linger::turn_away(stream, refusal).await;
        }
    }

    async fn speak(
        &self,
        opened: Opened,
        connection: Connection,
        place: Place,
        shutdown: &ShutdownWatch,
    ) {
        let DownstreamServer { handler, limits, .. } = &*self.server;
        let clock = self.server.clock;
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
                    Box::pin(http2::connection::serve(&self.server, stream, &line, open, shutdown))
                        .await;
                }
                Some(Opened::Http1(stream)) => {
                    let scanner = Some(Scanner::new(limits.head));
                    let stream =
                        GuardedStream::new(stream, Arc::clone(&line), clock, scanner, limits.pace);
                    http1::connection::serve(&self.server, stream, &line, shutdown).await;
                }
                Some(Opened::Clear(_)) | None => {}
            }
        };
        let ended = watched(speaking, &line, clock).await;
        if let Some(early) = line.refusal() {
            handler.record_refusal(early, &line);
        }
        match (ended, line.take_left()) {
            (Ended::ByItself, Some(stream)) => linger::linger(stream).await,
            (Ended::Panicked, Some(stream)) => {
                if let Some(request) = line.panicked.get() {
                    linger::after_panic(stream, request).await;
                }
            }
            _ => {}
        }
    }
}

#[async_trait]
impl<H: SessionHandler> ServerApp for Accept<H> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let DownstreamServer { connections, failures, limits, .. } = &*self.server;
        let clock = self.server.clock;
        let (mut socket, mut connection) = handshake::socket(stream)?;
        let Some(place) = connections.enter(limits.connections) else {
            self.turn_away(socket, connection, Refusal::TooManyConnections).await;
            return None;
        };
        let until = clock.instant(clock.now() + limits.timeouts.header);
        if let Err(why) = self.door.named(&mut socket, &mut connection, until).await {
            failures.tell(why, connection.peer, self.door.listener.address);
            return None;
        }
        // As soon as it is known whose it is: a handshake that does not come would be a place that
        // is everybody's.
        let _of_client = match self.server.per_client(&connection) {
            Ok(of_client) => of_client,
            Err(refusal) => {
                drop(place);
                self.turn_away(socket, connection, refusal).await;
                return None;
            }
        };
        // Boxed, so that what a handshake needs is given back after it.
        match Box::pin(self.door.open(socket, &mut connection, until, clock)).await {
            Ok(opened) => self.speak(opened, connection, place, shutdown).await,
            Err(why) => failures.tell(why, connection.peer, self.door.listener.address),
        }
        None
    }

    async fn cleanup(&self) {
        // Accepting has stopped. Whoever is left finishes, but not for ever.
        let DownstreamServer { connections, handler, limits, .. } = &*self.server;
        connections.drain(self.server.clock.now());
        tokio::time::sleep(SETTLE).await;
        let drained = tokio::time::timeout(limits.drain, connections.empty()).await;
        if drained.is_err() {
            self.server.drain_tunnels().await;
        }
        handler.app().http_cleanup().await;
    }
}
