//! The metrics of rate limits, and of the limit on requests in progress.

use prometheus::{IntCounter, IntGauge, Registry, Result};

use crate::exchange::refusal::Scope;
use crate::metrics::register::{by_scope, by_scope_gauge, counters, gauges};
use crate::policy::limiter::RateLimiter;
use crate::runtime::snapshot::Snapshot;

/// The series of limits. All exist from the start.
pub(super) struct LimitSeries {
    /// Requests rejected by a rate limit, one for each [`Scope`].
    rate_limited: [IntCounter; Scope::ALL.len()], // lb_rate_limited_requests_total{scope}
    /// Clients in the table of a rate limit, one for each [`Scope`].
    clients: [IntGauge; Scope::ALL.len()], // lb_rate_limit_clients{scope}
    /// Requests rejected because of `limits.requests`.
    shed: IntCounter, // lb_shed_total{reason}
}

impl LimitSeries {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let rate_limited = counters(
            registry,
            ("lb_rate_limited_requests_total", "Requests rejected by a rate limit."),
            &["scope"],
        )?;
        let clients = gauges(
            registry,
            ("lb_rate_limit_clients", "Clients in the tables of the rate limits."),
            &["scope"],
        )?;
        let shed = counters(
            registry,
            ("lb_shed_total", "Requests rejected because a limit of the worker was reached."),
            &["reason"],
        )?;
        Ok(Self {
            rate_limited: by_scope(&rate_limited)?,
            clients: by_scope_gauge(&clients)?,
            shed: shed.get_metric_with_label_values(&["requests"])?,
        })
    }

    /// Counts a request that was rejected by a rate limit.
    pub(super) fn record_rate_limit(&self, scope: Scope) {
        let [global, route, pool] = &self.rate_limited;
        match scope {
            Scope::Global => global.inc(),
            Scope::Route => route.inc(),
            Scope::Pool => pool.inc(),
        }
    }

    /// Counts a request that was rejected because of `limits.requests`.
    pub(super) fn record_shed(&self) {
        self.shed.inc();
    }

    /// The number of requests rejected by a rate limit.
    pub(super) fn rate_limited(&self) -> u64 {
        self.rate_limited.iter().map(IntCounter::get).sum()
    }

    /// Sets the gauges.
    pub(super) fn refresh(&self, snapshot: &Snapshot) {
        let clients = |limiter: Option<&RateLimiter>| limiter.map_or(0, RateLimiter::clients);
        let routes = snapshot.routes.iter().map(|route| clients(route.limiter.as_ref())).sum();
        let pools = snapshot.pools.iter().map(|pool| clients(pool.limiter.as_ref())).sum();
        let remembered = [clients(snapshot.limiter.as_ref()), routes, pools];
        for (gauge, clients) in self.clients.iter().zip(remembered) {
            gauge.set(i64::try_from(clients).unwrap_or(i64::MAX));
        }
    }
}
