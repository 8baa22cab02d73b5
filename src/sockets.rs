//! Binds the listening sockets. An address that cannot be bound is reported before anything is started.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use rustix::net::listen;
use rustix::net::sockopt::set_socket_reuseport;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// The length of the accept queue; the kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How much unsent data the kernel may buffer for a connection, in bytes. By default,
/// `net.ipv4.tcp_wmem`, it buffers 4 MiB for a client that does not read.
const UNSENT_MAX: u32 = 128 * 1024;

/// How often, and at which interval, binding an address in use is retried.
const RETRIES_MAX: usize = 50;
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    is_in_use: bool,
    reason: String,
}

/// Binds an address and listens on it. `[::]` is for IPv6 only, so that it never conflicts with a
/// listener on `0.0.0.0`.
///
/// # Errors
/// The address cannot be bound; the error says what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = bind_only(address, false).and_then(|socket| {
        listen(&socket, BACKLOG)?;
        Ok(socket)
    });
    bound.map_err(|error| bind_error(&error, address))
}

/// Binds an address that may become free soon, because a worker that stops accepting closes its copy of
/// the socket. Blocks for a second at most.
///
/// # Errors
/// As [`bind`].
pub fn bind_with_retries(address: SocketAddr) -> Result<TcpListener, BindError> {
    let mut bound = bind(address);
    for _ in 0..RETRIES_MAX {
        if !bound.as_ref().is_err_and(|error| error.is_in_use) {
            break;
        }
        thread::park_timeout(RETRY_INTERVAL);
        bound = bind(address);
    }
    bound
}

/// Binds an address although some of our own sockets overlap with it, such as `0.0.0.0` and
/// `127.0.0.1`. The socket gets no connections before [`listen_beside`].
///
/// # Errors
/// As [`bind`].
pub fn bind_beside<'a>(
    address: SocketAddr,
    others: impl Iterator<Item = &'a TcpListener> + Clone,
) -> Result<TcpListener, BindError> {
    let bound = with_shared_port(others, || bind_only(address, true));
    bound.map_err(|error| bind_error(&error, address))
}

/// Listens on a socket of [`bind_beside`]. Until the others are closed, the socket with the more
/// specific address gets its connections.
///
/// # Errors
/// A system call fails.
pub fn listen_beside<'a>(
    socket: &TcpListener,
    others: impl Iterator<Item = &'a TcpListener> + Clone,
) -> io::Result<()> {
    with_shared_port(others, || Ok(listen(socket, BACKLOG)?))?;
    Ok(set_socket_reuseport(socket, false)?)
}

/// Runs `act` while these sockets share their port with other sockets of this user.
fn with_shared_port<'a, T>(
    others: impl Iterator<Item = &'a TcpListener> + Clone,
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let set_shared = |on| others.clone().try_for_each(|other| set_socket_reuseport(other, on));
    set_shared(true)?;
    let result = act();
    set_shared(false)?;
    result
}

fn bind_error(error: &io::Error, address: SocketAddr) -> BindError {
    let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
    BindError { address, is_in_use, reason: reason(error, address) }
}

/// Binds a socket that does not listen yet.
fn bind_only(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    set_socket_reuseport(&socket, shares_port)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
fn reason(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use by another process, or by another Weir's worker that still drains \
             (help: stop it, or choose another address)"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            let port = address.port();
            format!(
                "no permission to bind port {port} (help: choose one from 1024 on, or give the \
                 process CAP_NET_BIND_SERVICE)"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address (help: 0.0.0.0 listens on all of its addresses)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Takes ownership of a descriptor that this process inherited, by its number.
///
/// # Errors
/// There is no such descriptor.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(unsafe_code, reason = "a descriptor number from the environment cannot be verified")]
    // SAFETY: the process that started us says that the descriptor is ours, and it is taken once. It
    // is returned only if it is open.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_getfd(&descriptor) {
        Ok(_) => Ok(descriptor),
        Err(error) => {
            // It is not open, so it must not be closed.
            let _number = descriptor.into_raw_fd();
            Err(error.into())
        }
    }
}

/// Copies a descriptor that this process inherited. The original stays open.
///
/// # Errors
/// There is no such descriptor.
pub fn lent(number: RawFd) -> io::Result<OwnedFd> {
    let original = inherited(number)?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&original, 3);
    let _number = original.into_raw_fd();
    Ok(copy?)
}

/// Limits the unsent data that the kernel buffers for a connection to 128 KiB. Data in flight is not
/// included, so a large window is still filled. Connections that a listening socket accepts later inherit
/// the limit.
///
/// # Errors
/// It is not a TCP socket.
pub fn limit_unsent(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_MAX)
}

/// Resets a connection that is owned elsewhere in this process: unsent data is dropped, and the peer gets
/// an error.
///
/// # Errors
/// There is no such descriptor, or it is not a connection.
pub fn reset(number: RawFd) -> io::Result<()> {
    // Connecting a TCP socket to an unspecified address resets its connection.
    Ok(rustix::net::connect_unspec(lent(number)?)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn accepted_connections_inherit_the_limit_of_the_listening_socket() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        limit_unsent(&listener).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), 131_072);
    }

    #[test]
    fn a_port_in_use_is_reported() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains("the port is in use by another process"), "{error}");
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_that_overlaps_with_our_own_can_be_bound() {
        for (old, new) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")] {
            let old = bind(format!("{old}:0").parse().unwrap()).unwrap();
            let port = old.local_addr().unwrap().port();
            let address: SocketAddr = format!("{new}:{port}").parse().unwrap();
            assert!(bind(address).is_err(), "{new} beside the other");
            let new = bind_beside(address, [&old].into_iter()).unwrap();
            let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
            let accepts = |socket: &TcpListener| {
                socket.set_nonblocking(false).unwrap();
                socket.accept().is_ok()
            };
            let _first = connect();
            assert!(accepts(&old), "the new socket does not listen yet");
            listen_beside(&new, [&old].into_iter()).unwrap();
            drop(old);
            let _second = connect();
            assert!(accepts(&new));
            assert!(bind(address).is_err(), "other sockets cannot bind it");
        }
    }

    #[test]
    fn binding_is_retried_until_the_address_is_free() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let freed = thread::spawn(move || {
            thread::park_timeout(RETRY_INTERVAL * 3);
            drop(first);
        });
        assert!(bind_with_retries(address).is_ok());
        freed.join().unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_reported() {
        let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("does not have the address"), "{error}");
    }
}
