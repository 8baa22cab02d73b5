//! Shortages of this machine. A connection that fails for lack of local resources says nothing about the
//! backend.

use std::error::Error as StdError;
use std::{fmt, io, iter};

use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_error::Error;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// The text for the operator if [`is_no_local_address`].
pub const NO_LOCAL_ADDRESS: &str = "no local address to connect from";

/// A resource that is used up, so that no connection can be made.
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
    /// The missing resource, if the connection to `to` failed for lack of one. May make a system call.
    #[must_use]
    pub fn of(error: &Error, to: &SocketAddr) -> Option<Self> {
        Self::by_code(cause(error)?.raw_os_error()?, || reach(to))
    }

    /// `reach` checks whether there is a local address to connect from.
    fn by_code(code: i32, reach: impl FnOnce() -> Result<(), Errno>) -> Option<Self> {
        let known = SHORTAGES.into_iter().find(|(one, _)| one.raw_os_error() == code);
        // The kernel has one error for "no local port is left" and "no local address".
        known
            .map(|(_, it)| it)
            .filter(|it| *it != Self::Ports || reach() != Err(Errno::ADDRNOTAVAIL))
    }
}

/// The error of the operating system. Pingora wraps it in a private type if the socket had an address.
#[must_use]
pub fn cause(error: &Error) -> Option<&io::Error> {
    let root: &(dyn StdError + 'static) = error.root_cause();
    iter::successors(Some(root), |&cause| cause.source()).find_map(|cause| cause.downcast_ref())
}

/// Whether there was no local address to connect from, or no local port; [`Shortage::of`] tells them
/// apart. There is no address if IPv6 is disabled, for example.
#[must_use]
pub fn is_no_local_address(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(Errno::ADDRNOTAVAIL.raw_os_error())
}

/// Checks for a route to `to` with a local address. Connecting a UDP socket sends nothing, does not block,
/// and uses no TCP port.
fn reach(to: &SocketAddr) -> Result<(), Errno> {
    let Some(to) = to.as_inet() else { return Ok(()) };
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    connect(socket_with(family, SocketType::DGRAM, flags, None)?, to)
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

    fn wrapped(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Box<Error> {
        let inner = Error::because(ErrorType::SocketError, "a socket", cause);
        Error::because(ErrorType::InternalError, "a connection", inner)
    }

    fn os(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    fn loopback() -> SocketAddr {
        SocketAddr::Inet(([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn a_shortage_of_this_machine_is_no_failure_of_the_backend() {
        let of = |error| Shortage::of(&wrapped(os(error)), &loopback());
        for (error, shortage) in SHORTAGES {
            assert_eq!(of(error), Some(shortage), "{error:?}");
        }
        assert_eq!(of(Errno::CONNREFUSED), None);
        let late = Error::explain(ErrorType::ConnectTimedout, "late");
        assert_eq!(Shortage::of(&late, &loopback()), None);
    }

    #[test]
    fn without_a_local_address_no_ports_have_run_out() {
        let of = |error: Errno, reach| Shortage::by_code(error.raw_os_error(), || reach);
        assert_eq!(of(Errno::ADDRNOTAVAIL, Ok(())), Some(Shortage::Ports));
        assert_eq!(of(Errno::ADDRNOTAVAIL, Err(Errno::ADDRNOTAVAIL)), None);
        // The check itself failed, so no backend is blamed.
        assert_eq!(of(Errno::ADDRNOTAVAIL, Err(Errno::MFILE)), Some(Shortage::Ports));
        assert_eq!(of(Errno::ADDRNOTAVAIL, Err(Errno::AGAIN)), Some(Shortage::Ports));
        assert_eq!(of(Errno::NOMEM, Err(Errno::ADDRNOTAVAIL)), Some(Shortage::Memory));
    }

    #[derive(Debug)]
    struct Details(io::Error);

    impl fmt::Display for Details {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(formatter)
        }
    }

    impl StdError for Details {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_cause_is_found_behind_a_type_of_a_library() {
        let error = wrapped(Details(os(Errno::ADDRNOTAVAIL)));
        assert!(cause(&error).is_some_and(is_no_local_address));
        assert_eq!(Shortage::of(&error, &loopback()), Some(Shortage::Ports));
    }
}
