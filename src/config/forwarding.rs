//! How balancers tell each other who the client is.

/// The fields by which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// Which of them is believed when a trusted proxy sends it.
    pub accept: ForwardingHeader,
    /// Which of them backends get.
    pub send: SentHeaders,
}

/// A field that says who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with `-Proto`, `-Host` and `-Port`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Which fields backends get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentHeaders {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwardedFor,
    /// `Forwarded` alone.
    Forwarded,
    /// All of them.
    Both,
}

impl SentHeaders {
    /// Whether `X-Forwarded-…` is sent.
    #[must_use]
    pub const fn has_x_forwarded(self) -> bool {
        matches!(self, Self::XForwardedFor | Self::Both)
    }

    /// Whether `Forwarded` is sent.
    #[must_use]
    pub const fn has_forwarded(self) -> bool {
        matches!(self, Self::Forwarded | Self::Both)
    }
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { accept: ForwardingHeader::XForwardedFor, send: SentHeaders::XForwardedFor }
    }
}
