//! What a client of HTTP/1.0 must not get: a body in chunks.
//!
//! Pingora adds `Transfer-Encoding: chunked` to a response without a length behind every hook, where a
//! backend speaks HTTP/2. Only its modules come after that. A module costs each request several boxed
//! futures, so only requests of HTTP/1.0 get it.

use std::any::Any;

use async_trait::async_trait;
use http::header;
use pingora::http::ResponseHeader;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_error::Result;
use pingora_proxy::Session;

/// Lets no chunked body through to the client of this request.
pub(crate) fn install(session: &mut Session) {
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Http10Framing));
    session.downstream_modules_ctx = modules.build_ctx();
}

/// Removes the coding from the response's headers. Without a length and without a coding, Pingora writes
/// the body as it is, and the end of the connection is its end.
struct Http10Framing;

impl HttpModuleBuilder for Http10Framing {
    fn init(&self) -> Module {
        Box::new(Self)
    }
}

#[async_trait]
impl HttpModule for Http10Framing {
    async fn response_header_filter(&mut self, head: &mut ResponseHeader, _: bool) -> Result<()> {
        head.remove_header(&header::TRANSFER_ENCODING);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
