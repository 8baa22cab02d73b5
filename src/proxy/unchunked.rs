//! What a client of HTTP/1.0 must not get: a body in chunks.
//!
//! Pingora puts the coding into an answer without a length behind every hook, where a backend
//! speaks HTTP/2. Only its modules come after that.

use std::any::Any;

use async_trait::async_trait;
use http::{Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, Module};
use pingora_error::Result;

/// Makes one for each request.
pub(super) struct Unchunked;

/// Looks at the request, and changes its answer's head. Without a length and without a coding,
/// Pingora writes the body as it is, and the end of the connection is its end.
struct OfRequest {
    is_of_1_0: bool,
}

impl HttpModuleBuilder for Unchunked {
    fn init(&self) -> Module {
        Box::new(OfRequest { is_of_1_0: false })
    }
}

#[async_trait]
impl HttpModule for OfRequest {
    async fn request_header_filter(&mut self, request: &mut RequestHeader) -> Result<()> {
        self.is_of_1_0 = request.version == Version::HTTP_10;
        Ok(())
    }

    async fn response_header_filter(&mut self, head: &mut ResponseHeader, _: bool) -> Result<()> {
        if self.is_of_1_0 {
            head.remove_header(&header::TRANSFER_ENCODING);
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
