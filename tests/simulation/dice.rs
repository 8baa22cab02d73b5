//! Dice that are thrown by a seed, or lie as somebody put them.

use std::ops::{Bound, RangeBounds};

use fastrand::Rng;

/// A source of choices. What was put is used up first, then the seed decides.
pub(crate) struct Dice {
    put: std::vec::IntoIter<u8>,
    rng: Rng,
}

impl Dice {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self { put: Vec::new().into_iter(), rng: Rng::with_seed(seed) }
    }

    /// As a fuzzer wants them: a byte decides one thing, so that a changed byte changes one thing.
    pub(crate) fn put(bytes: &[u8]) -> Self {
        Self { put: Vec::from(bytes).into_iter(), rng: Rng::with_seed(0) }
    }

    pub(crate) fn u64(&mut self, range: impl RangeBounds<u64>) -> u64 {
        let Some(byte) = self.put.next() else { return self.rng.u64(range) };
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(last) => *last,
            Bound::Excluded(after) => after - 1,
            Bound::Unbounded => u64::MAX,
        };
        // Small ranges by remainder; a large one in 256 steps, with both its ends.
        match last - first {
            span @ 0..=255 => first + u64::from(byte) % (span + 1),
            span => first + span / 255 * u64::from(byte),
        }
    }

    pub(crate) fn u32(&mut self, range: impl RangeBounds<u32>) -> u32 {
        self.u64(wide(&range)).try_into().unwrap()
    }

    pub(crate) fn u16(&mut self, range: impl RangeBounds<u16>) -> u16 {
        self.u64(wide(&range)).try_into().unwrap()
    }

    pub(crate) fn u8(&mut self, range: impl RangeBounds<u8>) -> u8 {
        self.u64(wide(&range)).try_into().unwrap()
    }

    pub(crate) fn choice<T>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let mut all: Vec<T> = from.into_iter().collect();
        let last = u64::try_from(all.len()).unwrap().checked_sub(1)?;
        let index = self.u64(0..=last);
        Some(all.swap_remove(index.try_into().unwrap()))
    }
}

fn wide<T: Copy + Into<u64>>(range: &impl RangeBounds<T>) -> (Bound<u64>, Bound<u64>) {
    (range.start_bound().map(|&bound| bound.into()), range.end_bound().map(|&bound| bound.into()))
}
