//! The custom connector for backends. HTTP/1: Pingora's connections, read in small pieces
//! (`bounded.rs`). HTTP/2: Pingora's connections, with request bodies sent by Weir (`http2/`).

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::http::custom::{self, Connection};
use pingora_core::connectors::http::v2;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::tls::CustomALPN;
use pingora_core::upstreams::peer::{ALPN, HttpPeer, Peer};
use pingora_error::{Error, ErrorType, OkOrErr as _, Result};

use super::bounded::Bounded;
use super::http2::Http2UpstreamSession;

/// ALPN values that mark a peer for [`Connector`]; never sent to a backend.
const HTTP2: &[u8] = b"weir:h2";
const PREFERRED: &[u8] = b"weir:h2,http/1.1";
const HTTP1: &[u8] = b"weir:http/1.1";

/// Makes Pingora use [`Connector`] for the requests to a peer.
pub fn use_connector(peer: &mut HttpPeer) {
    let protocol = match peer.options.alpn {
        ALPN::H2 => HTTP2,
        ALPN::H2H1 => PREFERRED,
        ALPN::H1 => HTTP1,
        ALPN::Custom(_) => return,
    };
    peer.options.alpn = ALPN::Custom(CustomALPN::new(protocol.to_vec()));
}

/// Whether HTTP/1.1 may be used instead.
fn has_choice(peer: &impl Peer) -> bool {
    is_marked(peer, PREFERRED)
}

fn is_marked(peer: &impl Peer, protocol: &[u8]) -> bool {
    peer.get_alpn()
        .is_some_and(|alpn| matches!(alpn, ALPN::Custom(it) if it.protocol() == protocol))
}

/// Makes connections, and keeps idle HTTP/2 connections as Pingora does. Pingora keeps those of HTTP/1 itself.
pub struct Connector {
    http1: TransportConnector,
    http2: v2::Connector,
}

impl Connector {
    /// A connector with the options of Pingora's own connectors.
    #[must_use]
    pub fn new(options: ConnectorOptions) -> Self {
        Self {
            http1: TransportConnector::new(Some(options.clone())),
            http2: v2::Connector::new(Some(options)),
        }
    }
}

#[async_trait]
impl custom::Connector for Connector {
    type Session = Http2UpstreamSession;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<Http2UpstreamSession>, bool)> {
        let has_choice = has_choice(peer);
        let any: &dyn Any = peer;
        let peer = any.downcast_ref::<HttpPeer>();
        let mut peer =
            peer.or_err(ErrorType::InternalError, "the peer is not an HttpPeer")?.clone();
        if is_marked(&peer, HTTP1) {
            peer.options.alpn = ALPN::H1;
            let stream = self.http1.new_stream(&peer).await?;
            return Ok((Connection::Stream(Box::new(Bounded::new(stream))), false));
        }
        peer.options.alpn = if has_choice { ALPN::H2H1 } else { ALPN::H2 };
        let session: HttpSession = self.http2.new_http_session(&peer).await?;
        let connection = match session {
            HttpSession::H2(stream) => {
                Connection::Session(Http2UpstreamSession::new(stream, peer.tls(), has_choice))
            }
            HttpSession::H1(session) => {
                Connection::Stream(Box::new(Bounded::new(session.into_inner())))
            }
            HttpSession::Custom(()) => {
                return Error::e_explain(ErrorType::InternalError, "an unexpected custom session");
            }
        };
        Ok((connection, false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Option<Http2UpstreamSession> {
        if is_marked(peer, HTTP1) {
            return None;
        }
        match self.http2.reused_http_session(peer).await {
            Ok(stream) => Some(Http2UpstreamSession::new(stream?, peer.tls(), has_choice(peer))),
            Err(error) => {
                log::debug!(
                    "connection to a backend not reused: it takes no more streams: {error}"
                );
                None
            }
        }
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        session: Http2UpstreamSession,
        peer: &P,
        idle_timeout: Option<Duration>,
    ) {
        if session.wants_http1() {
            self.http2.prefer_h1(peer);
        }
        self.http2.release_http_session(session.into_inner(), peer, idle_timeout);
    }
}
