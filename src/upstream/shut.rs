//! Backends that may not be spoken to: what is needed for their TLS is in a file that cannot be used,
//! and nobody knows what was in it before.

use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};

/// What a connection that is not made says of itself, ahead of the reason.
pub(super) const SHUT: &str = "not spoken to, for want of a file: ";

/// Lets no connection to this peer come about: it ends before its socket connects. It says no PROXY
/// header either, because that takes a way of connecting that asks nobody.
pub(super) fn shut(peer: &mut HttpPeer, why: &str) {
    let why: Arc<str> = Arc::from(format!("{SHUT}{why}"));
    let refuse = move |_: &_| Err(Error::explain(ErrorType::TLSHandshakeFailure, why.to_string()));
    peer.options.custom_l4 = None;
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(refuse));
}
