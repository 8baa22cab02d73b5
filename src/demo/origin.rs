//! One origin server, which answers every request with what it saw of it.
//!
//! The answer is JSON that names the server and repeats the method, the target and the header
//! fields as they arrived, so that one `curl` through the balancer shows who answered and what
//! the balancer changed on the way. Latency and failure can be dialled in.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_error::{ErrorType, OrErr as _, Result};
use serde::Serialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long an idle connection is kept; longer than a balancer keeps its own, so that it is the
/// balancer that closes and no request meets a connection that has just gone.
const KEEPALIVE_S: u64 = 75;
/// How long answers in flight may take once the origin was told to stop, beyond its latency.
const DRAIN: Duration = Duration::from_secs(1);
/// How long to wait after a failed accept. Out of descriptors, the next one fails at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How an origin behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginOptions {
    /// What it calls itself in `X-Origin` and in the body.
    pub name: String,
    /// How long it waits before each answer, `/health` excepted.
    pub latency: Duration,
    /// Answer everything with 500, `/health` too.
    pub fail: bool,
    /// The status of every answer but that of `/health`. What is not a final status is taken
    /// for 200.
    pub status: u16,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self { name: "origin".to_owned(), latency: Duration::ZERO, fail: false, status: 200 }
    }
}

impl OriginOptions {
    fn status(&self) -> StatusCode {
        if self.fail {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        if status.is_informational() { StatusCode::OK } else { status }
    }
}

/// Binds the socket of an origin.
///
/// # Errors
/// When the address is in use, or is not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stop` becomes true, then finishes the answers in flight and returns.
///
/// A dropped sender of `stop` also stops it.
pub async fn serve(
    listener: std::net::TcpListener,
    options: OriginOptions,
    mut stop: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            log::error!("an origin cannot listen: name={} error={error}", options.name);
            return;
        }
    };
    let mut connections = JoinSet::new();
    let stopped = stop.clone();
    loop {
        tokio::select! {
            () = told_to_stop(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(converse(socket, options.clone(), stopped.clone()));
                }
                Err(error) => {
                    log::warn!("an origin cannot accept: name={} error={error}", options.name);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.latency + DRAIN, drained).await.is_err() {
        log::warn!("an origin stopped before it had answered all: name={}", options.name);
    }
}

/// Returns when `stop` is true, or when nobody is left who could make it so.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Answers the requests of one connection until either side has had enough.
async fn converse(socket: TcpStream, options: OriginOptions, mut stop: watch::Receiver<bool>) {
    let mut stream = Stream::from(socket);
    if let Err(error) = stream.set_nodelay() {
        log::debug!("a connection went away: error={error}");
        return;
    }
    let mut session = ServerSession::new_http1(Box::new(stream));
    session.set_keepalive(Some(KEEPALIVE_S));
    session.set_pipelining_enabled(true);
    loop {
        let next = tokio::select! {
            biased;
            // Between requests a stop ends the connection; inside one it does not.
            () = told_to_stop(&mut stop) => return,
            next = next_request(&mut session) => next,
        };
        if !next {
            return;
        }
        match answer(session, &options, &stop).await {
            Ok(Some(reused)) => session = reused,
            Ok(None) => return,
            Err(error) => {
                log::debug!("an answer was cut short: error={error}");
                return;
            }
        }
    }
}

/// Whether there is another request. One that cannot be read is refused here.
async fn next_request(session: &mut ServerSession) -> bool {
    match session.read_request().await {
        Ok(more) => more,
        Err(error) => {
            log::debug!("a request was refused: error={error}");
            if let Err(error) = session.respond_error(400).await {
                log::debug!("a refusal was not delivered: error={error}");
            }
            false
        }
    }
}

/// Reads the rest of the request and answers it. Gives the connection back if it can be used
/// again.
async fn answer(
    mut session: ServerSession,
    options: &OriginOptions,
    stop: &watch::Receiver<bool>,
) -> Result<Option<ServerSession>> {
    // Pingora has taken keepalive from the request's version and `Connection`; what is still to
    // be set is how long. Setting it where it is off would keep HTTP/1.0 clients waiting.
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(KEEPALIVE_S));
    }
    let body_bytes = read_body(&mut session).await?;
    let (status, body) = compose(&session, options, body_bytes).await?;
    if *stop.borrow() {
        session.set_keepalive(None);
    }

    let has_no_body = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let mut head = ResponseHeader::build(status, Some(4))?;
    head.insert_header("X-Origin", options.name.as_str())?;
    if !has_no_body {
        head.insert_header(header::CONTENT_TYPE, "application/json")?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    let is_head = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head)).await?;
    if !has_no_body && !is_head {
        session.write_response_body(Bytes::from(body), true).await?;
    }

    let settings = HttpPersistentSettings::for_session(&session);
    let Some(reusable) = session.finish().await? else { return Ok(None) };
    let (stream, settings) = ReusedHttpStream::from_reusable_stream(reusable, settings).consume();
    let mut session = ServerSession::new_http1(stream);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    Ok(Some(session))
}

/// Reads the request's body to its end and says how long it was.
async fn read_body(session: &mut ServerSession) -> Result<usize> {
    let request = session.req_header();
    let is_asked_to_continue = request.version == http::Version::HTTP_11
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if is_asked_to_continue {
        session.write_continue_response().await?;
    }
    let mut bytes = 0_usize;
    while let Some(piece) = session.read_request_body().await? {
        bytes = bytes.saturating_add(piece.len());
    }
    Ok(bytes)
}

/// The status and the body of the answer, after the latency that was dialled in.
async fn compose(
    session: &ServerSession,
    options: &OriginOptions,
    body_bytes: usize,
) -> Result<(StatusCode, Vec<u8>)> {
    let request = session.req_header();
    if request.uri.path() == "/health" {
        let (status, word) = if options.fail {
            (StatusCode::INTERNAL_SERVER_ERROR, "failing")
        } else {
            (StatusCode::OK, "ok")
        };
        return Ok((status, format!("{{\"status\":\"{word}\"}}\n").into_bytes()));
    }
    if !options.latency.is_zero() {
        tokio::time::sleep(options.latency).await;
    }
    let seen = Seen {
        server: &options.name,
        method: request.method.as_str(),
        path: String::from_utf8_lossy(request.raw_path()).into_owned(),
        headers: fields(&request.headers),
        body_bytes,
    };
    let mut body = serde_json::to_vec(&seen)
        .or_err(ErrorType::InternalError, "writing what was seen of a request")?;
    body.push(b'\n');
    Ok((options.status(), body))
}

/// What an origin saw of a request: the body of its answer.
#[derive(Serialize)]
struct Seen<'a> {
    server: &'a str,
    method: &'a str,
    path: String,
    headers: BTreeMap<String, Value>,
    body_bytes: usize,
}

/// Each field name once: its value, or the list of its values where it came more than once.
fn fields(headers: &HeaderMap) -> BTreeMap<String, Value> {
    let text =
        |value: &http::HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()).as_ref());
    headers
        .keys()
        .map(|name| {
            let mut values: Vec<Value> = headers.get_all(name).iter().map(text).collect();
            let value = if values.len() == 1 { values.remove(0) } else { Value::from(values) };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests;
