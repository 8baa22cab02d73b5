//! How the backends of a pool are selected, and their effective weights.
//!
//! Selectors read the weights from the backends, in thousandths of a unit. They are calculated anew only
//! while they change: then every few milliseconds, by the request that is next. While they do not change,
//! a pick reads one atomic.

use std::time::Duration;

use crate::config::Algorithm;
use crate::policy::select::{IpHash, LeastConnections, Random, RoundRobin, Selector};
use crate::policy::slow_start::{WeightShare, Withheld, takes_part};
use crate::runtime::backend::{Eligibility, Member};
use crate::runtime::backend_set::BackendSet;
use crate::runtime::ids::BackendId;
use crate::runtime::weight::{BackendWeight, WeightSchedule};
use crate::time::Timestamp;

/// How often changing weights are calculated.
const CALCULATED_EVERY: Duration = Duration::from_millis(20);

/// How the backends of a pool are selected.
#[derive(Debug)]
pub struct Balancing {
    /// For a first attempt.
    pub selector: Box<dyn Selector>,
    /// For a retry. A retry that took a turn of the first attempts would break their rhythm: of two
    /// backends, the one that failed would get every next request.
    pub retry_selector: Box<dyn Selector>,
    /// When the effective weights are calculated.
    pub weights: WeightSchedule,
    slow_start: Option<Duration>,
}

impl Balancing {
    /// By this algorithm. `slow_start` is the time in which a backend grows to its weight.
    #[must_use]
    pub fn new(algorithm: Algorithm, slow_start: Option<Duration>) -> Self {
        Self {
            selector: selector(algorithm),
            retry_selector: selector(algorithm),
            weights: WeightSchedule::default(),
            slow_start,
        }
    }

    /// The weight of a new backend of the pool.
    #[must_use]
    pub fn backend_weight(&self) -> BackendWeight {
        match self.slow_start {
            Some(window) => BackendWeight::with_slow_start(window, &self.weights),
            None => BackendWeight::default(),
        }
    }

    /// Calculates the effective weights, if they change: the one place where that is done.
    pub fn refresh(&self, members: &[Member], now: Timestamp) {
        if let Some(next) = self.weights.claim(CALCULATED_EVERY, now) {
            self.calculate(members, next, now);
        }
    }

    /// Calculates the effective weights, because an operator has changed one.
    pub(super) fn recalculate(&self, members: &[Member], now: Timestamp) {
        let next = self.weights.claim_now(CALCULATED_EVERY, now);
        self.calculate(members, next, now);
    }

    fn calculate(&self, members: &[Member], next: Timestamp, now: Timestamp) {
        let mut withheld = Withheld::default();
        let mut is_steady = true;
        for member in members {
            let share = member.backend.weight.share(now);
            is_steady &= share == WeightShare::FULL;
            let full = member.backend.weight.full(member.weight);
            if member.backend.eligibility() == Eligibility::Eligible {
                withheld.add(full, share);
            } else {
                withheld.add_out(full);
            }
        }
        for member in members {
            let weight = &member.backend.weight;
            let share = withheld.limited(weight.share(now));
            weight.set(share.of(weight.full(member.weight)));
        }
        self.weights.calculated(next, is_steady);
    }

    /// Without those backends that start slowly, except for a random part of the picks; all if none
    /// would be left. For algorithms that compare requests in flight.
    pub(super) fn thin(&self, members: &[Member], eligible: BackendSet, roll: u64) -> BackendSet {
        if self.weights.is_steady() {
            return eligible;
        }
        let passed_over = members.iter().enumerate().filter(|(index, member)| {
            let full = member.backend.weight.full(member.weight);
            !takes_part(member.backend.weight.thousandths(), full, *index, roll)
        });
        let passed_over = passed_over.map(|(index, _)| BackendId::new(index)).collect();
        let rest = eligible.without(&passed_over);
        if rest.is_empty() { eligible } else { rest }
    }
}

/// A new selector for an algorithm.
fn selector(algorithm: Algorithm) -> Box<dyn Selector> {
    match algorithm {
        Algorithm::RoundRobin => Box::new(RoundRobin::new()),
        Algorithm::LeastConnections => Box::new(LeastConnections::new()),
        Algorithm::IpHash => Box::new(IpHash::new()),
        Algorithm::Random => Box::new(Random::new()),
    }
}
