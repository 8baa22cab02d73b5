//! The tokens that a limiter spends after another one has imported its buckets.
//!
//! During a handover and a drain, two limiters admit the same clients. The old one compares its
//! table with the [`Baseline`], the state that the new one has imported, and reports what every
//! client has spent since. The new one charges that ([`RateLimiter::charge_debit`]). Nothing is
//! recorded while requests are admitted, so a handover costs them nothing.
//!
//! # What is exact
//!
//! A bucket is the time at which it is full. Let one bucket be charged with all requests that both
//! limiters admit: it is full at `C`. Let the new limiter's be full at `N`, the old one's at `F`,
//! and let the old one have spent `k` tokens since the baseline. Then
//!
//! ```text
//!   C <= max(N + k tokens, F)          C >= N          C >= F
//! ```
//!
//! and the new limiter continues with the right side of the first line: never with more than the
//! client has left. The difference is at most what is earned in the time that the two buckets were
//! full since the baseline: that time is lost in the one bucket, and counts in the other.
//!
//! `k` is not recorded. It follows from the old bucket: since the baseline, `F` has moved by `k`
//! tokens and by the time that the bucket was full. It is rounded to the nearest whole number of
//! tokens. This is exact if that time is less than half a token, even if a request admitted just
//! then is a little older than the baseline. Otherwise it is too large, by at most what is earned
//! in that time and half a token, and again with each report: the bucket does not distinguish one
//! token that was taken late from several that were taken early.

use super::limiter::{Bucket, Debit, RateLimiter};
use crate::time::Timestamp;

/// The buckets of one limiter, as imported by another one.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    /// When each bucket is full, sorted by tag.
    full_at_ns: Vec<(u64, u64)>,
    /// Buckets that are not listed are full at this time or earlier.
    others_full_at_ns: u64,
}

impl Baseline {
    /// The buckets that were reported at `now`, at most `max`: if there are that many, fuller ones
    /// may have been left out.
    #[must_use]
    pub fn new(reported: &[Bucket], now: Timestamp, max: usize) -> Self {
        let at = |bucket: &Bucket| (bucket.tag, now.as_nanos().saturating_add(bucket.full_in_ns));
        let mut full_at_ns: Vec<(u64, u64)> = reported.iter().map(at).collect();
        full_at_ns.sort_unstable();
        let is_whole = full_at_ns.len() < max;
        let fullest = full_at_ns.iter().map(|one| one.1).min().filter(|_| !is_whole);
        Self { full_at_ns, others_full_at_ns: fullest.unwrap_or(now.as_nanos()) }
    }

    /// The tokens that `limiter`, whose baseline this is, has spent for each client since. Then
    /// sets the baseline to the state at `now`, with at most `max` buckets.
    pub fn debits(&mut self, limiter: &RateLimiter, now: Timestamp, max: usize) -> Vec<Debit> {
        let now_ns = now.as_nanos();
        // A bucket may have been spent from and be full again. It counts too, because the other
        // limiter's may be empty.
        let changed = limiter.full_after(self.others_full_at_ns.min(now_ns));
        let debit = |&(tag, full_at_ns): &(u64, u64)| {
            let moved_ns = full_at_ns.saturating_sub(self.full_at_ns(tag));
            (moved_ns > 0).then(|| Debit {
                tag,
                spent_ns: limiter.rate().whole_tokens_ns(moved_ns),
                full_in_ns: full_at_ns.saturating_sub(now_ns),
            })
        };
        let debits = changed.iter().filter_map(debit).collect();
        let left = changed.iter().filter(|one| one.1 > now_ns);
        let left = left.map(|&(tag, at_ns)| Bucket { tag, full_in_ns: at_ns - now_ns }).collect();
        *self = Self::new(&emptiest(left, max), now, max);
        debits
    }

    fn full_at_ns(&self, tag: u64) -> u64 {
        let found = self.full_at_ns.binary_search_by_key(&tag, |one| one.0);
        let found = found.ok().and_then(|at| self.full_at_ns.get(at));
        found.map_or(self.others_full_at_ns, |one| one.1)
    }
}

/// The buckets that are farthest from full, at most `max`. A client whose bucket is left out gains
/// least from it.
#[must_use]
pub fn emptiest(mut buckets: Vec<Bucket>, max: usize) -> Vec<Bucket> {
    if buckets.len() > max {
        buckets.select_nth_unstable_by_key(max, |one| u64::MAX - one.full_in_ns);
        buckets.truncate(max);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;
    use crate::policy::bucket::Rate;
    use crate::policy::limiter::Params;

    const MS: u64 = 1_000_000;

    fn at_ms(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * MS)
    }

    /// A token per 100 ms, five at most.
    fn limiter() -> RateLimiter {
        let params = Params {
            rate: Rate::new(10.0, NonZeroU32::new(5).unwrap()).unwrap(),
            ipv6_prefix: 64,
            clients_max: NonZeroUsize::new(100).unwrap(),
            exempt: Vec::new(),
        };
        RateLimiter::new(params, 7)
    }

    fn admit(limiter: &RateLimiter, client: u8, now: Timestamp) {
        assert_eq!(limiter.admit(IpAddr::from([192, 0, 2, client]), now), Ok(()));
    }

    fn spent(debits: &[Debit]) -> Vec<(u64, u64)> {
        debits.iter().map(|debit| (debit.spent_ns / MS, debit.full_in_ns / MS)).collect()
    }

    #[test]
    fn tokens_spent_before_the_baseline_are_not_a_debit() {
        let limiter = limiter();
        admit(&limiter, 1, at_ms(0));
        let mut known = Baseline::new(&limiter.export(at_ms(10)), at_ms(10), 9);
        assert_eq!(known.debits(&limiter, at_ms(20), 9), []);
        admit(&limiter, 1, at_ms(30));
        assert_eq!(spent(&known.debits(&limiter, at_ms(30), 9)), [(100, 170)]);
        assert_eq!(known.debits(&limiter, at_ms(40), 9), [], "it is reported once");
    }

    #[test]
    fn a_token_spent_and_earned_back_between_two_reports_is_a_debit() {
        let limiter = limiter();
        let mut known = Baseline::new(&[], at_ms(10), 9);
        admit(&limiter, 1, at_ms(20));
        assert_eq!(spent(&known.debits(&limiter, at_ms(150), 9)), [(100, 0)]);
        assert_eq!(known.debits(&limiter, at_ms(160), 9), []);
    }

    #[test]
    fn a_request_a_little_older_than_the_baseline_costs_a_whole_token() {
        let limiter = limiter();
        let mut known = Baseline::new(&[], at_ms(10), 9);
        // Its thread had read the clock and was then delayed.
        admit(&limiter, 1, at_ms(5));
        assert_eq!(spent(&known.debits(&limiter, at_ms(20), 9)), [(100, 85)]);
    }

    #[test]
    fn a_bucket_that_was_left_out_is_not_a_debit_until_it_is_spent_from() {
        let limiter = limiter();
        for (client, tokens) in [(1, 1), (2, 3), (3, 4)] {
            (0..tokens).for_each(|_| admit(&limiter, client, at_ms(0)));
        }
        let mut known = Baseline::new(&emptiest(limiter.export(at_ms(0)), 2), at_ms(0), 2);
        assert_eq!(known.debits(&limiter, at_ms(0), 2), []);
        // The debit of a client that was left out is the difference to those that were not.
        (0..4).for_each(|_| admit(&limiter, 1, at_ms(0)));
        assert_eq!(spent(&known.debits(&limiter, at_ms(0), 2)), [(200, 500)]);
    }
}
