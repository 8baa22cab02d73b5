//! What a worker reports of its backends, for `weir backends` and for metrics.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::breaker::BreakerPhase;
use crate::policy::operator::{BackendKey, OperatorMode};
use crate::runtime::backend::{Backend, Member};
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// What decides whether a backend gets requests. Each variant wins over those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// An operator has disabled it.
    Disabled,
    /// An operator has drained it.
    Draining,
    /// Its host name has no address.
    Unresolved,
    /// Its circuit breaker is open.
    BreakerOpen,
    /// Its circuit breaker is half-open.
    BreakerHalfOpen,
    /// Its health checks fail.
    Unhealthy,
    /// It has not passed its first health check.
    Unchecked,
    /// It has `max_requests` in flight.
    Full,
    /// It gets requests.
    Eligible,
}

impl BackendState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Disabled,
        Self::Draining,
        Self::Unresolved,
        Self::BreakerOpen,
        Self::BreakerHalfOpen,
        Self::Unhealthy,
        Self::Unchecked,
        Self::Full,
        Self::Eligible,
    ];

    /// Its name on pages and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Draining => "draining",
            Self::Unresolved => "unresolved",
            Self::BreakerOpen => "breaker_open",
            Self::BreakerHalfOpen => "breaker_half_open",
            Self::Unhealthy => "unhealthy",
            Self::Unchecked => "unchecked",
            Self::Full => "full",
            Self::Eligible => "eligible",
        }
    }

    /// The state of a backend.
    #[must_use]
    pub fn of(member: &Member, now: Timestamp) -> Self {
        let backend = &member.backend;
        match backend.operator_mode() {
            Some(OperatorMode::Disabled) => return Self::Disabled,
            Some(OperatorMode::Draining) => return Self::Draining,
            None => {}
        }
        if backend.address().is_none() {
            return Self::Unresolved;
        }
        // In shadow mode a breaker is open and keeps nothing away.
        if backend.circuit.keeps_out() {
            return match backend.circuit.phase(now) {
                BreakerPhase::HalfOpen => Self::BreakerHalfOpen,
                BreakerPhase::Open | BreakerPhase::Closed => Self::BreakerOpen,
            };
        }
        match (backend.is_healthy(), backend.health().known) {
            (true, _) if !member.has_place() => Self::Full,
            (true, _) => Self::Eligible,
            (false, true) => Self::Unhealthy,
            (false, false) => Self::Unchecked,
        }
    }
}

/// A backend, as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Which.
    #[serde(flatten)]
    pub key: BackendKey,
    /// Its URL.
    pub url: String,
    /// The name of its [`BackendState`].
    pub state: String,
    /// What its health checks say: `healthy`, `unhealthy`, `unknown` or `unresolved`.
    pub health: String,
    /// The state of its circuit breaker; `None`: its pool has none.
    pub breaker: Option<String>,
    /// Requests in flight to it from this worker.
    pub in_flight: u64,
    /// Its configured weight.
    pub weight: u32,
    /// How long ago its last health check ended.
    pub checked_ago: Option<Duration>,
    /// Why the last failed health check or attempt failed.
    pub last_error: Option<String>,
}

impl BackendReport {
    /// The report on every backend of a snapshot.
    #[must_use]
    pub fn all(snapshot: &Snapshot, now: Timestamp) -> Vec<Self> {
        let reports = |pool: &Pool| -> Vec<Self> {
            pool.members.iter().map(|member| Self::of(pool, member, now)).collect()
        };
        snapshot.pools.iter().flat_map(reports).collect()
    }

    fn of(pool: &Pool, member: &Member, now: Timestamp) -> Self {
        let backend = &member.backend;
        let health = backend.health();
        let breaker = pool.breakers.as_ref().map(|_| backend.circuit.phase(now).as_str());
        Self {
            key: BackendKey { pool: pool.name.to_string(), backend: backend.label.to_string() },
            url: backend.url(),
            state: BackendState::of(member, now).as_str().to_owned(),
            health: health_name(backend).to_owned(),
            breaker: breaker.map(str::to_owned),
            in_flight: backend.in_flight(),
            weight: member.weight.get(),
            checked_ago: health.last_checked.map(|at| at.ago(now)),
            last_error: health.last_error,
        }
    }
}

/// What the health checks of a backend say, in one word.
#[must_use]
pub fn health_name(backend: &Backend) -> &'static str {
    let health = backend.health();
    match (backend.address(), health.known, health.healthy) {
        (None, _, _) => "unresolved",
        (Some(_), false, _) => "unknown",
        (Some(_), true, true) => "healthy",
        (Some(_), true, false) => "unhealthy",
    }
}
