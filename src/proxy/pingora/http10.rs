//! No chunked body for an HTTP/1.0 client.
//!
//! If an HTTP/2 backend sends a response without a length, Pingora adds `Transfer-Encoding: chunked`
//! after all hooks. Only its modules run later. A module costs each request several boxed futures, so
//! only HTTP/1.0 requests get this one.
//!
//! This is needed until Pingora adds no chunks for an HTTP/1.0 client.

use std::any::Any;

use async_trait::async_trait;
use http::header;
use pingora::http::ResponseHeader;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_error::Result;
use pingora_proxy::Session;

/// Removes chunks from the response to this request.
pub(crate) fn install(session: &mut Session) {
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Http10Framing));
    session.downstream_modules_ctx = modules.build_ctx();
}

/// Removes the coding from the response headers. Without a length and a coding, Pingora writes the
/// body as it is, and closes the connection at its end.
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
