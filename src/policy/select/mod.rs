//! Selects the backend for the next request.
//!
//! A selector reads a few attributes of the candidates and returns one of them. It does not know
//! *why* one is ineligible: health, and whether it was already tried, are combined in the view that
//! implements [`Candidates`], which is frozen for one pick. Nothing here locks, allocates or
//! panics.

#[cfg(test)]
mod fake;
mod ip_hash;
mod least_connections;
mod random;
mod round_robin;

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use ip_hash::IpHash;
pub use least_connections::{FULL_SCAN_MAX, LeastConnections};
pub use random::Random;
pub use round_robin::RoundRobin;

/// The attributes of a pool's backends for a selector. During one pick, only
/// [`in_flight`](Self::in_flight) may change.
pub trait Candidates {
    /// The number of backends, eligible or not.
    fn len(&self) -> usize;

    /// Whether there is none at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A backend's share relative to the others, in any unit. One with weight 0 is never picked.
    fn weight(&self, index: usize) -> u32;

    /// Requests in flight to a backend.
    fn in_flight(&self, index: usize) -> u64;

    /// A 64-bit hash of a backend's address, the same in every process.
    fn identity(&self, index: usize) -> u64;

    /// Whether a backend may be picked.
    fn is_eligible(&self, index: usize) -> bool;

    /// The number of eligible backends.
    fn eligible_count(&self) -> usize {
        (0..self.len()).filter(|&index| self.is_eligible(index)).count()
    }

    /// The index of the `nth` eligible backend, from 0.
    fn nth_eligible(&self, nth: usize) -> Option<usize> {
        (0..self.len()).filter(|&index| self.is_eligible(index)).nth(nth)
    }
}

/// Picks a backend.
pub trait Selector: Send + Sync + std::fmt::Debug {
    /// The index of an eligible candidate; `None` if and only if there is none.
    ///
    /// `key` is a hash of the client, `roll` a uniform random number, new for every pick.
    fn select(&self, candidates: &dyn Candidates, key: u64, roll: u64) -> Option<usize>;

    /// Whether it prefers backends with few requests in flight, so that an idle one gets the next
    /// request whatever its weight.
    fn compares_load(&self) -> bool {
        false
    }

    /// Whether a client always gets the same backend, so that it is not moved for a moment.
    fn keeps_clients(&self) -> bool {
        false
    }
}

/// The candidates that may be picked: each index with its weight, which is above 0.
fn usable(candidates: &dyn Candidates) -> impl Iterator<Item = (usize, u64)> {
    (0..candidates.len())
        .filter(|&index| candidates.is_eligible(index))
        .map(|index| (index, u64::from(candidates.weight(index))))
        .filter(|&(_, weight)| weight > 0)
}

/// Mixes two numbers: deterministic in every process, otherwise like a random number.
fn mix(first: u64, second: u64) -> u64 {
    xxh3_64_with_seed(&first.to_le_bytes(), second)
}

/// A number below `bound` from a random one, without the slow and biased remainder.
fn below(bound: u64, random: u64) -> u64 {
    let (_, high) = random.carrying_mul(bound, 0);
    high
}

/// The load of a backend, read once.
#[derive(Debug, Clone, Copy)]
struct BackendLoad {
    index: usize,
    weight: u64,
    in_flight: u64,
}

impl BackendLoad {
    fn of(candidates: &dyn Candidates, index: usize, weight: u64) -> Self {
        Self { index, weight, in_flight: candidates.in_flight(index) }
    }

    /// Compares by `in flight / weight`, multiplied out. All idle backends are equal.
    ///
    /// The request about to be sent is not added: `(in flight + 1) / weight` would send every
    /// request to the heaviest backend while it is idle, and none to the others.
    fn cmp(&self, other: &Self) -> Ordering {
        let ours = u128::from(self.in_flight) * u128::from(other.weight);
        let theirs = u128::from(other.in_flight) * u128::from(self.weight);
        ours.cmp(&theirs)
    }

    /// The same, with ties drawn: each wins with a probability in proportion to its weight.
    fn cmp_or_draw(&self, other: &Self, roll: u64) -> Ordering {
        self.cmp(other).then_with(|| {
            if self.weight == other.weight {
                // The same order without logarithms: the larger number makes the smaller lot.
                return other.random(roll).cmp(&self.random(roll));
            }
            self.lot(roll).total_cmp(&other.lot(roll))
        })
    }

    /// The smallest lot wins the draw. It is exponentially distributed with the weight as its rate,
    /// and each of several such numbers is the smallest with a probability in proportion to its
    /// rate.
    fn lot(&self, roll: u64) -> f64 {
        let random = f64::from(self.random(roll));
        let weight = f64::from(u32::try_from(self.weight).unwrap_or(u32::MAX));
        // Above 0, so that its logarithm is finite.
        -((random + 1.0) / (f64::from(u32::MAX) + 1.0)).ln() / weight
    }

    /// The index is subtracted from the maximum, so that this is never the number that drew one of
    /// two: otherwise backends whose index equals that of the draw would be favoured.
    fn random(&self, roll: u64) -> u32 {
        let random = mix(roll, u64::MAX - u64::try_from(self.index).unwrap_or(0));
        u32::try_from(random >> 32).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakePool;
    use super::*;

    #[test]
    fn a_number_below_a_bound_reaches_both_of_its_ends() {
        assert_eq!(below(10, 0), 0);
        assert_eq!(below(10, u64::MAX), 9);
        assert_eq!(below(0, u64::MAX), 0);
    }

    #[test]
    fn the_eligible_are_counted_and_numbered_by_a_scan() {
        let pool = FakePool::of(&[1, 1, 1, 1]).without(&[0, 2]);
        assert_eq!(pool.eligible_count(), 2);
        assert_eq!(pool.nth_eligible(0), Some(1));
        assert_eq!(pool.nth_eligible(1), Some(3));
        assert_eq!(pool.nth_eligible(2), None);
    }

    #[test]
    fn a_pool_without_backends_is_empty() {
        assert!(FakePool::of(&[]).is_empty());
        assert!(!FakePool::of(&[1]).without(&[0]).is_empty());
    }
}
