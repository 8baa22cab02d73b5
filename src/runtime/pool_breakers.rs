//! What the circuit breakers of a pool learn from attempts.

use crate::policy::breaker::{AttemptFault, Moment, Transition};
use crate::policy::retry::AttemptFailure;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::ids::BackendId;
use crate::runtime::lease::Lease;
use crate::runtime::pool::Pool;

impl Pool {
    /// Records the result of an attempt, at most once.
    pub fn record(
        &self,
        id: BackendId,
        lease: &mut Lease,
        result: Result<(), AttemptFault>,
        at: Moment,
    ) -> Option<BreakerChange> {
        let breakers = self.breakers.as_ref()?;
        if !lease.judge() {
            return None;
        }
        if lease.is_trial() {
            let change = breakers.record_trial(&self.members, id, result, at);
            if change.is_some_and(|change| change.change == Transition::Closed) {
                lease.backend().weight.begin_slow_start(at.now);
            }
            return change;
        }
        breakers.record(&self.members, id, result, at)
    }

    /// The response headers of an attempt arrived. A trial that was slow has failed.
    pub fn heard(&self, id: BackendId, lease: &mut Lease, at: Moment) -> Option<BreakerChange> {
        let breakers = self.breakers.as_ref().filter(|breakers| breakers.measures())?;
        let Some(took) = lease.stop_measuring(at.now) else {
            lease.backend().circuit.reacted(at.now);
            return None;
        };
        if let Some(typical) = breakers.typical() {
            lease.backend().weight.responded(took, typical, at.now);
        }
        let is_slow = breakers.heard(&self.members, lease.backend(), took, at.now)?;
        // In shadow mode no trials are made, so every result is one.
        let is_shadow_trial = breakers.params.shadow && lease.backend().circuit.is_out();
        if lease.is_trial() || is_shadow_trial {
            return if is_slow {
                self.record(id, lease, Err(AttemptFault::Slow), at)
            } else {
                None
            };
        }
        breakers.record_slow(&self.members, id, is_slow, at)
    }

    /// How a failed attempt counts for the circuit breaker; `None` if it does not.
    #[must_use]
    pub fn fault(&self, failure: AttemptFailure, response_started: bool) -> Option<AttemptFault> {
        self.breakers.as_ref()?.fault(failure, response_started)
    }
}
