//! How long Pingora may wait for a backend.

use pingora_core::upstreams::peer::{ALPN, HttpPeer};
use pingora_error::{ErrorType, OkOrErr as _, Result};

use crate::downstream::connection_info::ConnectionInfo;
use crate::exchange::Target;
use crate::upstream::{Upstreams, http2, proxied};

/// A target in Pingora's words.
pub(super) fn build(
    upstreams: &Upstreams,
    target: &Target,
    of: Option<&ConnectionInfo>,
) -> Result<Box<HttpPeer>> {
    let address = target.backend.address();
    let peer = address.and_then(|at| upstreams.peer(target.pool, target.id, at));
    let mut peer = peer.or_err(ErrorType::InternalError, "a backend that nobody knows")?;
    let options = &mut peer.options;
    // The one is for TCP and again for TLS, the other for both.
    options.connection_timeout = Some(target.connect_timeout);
    options.total_connection_timeout = Some(target.connect_timeout * 2);
    if target.tunnel_timeout.is_some() {
        options.alpn = ALPN::H1; // HTTP/2 has no upgrades
    }
    http2::lead(&mut peer);
    let options = &mut peer.options;
    let timeout = target.tunnel_timeout.unwrap_or(target.response_timeout);
    options.read_timeout = Some(timeout);
    options.write_timeout = Some(timeout);
    options.idle_timeout = Some(target.idle_timeout);
    proxied::speak_for(&mut peer, of.map(ConnectionInfo::addresses));
    Ok(peer)
}
