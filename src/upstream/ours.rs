//! Failures of our own: what we lack to make a connection says nothing about a backend.

use std::io;

use pingora_error::Error;
use rustix::io::Errno;

/// Too many open files here or in the whole system, no buffers, no memory, no free local port
/// (errno(3)).
const OURS: [Errno; 5] =
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];

/// Whether a connection could not be made for want of something on this machine.
#[must_use]
pub fn is_ours(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    cause.is_some_and(|code| OURS.iter().any(|ours| ours.raw_os_error() == code))
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
            is_ours(&Error::because(ErrorType::InternalError, "a connection", inner))
        };
        for ours in OURS {
            assert!(of(ours.raw_os_error()), "{ours:?}");
        }
        assert!(!of(Errno::CONNREFUSED.raw_os_error()));
        assert!(!is_ours(&Error::explain(ErrorType::ConnectTimedout, "late")));
    }
}
