//! Whether a backend gets requests, as health checks and operators have decided: one atomic, which a
//! pick reads once.

use crate::policy::operator::OperatorMode;
use crate::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Its health checks pass.
const HEALTHY: u8 = 1;
/// An operator has drained it.
const DRAINING: u8 = 2;
/// An operator has disabled it.
const DISABLED: u8 = 4;

/// What health checks and operators have decided.
#[derive(Debug)]
pub struct Standing(AtomicU8);

/// The standing at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standpoint {
    /// Its health checks pass, and no operator keeps requests away.
    Available,
    /// Its health checks do not pass.
    Unhealthy,
    /// An operator keeps requests away.
    TakenOut(OperatorMode),
}

/// Whether a backend gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    /// Its health checks pass, and its circuit breaker is closed.
    Eligible,
    /// Only its circuit breaker keeps requests away from it.
    KeptOut,
    /// Its health checks do not pass, or its name is not resolved.
    Unhealthy,
    /// An operator keeps requests away from it.
    TakenOut(OperatorMode),
}

impl Standing {
    pub(super) fn new(is_healthy: bool) -> Self {
        Self(AtomicU8::new(u8::from(is_healthy)))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.0.load(Relaxed) & HEALTHY != 0
    }

    pub(super) fn get(&self) -> Standpoint {
        match self.0.load(Relaxed) {
            HEALTHY => Standpoint::Available,
            bits if bits & DISABLED != 0 => Standpoint::TakenOut(OperatorMode::Disabled),
            bits if bits & DRAINING != 0 => Standpoint::TakenOut(OperatorMode::Draining),
            _ => Standpoint::Unhealthy,
        }
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        if healthy {
            self.0.fetch_or(HEALTHY, Relaxed);
        } else {
            self.0.fetch_and(!HEALTHY, Relaxed);
        }
    }

    /// Returns whether an operator kept requests away before.
    pub(super) fn set_operator_mode(&self, mode: Option<OperatorMode>) -> bool {
        let bits = match mode {
            None => 0,
            Some(OperatorMode::Draining) => DRAINING,
            Some(OperatorMode::Disabled) => DISABLED,
        };
        let set = |before: u8| Some(before & HEALTHY | bits);
        let before = self.0.fetch_update(Relaxed, Relaxed, set);
        before.is_ok_and(|before| before & !HEALTHY != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_wins_over_health_checks_and_neither_forgets_the_other() {
        let standing = Standing::new(false);
        assert_eq!(standing.get(), Standpoint::Unhealthy);
        for (mode, was_out) in [(OperatorMode::Draining, false), (OperatorMode::Disabled, true)] {
            assert_eq!(standing.set_operator_mode(Some(mode)), was_out);
            assert_eq!(standing.get(), Standpoint::TakenOut(mode));
        }
        standing.set_healthy(true);
        assert!(standing.is_healthy());
        assert_eq!(standing.get(), Standpoint::TakenOut(OperatorMode::Disabled));
        assert!(standing.set_operator_mode(None));
        assert!(!standing.set_operator_mode(None));
        assert_eq!(standing.get(), Standpoint::Available);
        standing.set_healthy(false);
        assert_eq!(standing.get(), Standpoint::Unhealthy);
    }
}
