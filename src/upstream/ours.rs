//! Failures of our own: what we lack to make a connection says nothing about a backend.

use std::fmt;
use std::io;

use pingora_error::Error;
use rustix::io::Errno;

/// What this machine does not have for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// A file descriptor of this process.
    Descriptors,
    /// A file descriptor of the whole system.
    SystemDescriptors,
    /// A local port for this backend.
    Ports,
    /// Memory for a socket.
    Memory,
}

/// By error number (errno(3)).
const SHORTAGES: [(Errno, Shortage); 5] = [
    (Errno::MFILE, Shortage::Descriptors),
    (Errno::NFILE, Shortage::SystemDescriptors),
    (Errno::ADDRNOTAVAIL, Shortage::Ports),
    (Errno::NOBUFS, Shortage::Memory),
    (Errno::NOMEM, Shortage::Memory),
];

impl Shortage {
    /// Each of them.
    pub(super) const ALL: [Self; 4] =
        [Self::Descriptors, Self::SystemDescriptors, Self::Ports, Self::Memory];

    /// For want of what a connection could not be made, if it was that.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        let cause = error.root_cause().downcast_ref::<io::Error>();
        let code = cause.and_then(io::Error::raw_os_error)?;
        SHORTAGES.into_iter().find(|(one, _)| one.raw_os_error() == code).map(|(_, it)| it)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Descriptors => "file descriptors of the process",
            Self::SystemDescriptors => "file descriptors of the system",
            Self::Ports => "local ports",
            Self::Memory => "memory for sockets",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora_error::ErrorType;

    #[test]
    fn what_this_machine_lacks_is_told_from_what_a_backend_did() {
        let of = |code| {
            let cause = io::Error::from_raw_os_error(code);
            let inner = Error::because(ErrorType::SocketError, "a socket", cause);
            Shortage::of(&Error::because(ErrorType::InternalError, "a connection", inner))
        };
        for (error, shortage) in SHORTAGES {
            assert_eq!(of(error.raw_os_error()), Some(shortage), "{error:?}");
        }
        assert_eq!(of(Errno::CONNREFUSED.raw_os_error()), None);
        assert_eq!(Shortage::of(&Error::explain(ErrorType::ConnectTimedout, "late")), None);
    }
}
