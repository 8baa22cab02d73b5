//! A token bucket in one atomic word.
//!
//! The bucket is kept as the *theoretical arrival time* of the generic cell rate algorithm (GCRA,
//! ITU-T I.371): the instant at which it will be full again. Tokens and refill time then cannot
//! disagree, because they are the same number, and a partly earned token is never rounded away. A
//! bucket of two words (a count and a timestamp) lets a few requests through between the two
//! writes; this one cannot.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::time::Timestamp;

/// The longest time that an empty bucket takes to fill, about 146 years. With it, sums of a
/// timestamp and a bucket stay far from overflow for the first four centuries of a clock.
const FULL_NS_MAX: u64 = 1 << 62;

/// How fast tokens are earned, and how many a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    token_ns: u64,
    full_ns: u64,
}

impl Rate {
    /// Returns `None` if the rate is not finite and above 0.
    ///
    /// The time per token is rounded up to whole nanoseconds, so that a bucket never admits more
    /// than configured; a million requests per second become at most a thousandth fewer. A bucket
    /// that would take more than 146 years to fill holds fewer tokens, but at least one.
    #[must_use]
    pub fn new(requests_per_second: f64, burst: NonZeroU32) -> Option<Self> {
        let valid = requests_per_second.is_finite() && requests_per_second > 0.0;
        let token_ns = (1e9 / requests_per_second).ceil();
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            reason = "this `as` saturates, which is what is wanted, and no `From` does"
        )]
        let token = Duration::from_nanos(token_ns as u64);
        valid.then_some(Self::of(token, burst))
    }

    /// One token each `token`.
    #[must_use]
    pub fn of(token: Duration, burst: NonZeroU32) -> Self {
        let token_ns = u64::try_from(token.as_nanos()).unwrap_or(FULL_NS_MAX);
        let token_ns = token_ns.clamp(1, FULL_NS_MAX);
        let full_ns = token_ns.saturating_mul(u64::from(burst.get())).min(FULL_NS_MAX);
        Self { token_ns, full_ns }
    }

    /// One token each `token_ns`, for constants. None of the arguments is 0.
    pub(super) const fn of_nanos(token_ns: u64, burst: u64) -> Self {
        Self { token_ns, full_ns: token_ns * burst }
    }

    /// How long it takes to earn a token. Never 0.
    #[must_use]
    pub const fn token_ns(self) -> u64 {
        self.token_ns
    }

    /// How long it takes to fill an empty bucket. Never less than one token.
    #[must_use]
    pub const fn full_ns(self) -> u64 {
        self.full_ns
    }

    /// How long a bucket that owes as much as it can takes to fill. A client that was admitted by
    /// two workers at once may owe tokens, at most one whole burst.
    pub(super) const fn owed_ns(self) -> u64 {
        self.full_ns.saturating_mul(2)
    }

    /// The time of the whole number of tokens that is nearest to `ns`.
    pub(super) const fn whole_tokens_ns(self, ns: u64) -> u64 {
        let half_up = ns.saturating_add(self.token_ns / 2);
        half_up - half_up % self.token_ns
    }

    /// When a bucket that is full at `full_at_ns` will be full after one more token is taken at
    /// `now`, or how long until a token is available.
    ///
    /// Sums saturate at the end of time; a wait is exact even then.
    pub(super) fn spend(self, full_at_ns: u64, now: Timestamp) -> Result<u64, Duration> {
        let now_ns = now.as_nanos();
        let spent_ns = full_at_ns.max(now_ns).saturating_add(self.token_ns);
        let earned_ns = spent_ns.saturating_sub(self.full_ns);
        match earned_ns.saturating_sub(now_ns) {
            0 => Ok(spent_ns),
            wait_ns => Err(Duration::from_nanos(wait_ns)),
        }
    }
}

/// One bucket. Its [`Rate`] is an argument of every call, so that a new rate needs no new bucket.
#[derive(Debug)]
pub struct TokenBucket {
    full_at_ns: AtomicU64,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new() -> Self {
        Self { full_at_ns: AtomicU64::new(0) }
    }

    /// Takes a token, or returns how long until one is available. A caller that waits exactly that
    /// long gets it, unless another one came in between.
    pub fn take(&self, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        let spend = |full_at_ns| rate.spend(full_at_ns, now).ok();
        match self.full_at_ns.fetch_update(Relaxed, Relaxed, spend) {
            Ok(_) => Ok(()),
            Err(full_at_ns) => rate.spend(full_at_ns, now).map(|_| ()),
        }
    }

    /// The same for a bucket that no other thread uses.
    pub(super) fn take_unshared(&mut self, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        let spent_ns = rate.spend(self.full_at_ns.load(Relaxed), now)?;
        self.full_at_ns.store(spent_ns, Relaxed);
        Ok(())
    }

    /// Gives tokens to a bucket that no other thread uses. It may hold more than its burst until
    /// time has passed.
    pub(super) fn refund(&mut self, rate: Rate, tokens: u64) {
        let earned_ns = rate.token_ns.saturating_mul(tokens);
        let full_at_ns = self.full_at_ns.load(Relaxed);
        self.full_at_ns.store(full_at_ns.saturating_sub(earned_ns), Relaxed);
    }
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(requests_per_second: f64, burst: u32) -> Rate {
        Rate::new(requests_per_second, NonZeroU32::new(burst).unwrap()).unwrap()
    }

    fn at_ms(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_new_bucket_gives_its_whole_burst_at_once() {
        let bucket = TokenBucket::new();
        let taken = (0..10).filter(|_| bucket.take(rate(10.0, 5), at_ms(0)).is_ok()).count();
        assert_eq!(taken, 5);
    }

    #[test]
    fn an_empty_bucket_returns_how_long_a_token_takes() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(7)), Ok(()));
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(7)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(67)), Err(Duration::from_millis(40)));
    }

    #[test]
    fn a_time_is_the_nearest_number_of_tokens() {
        let rate = Rate::of(Duration::from_nanos(10), NonZeroU32::MIN);
        for (ns, whole_ns) in [(0, 0), (4, 0), (5, 10), (10, 10), (14, 10), (15, 20)] {
            assert_eq!(rate.whole_tokens_ns(ns), whole_ns, "{ns}");
        }
        let one = Rate::of(Duration::from_nanos(1), NonZeroU32::MIN);
        assert_eq!(one.whole_tokens_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn the_promised_wait_is_exact() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(3.0, 1), at_ms(0)), Ok(()));
        let wait = bucket.take(rate(3.0, 1), at_ms(1)).unwrap_err();
        let early = at_ms(1) + wait.saturating_sub(Duration::from_nanos(1));
        assert_eq!(bucket.take(rate(3.0, 1), early), Err(Duration::from_nanos(1)));
        assert_eq!(bucket.take(rate(3.0, 1), at_ms(1) + wait), Ok(()));
    }

    #[test]
    fn a_refusal_costs_nothing() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(0)), Ok(()));
        for ms in 1..100 {
            assert!(bucket.take(rate(10.0, 1), at_ms(ms)).is_err());
        }
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(100)), Ok(()));
    }

    #[test]
    fn an_idle_bucket_holds_no_more_than_its_burst() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(10.0, 2), at_ms(0)), Ok(()));
        let taken = (0..9).filter(|_| bucket.take(rate(10.0, 2), at_ms(60_000)).is_ok()).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn half_a_token_earned_is_kept() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(0)), Ok(()));
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(150)), Ok(()));
        // 50 ms of the idle 150 exceeded a full bucket; these 100 are all earned.
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(250)), Ok(()));
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(349)), Err(Duration::from_millis(1)));
    }

    #[test]
    fn a_rate_below_one_per_second_counts_in_fractions() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(0.1, 1), at_ms(0)), Ok(()));
        assert_eq!(bucket.take(rate(0.1, 1), at_ms(9_999)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(rate(0.1, 1), at_ms(10_000)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_a_little_behind_does_not_add_tokens() {
        let bucket = TokenBucket::new();
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(500)), Ok(()));
        assert_eq!(bucket.take(rate(10.0, 1), at_ms(499)), Err(Duration::from_millis(101)));
    }

    #[test]
    fn the_time_per_token_is_rounded_up() {
        assert_eq!(rate(10.0, 1).token_ns(), 100_000_000);
        assert_eq!(rate(3.0, 1).token_ns(), 333_333_334);
        assert_eq!(rate(3.0, 6).full_ns(), 2_000_000_004);
    }

    #[test]
    fn no_rate_is_faster_than_a_token_per_nanosecond() {
        assert_eq!(rate(f64::MAX, 1).token_ns(), 1);
        assert_eq!(rate(f64::MAX, 1).full_ns(), 1);
    }

    #[test]
    fn a_bucket_holds_a_token_at_any_rate() {
        assert_eq!(rate(f64::MIN_POSITIVE, u32::MAX).token_ns(), 1 << 62);
        assert_eq!(rate(f64::MIN_POSITIVE, u32::MAX).full_ns(), 1 << 62);
        assert_eq!(TokenBucket::new().take(rate(f64::MIN_POSITIVE, 1), Timestamp::MAX), Ok(()));
    }

    #[test]
    fn an_invalid_rate_is_rejected() {
        assert_eq!(Rate::new(0.0, NonZeroU32::MIN), None);
        assert_eq!(Rate::new(-1.0, NonZeroU32::MIN), None);
        assert_eq!(Rate::new(f64::NAN, NonZeroU32::MIN), None);
        assert_eq!(Rate::new(f64::INFINITY, NonZeroU32::MIN), None);
    }
}
