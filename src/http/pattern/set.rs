//! Matches many patterns in one pass over a text.
//!
//! One after the other, a thousand patterns that begin like a path of 8 KB take 12 ms. One
//! automaton for all of them takes as long as for one. It is built lazily while texts are matched,
//! with bounded memory. If a text needs more, the search gives up, and the caller tries the
//! patterns one by one.

use std::fmt;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, MatchKind, PatternSet as Matches};

use super::Pattern;

/// The memory limit of all compiled patterns of a set: a thousand of 64 KiB.
const COMPILED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The size limit of each thread's cache of states.
const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a text may fill the cache, and how many bytes each state has to serve, before the
/// search gives up.
const CLEARS_MAX: usize = 3;
const BYTES_PER_STATE: usize = 10;

/// Mutable state of a search.
struct Scratch {
    cache: Cache,
    matches: Matches,
}

/// A set of patterns that are matched together.
pub struct PatternSet {
    dfa: DFA,
    scratch: Pool<Scratch, Box<dyn Fn() -> Scratch + Send + Sync>>,
}

impl PatternSet {
    /// Returns `None` if they would take too much memory together.
    #[must_use]
    pub fn new<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> Option<Self> {
        let sources: Vec<String> = patterns.map(Pattern::whole).collect();
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_BYTES_MAX)
            .minimum_cache_clear_count(Some(CLEARS_MAX))
            .minimum_bytes_per_state(Some(BYTES_PER_STATE));
        let limit = thompson::Config::new().nfa_size_limit(Some(COMPILED_BYTES_MAX));
        let dfa = DFA::builder().configure(config).thompson(limit).build_many(&sources).ok()?;
        let (automaton, count) = (dfa.clone(), sources.len());
        let scratch: Box<dyn Fn() -> Scratch + Send + Sync> = Box::new(move || Scratch {
            cache: automaton.create_cache(),
            matches: Matches::new(count),
        });
        Some(Self { dfa, scratch: Pool::new(scratch) })
    }

    /// The first result of `find` for the patterns that match all of `text`, in the given order.
    ///
    /// # Errors
    /// The text needs too much memory; the result is unknown.
    pub fn find<T>(
        &self,
        text: &str,
        mut find: impl FnMut(usize) -> Option<T>,
    ) -> Result<Option<T>, GaveUp> {
        let mut scratch = self.scratch.get();
        let Scratch { cache, matches } = &mut *scratch;
        matches.clear();
        let input = Input::new(text).anchored(Anchored::Yes);
        let searched = self.dfa.try_which_overlapping_matches(cache, &input, matches);
        searched.map_err(|_gave_up| GaveUp)?;
        Ok(matches.iter().find_map(|pattern| find(pattern.as_usize())))
    }
}

/// A text needs more memory than a search may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaveUp;

impl fmt::Debug for PatternSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self.dfa.pattern_len();
        formatter.debug_struct("PatternSet").field("patterns", &patterns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCES: [&str; 9] = [
        "/a+",
        "/[ab]*",
        "/a/.*",
        "/a|/b",
        "(?i)/A/b",
        "/(a|b)(/.*)?",
        "^/a/b?$",
        r"/\bb\b.*",
        "/.{0,3}x?",
    ];

    fn all(set: &PatternSet, text: &str) -> Result<Vec<usize>, GaveUp> {
        let mut found = Vec::new();
        set.find(text, |index| {
            found.push(index);
            None::<()>
        })?;
        Ok(found)
    }

    #[test]
    fn the_first_in_the_order_of_the_file_is_found() {
        let patterns = ["/b", "/a.*", "/ab"].map(|source| Pattern::new(source).unwrap());
        let set = PatternSet::new(patterns.iter()).unwrap();
        assert_eq!(set.find("/ab", Some), Ok(Some(1)));
        assert_eq!(set.find("/ab", |index| (index == 2).then_some(index)), Ok(Some(2)));
        assert_eq!(set.find("/abc/b", |index| (index != 1).then_some(index)), Ok(None));
        assert_eq!(set.find("x/b", Some), Ok(None));
    }

    proptest! {
        #[test]
        fn a_set_matches_exactly_what_its_patterns_match(text in "(/[abxAé.]{0,3}){0,4}") {
            let patterns = SOURCES.map(|source| Pattern::new(source).unwrap());
            let set = PatternSet::new(patterns.iter()).unwrap();
            let one_by_one: Vec<usize> = (0..patterns.len())
                .filter(|&index| patterns[index].matches(&text))
                .collect();
            if let Ok(found) = all(&set, &text) {
                prop_assert_eq!(found, one_by_one);
            }
        }
    }
}
