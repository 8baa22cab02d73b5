//! Where Pingora is to connect, and how long it may wait.

use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use crate::exchange::Target;

/// A target in Pingora's words.
pub(super) fn peer(target: &Target) -> Box<HttpPeer> {
    let mut peer = HttpPeer::new(target.address, false, String::new());
    let options = &mut peer.options;
    options.connection_timeout = Some(target.connect_timeout);
    options.total_connection_timeout = Some(target.connect_timeout);
    let patience = target.tunnel_timeout.unwrap_or(target.response_timeout);
    options.read_timeout = Some(patience);
    options.write_timeout = Some(patience);
    options.idle_timeout = Some(target.idle_timeout);
    // All about hops is for `hop_by_hop` and `tunnel.rs` to judge: Pingora would take `Cookie` or
    // `X-Request-Id` where `Connection` nominates them, and look for each field of the list before
    // we do.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    Box::new(peer)
}
