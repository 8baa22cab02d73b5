//! One test server that responds to every request with a description of it.
//!
//! The response is JSON with the name of the server and the method, target and headers as they
//! arrived. So one `curl` through the load balancer shows which server responded, and what the load
//! balancer changed. Latency and failures can be configured.

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

/// The keep-alive timeout. It is longer than that of a load balancer, so that the load balancer
/// closes idle connections, and no request uses a connection that was just closed.
const KEEPALIVE_S: u64 = 75;
/// The time for responses in progress at a stop, in addition to the latency.
const DRAIN: Duration = Duration::from_secs(1);
/// The wait after a failed accept. Without free descriptors, the next one would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The behaviour of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginOptions {
    /// Its name in `X-Origin` and in the body.
    pub name: String,
    /// The wait before each response, except `/health`.
    pub latency: Duration,
    /// Whether every response is 500, including `/health`.
    pub fail: bool,
    /// The status of every response, except `/health`. An informational status counts as 200.
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

/// Binds the socket of a server.
///
/// # Errors
/// The address is in use, or not an address of this machine.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stop` becomes true or its sender is dropped. Then completes the responses in progress.
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
            () = stop_requested(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve_connection(socket, options.clone(), stopped.clone()));
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
        log::warn!("an origin stopped before all responses were sent: name={}", options.name);
    }
}

/// Returns when `stop` is true, or when its sender is dropped.
async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Serves the requests of one connection until either side closes it.
async fn serve_connection(
    socket: TcpStream,
    options: OriginOptions,
    mut stop: watch::Receiver<bool>,
) {
    let mut stream = Stream::from(socket);
    if let Err(error) = stream.set_nodelay() {
        log::debug!("a connection was closed: error={error}");
        return;
    }
    let mut session = ServerSession::new_http1(Box::new(stream));
    session.set_keepalive(Some(KEEPALIVE_S));
    session.set_pipelining_enabled(true);
    loop {
        let next = tokio::select! {
            biased;
            // A stop closes the connection between requests, not during one.
            () = stop_requested(&mut stop) => return,
            next = next_request(&mut session) => next,
        };
        if !next {
            return;
        }
        match respond(session, &options, &stop).await {
            Ok(Some(reused)) => session = reused,
            Ok(None) => return,
            Err(error) => {
                log::debug!("a response was aborted: error={error}");
                return;
            }
        }
    }
}

/// Reads the headers of the next request. Returns false if there is none; an invalid one gets 400.
async fn next_request(session: &mut ServerSession) -> bool {
    match session.read_request().await {
        Ok(more) => more,
        Err(error) => {
            log::debug!("a request was rejected: error={error}");
            if let Err(error) = session.respond_error(400).await {
                log::debug!("an error response was not sent: error={error}");
            }
            false
        }
    }
}

/// Reads the body of the request and responds. Returns the connection if it can be reused.
async fn respond(
    mut session: ServerSession,
    options: &OriginOptions,
    stop: &watch::Receiver<bool>,
) -> Result<Option<ServerSession>> {
    // Pingora has decided on keep-alive by the request's version and `Connection`; only the timeout is
    // set here. Setting it when keep-alive is off would leave HTTP/1.0 clients waiting.
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(KEEPALIVE_S));
    }
    let body_bytes = read_body(&mut session).await?;
    let (status, body) = build_response(&session, options, body_bytes).await?;
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

/// Reads the request body to its end and returns its length.
async fn read_body(session: &mut ServerSession) -> Result<usize> {
    let request = session.req_header();
    let expects_continue = request.version == http::Version::HTTP_11
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects_continue {
        session.write_continue_response().await?;
    }
    let mut bytes = 0_usize;
    while let Some(part) = session.read_request_body().await? {
        bytes = bytes.saturating_add(part.len());
    }
    Ok(bytes)
}

/// Builds the status and the body of the response, after the configured latency.
async fn build_response(
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
    let echo = RequestEcho {
        server: &options.name,
        method: request.method.as_str(),
        path: String::from_utf8_lossy(request.raw_path()).into_owned(),
        headers: headers_json(&request.headers),
        body_bytes,
    };
    let mut body =
        serde_json::to_vec(&echo).or_err(ErrorType::InternalError, "encoding the response body")?;
    body.push(b'\n');
    Ok((options.status(), body))
}

/// The body of a response: the request as it arrived.
#[derive(Serialize)]
struct RequestEcho<'a> {
    server: &'a str,
    method: &'a str,
    path: String,
    headers: BTreeMap<String, Value>,
    body_bytes: usize,
}

/// Each header name once, with its value, or with the list of its values if there are several.
fn headers_json(headers: &HeaderMap) -> BTreeMap<String, Value> {
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
