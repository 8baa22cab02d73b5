//! How a request finds its client connection.
//!
//! Pingora passes a session to each hook, and a session has a `Digest`. Over HTTP/1 Pingora asks
//! the stream for it; over HTTP/2 each stream gets one. A digest can hold a `ProxyDigest` with user
//! data, which is meant for CONNECT proxies. It holds the connection's state here, so the state
//! goes where the session goes. A task-local value would be lost in another task.

use std::sync::Arc;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_proxy::Session;

use super::connection_info::ConnectionInfo;
use super::connection_state::ConnectionState;

/// The digest that attaches this state to a session.
pub(crate) fn attach_state(state: &Arc<ConnectionState>) -> Option<Arc<ProxyDigest>> {
    // The digest is made for the response to a CONNECT request, so it needs one.
    let head = ResponseHeader::build(StatusCode::OK, Some(0)).ok()?;
    Some(Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(Arc::clone(state))))))
}

/// What a session knows about its client's connection.
pub(crate) trait SessionExt {
    /// The state of the connection, or of the HTTP/2 stream.
    fn connection_state(&self) -> Option<&Arc<ConnectionState>>;

    /// The addresses and the TLS session of the connection.
    fn connection_info(&self) -> Option<&ConnectionInfo> {
        self.connection_state().map(|state| &*state.connection)
    }
}

impl SessionExt for Session {
    fn connection_state(&self) -> Option<&Arc<ConnectionState>> {
        let digest = self.as_downstream().digest()?.proxy_digest.as_ref()?;
        digest.user_data.as_ref()?.downcast_ref()
    }
}
