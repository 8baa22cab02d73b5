//! Slow start: a backend that is new or has recovered gets a growing share of requests.
//!
//! Its caches are empty, its code is not compiled, its pools are not filled: it may be able to take a
//! twentieth of what the others can. A share that grows in a straight line reaches that at once, so
//! this one starts with 1/256 of the usual share and doubles in each eighth of the time. It grows only
//! while the backend responds about as fast as the others, and shrinks while it does not. After four
//! times the configured time it ends in any case: some backends are always slower than their peers.
//!
//! What a backend does not get, the others must take. [`Withheld`] limits that: none of them gets more
//! than twice its usual share because one other backend starts slowly, and hardly more than usual
//! because several do. If most of a pool recovers at once, the rest is not left alone with the load.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::policy::latency::silent_beyond;
use crate::time::Timestamp;

/// The share at the start is this power of one half.
const DOUBLINGS: u32 = 8;
/// It ends after this many times the configured time, however slow the backend is.
const LONGEST: u32 = 4;
/// The weight of a new response time in the average is one of this many.
const SAMPLE_WEIGHT: u32 = 4;
/// One very slow response counts as this many times what is comparable.
const SAMPLE_MAX: u32 = 2;

/// A part of the usual share, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightShare(u32);

impl WeightShare {
    /// All of it.
    pub const FULL: Self = Self(1000);

    /// In thousandths; at least 1.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }

    /// This part of a weight, in the same unit; at least 1, so that the backend gets some requests.
    #[must_use]
    pub fn of(self, full: u32) -> u32 {
        let part = u64::from(full) * u64::from(self.0) / u64::from(Self::FULL.0);
        u32::try_from(part).unwrap_or(u32::MAX).max(1)
    }
}

/// A backend that starts slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// How long it takes while the backend is as fast as its peers.
    window: Duration,
    /// How far it was
    state: RampState,
    /// at this time.
    at: Timestamp,
}

/// How far a slow start is, also for the next worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RampState {
    /// The time since its start.
    elapsed: Duration,
    /// How long it has grown.
    progress: Duration,
    /// The average response time; `None` before the first response.
    average: Option<Duration>,
    /// The average is not comparable with that of the peers.
    is_slow: bool,
}

impl RampState {
    /// The same later. While the backend is slow its share shrinks as fast as it grows otherwise, but
    /// not below what it would be if it took the longest time.
    fn after(mut self, time: Duration) -> Self {
        self.elapsed = self.elapsed.saturating_add(time);
        self.progress = match self.is_slow {
            true => self.progress.saturating_sub(time),
            false => self.progress.saturating_add(time),
        };
        self.progress = self.progress.max(self.elapsed / LONGEST);
        self
    }
}

impl Ramp {
    /// Begins at `now`, and takes `window` if nothing delays it.
    #[must_use]
    pub fn new(window: Duration, now: Timestamp) -> Self {
        Self { window, state: RampState::default(), at: now }
    }

    /// The backend has responded after `took`; `typical` is the median of the pool.
    pub fn responded(&mut self, took: Duration, typical: Duration, now: Timestamp) {
        self.state = self.export(now);
        self.at = now;
        let comparable = silent_beyond(typical);
        let took = took.min(comparable.saturating_mul(SAMPLE_MAX));
        let average = self.state.average.map_or(took, |average| {
            (average.saturating_mul(SAMPLE_WEIGHT - 1).saturating_add(took)) / SAMPLE_WEIGHT
        });
        self.state.average = Some(average);
        self.state.is_slow = average > comparable;
    }

    /// What it gets; `None` if it has ended.
    #[must_use]
    pub fn share(&self, now: Timestamp) -> Option<WeightShare> {
        let progress = self.export(now).progress;
        if progress >= self.window {
            return None;
        }
        // Between two powers of two in a straight line.
        let window = self.window.as_nanos();
        let position = progress.as_nanos() * u128::from(DOUBLINGS);
        let whole = u32::try_from(position / window).unwrap_or(DOUBLINGS);
        let share = (1000_u128 << whole) * (window + position % window) / (window << DOUBLINGS);
        Some(WeightShare(u32::try_from(share).unwrap_or(1000).clamp(1, 1000)))
    }

    /// Its state for the next worker.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> RampState {
        self.state.after(now.since(self.at))
    }

    /// Continues at `now` with what was exported `age` before.
    #[must_use]
    pub fn import(window: Duration, state: RampState, age: Duration, now: Timestamp) -> Self {
        Self { window, state: state.after(age), at: now }
    }
}

/// What the backends of a pool that start slowly do not get, and the others have to take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Withheld {
    /// The weight of all eligible backends, in any unit,
    total: u64,
    /// what those that start slowly do not get of it, in thousandths of a unit of weight,
    withheld: u64,
    /// the largest weight among them,
    largest: u64,
    /// and the weight of the backends that get no requests at all.
    out: u64,
}

impl Withheld {
    /// Adds an eligible backend.
    pub fn add(&mut self, weight: u32, share: WeightShare) {
        let weight = u64::from(weight);
        self.total += weight;
        if share < WeightShare::FULL {
            self.withheld += weight * u64::from(1000 - share.0);
            self.largest = self.largest.max(weight);
        }
    }

    /// Adds a backend that gets no requests.
    pub fn add_out(&mut self, weight: u32) {
        self.out += u64::from(weight);
    }

    /// At most a quarter of the pool's weight is withheld, or the weight of one backend, but of that
    /// not more than half of the pool's: then the others get twice their usual share. What is out
    /// counts as withheld, because the others carry that already.
    const fn most(&self) -> u64 {
        let all = self.total + self.out;
        let (quarter, half, one) = (all * 250, all * 500, self.largest * 1000);
        let one = if one < half { one } else { half };
        let most = if one > quarter { one } else { quarter };
        most.saturating_sub(self.out * 1000)
    }

    /// The share of a backend, so that the others do not get too much.
    #[must_use]
    pub fn limited(&self, share: WeightShare) -> WeightShare {
        let most = self.most();
        if self.withheld <= most {
            return share;
        }
        let less = u128::from(1000 - share.0.min(1000));
        let less = less * u128::from(most) / u128::from(self.withheld);
        WeightShare(1000 - u32::try_from(less).unwrap_or(0))
    }
}

/// Whether a backend with this part of its weight takes part in a pick.
///
/// An algorithm that compares requests in flight would otherwise send the next request to a backend
/// that starts slowly whenever that is idle, whatever its weight.
#[must_use]
pub fn takes_part(weight: u32, full: u32, index: usize, roll: u64) -> bool {
    let seed = u64::try_from(index).unwrap_or(0) | 1 << 63;
    let random = xxh3_64_with_seed(&roll.to_le_bytes(), seed);
    let (_, ticket) = random.carrying_mul(u64::from(full), 0);
    ticket < u64::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(8);
    const TYPICAL: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn shares(ramp: &Ramp, seconds: impl Iterator<Item = u64>) -> Vec<Option<u32>> {
        seconds.map(|second| ramp.share(at(second * 1000)).map(WeightShare::thousandths)).collect()
    }

    #[test]
    fn the_share_doubles_in_each_eighth_of_the_time() {
        let ramp = Ramp::new(WINDOW, at(0));
        let expected = [3, 7, 15, 31, 62, 125, 250, 500].map(Some);
        assert_eq!(shares(&ramp, 0..8), expected);
        assert_eq!(
            ramp.share(at(500)),
            Some(WeightShare(5)),
            "and is between two of them in between"
        );
        assert_eq!(ramp.share(at(8000)), None);
    }

    #[test]
    fn it_shrinks_while_the_backend_is_slow_and_grows_again() {
        let mut ramp = Ramp::new(WINDOW, at(0));
        ramp.responded(10 * TYPICAL, TYPICAL, at(5000));
        assert_eq!(shares(&ramp, 5..8), [Some(125), Some(62), Some(31)]);
        for _ in 0..6 {
            ramp.responded(TYPICAL, TYPICAL, at(6000));
        }
        assert_eq!(shares(&ramp, 6..9), [Some(62), Some(125), Some(250)]);
    }

    #[test]
    fn one_slow_response_among_others_changes_nothing() {
        let mut ramp = Ramp::new(WINDOW, at(0));
        ramp.responded(TYPICAL, TYPICAL, at(1000));
        ramp.responded(100 * TYPICAL, TYPICAL, at(1100));
        assert!(!ramp.state.is_slow);
        ramp.responded(100 * TYPICAL, TYPICAL, at(1200));
        assert!(ramp.state.is_slow, "two do");
    }

    #[test]
    fn a_backend_that_stays_slow_gets_its_share_in_the_end() {
        let mut ramp = Ramp::new(WINDOW, at(0));
        for second in 1..32 {
            ramp.responded(10 * TYPICAL, TYPICAL, at(second * 1000));
        }
        assert_eq!(ramp.share(at(31_900)).map(|share| share > WeightShare(950)), Some(true));
        assert_eq!(ramp.share(at(32_000)), None);
    }

    #[test]
    fn the_next_worker_continues_with_another_clock() {
        let mut ramp = Ramp::new(WINDOW, at(100_000));
        for second in [102_000, 103_000] {
            ramp.responded(10 * TYPICAL, TYPICAL, at(second));
        }
        let state = ramp.export(at(104_000));
        let next = Ramp::import(WINDOW, state, Duration::from_secs(2), at(5));
        for later in [0, 3000, 20_000, 26_000] {
            assert_eq!(next.share(at(5 + later)), ramp.share(at(106_000 + later)), "{later}");
        }
    }

    fn limited(weights: &[u32], starting: &[usize]) -> Vec<u32> {
        let share =
            |index| if starting.contains(&index) { WeightShare(4) } else { WeightShare::FULL };
        let mut withheld = Withheld::default();
        for (index, weight) in weights.iter().enumerate() {
            withheld.add(*weight, share(index));
        }
        (0..weights.len()).map(|index| withheld.limited(share(index)).thousandths()).collect()
    }

    #[test]
    fn what_the_others_must_take_is_limited() {
        assert_eq!(limited(&[1; 5], &[0]), [4, 1000, 1000, 1000, 1000], "one of five");
        assert_eq!(limited(&[1, 1], &[0]), [4, 1000], "the other one carried it alone before");
        // 1.25 of 5 are withheld: the first gets 27 %, not all.
        assert_eq!(limited(&[1; 5], &[1, 2, 3, 4]), [1000, 688, 688, 688, 688]);
        assert_eq!(limited(&[1, 100], &[1]), [1000, 495], "the small one gets 2 %, not all");
        assert_eq!(limited(&[1; 5], &[0, 1, 2, 3, 4]), [750; 5]);
        assert_eq!(limited(&[1; 5], &[]), [1000; 5]);
        assert_eq!(limited(&[], &[]), [0; 0]);
    }

    #[test]
    fn what_is_out_counts_as_withheld() {
        let limited = |out| {
            let mut withheld = Withheld::default();
            (0..out).for_each(|_| withheld.add_out(1));
            withheld.add(1, WeightShare(4));
            (1..5 - out).for_each(|_| withheld.add(1, WeightShare::FULL));
            withheld.limited(WeightShare(4)).thousandths()
        };
        assert_eq!([0, 1, 2].map(limited), [4, 750, 1000], "of five, one starts slowly");
    }

    #[test]
    fn a_backend_takes_part_in_its_part_of_the_picks() {
        let picks = (0..10_000).filter(|roll| takes_part(250, 1000, 3, *roll)).count();
        // 2500 expected; a standard deviation is 43.
        assert!(picks.abs_diff(2500) < 220, "{picks}");
        assert!((0..1000).all(|roll| takes_part(1000, 1000, 3, roll)));
    }
}
