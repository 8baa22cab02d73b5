//! In turn, smooth by weight.
//!
//! Every eligible backend holds as many tickets as its weight (weights 100:50:50 are 2:1:1), and
//! a counter walks over the tickets with a stride that has no common divisor with their number,
//! so that every ticket comes up exactly once in a cycle. The stride is near the golden ratio of
//! the number: successive multiples of the golden ratio fall into the widest gap left so far, so
//! 5:1:1 comes out as `a a a b a c a` and not as five `a` in a row (nginx's smooth order, begun
//! one place earlier). Backends of equal weight are simply used in turn.
//!
//! Tickets are dealt over the *eligible* backends only. Skipping ahead from a dead backend
//! instead would hand its whole share to one neighbour.
//!
//! The state is one counter, so threads never wait for each other, and a backend that comes or
//! goes needs no bookkeeping.

use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;

use super::{Candidates, Selector, below, usable};

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// In turn, smooth by weight.
#[derive(Debug)]
pub struct RoundRobin {
    turn: AtomicU64,
}

impl RoundRobin {
    /// Begins with the first ticket of the first backend.
    #[must_use]
    pub fn new() -> Self {
        Self { turn: AtomicU64::new(0) }
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
        let stride = if tickets == count { 1 } else { coprime_near_golden(tickets) };

        let turn = self.turn.fetch_add(1, Relaxed) % tickets;
        // Not divided by the unit, so that weights need not be either.
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

/// The number nearest to `total` divided by the golden ratio that has no common divisor with
/// `total`. There is one, because 1 has none with any; and it is near, because runs of numbers
/// that all share a divisor with `total` are short (at most 21 long for totals below a million).
fn coprime_near_golden(total: u64) -> u64 {
    let golden = below(total, GOLDEN);
    (0..=golden)
        .flat_map(|distance| [golden - distance, golden + distance])
        .find(|&stride| gcd(total, stride) == 1)
        .unwrap_or(1)
}

/// `a · b mod modulus`, for any three numbers; `modulus` is not 0.
fn times_modulo(a: u64, b: u64, modulus: u64) -> u64 {
    a.checked_mul(b).map_or_else(
        // Weights near the top of their type: correct, and slower.
        || u64::try_from(u128::from(a) * u128::from(b) % u128::from(modulus)).unwrap_or(0),
        |product| product % modulus,
    )
}
