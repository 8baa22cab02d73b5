//! Reports when a file has other contents.
//!
//! It reads the file once a second. The file is small, and reading it finds what notifications miss:
//! symbolic links that are swapped, as Kubernetes does for a ConfigMap, and network file systems.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Input;
use super::file::read;

const INTERVAL: Duration = Duration::from_secs(1);

/// Reports every change of the contents of `file`, once they are the same at two reads: a file that is
/// being written is not used in the middle. A file that can no longer be read is a change too.
pub(super) fn start(file: &Path, known: Option<&str>, inputs: &Sender<Input>) -> io::Result<()> {
    let (file, inputs) = (PathBuf::from(file), inputs.clone());
    // Compared with what is served: the file may have changed since that was read.
    let mut reported = known.map(|text| Ok(hash(text.as_bytes())));
    let mut seen = reported.clone();
    let look = move || loop {
        thread::park_timeout(INTERVAL);
        let now = Some(contents(&file));
        if now == seen && now != reported {
            reported.clone_from(&now);
            if let Some(contents) = now.clone()
                && inputs.send(Input::FileChanged(contents)).is_err()
            {
                return;
            }
        }
        seen = now;
    };
    thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
}

/// A hash of the contents, or why they cannot be read.
fn contents(file: &Path) -> Result<u64, String> {
    read(file).map(|bytes| hash(&bytes)).map_err(|error| error.to_string())
}

/// A hash by which contents are compared.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}
