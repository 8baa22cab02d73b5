//! File descriptors reserved for the admin port and for health checks.
//!
//! A process without free descriptors cannot accept connections, not even on the admin port when the
//! operator needs it most, and it cannot check backends. So some descriptors are allocated at the start,
//! as copies of `/dev/null`. When an accept fails because no descriptor is free, one copy is closed and
//! the accept is retried. When an admin connection is closed, `dup3` turns its descriptor into a copy
//! again in one step, so that no client can take it in between.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

/// Reserved descriptors.
#[derive(Debug)]
pub struct Reserve {
    /// `/dev/null`; all others are copies of it.
    source: Option<OwnedFd>,
    copies: Mutex<Vec<OwnedFd>>,
    capacity: usize,
}

impl Reserve {
    /// Reserves `capacity` descriptors, or as many as are free.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let source = File::open("/dev/null").map(OwnedFd::from);
        if let Err(error) = &source {
            log::warn!("no file descriptors are reserved: error=\"{error}\"");
        }
        let reserve = Self { source: source.ok(), copies: Mutex::default(), capacity };
        reserve.refill();
        reserve
    }

    /// Closes one, so that another can be opened. Returns false if none is left.
    pub fn release(&self) -> bool {
        self.copies.lock().pop().is_some()
    }

    /// Closes a connection, and reserves its descriptor if the reserve is not full.
    pub fn recycle(&self, stream: TcpStream) {
        let mut copies = self.copies.lock();
        let mut descriptor = OwnedFd::from(stream);
        if let Some(source) = &self.source
            && copies.len() < self.capacity
            && dup3(source, &mut descriptor, DupFlags::CLOEXEC).is_ok()
        {
            copies.push(descriptor);
        }
    }

    /// Refills the reserve, as far as descriptors are free.
    pub fn refill(&self) {
        let Some(source) = &self.source else { return };
        let mut copies = self.copies.lock();
        while copies.len() < self.capacity {
            match fcntl_dupfd_cloexec(source, 3) {
                Ok(copy) => copies.push(copy),
                Err(_) => return,
            }
        }
    }
}

/// Whether a call failed because this process, or the system, has no descriptor left.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errors = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    errors.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_descriptor_of_a_closed_connection_is_reserved() {
        let reserve = Reserve::new(2);
        assert!(reserve.release() && reserve.release() && !reserve.release());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        reserve.recycle(accepted);
        let read = io::Read::read(&mut client, &mut [0]);
        assert_eq!(read.unwrap(), 0, "the connection is closed");
        assert!(reserve.release(), "and its descriptor is in the reserve");
        reserve.refill();
        assert!(reserve.release() && reserve.release() && !reserve.release());
    }
}
