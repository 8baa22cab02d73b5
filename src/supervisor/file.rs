//! Reading a configuration file without blocking on another process.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// The longest file that is read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The contents of a regular file. A FIFO or a device could block for ever, and can be read only once.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer than 64 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for its writer otherwise.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        let why = "it is no regular file (help: it is read again at each reload)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        let why = format!("it is longer than {BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        for path in ["/dev/zero", "/tmp", "/proc/self/fd"] {
            let error = read(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{path}: {error}");
        }
    }
}
