//! Standard error and standard output, without the standard library's locks.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

/// A write to a pipe is atomic up to this size (`PIPE_BUF`, pipe(7)).
const PIPE_PIECE: usize = 4096;

/// A duplicate of a descriptor.
///
/// A thread that blocks in a write holds no lock. A pipe may be shared between processes, so it
/// gets whole lines if they fit into one atomic write; a file gets all bytes at once.
#[derive(Debug)]
pub struct Descriptor {
    file: File,
    piece_max: usize,
}

impl Descriptor {
    /// Duplicates standard error.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn stderr() -> io::Result<Self> {
        Self::of(io::stderr().as_fd())
    }

    /// Duplicates standard output.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn stdout() -> io::Result<Self> {
        Self::of(io::stdout().as_fd())
    }

    fn of(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(descriptor.try_clone_to_owned()?);
        let piece_max = if file.metadata()?.is_file() { usize::MAX } else { PIPE_PIECE };
        Ok(Self { file, piece_max })
    }
}

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.file).write(piece(bytes, self.piece_max)) {
                // Another process that shares the descriptor has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Descriptor {
    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The complete lines at the start of `bytes` that fit into `max`; or else the first line.
fn piece(bytes: &[u8], max: usize) -> &[u8] {
    let Some(fitting) = bytes.get(..max) else { return bytes };
    let is_end = |byte: &u8| *byte == b'\n';
    let end = match fitting.iter().rposition(is_end) {
        Some(last) => last + 1,
        None => bytes.iter().position(is_end).map_or(bytes.len(), |first| first + 1),
    };
    bytes.get(..end).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_consists_of_whole_lines() {
        assert_eq!(piece(b"one\ntwo\n", 100), b"one\ntwo\n");
        assert_eq!(piece(b"one\ntwo\n", 8), b"one\ntwo\n");
        assert_eq!(piece(b"one\ntwo\n", 7), b"one\n");
        assert_eq!(piece(b"one\ntwo\n", 2), b"one\n");
        assert_eq!(piece(b"unended", 2), b"unended");
    }
}
