//! Notices that a file has other contents.
//!
//! By looking, once a second: it is one small file, and looking sees what notifications miss (a
//! path that goes through symbolic links which are swapped, as Kubernetes does for a ConfigMap; a
//! network file system).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::Event;

const INTERVAL: Duration = Duration::from_secs(1);

/// Tells of every change of the contents of `file`, once they have been the same for two looks:
/// a file that is being written is not read in the middle.
pub(super) fn start(file: &Path, known: Option<&str>, events: &Sender<Event>) -> io::Result<()> {
    let (file, events) = (PathBuf::from(file), events.clone());
    // What is served, and not what is there now: a change since then is one.
    let mut told = known.map(|text| xxh3_64(text.as_bytes()));
    let mut seen = told;
    let look = move || loop {
        thread::park_timeout(INTERVAL);
        let now = contents(&file);
        if now.is_some() && now == seen && now != told {
            told = now;
            if events.send(Event::FileChanged).is_err() {
                return;
            }
        }
        seen = now;
    };
    thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
}

/// A hash of the contents; `None` while there is no such file.
fn contents(file: &Path) -> Option<u64> {
    fs::read(file).ok().map(|bytes| xxh3_64(&bytes))
}
