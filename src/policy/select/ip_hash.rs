//! The same client to the same backend: weighted rendezvous hashing.
//!
//! Every backend draws a number for the client, and the highest wins ("highest random weight",
//! Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998). Since the numbers of
//! the others do not change when one leaves, only *its* clients move, and they move in
//! proportion to all others; when it comes back, it gets exactly those back. There is no ring to
//! build or to keep.
//!
//! A backend of weight *w* draws `-w / ln(u)` with *u* uniform in (0, 1): then `ln(u) / w` is
//! exponentially distributed with rate *w*, and the least of several exponential variables
//! belongs to each with a probability in proportion to its rate. This is the logarithmic method
//! of Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005, in the form of
//! Resch, "New Hashing Algorithms for Data Storage", SNIA Storage Developer Conference 2015.
//!
//! The hash is XXH3 over numbers that are the same in every process, so several balancers, and
//! one after its restart, agree.

use super::{Candidates, Selector, mix, usable};

/// The same client to the same backend.
#[derive(Debug, Default)]
pub struct IpHash;

impl IpHash {
    /// It has no state: the client's hash is an argument.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Selector for IpHash {
    fn select(&self, candidates: &dyn Candidates, key: u64, _roll: u64) -> Option<usize> {
        usable(candidates)
            .map(|(index, weight)| (index, score(key, candidates.identity(index), weight)))
            .reduce(|best, other| if other.1 > best.1 { other } else { best })
            .map(|(index, _)| index)
    }
}

fn score(key: u64, identity: u64, weight: u64) -> f64 {
    let weight = f64::from(u32::try_from(weight).unwrap_or(u32::MAX));
    -weight / unit(mix(key, identity)).ln()
}

/// A number strictly between 0 and 1: the middle of one of 2⁵² equal parts.
fn unit(random: u64) -> f64 {
    // The upper bits as the fraction of a number in [1, 2): exact, and without a conversion.
    let from_one = f64::from_bits(1.0_f64.to_bits() | (random >> 12));
    from_one - 1.0 + f64::EPSILON / 2.0
}
