//! HTTP/2 with clients: the streams of a connection, each a task of its own.
//!
//! Pingora's own accept loop is private, has no limit on its drain, and counts no frames. Its parts
//! are public, so this loop is made of them. The connection has a state, which is idle without
//! streams and in a request with some. Each stream has a state of its own, with the deadline of its
//! exchange.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use http::header::{self, HeaderValue};
use pingora::http::RequestHeader;
use pingora_core::apps::HttpServerApp as _;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::handshake;
use pingora_core::protocols::{Digest, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_error::Error;

use crate::downstream::connection_state::{CloseReason, ConnectionState};
use crate::downstream::early_refusal::EarlyRefusal;
use crate::downstream::handler::SessionHandler;
use crate::downstream::http2::frame_guard::{FrameGuardIo, FrameSignals};
use crate::downstream::http2::session::Http2Session;
use crate::downstream::http2::stream::{Accepted, Http2Stream};
use crate::downstream::http2::streams::StreamTracker;
use crate::downstream::request_target;
use crate::downstream::server::{BODY_DRAIN, DownstreamServer};
use crate::downstream::session_ext;
use crate::downstream::timers::run_with_timers;
use crate::downstream::tracker::ConnectionPermit;
use crate::exchange::refusal::{Abort, Refusal};
use crate::http::scan::{Http2Head, Limits as HeadLimits, Violation};

/// Malformed requests after which a connection is closed.
const MALFORMED_MAX: usize = 32;

/// The next event: a stream, a malformed request, or the end of the connection.
type Next = pingora_error::Result<Option<Accepted>>;

/// Why Weir ends a connection with a GOAWAY.
enum GoAway {
    /// No new streams: a GOAWAY without a last stream. Streams that the client opens before it
    /// reads the GOAWAY are still served.
    Graceful,
    /// The client has opened no stream since: a GOAWAY with the last stream.
    Final,
    /// The client floods: closed at once.
    Flood,
}

/// A connection that is being served.
struct Http2Connection<'a, H> {
    server: &'a Arc<DownstreamServer<H>>,
    streams: Arc<StreamTracker>,
    shutdown: &'a ShutdownWatch,
    signals: Arc<FrameSignals>,
    goaway_started: bool,
    final_goaway_sent: bool,
    is_forced: bool,
}

/// Serves an HTTP/2 connection to its end.
pub(crate) async fn serve<H: SessionHandler>(
    server: &Arc<DownstreamServer<H>>,
    stream: Stream,
    state: &Arc<ConnectionState>,
    permit: Arc<ConnectionPermit>,
    shutdown: &ShutdownWatch,
) {
    let clock = server.clock;
    let signals = Arc::new(FrameSignals::default());
    let stream = FrameGuardIo::new(stream, Arc::clone(&signals), clock, state);
    let digest = Digest {
        ssl_digest: pingora_core::protocols::Ssl::get_ssl_digest(&stream),
        socket_digest: pingora_core::protocols::GetSocketDigest::get_socket_digest(&stream),
        ..Digest::default()
    };
    let options = Some(server.http2.clone());
    let mut connection = match handshake(Box::new(stream), options).await {
        Ok(connection) => connection,
        Err(error) => return log::debug!("HTTP/2 handshake failed: error=\"{error}\""),
    };
    state.response_sent(clock.now());
    let streams = StreamTracker::new(state, permit);
    let mut serving = Http2Connection::new(server, streams, shutdown, signals);
    let mut malformed = 0;
    loop {
        let stream_state = serving.stream_state();
        let proxy_digest = session_ext::attach_state(&stream_state);
        let digest = Arc::new(Digest { proxy_digest, ..digest.clone() });
        let next = {
            let mut accept = pin!(Http2Stream::accept(&mut connection, digest));
            poll_fn(|context| serving.poll_next(|context| accept.as_mut().poll(context), context))
                .await
        };
        match next {
            Ok(Ok(Some(Accepted::Stream(session)))) => {
                serving.begin_stream(session, stream_state);
            }
            Ok(Ok(Some(Accepted::Rejected))) => {
                malformed += 1;
                serving.log_malformed(&stream_state);
                if malformed >= MALFORMED_MAX {
                    serving.flooded();
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
            }
            Ok(Ok(None)) => return serving.closed(),
            Ok(Err(error)) => {
                if is_flood(&error) {
                    serving.count_flood();
                }
                return log::debug!("HTTP/2 connection closed: error=\"{error}\"");
            }
            Err(GoAway::Graceful) => {
                serving.start_goaway();
                connection.graceful_shutdown();
            }
            Err(GoAway::Final) => {
                serving.final_goaway_sent = true;
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            }
            Err(GoAway::Flood) => {
                serving.flooded();
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
        }
    }
}

impl<'a, H: SessionHandler> Http2Connection<'a, H> {
    const fn new(
        server: &'a Arc<DownstreamServer<H>>,
        streams: Arc<StreamTracker>,
        shutdown: &'a ShutdownWatch,
        signals: Arc<FrameSignals>,
    ) -> Self {
        Self {
            server,
            streams,
            shutdown,
            signals,
            goaway_started: false,
            final_goaway_sent: false,
            is_forced: false,
        }
    }

    fn stream_state(&self) -> Arc<ConnectionState> {
        let connection = Arc::clone(&self.streams.state.connection);
        let now = self.server.clock.now();
        let state = ConnectionState::new(connection, self.server.limits.timeouts, now);
        state.stalled.get_or_init(|| Arc::clone(&self.server.stalled));
        Arc::new(state)
    }

    fn poll_next(
        &self,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<Next>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Next, GoAway>> {
        let state = &self.streams.state;
        if state.close_reason() == Some(CloseReason::Forced)
            && let Some(reason) = state.abort_reason()
        {
            self.streams.force_close(self.server.clock.now(), reason);
        }
        if self.streams.is_empty() && state.is_in_request() {
            state.response_sent(self.server.clock.now());
        }
        let is_closing = state.close_reason().is_some();
        if !self.goaway_started
            && (state.is_draining() || state.reached_max_requests() || is_closing)
        {
            return Poll::Ready(Err(GoAway::Graceful));
        }
        if self.goaway_started && !self.final_goaway_sent && state.is_idle() && is_closing {
            return Poll::Ready(Err(GoAway::Final));
        }
        let polled = accept(context);
        if polled.is_pending() && self.signals.flood_detected.swap(false, Relaxed) {
            return Poll::Ready(Err(GoAway::Flood));
        }
        polled.map(Ok)
    }

    /// Logs a request that was rejected before there was an exchange.
    fn log_malformed(&self, state: &ConnectionState) {
        state.set_violation(Violation::Http2Malformed);
        let early = EarlyRefusal::new(Refusal::BadRequest, String::new());
        self.server.handler.record_refusal(&early, state);
    }

    /// Serves a stream in a task of its own.
    fn begin_stream(&self, mut session: Http2Stream, state: Arc<ConnectionState>) {
        self.streams.state.stream_opened();
        normalize_head(session.req_header_mut());
        request_target::escape(session.req_header_mut());
        if let Err(violation) = validate_head(session.req_header(), self.server.limits.head) {
            state.set_violation(violation);
            state.head_refusal.get_or_init(|| violation.into());
        }
        let clock = self.server.clock;
        session.set_total_drain_timeout(Some(BODY_DRAIN));
        let (of_stream, rate) = (Arc::clone(&state), self.server.limits.min_rate);
        let session = Http2Session::new(session, of_stream, clock, rate);
        let session = ServerSession::new_custom(Box::new(session));
        let (server, shutdown) = (Arc::clone(self.server), self.shutdown.clone());
        let open = self.streams.open_stream(&state);
        tokio::spawn(async move {
            let _open = open;
            let serving = async {
                let _never_reused = server.handler.app().process_new_http(session, &shutdown).await;
            };
            let _ended = run_with_timers(serving, &state, clock).await;
        });
    }

    /// Counts the flood, and ends all streams for it.
    fn count_flood(&self) {
        self.streams.force_close(self.server.clock.now(), Abort::Http2Flood);
        let connection = &self.streams.state.connection;
        self.server.failures.record_flood(connection.peer, connection.local);
    }

    fn start_goaway(&mut self) {
        self.goaway_started = true;
        self.streams.state.goaway_sent(self.server.clock.now());
    }

    /// The connection is closed.
    fn closed(&self) {
        self.signals.closed_cleanly.store(!self.is_forced, Relaxed);
    }

    /// Ends the connection for a flood. Its streams get a moment to be logged.
    fn flooded(&mut self) {
        self.count_flood();
        self.goaway_started = true;
        self.final_goaway_sent = true;
        self.is_forced = true;
        self.streams.state.force_close(self.server.clock.now(), Abort::Http2Flood);
    }
}

/// Whether `h2` closed the connection for a flood: headers without an end, or streams that are
/// reset at once.
fn is_flood(error: &Error) -> bool {
    let error = error.root_cause().downcast_ref::<h2::Error>();
    error.is_some_and(|error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// Gives a request the headers that HTTP/1 would have: `Host` (RFC 9113 §8.3.1), and one line of
/// cookies (§8.2.3).
fn normalize_head(request: &mut RequestHeader) {
    let authority = request.uri.authority().map(|authority| authority.as_str().to_owned());
    if let Some(authority) = authority
        && let Err(error) = request.insert_header(header::HOST, authority)
    {
        log::debug!("invalid authority: error=\"{error}\"");
    }
    let mut crumbs = request.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_some() && crumbs.next().is_some() {
        let crumbs: Vec<&[u8]> =
            request.headers.get_all(header::COOKIE).iter().map(|it| it.as_bytes()).collect();
        let whole = crumbs.join(&b"; "[..]);
        if let Err(error) = request.insert_header(header::COOKIE, whole) {
            log::debug!("invalid cookies: error=\"{error}\"");
        }
    }
}

/// Checks that the headers could be sent as HTTP/1.
fn validate_head(request: &RequestHeader, limits: HeadLimits) -> Result<(), Violation> {
    let (method, scheme) = (request.method.as_str(), request.uri.scheme_str());
    let head = Http2Head { method, scheme, target: request.raw_path() };
    head.check(request.headers.values().map(HeaderValue::as_bytes), limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_joined_into_one_line_and_the_authority_becomes_the_host() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_uri("https://a.test:8443/".parse().unwrap());
        for crumb in ["a=1", "b=2; c=3", "d=4"] {
            request.append_header("Cookie", crumb).unwrap();
        }
        normalize_head(&mut request);
        let cookies: Vec<_> = request.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
        assert_eq!(request.headers.get(header::HOST).unwrap(), "a.test:8443");
    }
}
