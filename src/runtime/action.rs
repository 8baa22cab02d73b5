//! What a route does with a request.

use std::sync::Arc;

use crate::config::{self, Respond, Rewrite, Share};
use crate::http::redirect::Redirect;
use crate::policy::select::{Candidates, RoundRobin, Selector};
use crate::runtime::ids::PoolId;

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Forwards to one of these pools.
    Forward(WeightedPools, Rewrite),
    /// Redirects the client.
    Redirect(Redirect),
    /// Sends a fixed response.
    Respond(Arc<Respond>),
}

impl Action {
    pub(super) fn new(action: &config::Action) -> Self {
        match action {
            config::Action::Forward(forward) => {
                Self::Forward(WeightedPools::new(&forward.pools), forward.rewrite.clone())
            }
            config::Action::Redirect(redirect) => Self::Redirect(redirect.clone()),
            config::Action::Respond(respond) => Self::Respond(Arc::new(respond.clone())),
        }
    }
}

/// Pools that share the requests of a route, by round robin smoothed by weight, so that the shares
/// are exact after few requests. Random choices would deviate by some percent after hundreds.
#[derive(Debug)]
pub struct WeightedPools {
    shares: Vec<Share>,
    turns: RoundRobin,
}

impl WeightedPools {
    /// Creates it from shares that do not all have weight 0.
    #[must_use]
    pub fn new(shares: &[Share]) -> Self {
        Self { shares: shares.to_vec(), turns: RoundRobin::new() }
    }

    /// The pool for the next request. Whether it has a healthy backend does not
    /// matter: a canary pool must not push its failures on to the others, nor they theirs on to it.
    #[must_use]
    pub fn pick(&self) -> Option<PoolId> {
        if let [only] = self.shares.as_slice() {
            return Some(PoolId::new(only.pool));
        }
        let picked = self.turns.select(&Weights(&self.shares), 0, 0)?;
        self.shares.get(picked).map(|share| PoolId::new(share.pool))
    }
}

struct Weights<'a>(&'a [Share]);

impl Candidates for Weights<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.0.get(index).map_or(0, |share| share.weight)
    }

    fn in_flight(&self, _index: usize) -> u64 {
        0
    }

    fn identity(&self, index: usize) -> u64 {
        u64::try_from(index).unwrap_or(u64::MAX)
    }

    fn is_eligible(&self, index: usize) -> bool {
        index < self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u32], count: usize) -> Vec<PoolId> {
        let shares: Vec<Share> =
            weights.iter().enumerate().map(|(pool, &weight)| Share { pool, weight }).collect();
        let split = WeightedPools::new(&shares);
        (0..count).filter_map(|_| split.pick()).collect()
    }

    #[test]
    fn every_cycle_has_each_pools_share() {
        let picks = picks(&[9, 1], 100);
        for cycle in picks.chunks(10) {
            assert_eq!(
                cycle.iter().filter(|pool| **pool == PoolId::new(1)).count(),
                1,
                "{picks:?}"
            );
        }
    }

    #[test]
    fn a_pool_of_weight_0_gets_nothing() {
        assert!(picks(&[1, 0, 1], 100).iter().all(|pool| *pool != PoolId::new(1)));
        assert_eq!(picks(&[0, 1], 3), [PoolId::new(1); 3]);
    }
}
