//! The phases of a client connection.

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests; nothing has been read of the next one.
    Idle,
    /// A part of the request headers has been read.
    ReadingHead,
    /// A request is being served.
    InRequest,
    /// The connection was upgraded, so its bytes are not HTTP.
    Upgraded,
}

impl Phase {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::ReadingHead => 1,
            Self::InRequest => 2,
            Self::Upgraded => 3,
        }
    }
}

/// A direction of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client.
    Read,
    /// To the client.
    Write,
}
