//! Standard error and standard output, without the locks that the standard library has for them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

/// So much is written to a pipe whole or not at all (`PIPE_BUF`, pipe(7)).
const PIPE_PIECE: usize = 4096;

/// A descriptor of one's own for what another descriptor is open for.
///
/// Whoever blocks in a write through it holds no lock. A pipe, which several processes share, gets
/// whole lines as long as they fit; a file gets all at once.
#[derive(Debug)]
pub struct Descriptor {
    file: File,
    piece_max: usize,
}

impl Descriptor {
    /// Of standard error.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn stderr() -> io::Result<Self> {
        Self::of(io::stderr().as_fd())
    }

    /// Of standard output.
    ///
    /// # Errors
    /// There are no more descriptors.
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
                // Whoever shares it has made it non-blocking.
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

/// The whole lines at the beginning of `bytes` that fit into `max`; or else the first line.
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
    fn a_piece_is_of_whole_lines() {
        assert_eq!(piece(b"one\ntwo\n", 100), b"one\ntwo\n");
        assert_eq!(piece(b"one\ntwo\n", 8), b"one\ntwo\n");
        assert_eq!(piece(b"one\ntwo\n", 7), b"one\n");
        assert_eq!(piece(b"one\ntwo\n", 2), b"one\n");
        assert_eq!(piece(b"unended", 2), b"unended");
    }
}
