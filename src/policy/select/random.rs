//! Two at random, the less busy of them.
//!
//! Two different eligible backends are drawn without a look at their weights, and the one with
//! fewer requests in flight per unit of weight is taken. It looks at two backends however many
//! there are, so it is the cheapest selector for a large pool; weights only tip the scales
//! between the two, so a backend is never sent more than a share of 2/*n*. Where weights differ
//! by more than that, least connections is the better choice.

use std::cmp::Ordering;

use super::{Candidates, Load, Selector, below, mix, usable};

/// Two at random, the less busy of them.
#[derive(Debug, Default)]
pub struct Random;

impl Random {
    /// It has no state: the dice are an argument.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Selector for Random {
    fn select(&self, candidates: &dyn Candidates, _key: u64, roll: u64) -> Option<usize> {
        let count = u64::try_from(candidates.eligible_count()).unwrap_or(u64::MAX);
        let first = below(count, mix(roll, 1));
        // Drawn from one fewer and moved past the first, the second is another one.
        let second = below(count.saturating_sub(1), mix(roll, 2));
        let second = if second < first { second } else { second + 1 };
        match (load(candidates, first), load(candidates, second)) {
            (Some(first), Some(second)) if first.cmp(&second, roll) == Ordering::Greater => {
                Some(second.index)
            }
            (Some(one), _) | (None, Some(one)) => Some(one.index),
            // Both have weight 0. Rare enough to count those that have one.
            (None, None) => any(candidates, roll),
        }
    }
}

/// The load of the `nth` eligible backend, if it may be picked at all.
fn load(candidates: &dyn Candidates, nth: u64) -> Option<Load> {
    let index = candidates.nth_eligible(usize::try_from(nth).ok()?)?;
    let weight = u64::from(candidates.weight(index));
    (weight > 0).then(|| Load::of(candidates, index, weight))
}

fn any(candidates: &dyn Candidates, roll: u64) -> Option<usize> {
    let count = u64::try_from(usable(candidates).count()).unwrap_or(u64::MAX);
    let nth = usize::try_from(below(count, mix(roll, 3))).ok()?;
    usable(candidates).nth(nth).map(|(index, _)| index)
}
