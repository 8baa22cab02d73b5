//! Rate limits as written in the file.

use std::num::{NonZeroU32, NonZeroUsize};

use ipnet::IpNet;

use super::super::read::{Bounds, List, Literal as _, fraction, section, whole};

/// The lowest rate is a request in a thousand seconds: with the largest burst a bucket then takes 10¹⁸ ns to
/// fill, which 64 bits hold. Above the highest rate a token would be worth less than a microsecond.
const RATE_MAX: f64 = 1_000_000.0;
const RATE: Bounds = fraction(0.001, RATE_MAX).zero("for no limit remove `rate_limit`");
const BURST_MAX: u32 = 1_000_000;

section! {
    /// A rate limit for each client: one token bucket per client address. A request without a token gets
    /// 429 with `Retry-After`.
    RawRateLimit at "rate_limit"
        means RateLimit { requests_per_second: f64 };

    combined {
        /// Tokens added to each bucket per second. A fraction is allowed.
        requests_per_second: f64 [RATE] = required, "10";
    }

    /// Capacity of a bucket, in tokens: this many requests may come at once.
    burst: NonZeroU32 [whole(1, 1_000_000)] = computed("`requests_per_second`, rounded up", |it| it.default_burst()), "20";
    /// Prefix length by which IPv6 clients are told apart, in bits. All addresses of one prefix share a
    /// bucket.
    ipv6_prefix: u8 [whole(1, 128)] = default(64), "56", ForgetsBuckets;
    /// Maximum number of buckets in memory, 16 bytes each. When the table is full, the fullest bucket makes
    /// room for a new client.
    clients_max: NonZeroUsize [whole(1, 10_000_000)] = default(100_000), "500000";
    /// Networks that are not limited.
    exempt: List<IpNet> = default(List::empty()), "[10.0.0.0/8, 192.0.2.7]";
}

impl RawRateLimit {
    fn default_burst(&self) -> NonZeroU32 {
        let rate = self.requests_per_second.as_ref().map_or(1.0, |rate| rate.value);
        NonZeroU32::literal(u64::from(rounded_up(rate)))
    }
}

/// The smallest whole number that is not below `rate`, at least 1.
fn rounded_up(rate: f64) -> u32 {
    debug_assert!(rate <= RATE_MAX, "the rate was not checked");
    // By bisection, because there is no conversion from a fraction that the lints allow.
    let (mut low, mut high) = (1, BURST_MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if f64::from(middle) >= rate { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_burst_is_the_rate_rounded_up() {
        assert_eq!(rounded_up(0.001), 1);
        assert_eq!(rounded_up(1.0), 1);
        assert_eq!(rounded_up(1.5), 2);
        assert_eq!(rounded_up(100.0), 100);
        assert_eq!(rounded_up(RATE_MAX), 1_000_000);
    }
}
