//! Charges the successor's limiters for the requests that a draining worker admits.
//!
//! From [`Handoff::export`] on, two workers admit the same clients: the old one until its connections
//! have ended. With each report while it drains, it reports what its limiters have spent for each
//! client since the previous report; the first one covers the time since the handoff. So a client
//! gets only its burst and its rate during a handover too. [`policy::debits`] explains the
//! calculation.
//!
//! [`policy::debits`]: crate::policy::debits

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::handoff::{BUCKETS_MAX, BucketScope, Handoff, limiters};
use super::packed::Packed;
use crate::policy::debits::Baseline;
use crate::policy::limiter::{Debit, RateLimiter};
use crate::runtime::snapshot::{Seed, Snapshot};
use crate::time::Timestamp;

/// The buckets that the successor has imported, for each limiter. Takes 16 bytes per bucket that
/// was handed off.
#[derive(Debug, Default)]
pub struct SuccessorBuckets {
    limiters: HashMap<BucketScope, Baseline>,
}

impl SuccessorBuckets {
    /// The buckets in a handoff that was made at `now`.
    #[must_use]
    pub fn from_handoff(handoff: &Handoff, now: Timestamp) -> Self {
        let known = handoff
            .buckets()
            .map(|(scope, buckets)| (scope.clone(), Baseline::new(buckets, now, BUCKETS_MAX)));
        Self { limiters: known.collect() }
    }

    /// What the limiters have spent for each client since the last call.
    pub fn debits(&mut self, snapshot: &Snapshot, now: Timestamp) -> Debits {
        let given = |(scope, limiter): (BucketScope, &RateLimiter)| {
            let known = self.limiters.get_mut(&scope)?;
            let debits = Packed::largest(known.debits(limiter, now, BUCKETS_MAX), BUCKETS_MAX);
            let (ipv6_prefix, rate) = (limiter.ipv6_prefix(), limiter.rate());
            let (token_ns, full_ns) = (rate.token_ns(), rate.full_ns());
            let given = Given { scope, ipv6_prefix, token_ns, full_ns, debits };
            (!given.debits.rows().is_empty()).then_some(given)
        };
        let limiters = limiters(snapshot).filter_map(given).collect();
        Debits { seed: Some(snapshot.seed), limiters }
    }
}

/// What a worker's limiters have spent for each client since the last report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Debits {
    seed: Option<Seed>,
    limiters: Vec<Given>,
}

impl Debits {
    /// Whether nothing was spent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limiters.is_empty()
    }

    /// Charges the clients. A limit that the snapshot does not have, or that identifies clients
    /// differently, is skipped, as in [`Handoff::import`].
    pub fn import(&self, snapshot: &Snapshot, now: Timestamp) {
        if self.is_empty() || self.seed != Some(snapshot.seed) {
            return;
        }
        let given: HashMap<_, _> = self.limiters.iter().map(|one| (&one.scope, one)).collect();
        for (scope, limiter) in limiters(snapshot) {
            let given = given.get(&scope);
            if let Some(given) = given.filter(|one| one.ipv6_prefix == limiter.ipv6_prefix()) {
                given.import(limiter, now);
            }
        }
    }
}

/// The tokens spent by one limiter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Given {
    scope: BucketScope,
    ipv6_prefix: u8,
    /// The rate. An older version does not tell it: that is another one than any.
    #[serde(default)]
    token_ns: u64,
    #[serde(default)]
    full_ns: u64,
    debits: Packed<Debit>,
}

impl Given {
    /// Under another rate, a debit says nothing of how empty the bucket is here, and no debt comes of
    /// it: what a client owes is known as tokens of its own rate only.
    fn import(&self, limiter: &RateLimiter, now: Timestamp) {
        let rate = limiter.rate();
        if (self.token_ns, self.full_ns) == (rate.token_ns(), rate.full_ns()) {
            self.debits.rows().iter().for_each(|debit| limiter.charge_debit(*debit, now));
            return;
        }
        for debit in self.debits.rows() {
            let spent_ns = self.converted_ns(debit.spent_ns, rate.token_ns());
            let full_in_ns = debit.full_in_ns.min(spent_ns);
            limiter.charge_until_empty(Debit { spent_ns, full_in_ns, ..*debit }, now);
        }
    }

    /// Under a higher rate, as many tokens; under a lower one, as much time. So whatever the change, a
    /// client never loses more by it than it got.
    fn converted_ns(&self, spent_ns: u64, token_ns: u64) -> u64 {
        if self.token_ns <= token_ns {
            return spent_ns;
        }
        (spent_ns / self.token_ns).saturating_mul(token_ns)
    }
}
