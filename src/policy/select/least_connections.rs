//! The fewest requests in flight per unit of weight.
//!
//! Up to [`FULL_SCAN_MAX`] eligible backends are all looked at: nothing beats the true minimum.
//! Beyond that, two different ones are drawn, with a chance that grows with the weight, and the
//! less busy of the two is taken. The reason is not the time of the loop but the memory under
//! it: every counter of requests in flight is written by all threads all the time, and reading a
//! hundred of them is a hundred cache misses, while weights hardly ever change. What it costs is
//! small: with two random choices the busiest of *n* backends has only `log log n` requests more
//! than the average (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
//! TPDS 12(10), 2001).

use super::{Candidates, Load, Selector, below, mix, usable};

/// Up to so many eligible backends, every one is looked at.
pub const FULL_SCAN_MAX: usize = 16;

/// The fewest requests in flight per unit of weight.
#[derive(Debug, Default)]
pub struct LeastConnections;

impl LeastConnections {
    /// It has no state: what it needs to know is in the candidates.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Selector for LeastConnections {
    fn select(&self, candidates: &dyn Candidates, _key: u64, roll: u64) -> Option<usize> {
        if candidates.eligible_count() > FULL_SCAN_MAX {
            return less_busy_of_two(candidates, roll);
        }
        usable(candidates)
            .map(|(index, weight)| Load::of(candidates, index, weight))
            .min_by(|one, other| one.cmp(other, roll))
            .map(|least| least.index)
    }
}

fn less_busy_of_two(candidates: &dyn Candidates, roll: u64) -> Option<usize> {
    let total: u64 = usable(candidates).map(|(_, weight)| weight).sum();
    let first = holder(candidates, below(total, mix(roll, 1)), None)?;
    // The second is drawn from the tickets of all the others, so it is another one.
    let rest = total.saturating_sub(first.weight);
    let second = holder(candidates, below(rest, mix(roll, 2)), Some(first.index));
    let least = second.map_or(first, |second| match first.cmp(&second, roll) {
        std::cmp::Ordering::Greater => second,
        std::cmp::Ordering::Less | std::cmp::Ordering::Equal => first,
    });
    Some(least.index)
}

/// The load of the backend that holds a ticket, of which every one has as many as its weight.
fn holder(candidates: &dyn Candidates, mut ticket: u64, without: Option<usize>) -> Option<Load> {
    usable(candidates)
        .filter(|&(index, _)| Some(index) != without)
        .find(|&(_, weight)| {
            let mine = ticket < weight;
            ticket = ticket.wrapping_sub(weight);
            mine
        })
        .map(|(index, weight)| Load::of(candidates, index, weight))
}
