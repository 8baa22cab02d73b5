//! Two random backends, the less busy of them.
//!
//! Two different eligible backends are drawn regardless of their weights, and the one with fewer
//! requests in flight per unit of weight is picked. It reads only two backends, so it is the
//! cheapest selector for a large pool. A tie is drawn in proportion to the weights. Weights only
//! decide between the two, so a backend never gets more than a share of 2/*n*. If weights differ by
//! more than that, least connections is the better choice.

use std::cmp::Ordering;

use super::{BackendLoad, Candidates, Selector, below, mix, usable};

/// Two random backends, the less busy of them.
#[derive(Debug, Default)]
pub struct Random;

impl Random {
    /// It has no state: the random number is an argument.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Selector for Random {
    fn compares_load(&self) -> bool {
        true
    }

    fn select(&self, candidates: &dyn Candidates, _key: u64, roll: u64) -> Option<usize> {
        let count = u64::try_from(candidates.eligible_count()).unwrap_or(u64::MAX);
        let first = below(count, mix(roll, 1));
        // Drawn from one fewer and moved past the first, the second is a different one.
        let second = below(count.saturating_sub(1), mix(roll, 2));
        let second = if second < first { second } else { second + 1 };
        match (load(candidates, first), load(candidates, second)) {
            (Some(first), Some(second))
                if first.cmp_or_draw(&second, roll) == Ordering::Greater =>
            {
                Some(second.index)
            }
            (Some(one), _) | (None, Some(one)) => Some(one.index),
            // Both have weight 0. This is rare, so those with a weight are counted.
            (None, None) => any(candidates, roll),
        }
    }
}

/// The load of the `nth` eligible backend, if its weight is not 0.
fn load(candidates: &dyn Candidates, nth: u64) -> Option<BackendLoad> {
    let index = candidates.nth_eligible(usize::try_from(nth).ok()?)?;
    let weight = u64::from(candidates.weight(index));
    (weight > 0).then(|| BackendLoad::of(candidates, index, weight))
}

fn any(candidates: &dyn Candidates, roll: u64) -> Option<usize> {
    let count = u64::try_from(usable(candidates).count()).unwrap_or(u64::MAX);
    let nth = usize::try_from(below(count, mix(roll, 3))).ok()?;
    usable(candidates).nth(nth).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakePool, counts};
    use super::*;

    fn select(pool: &FakePool, roll: u64) -> Option<usize> {
        Random::new().select(pool, 0, roll)
    }

    #[test]
    fn the_less_busy_of_two_is_picked() {
        let pool = FakePool::of(&[1, 1]).busy(&[5, 4]);
        assert_eq!(counts(2, (0..100).map(|roll| select(&pool, roll))), [0, 100]);
    }

    #[test]
    fn load_is_compared_per_unit_of_weight() {
        let pool = FakePool::of(&[1, 10]).busy(&[1, 9]);
        assert_eq!(counts(2, (0..100).map(|roll| select(&pool, roll))), [0, 100]);
    }

    #[test]
    fn two_idle_backends_share_by_weight() {
        let pool = FakePool::of(&[3, 1]);
        let counts = counts(2, (0..4000).map(|roll| select(&pool, roll)));
        // A standard deviation is 27.
        assert!(counts[0].abs_diff(3000) < 140, "{counts:?}");
    }

    #[test]
    fn the_two_are_always_different_ones() {
        let pool = FakePool::of(&[1; 5]).busy(&[1, 1, 1, 1, 2]);
        let counts = counts(5, (0..1000).map(|roll| select(&pool, roll)));
        assert_eq!(counts[4], 0, "drawn twice, the busiest would have won against itself");
    }

    #[test]
    fn equally_busy_backends_share_evenly() {
        let pool = FakePool::of(&[1; 6]).without(&[1, 4]);
        let counts = counts(6, (0..4000).map(|roll| select(&pool, roll)));
        for index in [0, 2, 3, 5] {
            // 1000 expected; a standard deviation is 27.
            assert!(counts[index].abs_diff(1000) < 140, "{counts:?}");
        }
    }

    #[test]
    fn a_lone_backend_gets_everything() {
        let pool = FakePool::of(&[1, 1, 1]).without(&[0, 2]);
        assert_eq!(counts(3, (0..50).map(|roll| select(&pool, roll))), [0, 50, 0]);
    }

    #[test]
    fn weight_zero_is_never_picked() {
        let pool = FakePool::of(&[0, 0, 0, 1, 1]);
        let counts = counts(5, (0..500).map(|roll| select(&pool, roll)));
        assert_eq!(counts[..3], [0, 0, 0]);
        assert!(counts[3] > 150 && counts[4] > 150, "{counts:?}");
    }

    #[test]
    fn nothing_eligible_is_none() {
        assert_eq!(select(&FakePool::of(&[]), 9), None);
        assert_eq!(select(&FakePool::of(&[0, 0]), 9), None);
        assert_eq!(select(&FakePool::of(&[1, 1]).without(&[0, 1]), 9), None);
    }
}
