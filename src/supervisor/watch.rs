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
    let mut watched = Watched::new(known);
    let look = move || loop {
        thread::park_timeout(INTERVAL);
        if let Some(changed) = watched.look(contents(&file))
            && inputs.send(Input::FileChanged(changed)).is_err()
        {
            return;
        }
    };
    thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
}

/// A hash of the contents, or why they cannot be read.
type Contents = Result<u64, String>;

/// What is known of a watched file.
struct Watched {
    /// What was reported last, at first what is served.
    reported: Option<Contents>,
    /// What the last look found.
    seen: Option<Contents>,
}

impl Watched {
    /// The file may have changed since the served text was read, so it is compared with that.
    fn new(served: Option<&str>) -> Self {
        let served = served.map(|text| Ok(hash(text.as_bytes())));
        Self { reported: served.clone(), seen: served }
    }

    /// The change to report, if two looks in a row have found the same.
    fn look(&mut self, now: Contents) -> Option<Contents> {
        let now = Some(now);
        let is_change = now == self.seen && now != self.reported;
        self.seen.clone_from(&now);
        if !is_change {
            return None;
        }
        self.reported.clone_from(&now);
        now
    }
}

fn contents(file: &Path) -> Contents {
    read(file).map(|bytes| hash(&bytes)).map_err(|error| error.to_string())
}

/// A hash by which contents are compared.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Contents {
        Ok(hash(text.as_bytes()))
    }

    #[test]
    fn a_change_is_reported_once_and_only_when_it_has_settled() {
        let mut watched = Watched::new(Some("a"));
        assert_eq!(watched.look(of("a")), None, "what is served is no change");
        assert_eq!(watched.look(of("b")), None, "it may still be written");
        assert_eq!(watched.look(of("bc")), None);
        assert_eq!(watched.look(of("bc")), Some(of("bc")));
        assert_eq!(watched.look(of("bc")), None);
    }

    #[test]
    fn a_change_that_is_taken_back_at_once_is_none() {
        let mut watched = Watched::new(Some("a"));
        for text in ["b", "a", "a", "b", "a"] {
            assert_eq!(watched.look(of(text)), None, "{text}");
        }
    }

    #[test]
    fn a_file_that_goes_and_returns_is_two_changes() {
        let gone = || Err("gone".to_owned());
        let mut watched = Watched::new(Some("a"));
        assert_eq!((watched.look(gone()), watched.look(gone())), (None, Some(gone())));
        assert_eq!((watched.look(of("a")), watched.look(of("a"))), (None, Some(of("a"))));
    }

    #[test]
    fn a_file_that_differs_from_what_is_served_is_a_change_from_the_start() {
        let mut watched = Watched::new(None);
        assert_eq!((watched.look(of("a")), watched.look(of("a"))), (None, Some(of("a"))));
    }
}
