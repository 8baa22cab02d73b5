//! Rate limits.

use std::num::{NonZeroU32, NonZeroUsize};

use ipnet::IpNet;

/// A rate limit: one token bucket per client.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Tokens added per second; above 0, may be a fraction.
    pub requests_per_second: f64,
    /// Capacity of a bucket, in tokens.
    pub burst: NonZeroU32,
    /// Prefix length by which IPv6 clients are told apart, 1 to 128 bits.
    pub ipv6_prefix: u8,
    /// Maximum number of buckets.
    pub clients_max: NonZeroUsize,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
}
