//! What a client connection is doing.

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests; nothing has been read of the next one.
    Idle,
    /// Some of a head has been read.
    Head,
    /// A request is being served.
    Busy,
    /// What is read and written is no HTTP any more.
    Tunnel,
}

impl Phase {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::Head => 1,
            Self::Busy => 2,
            Self::Tunnel => 3,
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
