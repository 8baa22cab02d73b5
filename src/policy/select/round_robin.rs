//! Round robin, smoothed by weight.
//!
//! Every eligible backend holds as many tickets as its weight (weights 100:50:50 are 2:1:1). A
//! counter walks over the tickets with a stride that is coprime to their number. So every ticket
//! comes up exactly once in a cycle, and every backend exactly as often as its weight requires.
//! Backends of equal weight are simply used in turn.
//!
//! With unequal weights the stride is near the golden ratio of the number of tickets: multiples of
//! the golden ratio fall into the widest gap left so far, so 5:1:1 results in `a b a a c a a` and
//! not in five `a` in a row. How smooth a stride is depends on the quotients of Euclid's algorithm
//! for the number of tickets and the stride. In a window of any length, a backend's picks differ
//! from its share by at most twice their sum (a window consists of at most as many stretches as the
//! quotients add up to, and each differs by at most 2: the inequality of Denjoy and Koksma, in
//! Kuipers and Niederreiter, "Uniform Distribution of Sequences", chapter 2). The nearest coprime
//! number can be a bad one, so the search takes the one with the smallest sum nearby. That proof is
//! generous: for all pools of up to 400 tickets the difference is below 4.
//!
//! Tickets belong to the *eligible* backends only. Skipping ahead from a dead backend instead would
//! give its whole share to one neighbour.
//!
//! The state is one counter, so threads never wait for each other, and adding or removing a backend
//! needs no bookkeeping. The stride is cached between picks because the search takes some hundred
//! divisions. It depends only on the number of tickets, so the last write is always correct.

use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;

use super::{Candidates, Selector, below, usable};

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// How far from the golden ratio the search goes, in either direction.
const SEARCH: u64 = 32;

/// Round robin, smoothed by weight.
#[derive(Debug)]
pub struct RoundRobin {
    turn: AtomicU64,
    /// A number of tickets (upper half) and its stride (lower half).
    stride: AtomicU64,
}

impl RoundRobin {
    /// Starts with the first ticket of the first backend.
    #[must_use]
    pub fn new() -> Self {
        Self { turn: AtomicU64::new(0), stride: AtomicU64::new(0) }
    }

    fn stride(&self, tickets: u64) -> u64 {
        let cached = self.stride.load(Relaxed);
        if cached >> 32 == tickets {
            return cached & u64::from(u32::MAX);
        }
        let stride = smooth_stride(tickets);
        if tickets <= u64::from(u32::MAX) {
            self.stride.store(tickets << 32 | stride, Relaxed);
        }
        stride
    }
}

impl Default for RoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Selector for RoundRobin {
    fn select(&self, candidates: &dyn Candidates, _key: u64, _roll: u64) -> Option<usize> {
        let (mut count, mut sum, mut unit) = (0_u64, 0_u64, 0_u64);
        for (_, weight) in usable(candidates) {
            count += 1;
            sum += weight;
            unit = gcd(weight, unit);
        }
        let tickets = sum.checked_div(unit)?;
        let stride = if tickets == count { 1 } else { self.stride(tickets) };

        let turn = self.turn.fetch_add(1, Relaxed) % tickets;
        // Multiplied by the unit, so that the weights need not be divided by it.
        let mut ticket = times_modulo(turn, stride, tickets) * unit;
        usable(candidates)
            .find(|&(_, weight)| {
                let mine = ticket < weight;
                ticket = ticket.wrapping_sub(weight);
                mine
            })
            .map(|(index, _)| index)
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The smoothest stride near the golden ratio of `total`. The 65 candidates include a coprime one
/// at least for every total below a million: such a total has at most seven different prime
/// divisors, and of 26 consecutive numbers one has none of them.
fn smooth_stride(total: u64) -> u64 {
    let golden = below(total, GOLDEN);
    (0..=golden.min(SEARCH))
        .flat_map(|distance| [golden - distance, golden.saturating_add(distance)])
        .filter_map(|stride| quotients(total, stride).map(|rank| (rank, stride)))
        .min_by_key(|&(rank, _)| rank)
        .map_or(1, |(_, stride)| stride)
}

/// The sum and the largest of the quotients of Euclid's algorithm; `None` if the two numbers are
/// not coprime.
fn quotients(total: u64, stride: u64) -> Option<(u64, u64)> {
    let (mut sum, mut largest) = (0_u64, 0_u64);
    let (mut a, mut b) = (total, stride);
    while b != 0 {
        sum = sum.saturating_add(a / b);
        largest = largest.max(a / b);
        (a, b) = (b, a % b);
    }
    (a == 1).then_some((sum, largest))
}

/// `a · b mod modulus`, for any three numbers; `modulus` is not 0.
fn times_modulo(a: u64, b: u64, modulus: u64) -> u64 {
    a.checked_mul(b).map_or_else(
        // Weights near the maximum of their type: correct, but slower.
        || u64::try_from(u128::from(a) * u128::from(b) % u128::from(modulus)).unwrap_or(0),
        |product| product % modulus,
    )
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakePool, letters};
    use super::*;

    fn picks(round_robin: &RoundRobin, pool: &FakePool, count: usize) -> String {
        letters((0..count).map(|_| round_robin.select(pool, 0, 0)))
    }

    #[test]
    fn equal_backends_are_used_in_turn() {
        assert_eq!(picks(&RoundRobin::new(), &FakePool::of(&[1, 1, 1]), 9), "abcabcabc");
    }

    #[test]
    fn equal_weights_are_in_turn_however_large() {
        assert_eq!(picks(&RoundRobin::new(), &FakePool::of(&[1000, 1000, 1000]), 6), "abcabc");
    }

    #[test]
    fn a_heavy_backend_is_spread_over_its_cycle() {
        assert_eq!(picks(&RoundRobin::new(), &FakePool::of(&[5, 1, 1]), 14), "abaacaaabaacaa");
    }

    #[test]
    fn two_to_one_is_two_to_one_at_any_scale() {
        assert_eq!(picks(&RoundRobin::new(), &FakePool::of(&[200, 100]), 6), "abaaba");
    }

    #[test]
    fn a_dead_backends_share_is_spread_over_all_the_others() {
        let pool = FakePool::of(&[1, 1, 1, 1]).without(&[1]);
        assert_eq!(picks(&RoundRobin::new(), &pool, 9), "acdacdacd");
    }

    #[test]
    fn the_remaining_backends_are_used_in_turn_when_the_heavy_one_dies() {
        let pool = FakePool::of(&[5, 1, 1]).without(&[0]);
        assert_eq!(picks(&RoundRobin::new(), &pool, 4), "bcbc");
    }

    #[test]
    fn a_change_of_the_pool_changes_the_stride() {
        let round_robin = RoundRobin::new();
        assert_eq!(picks(&round_robin, &FakePool::of(&[5, 1, 1]), 7), "abaacaa");
        // The stride of the 7 tickets is 5, which would return to the same one of these 5.
        assert_eq!(picks(&round_robin, &FakePool::of(&[3, 2]), 5).matches('a').count(), 3);
        assert_eq!(picks(&round_robin, &FakePool::of(&[5, 1, 1]), 7).matches('a').count(), 5);
    }

    #[test]
    fn a_lone_backend_gets_everything() {
        let pool = FakePool::of(&[3, 7]).without(&[0]);
        assert_eq!(picks(&RoundRobin::new(), &pool, 3), "bbb");
    }

    #[test]
    fn weight_zero_is_never_picked() {
        assert_eq!(picks(&RoundRobin::new(), &FakePool::of(&[0, 2, 0, 1]), 6), "bdbbdb");
    }

    #[test]
    fn nothing_eligible_is_none() {
        assert_eq!(RoundRobin::new().select(&FakePool::of(&[]), 0, 0), None);
        assert_eq!(RoundRobin::new().select(&FakePool::of(&[0, 0]), 0, 0), None);
        assert_eq!(RoundRobin::new().select(&FakePool::of(&[1, 1]).without(&[0, 1]), 0, 0), None);
    }

    #[test]
    fn the_heaviest_weights_do_not_overflow() {
        let pool = FakePool::of(&[u32::MAX, u32::MAX - 1, u32::MAX - 3]);
        assert_eq!(picks(&RoundRobin::new(), &pool, 3).len(), 3);
    }

    #[test]
    fn the_counter_starts_again_after_its_last_number() {
        let round_robin = RoundRobin { turn: AtomicU64::new(u64::MAX), stride: AtomicU64::new(0) };
        assert_eq!(picks(&round_robin, &FakePool::of(&[1, 1, 1]), 4), "aabc");
    }

    #[test]
    fn times_modulo_is_correct_if_the_product_overflows() {
        assert_eq!(times_modulo(u64::MAX - 1, u64::MAX - 1, u64::MAX), 1);
        assert_eq!(times_modulo(6, 7, 5), 2);
    }
}
