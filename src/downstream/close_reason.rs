//! What a line says to its stream.

/// What the stream has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Open,
    /// End between two requests.
    Close,
    /// Answer 408 and end: the head took too long.
    HeadTimeout,
    /// Fail the next read: the request is past its deadline, or its body comes too slowly, or a
    /// tunnel is past its drain's.
    PastDeadline,
    /// Fail the next write: the client takes its answer too slowly.
    Stalled,
    /// Fail every read and write: no response can be sent any more.
    Abort,
}

impl Verdict {
    /// As a number, for an atomic.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Close => 1,
            Self::HeadTimeout => 2,
            Self::PastDeadline => 3,
            Self::Stalled => 4,
            Self::Abort => 5,
        }
    }

    /// The one with this number.
    pub(crate) const fn of(code: u8) -> Self {
        match code {
            0 => Self::Open,
            1 => Self::Close,
            2 => Self::HeadTimeout,
            3 => Self::PastDeadline,
            4 => Self::Stalled,
            _ => Self::Abort,
        }
    }
}
