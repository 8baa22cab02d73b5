//! HTTP/1 with clients: the requests of a connection, one after the other.

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp as _};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

use crate::config::HalfClosed;
use crate::downstream::connection_state::ConnectionState;
use crate::downstream::handler::SessionHandler;
use crate::downstream::http1::io::Http1Io;
use crate::downstream::server::{BODY_DRAIN, DownstreamServer};

/// Pingora's value for keeping a connection alive without a timeout of its own.
const KEEPALIVE: Option<u64> = Some(0);

/// Serves the requests of a connection until it ends.
pub(crate) async fn serve<H: SessionHandler>(
    server: &DownstreamServer<H>,
    stream: Http1Io,
    state: &ConnectionState,
    shutdown: &ShutdownWatch,
) {
    let mut stream = Box::new(stream);
    let mut settings: Option<HttpPersistentSettings> = None;
    loop {
        // Pingora has buffered what was read of a pipelined request, and nothing more may come. An
        // invalid request gets its response at once.
        if state.is_idle() && !stream.is_broken() && !stream.wait_readable().await {
            return;
        }
        let mut session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
        session.set_keepalive(KEEPALIVE);
        session.set_abort_on_close(server.limits.half_closed == HalfClosed::Abort);
        session.set_pipelining_enabled(true);
        session.set_total_drain_timeout(Some(BODY_DRAIN));
        let done = server.handler.app().process_new_http(session, shutdown).await;
        let Some(reusable) = done else { return };
        let (reused, kept) = reusable.consume();
        state.response_sent(server.clock.now());
        let Ok(guarded) = reused.into_any().downcast() else { return };
        (stream, settings) = (guarded, kept);
    }
}
