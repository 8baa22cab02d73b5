//! A pool for the selectors' tests.

use super::Candidates;

/// The attributes of backends, as lists.
#[derive(Debug, Clone)]
pub(super) struct FakePool {
    weights: Vec<u32>,
    in_flight: Vec<u64>,
    identities: Vec<u64>,
    eligible: Vec<bool>,
}

impl FakePool {
    /// Idle, eligible backends with these weights.
    pub(super) fn of(weights: &[u32]) -> Self {
        Self {
            weights: weights.to_vec(),
            in_flight: vec![0; weights.len()],
            identities: (0..).take(weights.len()).collect(),
            eligible: vec![true; weights.len()],
        }
    }

    pub(super) fn busy(self, in_flight: &[u64]) -> Self {
        Self { in_flight: in_flight.to_vec(), ..self }
    }

    pub(super) fn busy_at(mut self, index: usize, in_flight: u64) -> Self {
        self.in_flight[index] = in_flight;
        self
    }

    pub(super) fn with_identities(self, identities: &[u64]) -> Self {
        Self { identities: identities.to_vec(), ..self }
    }

    pub(super) fn without(mut self, ineligible: &[usize]) -> Self {
        for &index in ineligible {
            self.eligible[index] = false;
        }
        self
    }
}

impl Candidates for FakePool {
    fn len(&self) -> usize {
        self.weights.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }

    fn in_flight(&self, index: usize) -> u64 {
        self.in_flight[index]
    }

    fn identity(&self, index: usize) -> u64 {
        self.identities[index]
    }

    fn is_eligible(&self, index: usize) -> bool {
        self.eligible[index]
    }
}

/// How often each of `len` backends was picked.
pub(super) fn counts(len: usize, picks: impl Iterator<Item = Option<usize>>) -> Vec<usize> {
    let mut counts = vec![0; len];
    for pick in picks {
        counts[pick.unwrap()] += 1;
    }
    counts
}

/// Picks as letters, the first backend as `a`.
pub(super) fn letters(picks: impl Iterator<Item = Option<usize>>) -> String {
    picks.map(|pick| char::from(b'a' + u8::try_from(pick.unwrap()).unwrap())).collect()
}
