//! Sends each client to the same backend: weighted rendezvous hashing.
//!
//! Every backend draws a number for the client, and the highest wins ("highest random weight",
//! Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998). The other backends'
//! numbers do not change when one is removed, so only *its* clients move, to all others in
//! proportion. When it returns, it gets exactly those clients back. There is no ring to build or to
//! store.
//!
//! A backend of weight *w* draws `-w / ln(u)` with *u* uniform in (0, 1). Then `-ln(u) / w` is
//! exponentially distributed with rate *w*, and each of several exponential variables is the
//! smallest with a probability in proportion to its rate. This is the logarithmic method of
//! Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005, in the form of
//! Resch, "New Hashing Algorithms for Data Storage", SNIA Storage Developer Conference 2015.
//!
//! The hash is XXH3 over numbers that are the same in every process, so several balancers agree,
//! and so does one after a restart.

use super::{Candidates, Selector, mix, usable};

/// Sends each client to the same backend.
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
    fn keeps_clients(&self) -> bool {
        true
    }

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
    // The upper bits become the fraction of a number in [1, 2): exact, and without a conversion.
    let from_one = f64::from_bits(1.0_f64.to_bits() | (random >> 12));
    from_one - 1.0 + f64::EPSILON / 2.0
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakePool, counts, letters};
    use super::*;

    fn select(pool: &FakePool, key: u64) -> Option<usize> {
        IpHash::new().select(pool, key, 0)
    }

    #[test]
    fn a_client_stays_with_its_backend_whatever_the_roll() {
        let pool = FakePool::of(&[1, 1, 1]);
        let first = IpHash::new().select(&pool, 77, 1);
        assert_eq!(IpHash::new().select(&pool, 77, u64::MAX), first);
    }

    #[test]
    fn every_process_of_every_version_agrees() {
        // A literal: a change of the hash would move clients between two versions of Weir.
        let picks = letters((0..24).map(|key| select(&FakePool::of(&[1, 1, 1]), key)));
        assert_eq!(picks, "abccabccabbbbabacbbbacca");
    }

    #[test]
    fn the_order_of_the_backends_in_the_file_does_not_matter() {
        let pool = FakePool::of(&[1, 2, 3]);
        let turned = FakePool::of(&[3, 2, 1]).with_identities(&[2, 1, 0]);
        for key in 0..200 {
            assert_eq!(select(&turned, key), select(&pool, key).map(|index| 2 - index));
        }
    }

    #[test]
    fn equal_backends_have_equally_many_clients() {
        let counts = counts(4, (0..8000).map(|key| select(&FakePool::of(&[1; 4]), key)));
        // 2000 expected; a standard deviation is 39.
        assert!(counts.iter().all(|count| count.abs_diff(2000) < 200), "{counts:?}");
    }

    #[test]
    fn an_ineligible_backend_has_no_clients() {
        let pool = FakePool::of(&[1, 1, 1]).without(&[1]);
        assert_eq!(counts(3, (0..500).map(|key| select(&pool, key)))[1], 0);
    }

    #[test]
    fn weight_zero_is_never_picked() {
        let pool = FakePool::of(&[1, 0]);
        assert_eq!(counts(2, (0..100).map(|key| select(&pool, key))), [100, 0]);
    }

    #[test]
    fn nothing_eligible_is_none() {
        assert_eq!(select(&FakePool::of(&[]), 1), None);
        assert_eq!(select(&FakePool::of(&[0]), 1), None);
        assert_eq!(select(&FakePool::of(&[1]).without(&[0]), 1), None);
    }

    #[test]
    fn the_number_drawn_is_never_0_and_never_1() {
        assert!(unit(0) > 0.0 && unit(0) < 1e-15);
        assert!(unit(u64::MAX) < 1.0 && unit(u64::MAX) > 1.0 - 1e-15);
    }
}
