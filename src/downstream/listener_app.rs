//! Pingora's `ServerApp` for one listener: accepts client connections, and drains them at the end.
//!
//! Each connection is counted (`tracker.rs`), goes through its handshake (`handshake.rs`), and is
//! served until it ends. Pingora serves the requests. One task polls Pingora and the connection's
//! deadlines, Pingora first, so no other task is involved when a deadline passes (`timers.rs`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp as _, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use super::accept_error::AcceptError;
use super::connection_info::ConnectionInfo;
use super::connection_state::ConnectionState;
use super::handler::SessionHandler;
use super::handshake::{self, ListenerContext, Negotiated};
use super::http1::io::Http1Io;
use super::linger;
use super::server::DownstreamServer;
use super::timers::{Finish, run_with_timers};
use super::tracker::ConnectionPermit;
use super::{http1, http2};
use crate::exchange::refusal::Refusal;
use crate::http::scan::Scanner;

/// A connection that was just accepted is counted when its task first runs. A worker without other
/// connections waits for this long before it exits.
const DRAIN_SETTLE: Duration = Duration::from_millis(50);

/// Serves the connections of one listener.
pub struct ListenerApp<H> {
    server: Arc<DownstreamServer<H>>,
    context: ListenerContext,
}

impl<H: SessionHandler> ListenerApp<H> {
    /// Connections to the listener of `context` are served by `server`.
    #[must_use]
    pub fn new(server: Arc<DownstreamServer<H>>, context: ListenerContext) -> Self {
        Self { server, context }
    }

    /// Rejects a connection over a limit, with a response where that costs no TLS handshake.
    async fn reject(&self, stream: Stream, connection: ConnectionInfo, refusal: Refusal) {
        let DownstreamServer { failures, reject_permits, .. } = &*self.server;
        let error = AcceptError::Rejected(refusal);
        failures.record(error, connection.client(), self.context.listener.address);
        // Over TLS, a response would cost a handshake.
        let is_plaintext = self.context.terminator.is_none();
        if let (true, Ok(_one)) = (is_plaintext, reject_permits.try_acquire()) {
            linger::send_raw_reply(stream, refusal).await;
        }
    }

    async fn serve_connection(
        &self,
        negotiated: Negotiated,
        connection: ConnectionInfo,
        permit: ConnectionPermit,
        shutdown: &ShutdownWatch,
    ) {
        let DownstreamServer { handler, limits, .. } = &*self.server;
        let clock = self.server.clock;
        let state =
            Arc::new(ConnectionState::new(Arc::new(connection), limits.timeouts, clock.now()));
        state.stalled.get_or_init(|| Arc::clone(&self.server.stalled));
        permit.register(&state);
        let permit = Arc::new(permit);
        let _until_the_end = Arc::clone(&permit);
        let http2 = self.context.listener.http2;
        let speaking = async {
            match negotiated.detect_protocol(http2, &state, clock).await {
                Some(Negotiated::Http2(stream)) => {
                    // Boxed, because it is much larger than the future that serves HTTP/1.
                    let open = Arc::clone(&permit);
                    Box::pin(http2::connection::serve(
                        &self.server,
                        stream,
                        &state,
                        open,
                        shutdown,
                    ))
                    .await;
                }
                Some(Negotiated::Http1(stream)) => {
                    let scanner = Some(Scanner::new(limits.head));
                    let stream =
                        Http1Io::new(stream, Arc::clone(&state), clock, scanner, limits.min_rate);
                    http1::connection::serve(&self.server, stream, &state, shutdown).await;
                }
                Some(Negotiated::Undetected(_)) | None => {}
            }
        };
        let ended = run_with_timers(speaking, &state, clock).await;
        if let Some(early) = state.early_refusal() {
            handler.record_refusal(early, &state);
        }
        match (ended, state.take_lingering()) {
            (Finish::Completed, Some(stream)) => linger::linger(stream).await,
            (Finish::Panicked, Some(stream)) => {
                if let Some(request) = state.panicked.get() {
                    linger::after_panic(stream, request).await;
                }
            }
            _ => {}
        }
    }
}

#[async_trait]
impl<H: SessionHandler> ServerApp for ListenerApp<H> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let DownstreamServer { connections, failures, limits, .. } = &*self.server;
        let clock = self.server.clock;
        let (mut socket, mut connection) = handshake::socket(stream)?;
        let Some(permit) = connections.try_acquire(limits.connections) else {
            self.reject(socket, connection, Refusal::TooManyConnections).await;
            return None;
        };
        let until = clock.instant(clock.now() + limits.timeouts.request_header);
        if let Err(error) =
            self.context.read_proxy_header(&mut socket, &mut connection, until).await
        {
            failures.record(error, connection.peer, self.context.listener.address);
            return None;
        }
        // The client is known from here on. Before the handshake, so that a client that never
        // finishes it uses up only its own permits.
        let _of_client = match self.server.per_client(&connection) {
            Ok(of_client) => of_client,
            Err(refusal) => {
                drop(permit);
                self.reject(socket, connection, refusal).await;
                return None;
            }
        };
        // Boxed, so that the memory of the handshake is freed after it.
        match Box::pin(self.context.accept_tls(socket, &mut connection, until, clock)).await {
            Ok(negotiated) => self.serve_connection(negotiated, connection, permit, shutdown).await,
            Err(error) => failures.record(error, connection.peer, self.context.listener.address),
        }
        None
    }

    async fn cleanup(&self) {
        // The listener has stopped accepting. Open connections get `shutdown.drain` to finish.
        let DownstreamServer { connections, handler, limits, .. } = &*self.server;
        connections.drain(self.server.clock.now());
        tokio::time::sleep(DRAIN_SETTLE).await;
        let drained = tokio::time::timeout(limits.drain, connections.all_closed()).await;
        if drained.is_err() {
            self.server.drain_tunnels().await;
        }
        handler.app().http_cleanup().await;
    }
}
