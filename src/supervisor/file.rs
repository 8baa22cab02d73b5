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
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        let example = path.join("weir.yaml");
        let why =
            format!("it is a directory (help: pass a file in it, such as {})", example.display());
        return Err(io::Error::new(io::ErrorKind::IsADirectory, why));
    }
    if !kind.is_file() {
        let why = "it is no regular file (help: pass one, because it is read again at each reload)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        let why = format!("it is longer than {BYTES_MAX} bytes (help: check the path)");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(bytes)
}

/// What is wrong with a file that [`read`] did not read, and what to do.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
pub fn cannot_read(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file (help: check the path)".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("cannot be read: {error} (help: let the user that runs Weir read it)")
        }
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        for (path, why) in
            [("/dev/zero", "no regular file"), ("/tmp", "a directory (help: pass a file in it")]
        {
            let error = read(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }
}
