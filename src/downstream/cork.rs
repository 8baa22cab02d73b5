//! Holds back the headers of an upgrade request until Pingora is ready for the response.
//!
//! While a request is at a backend, Pingora runs two halves. One tells the other that the request
//! has no body; the other reads the response. If a 101 arrives before that message, Pingora takes
//! the message for the end of the upgraded connection, and closes it. This was seen once in two
//! hundred upgrades, on a busy machine with a local backend.
//!
//! So the socket to the backend is corked (tcp(7), `TCP_CORK`) once it is connected, and uncorked
//! when both halves have run once. The backend cannot respond to headers that it has not received.
//! A fix in Pingora (ordering the end of the request body before the response's upgrade) would end
//! this.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::net::sockopt::set_tcp_cork;

use crate::sockets::lent;

/// The socket that is corked, if any.
#[derive(Debug, Default)]
pub(crate) struct Cork {
    /// Checked after each poll of the connection's task, so it is outside of the lock.
    is_in: AtomicBool,
    socket: Mutex<Option<OwnedFd>>,
}

impl Cork {
    /// Holds back writes to a socket that do not fill a segment.
    ///
    /// # Errors
    /// The system refuses it. Then nothing is held back.
    pub(crate) fn put(&self, socket: RawFd) -> io::Result<()> {
        // A duplicate, so that it still names this socket after the connection is closed.
        let socket = lent(socket)?;
        set_tcp_cork(&socket, true)?;
        *self.socket.lock() = Some(socket);
        self.is_in.store(true, Relaxed);
        Ok(())
    }

    /// The connection's task was polled: sends what was held back.
    pub(crate) fn pull(&self) {
        if !self.is_in.swap(false, Relaxed) {
            return;
        }
        let socket = self.socket.lock().take();
        if let Some(socket) = socket
            && let Err(error) = set_tcp_cork(&socket, false)
        {
            // The kernel sends it by itself after 0.2 s.
            log::debug!("not uncorked: error=\"{error}\"");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_corked_write_is_sent_when_the_cork_is_removed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let cork = Cork::default();
        cork.put(near.as_raw_fd()).unwrap();
        near.write_all(b"head").unwrap();
        far.set_nonblocking(true).unwrap();
        assert_eq!(far.read(&mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        cork.pull();
        far.set_nonblocking(false).unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"head");
        cork.pull(); // nothing is corked now
    }
}
