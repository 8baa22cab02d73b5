//! The metrics of the circuit breakers.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, Result};

use crate::metrics::discovery;
use crate::metrics::register::{counters, gauges};
use crate::policy::breaker::{BreakerPhase, Cause, Transition};
use crate::runtime::backend::Member;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::pool::Pool;
use crate::time::Timestamp;

/// The families of the series of circuit breakers.
pub(super) struct BreakerFamilies {
    states: IntGaugeVec,
    opened: IntCounterVec,
    shadow: IntCounterVec,
}

/// The series of one pool, if it has circuit breakers. All exist from the start.
pub(super) struct PoolBreakers {
    backends: Vec<BackendBreaker>,
    shadow: Option<IntCounter>,
}

struct BackendBreaker {
    /// In the order of [`BreakerPhase::ALL`].
    states: Vec<IntGauge>, // lb_breaker_state{pool,backend,state}
    /// In the order of [`Cause::ALL`].
    opened: Vec<IntCounter>, // lb_breaker_opened_total{pool,backend,cause}
}

impl BreakerFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let states = gauges(
            registry,
            (
                "lb_breaker_state",
                "1 for the state of a backend's circuit breaker: closed, open or half_open.",
            ),
            &["pool", "backend", "state"],
        )?;
        let opened = counters(
            registry,
            (
                "lb_breaker_opened_total",
                "How often the circuit breaker of a backend opened, by cause.",
            ),
            &["pool", "backend", "cause"],
        )?;
        let shadow = counters(
            registry,
            (
                "lb_shadow_total",
                "What a protection in shadow mode would have done, but did not do.",
            ),
            &["protection", "pool"],
        )?;
        Ok(Self { states, opened, shadow })
    }

    /// The series of one pool.
    pub(super) fn series(&self, pool: &Pool) -> Result<PoolBreakers> {
        let Some(breakers) = &pool.breakers else {
            return Ok(PoolBreakers { backends: Vec::new(), shadow: None });
        };
        let name = pool.name.as_str();
        let shadow = || self.shadow.get_metric_with_label_values(&["breaker", name]);
        let backends = pool.members.iter().map(|member| {
            let label = &*member.backend.label;
            Ok(BackendBreaker {
                states: self.of_states(name, label)?,
                opened: self.of_causes(name, label)?,
            })
        });
        Ok(PoolBreakers {
            backends: backends.collect::<Result<_>>()?,
            shadow: breakers.params.shadow.then(shadow).transpose()?,
        })
    }

    fn of_states(&self, pool: &str, backend: &str) -> Result<Vec<IntGauge>> {
        let of = |state: &BreakerPhase| {
            self.states.get_metric_with_label_values(&[pool, backend, state.as_str()])
        };
        BreakerPhase::ALL.iter().map(of).collect()
    }

    fn of_causes(&self, pool: &str, backend: &str) -> Result<Vec<IntCounter>> {
        let of = |cause: &Cause| {
            self.opened.get_metric_with_label_values(&[pool, backend, cause.as_str()])
        };
        Cause::ALL.iter().map(of).collect()
    }
}

impl BreakerFamilies {
    pub(super) fn remove_gauges(&self, pool: &str, backend: &str) {
        discovery::remove(&self.states, pool, backend);
    }

    pub(super) fn remove_counters(&self, pool: &str, backend: &str) {
        discovery::remove(&self.opened, pool, backend);
    }
}

impl PoolBreakers {
    /// Counts a change.
    pub(super) fn record(&self, change: &BreakerChange) {
        let Transition::Opened { why, .. } = change.change else { return };
        if let Some(shadow) = &self.shadow {
            shadow.inc();
        }
        let backend = self.backends.get(change.backend.position());
        let cause = Cause::ALL.iter().position(|cause| *cause == why.cause);
        let opened = backend.zip(cause).and_then(|(backend, cause)| backend.opened.get(cause));
        if let Some(opened) = opened {
            opened.inc();
        }
    }

    /// Sets the gauges from the members that the series were made for.
    pub(super) fn refresh(&self, members: &[Member], now: Timestamp) {
        for (series, member) in self.backends.iter().zip(members) {
            let phase = member.backend.circuit.phase(now);
            for (gauge, state) in series.states.iter().zip(BreakerPhase::ALL) {
                gauge.set(i64::from(state == phase));
            }
        }
    }
}
