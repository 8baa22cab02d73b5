//! Blocked backends: a file that their TLS needs cannot be used, and no earlier version of it is known.

use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};

/// The beginning of the error of a blocked connection, before the reason.
pub(super) const BLOCKED: &str = "connection blocked, a file cannot be used: ";

/// Makes every connection to this peer fail before its socket connects. No PROXY header is sent either,
/// because a custom connector would not call the hook.
pub(super) fn block_peer(peer: &mut HttpPeer, why: &str) {
    let why: Arc<str> = Arc::from(format!("{BLOCKED}{why}"));
    let block = move |_: &_| Err(Error::explain(ErrorType::TLSHandshakeFailure, why.to_string()));
    peer.options.custom_l4 = None;
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(block));
}
