//! Files that are looked at again and again, and what was in them when they could be used last.
//!
//! ```text
//!               they can be used                they cannot: what was in them stays
//!   missing ───────────────────────▶ good ──────────────────────────────────────────▶ broken
//!      ▲ they cannot                  ▲  └◀─ they have changed                          │
//!    start ───────────────────────────┴◀──────────────── they can be used again ───────┘
//! ```
//! A worker that starts with broken files is not missing what the one before it had.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::files::{self, Stamp};
use super::kept::{Contents, Kept};
use crate::config::{FilePath, Problem};

/// Some files that are read together, the first of which stands for all.
pub(super) struct Watched<T> {
    files: Vec<FilePath>,
    held: Option<Held<T>>,
    /// Of the files that it was read from; none if it was handed over.
    good: Option<Vec<Stamp>>,
    bad: Option<Bad>,
    /// What the last look found, where that is neither.
    changed: Option<Vec<Stamp>>,
}

/// What can be used.
struct Held<T> {
    value: T,
    contents: Vec<Contents>,
}

/// Files that could not be used.
struct Bad {
    stamps: Vec<Stamp>,
    why: String,
    /// When they may be better without having changed.
    until: Option<SystemTime>,
}

/// Why what was read is not used.
pub(super) struct Unfit {
    pub(super) problem: Problem,
    /// When it may be better.
    pub(super) until: Option<SystemTime>,
}

impl From<Problem> for Unfit {
    fn from(problem: Problem) -> Self {
        Self { problem, until: None }
    }
}

impl<T> Watched<T> {
    /// Reads the files, or where they cannot be used what was `kept` of them. `read` is given what
    /// is in them, and what is used until now.
    pub(super) fn open(
        files: &[&FilePath],
        kept: &Kept,
        read: impl Fn(&[Contents], Option<&T>) -> Result<T, Unfit>,
    ) -> (Self, Option<Broken>) {
        let files: Vec<FilePath> = files.iter().map(|file| (*file).clone()).collect();
        let held = kept.find(&files).and_then(|contents| {
            let value = read(contents, None).ok()?;
            Some(Held { value, contents: contents.to_vec() })
        });
        let mut watched = Self { files, held, good: None, bad: None, changed: None };
        let (stamps, contents) = (watched.stamps(), watched.contents());
        let broken = watched.use_contents(stamps, contents, &read).err();
        let broken = broken.map(|problem| watched.broken(problem));
        (watched, broken)
    }

    /// Reads what has changed. A file that is renewed piece by piece is wrong for a moment, or a
    /// chain is not whole: what is there is only read once it has been the same at two looks.
    pub(super) fn refresh(
        &mut self,
        now: SystemTime,
        read: impl Fn(&[Contents], Option<&T>) -> Result<T, Unfit>,
    ) -> Option<Result<(), Broken>> {
        let found = self.stamps();
        if self.good.as_ref() == Some(&found) {
            // What was broken has been put back.
            (self.bad, self.changed) = (None, None);
            return None;
        }
        match self.bad.as_ref().filter(|bad| bad.stamps == found) {
            Some(bad) if bad.until.is_none_or(|until| now < until) => return None,
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
        read: impl Fn(&[Contents], Option<&T>) -> Result<T, Unfit>,
    ) -> Result<(), Problem> {
        self.changed = None;
        let old = self.held.as_ref().map(|held| &held.value);
        let read = contents.map_err(Unfit::from).and_then(|contents| {
            let value = read(&contents, old)?;
            Ok(Held { value, contents })
        });
        match read {
            Ok(held) => {
                self.held = Some(held);
                (self.good, self.bad) = (Some(found), None);
                Ok(())
            }
            Err(Unfit { problem, until }) => {
                let why = problem.what.clone();
                self.bad = Some(Bad { stamps: found, why, until });
                Err(problem)
            }
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.files.iter().map(|file| Stamp::of(&file.path)).collect()
    }

    pub(super) fn broken(&self, problem: Problem) -> Broken {
        Broken { problem, missing: self.held.is_none() }
    }

    /// What can be used.
    pub(super) fn value(&self) -> Option<&T> {
        self.held.as_ref().map(|held| &held.value)
    }

    /// Why there is nothing to use.
    pub(super) fn missing(&self) -> Option<&str> {
        let bad = self.bad.as_ref().filter(|_| self.held.is_none());
        bad.map(|bad| bad.why.as_str())
    }

    /// For the next worker.
    pub(super) fn keep(&self, kept: &mut Kept) {
        if let Some(held) = &self.held {
            kept.note(&self.files, &held.contents);
        }
    }

    /// The file that stands for all.
    pub(super) fn name(&self) -> String {
        self.files.first().map(|file| file.path.display().to_string()).unwrap_or_default()
    }

    pub(super) fn standing(&self, expires: impl Fn(&T) -> Option<SystemTime>) -> Standing {
        Standing {
            file: self.name(),
            broken: self.bad.is_some(),
            missing: self.held.is_none(),
            expires: self.value().and_then(expires),
        }
    }
}

/// A file that cannot be used.
#[derive(Debug)]
pub struct Broken {
    /// What is wrong with it.
    pub problem: Problem,
    /// Whether there is nothing to use in its place.
    pub missing: bool,
}

/// How things stand with a file, or with a certificate and its key by the name of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its path.
    pub file: String,
    /// What is there cannot be used.
    pub broken: bool,
    /// Nor is there anything to use in its place.
    pub missing: bool,
    /// When what is used expires, if it is a certificate of ours.
    pub expires: Option<SystemTime>,
}

/// Whose files they are.
#[derive(Debug, Clone)]
pub enum Owner {
    /// Of the listener at this address.
    Listener(SocketAddr),
    /// Of the pool of this name.
    Pool(String),
}

/// What came of a look at the files of one owner.
#[derive(Debug)]
pub struct Renewals {
    /// Whose they are.
    pub owner: Owner,
    /// The files that are used from now on.
    pub done: Vec<String>,
    /// What cannot be used.
    pub refused: Vec<Broken>,
}

impl Renewals {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, done: Vec::new(), refused: Vec::new() }
    }

    /// Whether something is used from now on that was not before.
    pub(super) fn note<T>(
        &mut self,
        watched: &Watched<T>,
        outcome: Option<Result<(), Broken>>,
    ) -> bool {
        let done = matches!(outcome, Some(Ok(())));
        match outcome {
            Some(Ok(())) => self.done.push(watched.name()),
            Some(Err(broken)) => self.refused.push(broken),
            None => {}
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    /// A file of its own, which is gone at the end.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str, text: &str) -> Self {
            let place = format!("weir-watched-{}-{name}", std::process::id());
            let place = Self(std::env::temp_dir().join(place));
            place.write(text);
            place
        }

        fn write(&self, text: &str) {
            let new = self.0.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, &self.0).unwrap();
        }

        fn open(&self, kept: &Kept) -> (Watched<u32>, Option<Broken>) {
            let file = FilePath { path: self.0.clone(), at: None };
            Watched::open(&[&file], kept, number)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _left_behind = fs::remove_file(&self.0);
        }
    }

    /// A number is good, and all others are not.
    fn number(contents: &[Contents], _: Option<&u32>) -> Result<u32, Unfit> {
        let text = str::from_utf8(contents[0].bytes()).unwrap();
        let problem = Problem { at: None, what: text.to_owned(), help: None };
        text.parse().map_err(|_no_number| problem.into())
    }

    const NOW: SystemTime = UNIX_EPOCH;

    #[test]
    fn a_broken_file_is_told_at_the_second_look_and_what_was_in_it_stays() {
        let place = Place::new("second", "1");
        let (mut watched, broken) = place.open(&Kept::default());
        assert!(broken.is_none() && watched.refresh(NOW, number).is_none());
        place.write("half");
        assert!(watched.refresh(NOW, number).is_none(), "it may be changing just now");
        let told = watched.refresh(NOW, number).unwrap().unwrap_err();
        assert_eq!((told.problem.what.as_str(), told.missing), ("half", false));
        assert!(watched.refresh(NOW, number).is_none(), "told once");
        assert_eq!(watched.value(), Some(&1));
        assert_eq!(watched.missing(), None);
        let standing = watched.standing(|_| None);
        assert!(standing.broken && !standing.missing, "{standing:?}");
        place.write("2");
        assert!(watched.refresh(NOW, number).is_none(), "it may be changing just now");
        assert_eq!(watched.value(), Some(&1));
        assert!(watched.refresh(NOW, number).unwrap().is_ok());
        assert_eq!(watched.value(), Some(&2));
        assert!(!watched.standing(|_| None).broken);
    }

    #[test]
    fn a_good_file_is_used_only_when_two_looks_have_found_the_same() {
        let place = Place::new("twice", "1");
        let (mut watched, _) = place.open(&Kept::default());
        for text in ["12", "123", "1234"] {
            place.write(text);
            assert!(watched.refresh(NOW, number).is_none(), "{text} may not be all");
            assert_eq!(watched.value(), Some(&1));
        }
        assert!(watched.refresh(NOW, number).unwrap().is_ok());
        assert_eq!(watched.value(), Some(&1234));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_looked_at_again() {
        let place = Place::new("while", "1");
        let (mut watched, _) = place.open(&Kept::default());
        place.write("half");
        assert!(watched.refresh(NOW, number).is_none());
        place.write("22");
        assert!(watched.refresh(NOW, number).is_none(), "neither the one nor the other");
        assert!(watched.refresh(NOW, number).unwrap().is_ok());
        assert_eq!(watched.value(), Some(&22));
    }

    #[test]
    fn a_broken_file_that_is_put_back_is_broken_no_more() {
        let place = Place::new("back", "1");
        let (mut watched, _) = place.open(&Kept::default());
        let aside = place.0.with_extension("aside");
        fs::rename(&place.0, &aside).unwrap();
        place.write("half");
        assert!(watched.refresh(NOW, number).is_none());
        assert!(watched.refresh(NOW, number).unwrap().is_err());
        fs::rename(&aside, &place.0).unwrap();
        assert!(watched.refresh(NOW, number).is_none(), "it is what is used");
        assert!(!watched.standing(|_| None).broken);
    }

    #[test]
    fn who_starts_with_a_broken_file_goes_on_with_what_the_one_before_had() {
        let place = Place::new("before", "1");
        let mut kept = Kept::default();
        place.open(&Kept::default()).0.keep(&mut kept);
        place.write("broken");
        let (mut watched, broken) = place.open(&kept);
        assert!(!broken.unwrap().missing);
        assert_eq!(watched.value(), Some(&1));
        let mut again = Kept::default();
        watched.keep(&mut again);
        assert_eq!(again, kept, "and hands it on");
        assert!(watched.refresh(NOW, number).is_none(), "it was told");
        place.write("1");
        assert!(watched.refresh(NOW, number).is_none());
        assert!(watched.refresh(NOW, number).unwrap().is_ok(), "mended as it was before");
        assert!(!watched.standing(|_| None).broken);
    }

    #[test]
    fn nobody_goes_on_with_what_was_left_where_the_file_is_good() {
        let place = Place::new("good", "1");
        let mut kept = Kept::default();
        place.open(&Kept::default()).0.keep(&mut kept);
        place.write("2");
        assert_eq!(place.open(&kept).0.value(), Some(&2));
    }

    #[test]
    fn what_nobody_has_is_missing_until_it_is_there() {
        let place = Place::new("missing", "broken");
        let (mut watched, broken) = place.open(&Kept::default());
        assert!(broken.unwrap().missing);
        assert_eq!((watched.value(), watched.missing()), (None, Some("broken")));
        fs::remove_file(&place.0).unwrap();
        assert!(watched.refresh(NOW, number).is_none());
        let told = watched.refresh(NOW, number).unwrap().unwrap_err();
        assert!(told.problem.what.contains("does not exist"), "{told:?}");
        place.write("3");
        assert!(watched.refresh(NOW, number).is_none());
        assert!(watched.refresh(NOW, number).unwrap().is_ok());
        assert_eq!((watched.value(), watched.missing()), (Some(&3), None));
    }

    #[test]
    fn what_may_be_better_later_is_read_again_without_a_change() {
        let place = Place::new("later", "7");
        let later = NOW + Duration::from_secs(9);
        let not_yet = |contents: &[Contents], old: Option<&u32>| {
            let unfit = |unfit: Problem| Unfit { problem: unfit, until: Some(later) };
            number(contents, old).and_then(|_| {
                Err(unfit(Problem { at: None, what: "too early".to_owned(), help: None }))
            })
        };
        let file = FilePath { path: place.0.clone(), at: None };
        let (mut watched, _) = Watched::open(&[&file], &Kept::default(), not_yet);
        assert!(watched.refresh(NOW, number).is_none());
        assert!(watched.refresh(later, number).unwrap().is_ok());
    }
}
