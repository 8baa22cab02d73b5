//! What a client connection is doing.

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests; nothing has been read of the next one.
    Idle,
    /// Some of a head has been read.
    ReadingHead,
    /// A request is being served.
    InRequest,
    /// What is read and written is no HTTP any more.
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
