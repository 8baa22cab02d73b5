//! How strict Weir is with what servers read in different ways, and with clients that may have left or
//! do not read.

/// How many bytes responses and tunnels may hold that are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseBuffers {
    /// An eighth of the memory that Weir may use: two workers have such a share during a reload, and each
    /// may hold more than it for some seconds.
    #[default]
    OfMemory,
    /// So many.
    Bytes(u64),
    /// Any number.
    Off,
}

impl ResponseBuffers {
    /// The least that is an eighth of the memory.
    const MIN: u64 = 32 << 20;
    /// Where nothing is known of the memory.
    const UNKNOWN: u64 = 64 << 20;

    /// The bytes, where Weir may use `memory` bytes in all; `None` for any number.
    #[must_use]
    pub fn bytes(self, memory: Option<u64>) -> Option<u64> {
        match self {
            Self::OfMemory => Some(memory.map_or(Self::UNKNOWN, |all| (all / 8).max(Self::MIN))),
            Self::Bytes(bytes) => Some(bytes),
            Self::Off => None,
        }
    }
}

/// What becomes of a path that leads to different routes, depending on who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AmbiguousPaths {
    /// The request is rejected with 400.
    #[default]
    Refuse,
    /// It takes the route of our own reading.
    Pass,
}

/// What becomes of a request over HTTP/1 whose client closes its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HalfClosed {
    /// The client has left: the request is cancelled.
    #[default]
    Abort,
    /// The client waits for its response.
    Serve,
}

/// What becomes of request headers whose name has an underscore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreHeaders {
    /// Those that a backend may take for a header that Weir acts on are removed.
    #[default]
    Guard,
    /// All are removed.
    Drop,
    /// The request is rejected with 400.
    Refuse,
    /// They go on.
    Pass,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_responses_may_hold_an_eighth_of_the_memory() {
        let of = |memory| ResponseBuffers::OfMemory.bytes(memory);
        assert_eq!(of(Some(8 << 30)), Some(1 << 30));
        assert_eq!(of(Some(1 << 20)), Some(32 << 20), "a part that serves nobody is none");
        assert_eq!(of(None), Some(64 << 20));
        assert_eq!(ResponseBuffers::Bytes(5).bytes(Some(8 << 30)), Some(5));
        assert_eq!(ResponseBuffers::Off.bytes(Some(8 << 30)), None);
    }
}
