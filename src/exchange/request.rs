//! The data of a request for the access log, stored when its headers were read. So the log line is
//! complete whatever ends the request.

use std::borrow::Cow;

use ::http::uri::PathAndQuery;
use ::http::{HeaderValue, Method, Version};

use super::event::Wire;
use crate::http::metric_label::MethodLabel;
use crate::http::scheme::Scheme;

/// A request, as described by its headers. Cheap to create: every part shares the bytes that were
/// read.
#[derive(Debug)]
pub struct Request {
    /// As received.
    pub method: Method,
    /// The client's scheme.
    pub scheme: Scheme,
    /// The host used for routing; `None` if there is none.
    pub host: Option<HeaderValue>,
    /// Path and query of the target.
    pub target: Option<PathAndQuery>,
    /// The path, if it is not that of `target`.
    pub other_path: Option<Box<str>>,
    /// The HTTP version.
    pub version: Version,
    /// The client's `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// The `X-Request-Id` for backend and client.
    pub id: Option<HeaderValue>,
}

/// The data transferred for a request and its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfer {
    /// The response status. Without a response: 499 if the client disconnected, else 0.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

impl Request {
    /// Calls `record` with the data for the log and the metrics.
    pub fn with_wire<T>(&self, transfer: Transfer, record: impl FnOnce(&Wire<'_>) -> T) -> T {
        // An invalid byte must not remove the rest of the value from the log.
        let host = self.host.as_ref().map(text);
        let user_agent = self.user_agent.as_ref().map(text);
        let id = self.id.as_ref().map(text);
        let target = self.target.as_ref();
        record(&Wire {
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
    // Nearly every value is valid text, and the check for that is several times faster than the
    // repair.
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
