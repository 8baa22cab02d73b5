//! Headers that carry the address of the client from proxy to proxy.

use super::terms::{ForwardingHeader, SentHeaders};

/// The headers that are trusted and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// The header that is trusted when a trusted proxy sends it.
    pub accept: ForwardingHeader,
    /// The headers that backends receive.
    pub send: SentHeaders,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { accept: ForwardingHeader::XForwardedFor, send: SentHeaders::XForwardedFor }
    }
}
