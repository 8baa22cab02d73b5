//! Requests to HTTP/2 backends: Pingora's connections, with request bodies sent by Weir.
//!
//! While Pingora waits for the backend to read request data, it forwards no response data. A backend
//! that stops reading until its response is read would then wait for ever. So a piece is accepted at
//! once, and the client is read only while few bytes are waiting ([`RequestBody::poll_capacity`]).

mod request_body;
mod session;

pub use self::request_body::RequestBody;
pub use self::session::Http2UpstreamSession;
