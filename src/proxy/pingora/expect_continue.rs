//! `Expect: 100-continue` with an HTTP/2 backend.
//!
//! Pingora passes on no interim response of an HTTP/2 backend, so `upstream/http2/` does not ask for
//! one. A client that waits for a 100 before it sends its body gets it from Weir.
//!
//! This is needed until Pingora passes on interim responses of HTTP/2 backends.

use http::header::EXPECT;
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora_error::Result;
use pingora_proxy::Session;

use super::early_response::keep_open_after_interim;

/// Sends a 100 if the client expects one and has sent nothing of its body.
///
/// # Errors
/// The client is gone.
pub(crate) async fn send_continue(session: &mut Session) -> Result<()> {
    let request = session.req_header();
    let is_asked = request.version != Version::HTTP_10 && request.headers.contains_key(EXPECT);
    let downstream = session.as_downstream_mut();
    if !is_asked || downstream.is_body_done() || downstream.body_bytes_read() > 0 {
        return Ok(());
    }
    let response = Box::new(ResponseHeader::build(StatusCode::CONTINUE, Some(0))?);
    keep_open_after_interim(session, StatusCode::CONTINUE);
    let sent = session.as_downstream_mut().write_response_header(response).await;
    sent.map_err(|error| error.into_down())
}
