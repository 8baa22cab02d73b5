//! Which backend gets the next request.
//!
//! A selector asks a few questions about the candidates and names one. It cannot know *why* one
//! is ineligible: health, breaker, drain and "tried already" meet in the view that implements
//! [`Candidates`], which is frozen for one pick. Nothing here locks, allocates or panics.

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

/// What a selector may ask about the backends of a pool. While one pick lasts, only
/// [`in_flight`](Self::in_flight) may change.
pub trait Candidates {
    /// How many there are, eligible or not.
    fn len(&self) -> usize;

    /// Whether there is none at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A backend's share relative to the others. One of weight 0 is never picked.
    fn weight(&self, index: usize) -> u32;

    /// Requests sent to a backend and not yet answered.
    fn in_flight(&self, index: usize) -> u64;

    /// A 64-bit hash of a backend's address, the same in every process.
    fn identity(&self, index: usize) -> u64;

    /// Whether a backend may be picked.
    fn is_eligible(&self, index: usize) -> bool;

    /// How many may be picked.
    fn eligible_count(&self) -> usize {
        (0..self.len()).filter(|&index| self.is_eligible(index)).count()
    }

    /// The index of the `nth` that may be picked, from 0.
    fn nth_eligible(&self, nth: usize) -> Option<usize> {
        (0..self.len()).filter(|&index| self.is_eligible(index)).nth(nth)
    }
}

/// Picks a backend.
pub trait Selector: Send + Sync + std::fmt::Debug {
    /// The index of an eligible candidate; `None` if and only if there is none.
    ///
    /// `key` is a hash of the client, `roll` a random number, uniform and new for every pick.
    fn select(&self, candidates: &dyn Candidates, key: u64, roll: u64) -> Option<usize>;
}

/// The candidates that may be picked: each index with its weight, which is above 0.
fn usable(candidates: &dyn Candidates) -> impl Iterator<Item = (usize, u64)> {
    (0..candidates.len())
        .filter(|&index| candidates.is_eligible(index))
        .map(|index| (index, u64::from(candidates.weight(index))))
        .filter(|&(_, weight)| weight > 0)
}

/// The same number for the same two numbers in every process, else as if at random.
fn mix(first: u64, second: u64) -> u64 {
    xxh3_64_with_seed(&first.to_le_bytes(), second)
}

/// A number below `bound` out of a random one, without the slow and biased remainder.
fn below(bound: u64, random: u64) -> u64 {
    let (_, high) = random.carrying_mul(bound, 0);
    high
}

/// How busy a backend is, read once.
#[derive(Debug, Clone, Copy)]
struct Load {
    index: usize,
    weight: u64,
    in_flight: u64,
}

impl Load {
    fn of(candidates: &dyn Candidates, index: usize, weight: u64) -> Self {
        Self { index, weight, in_flight: candidates.in_flight(index) }
    }

    /// Compares by `(in flight + 1) / weight`, multiplied out; equals by lot.
    ///
    /// The 1 is the request that is about to be sent. Without it, all idle backends would look
    /// alike, whatever their weight.
    fn cmp(&self, other: &Self, roll: u64) -> Ordering {
        let ours = (u128::from(self.in_flight) + 1) * u128::from(other.weight);
        let theirs = (u128::from(other.in_flight) + 1) * u128::from(self.weight);
        ours.cmp(&theirs).then_with(|| self.lot(roll).cmp(&other.lot(roll)))
    }

    fn lot(&self, roll: u64) -> u64 {
        mix(roll, u64::try_from(self.index).unwrap_or(u64::MAX))
    }
}
