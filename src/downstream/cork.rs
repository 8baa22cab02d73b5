//! A head that is held back until everybody is ready for its answer.
//!
//! While a request that asks for a tunnel is under way, Pingora has two halves at work: one tells
//! the other that the request has no body, and the other reads the answer. If the 101 is there before
//! that word is heard, the word is taken for the end of the tunnel, and the client gets its 101 and
//! then the end of the connection (seen of one tunnel in two hundred, on a busy machine with a backend
//! next door). So the socket is corked (tcp(7), `TCP_CORK`) when the connection to the backend is
//! there, and uncorked when both halves have had their turn: the backend cannot answer a head that it
//! does not have.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::net::sockopt::set_tcp_cork;

use crate::sockets::lent;

/// The socket to a backend that is corked now, if one is.
#[derive(Debug, Default)]
pub(crate) struct Cork {
    /// Looked at after each turn of the connection's task, so it is not behind the lock.
    is_in: AtomicBool,
    socket: Mutex<Option<OwnedFd>>,
}

impl Cork {
    /// Holds back what is written to a socket and does not fill a segment.
    ///
    /// # Errors
    /// The system refuses; then nothing is held back.
    pub(crate) fn put(&self, socket: RawFd) -> io::Result<()> {
        // A copy: whatever happens to the connection, the number stays this socket's.
        let socket = lent(socket)?;
        set_tcp_cork(&socket, true)?;
        *self.socket.lock() = Some(socket);
        self.is_in.store(true, Relaxed);
        Ok(())
    }

    /// The connection's task has had its turn: what was held back goes out.
    pub(crate) fn pull(&self) {
        if !self.is_in.swap(false, Relaxed) {
            return;
        }
        let socket = self.socket.lock().take();
        if let Some(socket) = socket
            && let Err(error) = set_tcp_cork(&socket, false)
        {
            // The kernel sends it by itself, in 0.2 s.
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
    fn what_is_written_goes_out_when_the_cork_is_pulled() {
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
        cork.pull(); // there is none any more
    }
}
