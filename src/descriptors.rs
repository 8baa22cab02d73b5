//! Descriptors that are kept for the admin port, and others for health checks.
//!
//! A process that has used up its descriptors cannot accept, and that is when an operator wants to
//! look at it; nor can it find out whether a backend works. So some are taken at the start, as copies of one that reads nothing. When an accept
//! fails for want of a descriptor, a copy is closed and the accept is tried again at once. When an
//! admin connection ends, its descriptor becomes a copy again in one step (`dup3`), so that no client
//! can take it in between.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

/// Descriptors that are kept.
#[derive(Debug)]
pub struct Reserve {
    /// Reads nothing; all others are copies of it.
    source: Option<OwnedFd>,
    copies: Mutex<Vec<OwnedFd>>,
    most: usize,
}

impl Reserve {
    /// Takes `most` descriptors; fewer, if there are no more.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let source = File::open("/dev/null").map(OwnedFd::from);
        if let Err(error) = &source {
            log::warn!("no descriptors are kept: error=\"{error}\"");
        }
        let reserve = Self { source: source.ok(), copies: Mutex::default(), most };
        reserve.refill();
        reserve
    }

    /// Closes one, so that another can be opened. False if there is none left.
    pub fn release(&self) -> bool {
        self.copies.lock().pop().is_some()
    }

    /// Ends a connection, and keeps its descriptor if some are missing.
    pub fn recycle(&self, stream: TcpStream) {
        let mut copies = self.copies.lock();
        let mut descriptor = OwnedFd::from(stream);
        if let Some(source) = &self.source
            && copies.len() < self.most
            && dup3(source, &mut descriptor, DupFlags::CLOEXEC).is_ok()
        {
            copies.push(descriptor);
        }
    }

    /// Takes what is missing, as far as there are any.
    pub fn refill(&self) {
        let Some(source) = &self.source else { return };
        let mut copies = self.copies.lock();
        while copies.len() < self.most {
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
    fn the_descriptor_of_an_ended_connection_is_kept() {
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
