//! What the access log says of a request, kept from the moment its headers were read: whatever ends
//! the request afterwards, the log line is complete.

use std::borrow::Cow;

use ::http::uri::PathAndQuery;
use ::http::{HeaderValue, Method, Version};

use super::event::Wire;
use crate::http::metric_label::MethodLabel;
use crate::http::scheme::Scheme;

/// A request, as its headers describe it. Cheap to make: every part shares the bytes that were read.
#[derive(Debug)]
pub struct Request {
    /// As sent.
    pub method: Method,
    /// How the client connected.
    pub scheme: Scheme,
    /// The host that routing uses; `None` if there was none.
    pub host: Option<HeaderValue>,
    /// Path and query of the target.
    pub target: Option<PathAndQuery>,
    /// The path, where it is not that of `target`.
    pub other_path: Option<Box<str>>,
    /// The version of HTTP.
    pub version: Version,
    /// The client's `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// The `X-Request-Id` that backend and client get.
    pub id: Option<HeaderValue>,
}

/// What has been sent and received of a request and its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfer {
    /// The status that the client got; 0 if it got none.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

impl Request {
    /// Calls `tell` with everything that the log and the metrics need.
    pub fn with_wire<T>(&self, transfer: Transfer, tell: impl FnOnce(&Wire<'_>) -> T) -> T {
        // A byte that is no text must not take the rest of the value out of the log.
        let host = self.host.as_ref().map(text);
        let user_agent = self.user_agent.as_ref().map(text);
        let id = self.id.as_ref().map(text);
        let target = self.target.as_ref();
        tell(&Wire {
            method_label: MethodLabel::from(&self.method),
            method: self.method.as_str(),
            scheme: self.scheme.as_str(),
            host: host.as_deref().unwrap_or_default(),
            path: self
                .other_path
                .as_deref()
                .unwrap_or_else(|| target.map_or("", PathAndQuery::path)),
            query: target.and_then(PathAndQuery::query),
            protocol: protocol(self.version),
            user_agent: user_agent.as_deref(),
            request_id: id.as_deref().unwrap_or_default(),
            status: transfer.status,
            bytes_in: transfer.bytes_in,
            bytes_out: transfer.bytes_out,
        })
    }
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    // Nearly every value is text, and the check for that is several times faster than the repair.
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(value.as_bytes()),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
