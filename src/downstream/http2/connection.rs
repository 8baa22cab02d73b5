//! HTTP/2 with clients: the streams of a connection, each a task of its own.
//!
//! Pingora's own accept loop is not for others to use, has no bound on its drain and counts no
//! frames; what it is made of is public. The connection has a line like any other: idle while it has
//! no stream, busy while it has one. Each stream has a line, too: its deadline is the exchange's.

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

use crate::downstream::connection_state::{Line, Verdict};
use crate::downstream::early_refusal::EarlyRefusal;
use crate::downstream::handler::SessionHandler;
use crate::downstream::http2::frame_guard::{Fate, FramedStream};
use crate::downstream::http2::session::GuardedSession;
use crate::downstream::http2::stream::{Accepted, Http2Stream};
use crate::downstream::http2::streams::Streams;
use crate::downstream::request_target;
use crate::downstream::server::{BODY_DRAIN, DownstreamServer};
use crate::downstream::session_ext;
use crate::downstream::tracker::Place;
use crate::downstream::watchdog::watched;
use crate::exchange::refusal::{Abort, Refusal};
use crate::http::scan::{Http2Head, Limits as HeadLimits, Violation};

/// Requests that could not be read, on one connection.
const MALFORMED_MAX: usize = 32;

/// What comes next: a stream, a request that could not be read, or the end.
type Next = pingora_error::Result<Option<Accepted>>;

/// Why a connection is to end before its client ends it.
enum End {
    /// Nothing new is to be begun: a GOAWAY that names no last stream. What the client sends before
    /// it hears of that is still served.
    Leave,
    /// The client has been silent since: a GOAWAY that names the last stream.
    Last,
    /// At once.
    Flooded,
}

/// A connection that is being served.
struct Accepting<'a, H> {
    server: &'a Arc<DownstreamServer<H>>,
    streams: Arc<Streams>,
    shutdown: &'a ShutdownWatch,
    fate: Arc<Fate>,
    leaving: bool,
    has_ended: bool,
    is_forced: bool,
}

/// Serves an HTTP/2 connection to its end.
pub(crate) async fn serve<H: SessionHandler>(
    server: &Arc<DownstreamServer<H>>,
    stream: Stream,
    line: &Arc<Line>,
    place: Arc<Place>,
    shutdown: &ShutdownWatch,
) {
    let clock = server.clock;
    let fate = Arc::new(Fate::default());
    let stream = FramedStream::new(stream, Arc::clone(&fate), clock, line);
    let digest = Digest {
        ssl_digest: pingora_core::protocols::Ssl::get_ssl_digest(&stream),
        socket_digest: pingora_core::protocols::GetSocketDigest::get_socket_digest(&stream),
        ..Digest::default()
    };
    let options = Some(server.http2.clone());
    let mut connection = match handshake(Box::new(stream), options).await {
        Ok(connection) => connection,
        Err(error) => return log::debug!("no HTTP/2: {error}"),
    };
    line.answered(clock.now());
    let streams = Streams::new(line, place);
    let mut accepting = Accepting {
        server,
        streams,
        shutdown,
        fate,
        leaving: false,
        has_ended: false,
        is_forced: false,
    };
    let mut malformed = 0;
    loop {
        let stream_line = accepting.stream_line();
        let proxy_digest = session_ext::attach_state(&stream_line);
        let digest = Arc::new(Digest { proxy_digest, ..digest.clone() });
        let next = {
            let mut accept = pin!(Http2Stream::accept(&mut connection, digest));
            poll_fn(|context| accepting.poll_next(|context| accept.as_mut().poll(context), context))
                .await
        };
        match next {
            Ok(Ok(Some(Accepted::Stream(session)))) => {
                accepting.begin(session, stream_line);
            }
            Ok(Ok(Some(Accepted::Rejected))) => {
                malformed += 1;
                accepting.tell_malformed(&stream_line);
                if malformed >= MALFORMED_MAX {
                    accepting.flooded();
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
            }
            Ok(Ok(None)) => return accepting.over(),
            Ok(Err(error)) => {
                if is_flood(&error) {
                    accepting.count_flood();
                }
                return log::debug!("HTTP/2 ended: {error}");
            }
            Err(End::Leave) => {
                accepting.leave();
                connection.graceful_shutdown();
            }
            Err(End::Last) => {
                accepting.has_ended = true;
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            }
            Err(End::Flooded) => {
                accepting.flooded();
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
        }
    }
}

impl<H: SessionHandler> Accepting<'_, H> {
    fn stream_line(&self) -> Arc<Line> {
        let connection = Arc::clone(&self.streams.line.connection);
        let now = self.server.clock.now();
        let line = Line::new(connection, self.server.limits.timeouts, now);
        line.stalled.get_or_init(|| Arc::clone(&self.server.stalled));
        Arc::new(line)
    }

    fn poll_next(
        &self,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<Next>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Next, End>> {
        let line = &self.streams.line;
        if line.verdict() == Verdict::Abort
            && let Some(reason) = line.abort()
        {
            self.streams.cut(self.server.clock.now(), reason);
        }
        if self.streams.is_empty() && line.is_busy() {
            line.answered(self.server.clock.now());
        }
        let has_verdict = line.verdict() != Verdict::Open;
        if !self.leaving && (line.is_draining() || line.is_worn() || has_verdict) {
            return Poll::Ready(Err(End::Leave));
        }
        if self.leaving && !self.has_ended && line.is_idle() && has_verdict {
            return Poll::Ready(Err(End::Last));
        }
        let polled = accept(context);
        if polled.is_pending() && self.fate.flooded.swap(false, Relaxed) {
            return Poll::Ready(Err(End::Flooded));
        }
        polled.map(Ok)
    }

    /// A request was rejected before there was an exchange.
    fn tell_malformed(&self, line: &Line) {
        line.violated(Violation::Http2Malformed);
        let early = EarlyRefusal::new(Refusal::BadRequest, String::new());
        self.server.handler.record_refusal(&early, line);
    }

    /// Serves a stream in a task of its own.
    fn begin(&self, mut session: Http2Stream, line: Arc<Line>) {
        self.streams.line.carries();
        tidy(session.req_header_mut());
        request_target::escape(session.req_header_mut());
        if let Err(violation) = check(session.req_header(), self.server.limits.head) {
            line.violated(violation);
            line.foretold.get_or_init(|| violation.into());
        }
        let clock = self.server.clock;
        session.set_total_drain_timeout(Some(BODY_DRAIN));
        let (of_stream, pace) = (Arc::clone(&line), self.server.limits.pace);
        let session = GuardedSession::new(session, of_stream, clock, pace);
        let session = ServerSession::new_custom(Box::new(session));
        let (server, shutdown) = (Arc::clone(self.server), self.shutdown.clone());
        let open = self.streams.enter(&line);
        tokio::spawn(async move {
            let _open = open;
            let serving = async {
                let _never_reused = server.handler.app().process_new_http(session, &shutdown).await;
            };
            let _ended = watched(serving, &line, clock).await;
        });
    }

    /// Whatever is still going on is ended for the flood.
    fn count_flood(&self) {
        self.streams.cut(self.server.clock.now(), Abort::Http2Flood);
        let connection = &self.streams.line.connection;
        self.server.failures.flooded(connection.peer, connection.local);
    }

    fn leave(&mut self) {
        self.leaving = true;
        self.streams.line.leaves(self.server.clock.now());
    }

    /// Nothing is going on any more.
    fn over(&self) {
        self.fate.is_over.store(!self.is_forced, Relaxed);
    }

    /// Whatever is still going on has a moment to end.
    fn flooded(&mut self) {
        self.count_flood();
        self.leaving = true;
        self.has_ended = true;
        self.is_forced = true;
        self.streams.line.cut(self.server.clock.now(), Abort::Http2Flood);
    }
}

/// Whether the library ended a client's connection for what costs the client nothing: a head without
/// an end, streams that are reset at once.
fn is_flood(error: &Error) -> bool {
    let error = error.root_cause().downcast_ref::<h2::Error>();
    error.is_some_and(|error| {
        error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// Makes a head what HTTP/1 would have: `Host` (RFC 9113 §8.3.1), and one line of cookies (§8.2.3).
fn tidy(request: &mut RequestHeader) {
    let authority = request.uri.authority().map(|authority| authority.as_str().to_owned());
    if let Some(authority) = authority
        && let Err(error) = request.insert_header(header::HOST, authority)
    {
        log::debug!("an authority that is no field: {error}");
    }
    let mut crumbs = request.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_some() && crumbs.next().is_some() {
        let crumbs: Vec<&[u8]> =
            request.headers.get_all(header::COOKIE).iter().map(|it| it.as_bytes()).collect();
        let whole = crumbs.join(&b"; "[..]);
        if let Err(error) = request.insert_header(header::COOKIE, whole) {
            log::debug!("cookies that are no field: {error}");
        }
    }
}

/// Whether HTTP/1 has a place for all of a head.
fn check(request: &RequestHeader, limits: HeadLimits) -> Result<(), Violation> {
    let (method, scheme) = (request.method.as_str(), request.uri.scheme_str());
    let head = Http2Head { method, scheme, target: request.raw_path() };
    head.check(request.headers.values().map(HeaderValue::as_bytes), limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_of_cookies_become_one_line_and_the_authority_the_host() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_uri("https://a.test:8443/".parse().unwrap());
        for crumb in ["a=1", "b=2; c=3", "d=4"] {
            request.append_header("Cookie", crumb).unwrap();
        }
        tidy(&mut request);
        let cookies: Vec<_> = request.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
        assert_eq!(request.headers.get(header::HOST).unwrap(), "a.test:8443");
    }
}
