//! A response of the admin port.

use std::fmt::Write as _;

use bytes::Bytes;
use pingora::http::StatusCode;
use pingora_core::protocols::http::date::get_cached_date;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// A response.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

/// The `Connection` header of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionHeader {
    /// Keep-alive, which is the default of HTTP/1.1.
    KeepAlive,
    /// Keep-alive, which an HTTP/1.0 client needs as a header.
    KeepAliveHttp10,
    /// The connection is closed after this response.
    Close,
}

impl Page {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: Bytes::from(body.into()) }
    }

    /// A page whose body only names its status.
    pub(super) fn status(status: u16) -> Self {
        Self::text(status, format!("{}\n", reason(status)))
    }

    /// The status line and the headers.
    pub(super) fn head(&self, connection: ConnectionHeader) -> Bytes {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        );
        if let Ok(date) = get_cached_date().to_str() {
            // Writing to a string cannot fail.
            let _written = write!(head, "Date: {date}\r\n");
        }
        if self.status == 405 {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str(match connection {
            ConnectionHeader::KeepAlive => "\r\n",
            ConnectionHeader::KeepAliveHttp10 => "Connection: keep-alive\r\n\r\n",
            ConnectionHeader::Close => "Connection: close\r\n\r\n",
        });
        Bytes::from(head)
    }
}

fn reason(status: u16) -> &'static str {
    let status = StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}
