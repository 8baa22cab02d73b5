//! Files that are checked for changes, and their last good contents.
//!
//! ```text
//!               they can be used                 they cannot; the last good contents stay
//!   missing ───────────────────────▶ good ───────────────────────────────────────────────▶ broken
//!      ▲ they cannot                  ▲  └◀─ they have changed                               │
//!    start ───────────────────────────┴◀──────────────── they can be used again ────────────┘
//! ```
//! A worker that starts with broken files uses the last good contents of the previous worker.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::files::{self, LoadError, Stamp};
use super::last_good::{Contents, LastGoodFiles};
use crate::config::{FilePath, Problem};

/// A group of files that are read together. The first gives the group its name.
pub(super) struct ReloadableFiles<T> {
    files: Vec<FilePath>,
    loaded: Option<Loaded<T>>,
    /// The state of the files that were read; `None` if the contents came from the previous worker.
    good: Option<Vec<Stamp>>,
    bad: Option<RejectedFiles>,
    /// The state at the last check, if it is neither of the two.
    changed: Option<Vec<Stamp>>,
}

/// The contents in use.
struct Loaded<T> {
    value: T,
    contents: Vec<Contents>,
}

/// Files that could not be used.
struct RejectedFiles {
    stamps: Vec<Stamp>,
    why: String,
    /// When they may become usable without a change.
    retry_at: Option<SystemTime>,
}

impl<T> ReloadableFiles<T> {
    /// Reads the files, or uses `last_good` if they cannot be used. `read` gets the contents, and
    /// the value in use so far.
    pub(super) fn open(
        files: &[&FilePath],
        last_good: &LastGoodFiles,
        read: impl Fn(&[Contents], Option<&T>) -> Result<T, LoadError>,
    ) -> (Self, Option<FileFailure>) {
        let files: Vec<FilePath> = files.iter().map(|file| (*file).clone()).collect();
        let loaded = last_good.find(&files).and_then(|contents| {
            let value = read(contents, None).ok()?;
            Some(Loaded { value, contents: contents.to_vec() })
        });
        let mut files = Self { files, loaded, good: None, bad: None, changed: None };
        let (stamps, contents) = (files.stamps(), files.contents());
        let broken = files.use_contents(stamps, contents, &read).err();
        let broken = broken.map(|problem| files.broken(problem));
        (files, broken)
    }

    /// Reads changed files. A file that is being rewritten is incomplete for a moment. So it is
    /// read only once two checks in a row found the same state.
    pub(super) fn refresh(
        &mut self,
        now: SystemTime,
        read: impl Fn(&[Contents], Option<&T>) -> Result<T, LoadError>,
    ) -> Option<Result<(), FileFailure>> {
        let found = self.stamps();
        if self.good.as_ref() == Some(&found) {
            // The broken file was restored to the version in use.
            (self.bad, self.changed) = (None, None);
            return None;
        }
        match self.bad.as_ref().filter(|bad| bad.stamps == found) {
            Some(bad) if bad.retry_at.is_none_or(|retry_at| now < retry_at) => return None,
            Some(_) => {}
            None if self.changed.as_ref() == Some(&found) => {}
            None => {
                self.changed = Some(found);
                return None;
            }
        }
        let contents = self.contents();
        let after = self.stamps();
        if after != found {
            self.changed = Some(after);
            return None;
        }
        let outcome = self.use_contents(found, contents, &read);
        Some(outcome.map_err(|problem| self.broken(problem)))
    }

    fn contents(&self) -> Result<Vec<Contents>, Problem> {
        self.files.iter().map(files::read).collect()
    }

    fn use_contents(
        &mut self,
        found: Vec<Stamp>,
        contents: Result<Vec<Contents>, Problem>,
        read: impl Fn(&[Contents], Option<&T>) -> Result<T, LoadError>,
    ) -> Result<(), Problem> {
        self.changed = None;
        let old = self.loaded.as_ref().map(|loaded| &loaded.value);
        let read = contents.map_err(LoadError::from).and_then(|contents| {
            let value = read(&contents, old)?;
            Ok(Loaded { value, contents })
        });
        match read {
            Ok(loaded) => {
                self.loaded = Some(loaded);
                (self.good, self.bad) = (Some(found), None);
                Ok(())
            }
            Err(LoadError { problem, retry_at }) => {
                let why = problem.what.clone();
                self.bad = Some(RejectedFiles { stamps: found, why, retry_at });
                Err(problem)
            }
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.files.iter().map(|file| Stamp::of(&file.path)).collect()
    }

    pub(super) fn broken(&self, problem: Problem) -> FileFailure {
        FileFailure { problem, missing: self.loaded.is_none() }
    }

    /// The value in use.
    pub(super) fn value(&self) -> Option<&T> {
        self.loaded.as_ref().map(|loaded| &loaded.value)
    }

    /// Why there is no value.
    pub(super) fn missing(&self) -> Option<&str> {
        let bad = self.bad.as_ref().filter(|_| self.loaded.is_none());
        bad.map(|bad| bad.why.as_str())
    }

    /// Adds the contents in use, for the next worker.
    pub(super) fn export(&self, last_good: &mut LastGoodFiles) {
        if let Some(loaded) = &self.loaded {
            last_good.note(&self.files, &loaded.contents);
        }
    }

    /// The path of the first file.
    pub(super) fn name(&self) -> String {
        self.files.first().map(|file| file.path.display().to_string()).unwrap_or_default()
    }

    pub(super) fn status(&self, expires: impl Fn(&T) -> Option<SystemTime>) -> FileStatus {
        FileStatus {
            file: self.name(),
            broken: self.bad.is_some(),
            missing: self.loaded.is_none(),
            expires: self.value().and_then(expires),
        }
    }
}

/// A file that cannot be used.
#[derive(Debug)]
pub struct FileFailure {
    /// What is wrong with it.
    pub problem: Problem,
    /// Whether there are no last good contents to use instead.
    pub missing: bool,
}

/// The status of a file, or of a certificate and its key under the name of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// Its path.
    pub file: String,
    /// The current contents cannot be used.
    pub broken: bool,
    /// There are no last good contents either.
    pub missing: bool,
    /// The expiry of the certificate in use, if it is one of ours.
    pub expires: Option<SystemTime>,
}

/// The owner of files.
#[derive(Debug, Clone)]
pub enum Owner {
    /// The listener at this address.
    Listener(SocketAddr),
    /// The pool of this name.
    Pool(String),
}

/// The result of checking the files of one owner.
#[derive(Debug)]
pub struct RefreshReport {
    /// The owner.
    pub owner: Owner,
    /// The files whose new contents are in use from now on.
    pub reloaded: Vec<String>,
    /// The files that cannot be used.
    pub failed: Vec<FileFailure>,
}

impl RefreshReport {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, reloaded: Vec::new(), failed: Vec::new() }
    }

    /// Records an outcome. Returns whether new contents are in use.
    pub(super) fn note<T>(
        &mut self,
        files: &ReloadableFiles<T>,
        outcome: Option<Result<(), FileFailure>>,
    ) -> bool {
        let reloaded = matches!(outcome, Some(Ok(())));
        match outcome {
            Some(Ok(())) => self.reloaded.push(files.name()),
            Some(Err(broken)) => self.failed.push(broken),
            None => {}
        }
        reloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    /// A temporary file, removed on drop.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str, text: &str) -> Self {
            let place = format!("weir-files-{}-{name}", std::process::id());
            let place = Self(std::env::temp_dir().join(place));
            place.write(text);
            place
        }

        fn write(&self, text: &str) {
            let new = self.0.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, &self.0).unwrap();
        }

        fn open(&self, last_good: &LastGoodFiles) -> (ReloadableFiles<u32>, Option<FileFailure>) {
            let file = FilePath { path: self.0.clone(), at: None };
            ReloadableFiles::open(&[&file], last_good, number)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _left_behind = fs::remove_file(&self.0);
        }
    }

    /// Accepts only numbers.
    fn number(contents: &[Contents], _: Option<&u32>) -> Result<u32, LoadError> {
        let text = str::from_utf8(contents[0].bytes()).unwrap();
        let problem = Problem { at: None, what: text.to_owned(), help: None };
        text.parse().map_err(|_no_number| problem.into())
    }

    const NOW: SystemTime = UNIX_EPOCH;

    #[test]
    fn a_broken_file_is_reported_at_the_second_check_and_its_last_good_contents_stay() {
        let place = Place::new("second", "1");
        let (mut files, broken) = place.open(&LastGoodFiles::default());
        assert!(broken.is_none() && files.refresh(NOW, number).is_none());
        place.write("half");
        assert!(files.refresh(NOW, number).is_none(), "it may be in the middle of a change");
        let reported = files.refresh(NOW, number).unwrap().unwrap_err();
        assert_eq!((reported.problem.what.as_str(), reported.missing), ("half", false));
        assert!(files.refresh(NOW, number).is_none(), "reported once");
        assert_eq!(files.value(), Some(&1));
        assert_eq!(files.missing(), None);
        let status = files.status(|_| None);
        assert!(status.broken && !status.missing, "{status:?}");
        place.write("2");
        assert!(files.refresh(NOW, number).is_none(), "it may be in the middle of a change");
        assert_eq!(files.value(), Some(&1));
        assert!(files.refresh(NOW, number).unwrap().is_ok());
        assert_eq!(files.value(), Some(&2));
        assert!(!files.status(|_| None).broken);
    }

    #[test]
    fn a_changed_file_is_used_once_two_checks_found_the_same_state() {
        let place = Place::new("twice", "1");
        let (mut files, _) = place.open(&LastGoodFiles::default());
        for text in ["12", "123", "1234"] {
            place.write(text);
            assert!(files.refresh(NOW, number).is_none(), "{text} may be incomplete");
            assert_eq!(files.value(), Some(&1));
        }
        assert!(files.refresh(NOW, number).unwrap().is_ok());
        assert_eq!(files.value(), Some(&1234));
    }

    #[test]
    fn a_file_that_changes_between_checks_is_checked_again() {
        let place = Place::new("while", "1");
        let (mut files, _) = place.open(&LastGoodFiles::default());
        place.write("half");
        assert!(files.refresh(NOW, number).is_none());
        place.write("22");
        assert!(files.refresh(NOW, number).is_none(), "not used yet");
        assert!(files.refresh(NOW, number).unwrap().is_ok());
        assert_eq!(files.value(), Some(&22));
    }

    #[test]
    fn a_restored_file_is_not_broken() {
        let place = Place::new("back", "1");
        let (mut files, _) = place.open(&LastGoodFiles::default());
        let aside = place.0.with_extension("aside");
        fs::rename(&place.0, &aside).unwrap();
        place.write("half");
        assert!(files.refresh(NOW, number).is_none());
        assert!(files.refresh(NOW, number).unwrap().is_err());
        fs::rename(&aside, &place.0).unwrap();
        assert!(files.refresh(NOW, number).is_none(), "this version is in use");
        assert!(!files.status(|_| None).broken);
    }

    #[test]
    fn a_worker_that_starts_with_a_broken_file_uses_the_contents_of_the_previous_worker() {
        let place = Place::new("before", "1");
        let mut last_good = LastGoodFiles::default();
        place.open(&LastGoodFiles::default()).0.export(&mut last_good);
        place.write("broken");
        let (mut files, broken) = place.open(&last_good);
        assert!(!broken.unwrap().missing);
        assert_eq!(files.value(), Some(&1));
        let mut again = LastGoodFiles::default();
        files.export(&mut again);
        assert_eq!(again, last_good, "and passes it on");
        assert!(files.refresh(NOW, number).is_none(), "it was reported");
        place.write("1");
        assert!(files.refresh(NOW, number).is_none());
        assert!(files.refresh(NOW, number).unwrap().is_ok(), "repaired with the same contents");
        assert!(!files.status(|_| None).broken);
    }

    #[test]
    fn a_good_file_takes_precedence_over_the_last_good_contents() {
        let place = Place::new("good", "1");
        let mut last_good = LastGoodFiles::default();
        place.open(&LastGoodFiles::default()).0.export(&mut last_good);
        place.write("2");
        assert_eq!(place.open(&last_good).0.value(), Some(&2));
    }

    #[test]
    fn a_file_without_last_good_contents_is_missing_until_it_is_readable() {
        let place = Place::new("missing", "broken");
        let (mut files, broken) = place.open(&LastGoodFiles::default());
        assert!(broken.unwrap().missing);
        assert_eq!((files.value(), files.missing()), (None, Some("broken")));
        fs::remove_file(&place.0).unwrap();
        assert!(files.refresh(NOW, number).is_none());
        let reported = files.refresh(NOW, number).unwrap().unwrap_err();
        assert!(reported.problem.what.contains("does not exist"), "{reported:?}");
        place.write("3");
        assert!(files.refresh(NOW, number).is_none());
        assert!(files.refresh(NOW, number).unwrap().is_ok());
        assert_eq!((files.value(), files.missing()), (Some(&3), None));
    }

    #[test]
    fn a_file_that_may_become_usable_is_read_again_without_a_change() {
        let place = Place::new("later", "7");
        let later = NOW + Duration::from_secs(9);
        let not_yet = |contents: &[Contents], old: Option<&u32>| {
            let unfit = |unfit: Problem| LoadError { problem: unfit, retry_at: Some(later) };
            number(contents, old).and_then(|_| {
                Err(unfit(Problem { at: None, what: "too early".to_owned(), help: None }))
            })
        };
        let file = FilePath { path: place.0.clone(), at: None };
        let (mut files, _) = ReloadableFiles::open(&[&file], &LastGoodFiles::default(), not_yet);
        assert!(files.refresh(NOW, number).is_none());
        assert!(files.refresh(later, number).unwrap().is_ok());
    }
}
