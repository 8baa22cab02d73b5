//! A set of the backends of one pool, on the stack: no pick allocates.

use crate::config::limits::BACKENDS_MAX;
use crate::runtime::ids::BackendId;

const WORD_BITS: usize = 64;
const WORDS: usize = BACKENDS_MAX / WORD_BITS;
const _: () = assert!(BACKENDS_MAX.is_multiple_of(WORD_BITS), "the last word would be incomplete");

/// A set of backends at positions below [`BACKENDS_MAX`]. Others are never members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendSet {
    words: [u64; WORDS],
}

impl BackendSet {
    /// The empty set.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// Adds a backend.
    pub fn insert(&mut self, backend: BackendId) {
        let index = backend.position();
        if let Some(word) = self.words.get_mut(index / WORD_BITS) {
            *word |= 1 << (index % WORD_BITS);
        }
    }

    /// Whether the backend is in the set.
    #[must_use]
    pub fn contains(&self, backend: BackendId) -> bool {
        let index = backend.position();
        self.words.get(index / WORD_BITS).is_some_and(|word| word >> (index % WORD_BITS) & 1 == 1)
    }

    /// The number of backends in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        // Nearly all words of nearly all sets are empty.
        self.words.iter().filter(|word| **word != 0).map(|word| ones(*word)).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The backends in this set and not in `other`.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
        self
    }

    /// The `nth` backend of the set in the order of the pool, counted from 0.
    #[must_use]
    pub fn nth(&self, mut nth: usize) -> Option<BackendId> {
        for (position, word) in self.words.iter().enumerate() {
            let here = ones(*word);
            if nth < here {
                let mut word = *word;
                for _ in 0..nth {
                    word &= word - 1;
                }
                let bit = usize::try_from(word.trailing_zeros()).ok()?;
                return Some(BackendId::new(position * WORD_BITS + bit));
            }
            nth -= here;
        }
        None
    }
}

fn ones(word: u64) -> usize {
    usize::try_from(word.count_ones()).unwrap_or(WORD_BITS)
}

impl FromIterator<BackendId> for BackendSet {
    fn from_iter<I: IntoIterator<Item = BackendId>>(backends: I) -> Self {
        let mut set = Self::EMPTY;
        for backend in backends {
            set.insert(backend);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>(positions: [usize; N]) -> BackendSet {
        positions.into_iter().map(BackendId::new).collect()
    }

    fn contains(set: &BackendSet, position: usize) -> bool {
        set.contains(BackendId::new(position))
    }

    #[test]
    fn a_set_contains_what_was_inserted() {
        let set = ids([0, 63, 64, 1023]);
        assert_eq!(set.len(), 4);
        assert!(contains(&set, 63) && contains(&set, 64) && contains(&set, 1023));
        assert!(!contains(&set, 1) && !contains(&set, 1022));
    }

    #[test]
    fn a_backend_beyond_the_largest_pool_is_never_a_member() {
        let mut set = BackendSet::EMPTY;
        set.insert(BackendId::new(BACKENDS_MAX));
        assert!(set.is_empty());
        assert!(!contains(&set, BACKENDS_MAX));
    }

    #[test]
    fn the_nth_is_counted_from_the_smallest() {
        let set = ids([700, 3, 64]);
        assert_eq!(
            (0..4).map(|nth| set.nth(nth).map(BackendId::position)).collect::<Vec<_>>(),
            [Some(3), Some(64), Some(700), None]
        );
    }

    #[test]
    fn a_difference_keeps_only_what_the_other_lacks() {
        let all: BackendSet = (0..10).map(BackendId::new).collect();
        let tried = ids([2, 3]);
        assert_eq!(all.without(&tried).len(), 8);
        assert!(!contains(&all.without(&tried), 2));
    }
}
