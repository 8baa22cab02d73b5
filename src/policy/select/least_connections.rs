//! The fewest requests in flight per unit of weight; ties, such as idle backends, are drawn in
//! proportion to the weights.
//!
//! Up to [`FULL_SCAN_MAX`] eligible backends are all compared, which gives the true minimum. Beyond
//! that, two different ones are drawn, with a probability that grows with the weight, and the less
//! busy of the two is picked. The reason is not the time of the loop but memory: all threads write
//! the counters of requests in flight all the time, so reading a hundred of them is a hundred cache
//! misses, while weights hardly ever change. The cost is small: with two random choices the busiest
//! of *n* backends has only `log log n` requests more than the average (Mitzenmacher, "The Power of
//! Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001).

use super::{BackendLoad, Candidates, Selector, below, mix, usable};

/// Up to this many eligible backends, all are compared.
pub const FULL_SCAN_MAX: usize = 16;

/// The fewest requests in flight per unit of weight.
#[derive(Debug, Default)]
pub struct LeastConnections;

impl LeastConnections {
    /// It has no state: all its inputs are in the candidates.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Selector for LeastConnections {
    fn compares_load(&self) -> bool {
        true
    }

    fn select(&self, candidates: &dyn Candidates, _key: u64, roll: u64) -> Option<usize> {
        if candidates.eligible_count() > FULL_SCAN_MAX {
            return less_busy_of_two(candidates, roll);
        }
        usable(candidates)
            .map(|(index, weight)| BackendLoad::of(candidates, index, weight))
            .min_by(|one, other| one.cmp_or_draw(other, roll))
            .map(|least| least.index)
    }
}

fn less_busy_of_two(candidates: &dyn Candidates, roll: u64) -> Option<usize> {
    let total: u64 = usable(candidates).map(|(_, weight)| weight).sum();
    let first = holder(candidates, below(total, mix(roll, 1)), None)?;
    // The second is drawn from the tickets of all the others, so it is a different one.
    let rest = total.saturating_sub(first.weight);
    let second = holder(candidates, below(rest, mix(roll, 2)), Some(first.index));
    // The first was drawn by weight, so in a tie it has its correct share.
    let least = second.map_or(first, |second| match first.cmp(&second) {
        std::cmp::Ordering::Greater => second,
        std::cmp::Ordering::Less | std::cmp::Ordering::Equal => first,
    });
    Some(least.index)
}

/// The load of the backend that holds a ticket; each backend has as many tickets as its weight.
fn holder(
    candidates: &dyn Candidates,
    mut ticket: u64,
    without: Option<usize>,
) -> Option<BackendLoad> {
    usable(candidates)
        .filter(|&(index, _)| Some(index) != without)
        .find(|&(_, weight)| {
            let mine = ticket < weight;
            ticket = ticket.wrapping_sub(weight);
            mine
        })
        .map(|(index, weight)| BackendLoad::of(candidates, index, weight))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakePool, counts};
    use super::*;

    fn select(pool: &FakePool, roll: u64) -> Option<usize> {
        LeastConnections::new().select(pool, 0, roll)
    }

    #[test]
    fn the_least_busy_is_picked_whatever_the_roll() {
        let pool = FakePool::of(&[1, 1, 1]).busy(&[4, 2, 3]);
        assert_eq!(select(&pool, 0), Some(1));
        assert_eq!(select(&pool, u64::MAX), Some(1));
    }

    #[test]
    fn load_is_compared_per_unit_of_weight() {
        // 3 / 4 is less than 1 / 1, and 5 / 4 is more.
        assert_eq!(select(&FakePool::of(&[1, 4]).busy(&[1, 3]), 0), Some(1));
        assert_eq!(select(&FakePool::of(&[1, 4]).busy(&[1, 5]), 0), Some(0));
    }

    #[test]
    fn the_least_busy_is_skipped_if_it_is_ineligible() {
        assert_eq!(select(&FakePool::of(&[1, 1, 1]).busy(&[0, 2, 3]).without(&[0]), 7), Some(1));
    }

    #[test]
    fn equally_busy_backends_share_evenly() {
        let pool = FakePool::of(&[1, 1, 1, 1]).busy(&[3, 3, 9, 3]);
        let counts = counts(4, (0..3000).map(|roll| select(&pool, roll)));
        assert_eq!(counts[2], 0);
        for index in [0, 1, 3] {
            // 1000 expected; a standard deviation is 26.
            assert!(counts[index].abs_diff(1000) < 130, "{counts:?}");
        }
    }

    #[test]
    fn idle_backends_share_by_weight() {
        let pool = FakePool::of(&[3, 1, 4]);
        let counts = counts(3, (0..8000).map(|roll| select(&pool, roll)));
        // A standard deviation is 45 at most.
        for (count, expected) in counts.iter().zip([3000_usize, 1000, 4000]) {
            assert!(count.abs_diff(expected) < 230, "{counts:?}");
        }
    }

    #[test]
    fn extreme_counter_values_do_not_overflow() {
        assert_eq!(select(&FakePool::of(&[1, 1]).busy(&[u64::MAX, u64::MAX - 1]), 0), Some(1));
    }

    #[test]
    fn nothing_eligible_is_none() {
        assert_eq!(select(&FakePool::of(&[]), 0), None);
        assert_eq!(select(&FakePool::of(&[1]).without(&[0]), 0), None);
        assert_eq!(select(&FakePool::of(&[0; 40]), 0), None);
    }

    #[test]
    fn weight_zero_is_never_picked_even_if_idle() {
        assert_eq!(select(&FakePool::of(&[0, 1]).busy(&[0, 9]), 0), Some(1));
    }

    #[test]
    fn in_a_large_pool_the_busiest_is_never_picked() {
        let pool = FakePool::of(&[1; 40]).busy_at(17, 1);
        let counts = counts(40, (0..4000).map(|roll| select(&pool, roll)));
        assert_eq!(counts[17], 0, "it loses against whichever other one is drawn");
    }

    #[test]
    fn in_a_large_idle_pool_equal_backends_share_evenly() {
        let pool = FakePool::of(&[1; 40]);
        let counts = counts(40, (0..40_000).map(|roll| select(&pool, roll)));
        // 1000 expected; a standard deviation is 31.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 160), "{counts:?}");
    }

    #[test]
    fn in_a_large_pool_a_heavy_backend_is_drawn_more_often() {
        let mut weights = [1; 40];
        weights[0] = 61;
        let counts = counts(40, (0..1000).map(|roll| select(&FakePool::of(&weights), roll)));
        // 61 of 100 tickets; a standard deviation is 15.
        assert!(counts[0].abs_diff(610) < 80, "{counts:?}");
    }

    #[test]
    fn in_a_large_pool_a_lone_backend_with_a_weight_is_found() {
        let mut weights = [0; 40];
        weights[23] = 1;
        assert_eq!(select(&FakePool::of(&weights), 5), Some(23));
    }
}
