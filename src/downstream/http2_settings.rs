//! The settings of HTTP/2 connections of clients.

use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};

use crate::config::Http2;
use crate::http::scan::Limits as HeadLimits;

/// How much of a response is buffered for a slow client, per stream in bytes.
const SEND_BUFFER: usize = 32 * 1024;
/// How much each header counts beside its bytes in the size of a list (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The settings for these limits.
pub(crate) fn options(limits: &Http2, head: &HeadLimits) -> H2Options {
    let list = head.header_bytes.saturating_add(head.headers.saturating_mul(FIELD_OVERHEAD));
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.streams)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    options
}
