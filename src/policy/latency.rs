//! How long a backend takes for its response headers, and when that is too long.

use std::time::Duration;

use crate::time::nanos;

/// A backend is compared with others once it has this many samples.
const SAMPLES_MIN: u64 = 8;
/// The weight of a new sample is one of this many.
const WEIGHT: u64 = 8;
/// The lower bits of the word are the number of samples, the others nanoseconds.
const COUNT_BITS: u32 = 4;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Below this excess over the typical time nothing is too slow: a pause of the system is as long.
pub const EXCESS_MIN: Duration = Duration::from_millis(50);
/// A backend that has sent nothing for this much longer than usual gets no further request for now.
pub const SILENCE_MIN: Duration = Duration::from_millis(20);

/// A moving average with its number of samples, in one word. Zero means no sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency(u64);

impl Latency {
    /// From [`Self::bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As one word.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The same with one more sample.
    #[must_use]
    pub fn with(self, sample: Duration) -> Self {
        let sample = nanos(sample).min(u64::MAX >> COUNT_BITS);
        let (average, count) = (self.0 >> COUNT_BITS, self.0 & COUNT_MAX);
        let average = match count {
            0 => sample,
            _ => average - average / WEIGHT + sample / WEIGHT,
        };
        Self(average << COUNT_BITS | (count + 1).min(COUNT_MAX))
    }

    /// The average; `None` before there are enough samples.
    #[must_use]
    pub const fn typical(self) -> Option<Duration> {
        if self.0 & COUNT_MAX < SAMPLES_MIN {
            return None;
        }
        Some(Duration::from_nanos(self.0 >> COUNT_BITS))
    }
}

/// The lower median of the values that are there; `None` of fewer than two.
#[must_use]
pub fn median(values: &mut [Duration]) -> Option<Duration> {
    let middle = values.len().checked_sub(1)? / 2;
    (values.len() > 1).then(|| *values.select_nth_unstable(middle).1)
}

/// Beyond this time an attempt is too slow, where `typical` is usual.
#[must_use]
pub fn slow_beyond(typical: Duration, times: u32) -> Duration {
    typical.saturating_mul(times).max(typical.saturating_add(EXCESS_MIN))
}

/// After this time without a response, a backend gets no further request for now.
#[must_use]
pub fn silent_beyond(typical: Duration) -> Duration {
    typical.saturating_mul(2).max(typical.saturating_add(SILENCE_MIN))
}

/// How an attempt waits for its response headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderWait {
    /// Since its backend was picked.
    pub waited: Duration,
    /// How long the backend has not responded to any request.
    pub silent_for: Duration,
    /// Whether it is a trial of the circuit breaker.
    pub is_trial: bool,
}

impl HeaderWait {
    /// Whether an attempt at a backend that is kept out is better moved to another backend: it is slow,
    /// and either a trial, which has failed then, or the backend has been silent for all of its time. A
    /// backend that responds to others meanwhile may be working on a slow request.
    #[must_use]
    pub fn is_stuck(self, typical: Duration, times: u32) -> bool {
        let is_silent = self.silent_for.saturating_add(silent_beyond(typical)) >= self.waited;
        self.waited >= slow_beyond(typical, times) && (self.is_trial || is_silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn of(samples: &[u64]) -> Latency {
        samples.iter().fold(Latency::default(), |latency, sample| latency.with(ms(*sample)))
    }

    #[test]
    fn the_average_is_unknown_before_there_are_enough_samples() {
        assert_eq!(of(&[20; 7]).typical(), None);
        assert_eq!(of(&[20; 8]).typical(), Some(ms(20)));
        assert_eq!(of(&[20; 80]).typical(), Some(ms(20)));
    }

    #[test]
    fn the_average_follows_the_samples() {
        let mut latency = of(&[20; 20]);
        latency = latency.with(ms(100));
        assert_eq!(latency.typical(), Some(ms(30)));
        for _ in 0..60 {
            latency = latency.with(ms(100));
        }
        let typical = latency.typical().unwrap();
        assert!((ms(99)..=ms(100)).contains(&typical), "{typical:?}");
        assert!(Latency::default().with(Duration::MAX).typical().is_none(), "no overflow");
        assert_eq!(Latency::from_bits(latency.bits()), latency);
    }

    #[test]
    fn the_median_of_two_is_the_faster_and_one_has_none() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [ms(5)]), None);
        assert_eq!(median(&mut [ms(900), ms(5)]), Some(ms(5)));
        assert_eq!(median(&mut [ms(900), ms(5), ms(7)]), Some(ms(7)));
    }

    #[test]
    fn a_few_milliseconds_of_noise_are_never_too_slow() {
        assert_eq!(slow_beyond(ms(1), 5), ms(51));
        assert_eq!(slow_beyond(ms(20), 5), ms(100));
        assert_eq!(silent_beyond(ms(1)), ms(21));
        assert_eq!(silent_beyond(ms(200)), ms(400));
    }

    fn is_stuck(waited: u64, silent_for: u64, is_trial: bool) -> bool {
        HeaderWait { waited: ms(waited), silent_for: ms(silent_for), is_trial }.is_stuck(ms(20), 5)
    }

    #[test]
    fn an_attempt_is_stuck_once_it_is_slow_and_its_backend_was_silent_all_the_time() {
        assert!(!is_stuck(99, 5000, false), "not slow yet");
        assert!(is_stuck(100, 100, false));
        assert!(is_stuck(100, 60, false), "a response just after it was sent");
        assert!(!is_stuck(100, 59, false), "the backend responds to others");
        assert!(!is_stuck(5000, 1000, false), "it began before the backend fell silent");
        assert!(is_stuck(5000, 4960, false));
    }

    #[test]
    fn a_trial_is_stuck_once_it_is_slow() {
        assert!(!is_stuck(99, 5000, true));
        assert!(is_stuck(100, 0, true));
    }
}
