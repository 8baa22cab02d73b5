//! From an accepted socket to a connection that carries HTTP: the PROXY header, if the listener
//! expects one, then the TLS handshake. Both together must be done within the header timeout.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use pingora_core::protocols::l4::stream::Stream as Socket;
use pingora_core::protocols::{GetSocketDigest as _, SocketDigest, Stream};
use tokio::io::AsyncReadExt as _;

use super::accept_error::AcceptError;
use super::connection_info::{ClientTls, ConnectionInfo};
use super::connection_state::{CloseReason, ConnectionState};
use crate::clock::Clock;
use crate::config::Listener;
use crate::http::forwarded::is_trusted;
use crate::http::proxy_protocol::{self, Addresses, Invalid, LENGTH_MAX};
use crate::tls::terminator::Terminator;

/// The start of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The socket below a stream of Pingora, and its addresses. `None` if the client is gone already.
pub(crate) fn socket(stream: Stream) -> Option<(Box<Socket>, ConnectionInfo)> {
    let socket = stream.into_any().downcast::<Socket>().ok()?;
    let digest = socket.get_socket_digest()?;
    let connection = ConnectionInfo::new(address(&digest, true)?, address(&digest, false)?);
    Some((socket, connection))
}

fn address(digest: &SocketDigest, peer: bool) -> Option<SocketAddr> {
    let address = if peer { digest.peer_addr() } else { digest.local_addr() };
    address?.as_inet().copied()
}

/// A connection that can carry HTTP.
pub(crate) enum Negotiated {
    /// Plaintext. The first bytes will tell the version of HTTP.
    Undetected(Box<Socket>),
    /// HTTP/1, by ALPN, without ALPN, or by the first bytes.
    Http1(Stream),
    /// HTTP/2, by ALPN or by the first bytes.
    Http2(Stream),
}

impl Negotiated {
    /// Reads the first bytes of a plaintext connection that may be HTTP/2. `None` if the client has
    /// left, or the connection has to be closed.
    pub(crate) async fn detect_protocol(
        self,
        may_be_http2: bool,
        state: &ConnectionState,
        clock: Clock,
    ) -> Option<Self> {
        let mut socket = match self {
            Self::Undetected(socket) if may_be_http2 => socket,
            Self::Undetected(socket) => return Some(Self::Http1(socket)),
            decided @ (Self::Http1(_) | Self::Http2(_)) => return Some(decided),
        };
        let mut bytes = Vec::with_capacity(PREFACE.len());
        while bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
            let more = PREFACE.len() - bytes.len();
            let mut limited = (&mut socket).take(u64::try_from(more).unwrap_or(0));
            let mut read = pin!(limited.read_buf(&mut bytes));
            let read = poll_fn(|context| match state.close_reason() {
                None => read.as_mut().poll(context),
                Some(
                    CloseReason::Idle
                    | CloseReason::HeaderTimeout
                    | CloseReason::RequestTimeout
                    | CloseReason::WriteTimeout
                    | CloseReason::Forced,
                ) => Poll::Ready(Ok(0)),
            });
            match read.await {
                Ok(0) if bytes.is_empty() || state.close_reason().is_some() => return None,
                Ok(0) => break,
                // They begin the first request.
                Ok(_) => state.bytes_read(1, || clock.now()),
                Err(error) => {
                    log::debug!("client disconnected: error=\"{error}\"");
                    return None;
                }
            }
        }
        socket.rewind(&bytes);
        Some(if bytes == PREFACE { Self::Http2(socket) } else { Self::Http1(socket) })
    }
}

/// A listener, with its TLS.
#[derive(Clone)]
pub struct ListenerContext {
    /// Its configuration.
    pub listener: Listener,
    /// Terminates its TLS; `None` for plaintext.
    pub terminator: Option<Arc<Terminator>>,
}

impl ListenerContext {
    /// Reads the PROXY header if the peer is in `proxy_protocol.from`.
    pub(crate) async fn read_proxy_header(
        &self,
        socket: &mut Socket,
        connection: &mut ConnectionInfo,
        until: Instant,
    ) -> Result<(), AcceptError> {
        let from = &self.listener.proxy_protocol;
        if from.is_empty() || !is_trusted(connection.peer.ip(), from) {
            return Ok(());
        }
        connection.proxied = in_time(until, proxy_header(socket)).await?;
        Ok(())
    }

    /// Makes the TLS handshake if the listener has TLS.
    pub(crate) async fn accept_tls(
        &self,
        socket: Box<Socket>,
        connection: &mut ConnectionInfo,
        until: Instant,
        clock: Clock,
    ) -> Result<Negotiated, AcceptError> {
        let Some(terminator) = &self.terminator else { return Ok(Negotiated::Undetected(socket)) };
        let now = clock.wall(clock.now());
        let handshake =
            async { terminator.accept(socket, now).await.map_err(AcceptError::Handshake) };
        let (stream, facts) = in_time(until, handshake).await?;
        let negotiated =
            if facts.http2 { Negotiated::Http2(stream) } else { Negotiated::Http1(stream) };
        connection.tls = Some(ClientTls { facts, terminator: Arc::clone(terminator) });
        Ok(negotiated)
    }
}

async fn in_time<T>(
    until: Instant,
    step: impl Future<Output = Result<T, AcceptError>>,
) -> Result<T, AcceptError> {
    let done = tokio::time::timeout_at(until.into(), step).await;
    done.map_err(|_elapsed| AcceptError::Timeout)?
}

async fn proxy_header(socket: &mut Socket) -> Result<Option<Addresses>, AcceptError> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        let read = socket.take(bytes_left(&bytes)).read_buf(&mut bytes).await;
        match read {
            Ok(0) if bytes.is_empty() => return Err(AcceptError::ClosedEarly),
            Ok(0) => return Err(AcceptError::BadProxyHeader(Invalid::Length)),
            Ok(_) => {}
            Err(_broken) => return Err(AcceptError::Broken),
        }
        match proxy_protocol::parse(&bytes) {
            Ok(None) => {}
            Ok(Some(header)) => {
                socket.rewind(bytes.get(header.length..).unwrap_or_default());
                return Ok(header.addresses);
            }
            Err(Invalid::Missing) => return Err(AcceptError::NoProxyHeader),
            Err(invalid) => return Err(AcceptError::BadProxyHeader(invalid)),
        }
    }
}

/// How many more bytes a PROXY header may have.
fn bytes_left(bytes: &[u8]) -> u64 {
    u64::try_from(LENGTH_MAX.saturating_sub(bytes.len())).unwrap_or(0)
}
