//! Listening sockets, bound by us: an address that cannot be had is an error that says so, before
//! anything has been started.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use rustix::net::listen;
use rustix::net::sockopt::set_socket_reuseport;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the kernel may hold of a connection beside what is on its way, in bytes. With its own limit,
/// `net.ipv4.tcp_wmem`, it holds 4 MiB for a client that does not read.
const UNSENT_MAX: u32 = 128 * 1024;

/// How often, and after which pauses, an address in use is tried again.
const TRIES_MAX: usize = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// An address could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    is_in_use: bool,
    reason: String,
}

/// Binds an address and listens on it. `[::]` is for IPv6 alone, so that it never takes the
/// place of a listener on `0.0.0.0`.
///
/// # Errors
/// [`BindError`] with what to do about it.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = unlistened(address, false).and_then(|socket| {
        listen(&socket, BACKLOG)?;
        Ok(socket)
    });
    bound.map_err(|error| refused(&error, address))
}

/// The same, for an address that may become free within a moment: a worker that stops accepting
/// closes its copy of the socket soon. Blocks for a second at most.
///
/// # Errors
/// As [`bind`].
pub fn bind_soon(address: SocketAddr) -> Result<TcpListener, BindError> {
    let mut bound = bind(address);
    for _ in 0..TRIES_MAX {
        if !bound.as_ref().is_err_and(|error| error.is_in_use) {
            break;
        }
        thread::park_timeout(BETWEEN_TRIES);
        bound = bind(address);
    }
    bound
}

/// Binds an address beside sockets of ours that collide with it, such as `0.0.0.0` beside
/// `127.0.0.1`. It gets no connection before [`listen_beside`].
///
/// # Errors
/// As [`bind`].
pub fn bind_beside<'a>(
    address: SocketAddr,
    others: impl Iterator<Item = &'a TcpListener> + Clone,
) -> Result<TcpListener, BindError> {
    let bound = shared(others, || unlistened(address, true));
    bound.map_err(|error| refused(&error, address))
}

/// Listens on a socket of [`bind_beside`]. Until the others are closed, the one with the narrower
/// address gets the connections to it.
///
/// # Errors
/// The system refuses.
pub fn listen_beside<'a>(
    socket: &TcpListener,
    others: impl Iterator<Item = &'a TcpListener> + Clone,
) -> io::Result<()> {
    shared(others, || Ok(listen(socket, BACKLOG)?))?;
    Ok(set_socket_reuseport(socket, false)?)
}

/// Does something while these sockets let others of this user have their port.
fn shared<'a, T>(
    others: impl Iterator<Item = &'a TcpListener> + Clone,
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let share = |yes| others.clone().try_for_each(|other| set_socket_reuseport(other, yes));
    share(true)?;
    let done = act();
    share(false)?;
    done
}

fn refused(error: &io::Error, address: SocketAddr) -> BindError {
    let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
    BindError { address, is_in_use, reason: reason(error, address) }
}

/// A bound socket that does not listen yet.
fn unlistened(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
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
            "another process has this port, or another Weir's worker that still drains (help: stop \
             it, or choose another address)"
                .to_owned()
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

/// Has the kernel hold at most 128 KiB that a connection could not send yet. What is on its way counts
/// separately, so a large window is filled as before. Connections that a listening socket accepts from now
/// on have the same limit.
///
/// # Errors
/// It is no TCP socket.
pub fn limit_unsent(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_MAX)
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
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_have_the_limit_of_the_socket_that_accepted_them() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        limit_unsent(&listener).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), 131_072);
    }

    #[test]
    fn a_port_in_use_says_so() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains("another process has this port"), "{error}");
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn an_address_that_collides_with_one_of_ours_can_be_had_beside_it() {
        for (old, new) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")] {
            let old = bind(format!("{old}:0").parse().unwrap()).unwrap();
            let port = old.local_addr().unwrap().port();
            let address: SocketAddr = format!("{new}:{port}").parse().unwrap();
            assert!(bind(address).is_err(), "{new} beside the other");
            let new = bind_beside(address, [&old].into_iter()).unwrap();
            let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
            let gets_one = |socket: &TcpListener| {
                socket.set_nonblocking(false).unwrap();
                socket.accept().is_ok()
            };
            let _first = connect();
            assert!(gets_one(&old), "nobody listens on the new one yet");
            listen_beside(&new, [&old].into_iter()).unwrap();
            drop(old);
            let _second = connect();
            assert!(gets_one(&new));
            assert!(bind(address).is_err(), "nobody else gets it");
        }
    }

    #[test]
    fn an_address_that_is_free_soon_is_waited_for() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let freed = thread::spawn(move || {
            thread::park_timeout(BETWEEN_TRIES * 3);
            drop(first);
        });
        assert!(bind_soon(address).is_ok());
        freed.join().unwrap();
    }

    #[test]
    fn an_address_of_another_machine_says_so() {
        let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("does not have the address"), "{error}");
    }
}
