//! How Pingora connects to backends. HTTP/1: its own connections, read in small pieces
//! (`upstream::bounded`). HTTP/2: its connections, and requests whose bodies are in our hands.
//!
//! Pingora passes nothing of an answer on while it waits until the backend takes a piece of the
//! request. A backend that stops to read until its own answer is taken would then wait for itself.
//! So here a piece is taken at once, whatever the backend takes, and whoever reads the client holds
//! back while too much is on its way ([`Upload::poll_room`]).

mod call;
mod upload;

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

use self::call::Call;
pub use self::upload::{Upload, of};
use super::bounded::Bounded;

/// How Pingora is told that a peer is for [`Connector`]: nobody is ever offered these protocols.
const ALONE: &[u8] = b"weir:h2";
const PREFERRED: &[u8] = b"weir:h2,http/1.1";
const HTTP1: &[u8] = b"weir:http/1.1";

/// Leads the requests of a peer to [`Connector`].
pub fn lead(peer: &mut HttpPeer) {
    let protocol = match peer.options.alpn {
        ALPN::H2 => ALONE,
        ALPN::H2H1 => PREFERRED,
        ALPN::H1 => HTTP1,
        ALPN::Custom(_) => return,
    };
    peer.options.alpn = ALPN::Custom(CustomALPN::new(protocol.to_vec()));
}

/// Whether a peer may speak HTTP/1.1 instead.
fn has_choice(peer: &impl Peer) -> bool {
    is_led_by(peer, PREFERRED)
}

fn is_led_by(peer: &impl Peer, protocol: &[u8]) -> bool {
    peer.get_alpn()
        .is_some_and(|alpn| matches!(alpn, ALPN::Custom(it) if it.protocol() == protocol))
}

/// Makes connections, and keeps those of HTTP/2, as Pingora does. It keeps those of HTTP/1 itself.
pub struct Connector {
    http1: TransportConnector,
    http2: v2::Connector,
}

impl Connector {
    /// With the options of Pingora's own connectors.
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
    type Session = Call;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<Call>, bool)> {
        let has_choice = has_choice(peer);
        let any: &dyn Any = peer;
        let peer = any.downcast_ref::<HttpPeer>();
        let mut peer = peer.or_err(ErrorType::InternalError, "a peer of another kind")?.clone();
        if is_led_by(&peer, HTTP1) {
            peer.options.alpn = ALPN::H1;
            let stream = self.http1.new_stream(&peer).await?;
            return Ok((Connection::Stream(Box::new(Bounded::new(stream))), false));
        }
        peer.options.alpn = if has_choice { ALPN::H2H1 } else { ALPN::H2 };
        let session: HttpSession = self.http2.new_http_session(&peer).await?;
        let connection = match session {
            HttpSession::H2(stream) => {
                Connection::Session(Call::new(stream, peer.tls(), has_choice))
            }
            HttpSession::H1(session) => {
                Connection::Stream(Box::new(Bounded::new(session.into_inner())))
            }
            HttpSession::Custom(()) => {
                return Error::e_explain(ErrorType::InternalError, "a session of another kind");
            }
        };
        Ok((connection, false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, peer: &P) -> Option<Call> {
        if is_led_by(peer, HTTP1) {
            return None;
        }
        match self.http2.reused_http_session(peer).await {
            Ok(stream) => Some(Call::new(stream?, peer.tls(), has_choice(peer))),
            Err(error) => {
                log::debug!("a connection takes no more streams: {error}");
                None
            }
        }
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        call: Call,
        peer: &P,
        idle_timeout: Option<Duration>,
    ) {
        if call.wants_http1() {
            self.http2.prefer_h1(peer);
        }
        self.http2.release_http_session(call.leave(), peer, idle_timeout);
    }
}
