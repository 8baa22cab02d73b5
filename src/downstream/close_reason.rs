//! Why a client connection has to be closed.

/// Why a connection has to be closed. Its stream reads the reason and acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// It was idle for too long, or is idle and draining. It is closed between two requests.
    Idle,
    /// The request headers took too long: the client gets a 408.
    HeaderTimeout,
    /// The request has passed its deadline, its body is sent too slowly, or an upgraded connection
    /// has passed the end of its drain. The next read fails.
    RequestTimeout,
    /// The client reads its response too slowly. The next write fails.
    WriteTimeout,
    /// The connection is closed at once: every read and every write fails.
    Forced,
}

impl CloseReason {
    /// A reason, or none, as a number for an atomic.
    pub(crate) const fn code(reason: Option<Self>) -> u8 {
        match reason {
            None => 0,
            Some(Self::Idle) => 1,
            Some(Self::HeaderTimeout) => 2,
            Some(Self::RequestTimeout) => 3,
            Some(Self::WriteTimeout) => 4,
            Some(Self::Forced) => 5,
        }
    }

    /// The reason with this number, if it is one.
    pub(crate) const fn of(code: u8) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Idle),
            2 => Some(Self::HeaderTimeout),
            3 => Some(Self::RequestTimeout),
            4 => Some(Self::WriteTimeout),
            _ => Some(Self::Forced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_atomic() {
        let reasons = [
            CloseReason::Idle,
            CloseReason::HeaderTimeout,
            CloseReason::RequestTimeout,
            CloseReason::WriteTimeout,
            CloseReason::Forced,
        ];
        for reason in reasons.map(Some).into_iter().chain([None]) {
            assert_eq!(CloseReason::of(CloseReason::code(reason)), reason);
        }
    }
}
