//! The backend of an attempt, as a peer of Pingora with its timeouts.

use pingora_core::upstreams::peer::{ALPN, HttpPeer};
use pingora_error::{ErrorType, OkOrErr as _, Result};

use crate::downstream::connection_info::ConnectionInfo;
use crate::exchange::Target;
use crate::upstream::{UpstreamPeers, http2, proxy_header};

/// The peer for a target.
pub(super) fn build(
    upstreams: &UpstreamPeers,
    target: &Target,
    of: Option<&ConnectionInfo>,
) -> Result<Box<HttpPeer>> {
    let address = target.backend.address();
    let peer = address.and_then(|at| upstreams.peer(target.pool, target.id, at));
    let mut peer = peer.or_err(ErrorType::InternalError, "a backend without an address")?;
    let options = &mut peer.options;
    // Pingora applies the first to TCP and to TLS each, the second to both together.
    options.connection_timeout = Some(target.connect_timeout);
    options.total_connection_timeout = Some(target.connect_timeout * 2);
    if target.tunnel_timeout.is_some() {
        options.alpn = ALPN::H1; // HTTP/2 has no upgrades
    }
    http2::route_to_connector(&mut peer);
    let options = &mut peer.options;
    let timeout = target.tunnel_timeout.unwrap_or(target.response_timeout);
    options.read_timeout = Some(timeout);
    options.write_timeout = Some(timeout);
    options.idle_timeout = Some(target.idle_timeout);
    proxy_header::for_client(&mut peer, of.map(ConnectionInfo::addresses));
    Ok(peer)
}
