//! Listening sockets, bound by us: an address that cannot be had is an error that says so, before
//! anything has been started.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// An address could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    reason: String,
}

/// Binds an address and listens on it. `[::]` is for IPv6 alone, so that it never takes the
/// place of a listener on `0.0.0.0`.
///
/// # Errors
/// [`BindError`] with what to do about it.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| BindError { address, reason: reason(&error, address) })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
fn reason(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has this port (help: stop it, or choose another address)".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            let port = address.port();
            format!(
                "not allowed to take port {port} (help: choose one from 1024 on, or give the \
                 process CAP_NET_BIND_SERVICE)"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address (help: 0.0.0.0 stands for all of its addresses)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// A descriptor that this process was started with, by its number.
///
/// # Errors
/// There is no such descriptor.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(unsafe_code, reason = "a number from the environment can only be taken on trust")]
    // SAFETY: whoever started us says that the descriptor is ours, and it is taken once. That it
    // is open at all is asked before it is given out.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_getfd(&descriptor) {
        Ok(_) => Ok(descriptor),
        Err(error) => {
            // Not ours to close.
            let _number = descriptor.into_raw_fd();
            Err(error.into())
        }
    }
}

/// A copy of a descriptor that this process was started with. The original stays open.
///
/// # Errors
/// There is no such descriptor.
pub fn lent(number: RawFd) -> io::Result<OwnedFd> {
    let original = inherited(number)?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&original, 3);
    let _number = original.into_raw_fd();
    Ok(copy?)
}

/// Resets a connection that somebody else holds: what was not sent is dropped, and its other end sees an
/// error instead of an end.
///
/// # Errors
/// There is no such descriptor, or it is no connection.
pub fn reset(number: RawFd) -> io::Result<()> {
    // In TCP, to connect to nothing is to end a connection at once.
    Ok(rustix::net::connect_unspec(lent(number)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_says_so() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains("another process has this port"), "{error}");
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_says_so() {
        let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("does not have the address"), "{error}");
    }
}
