//! Rate limits.

use super::super::file;
use super::super::limits;
use super::super::problem::{Diagnostics, Problem};
use super::super::rate_limit::RateLimit;
use super::{Range, networks, size};

pub(super) fn rate_limit(typed: file::RateLimit, found: &mut Diagnostics) -> Option<RateLimit> {
    let rate = typed.requests_per_second.and_then(|rate| {
        if (limits::RATE_MIN..=limits::RATE_MAX).contains(&rate.value) {
            return Some(rate.value);
        }
        let what = if rate.value.abs() < 1e9 {
            format!("`requests_per_second` cannot be {}", rate.value)
        } else {
            "`requests_per_second` is out of its range".to_owned()
        };
        let problem = Problem::new(rate.at, what);
        let range = format!("a number from {} to {}", limits::RATE_MIN, limits::RATE_MAX);
        found.add(if rate.value == 0.0 {
            problem.help(format!("{range}; for no limit remove `rate_limit`"))
        } else {
            problem.help(range)
        });
        None
    });
    let burst = Range { name: "burst", first: 1, last: u64::from(limits::BURST_MAX) };
    let clients = Range { name: "clients_max", first: 1, last: size(limits::CLIENTS_MAX) };
    let prefix = Range { name: "ipv6_prefix", first: 1, last: 128 };
    let prefix = prefix.pick(typed.ipv6_prefix, found).and_then(|bits| u8::try_from(bits).ok());
    let default_burst = rate.map_or(1, rounded_up);
    Some(RateLimit {
        burst: burst.count(typed.burst, default_burst, found),
        clients_max: clients.count(typed.clients_max, 100_000, found),
        ipv6_prefix: prefix.unwrap_or(64),
        exempt: networks(typed.exempt),
        requests_per_second: rate?,
    })
}

/// The least whole number that is not below `rate`, at least 1.
fn rounded_up(rate: f64) -> u32 {
    debug_assert!(rate <= limits::RATE_MAX, "a burst of a rate that was not checked");
    // Halving what is left, because there is no conversion from a fraction that the lints and the
    // reader could both believe.
    let (mut low, mut high) = (1, limits::BURST_MAX);
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
        assert_eq!(rounded_up(limits::RATE_MAX), 1_000_000);
    }
}
