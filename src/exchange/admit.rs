//! Whether a request is admitted, and where it goes.

use std::sync::Arc;

use ::http::Method;

use super::event::ExchangeEvent;
use super::head::check_length;
use super::refusal::{Outcome, Refusal, Scope};
use super::{Exchange, Head};
use crate::config::{AmbiguousPaths, Respond, Rewrite, UnderscoreHeaders};
use crate::http::redirect::RequestTarget;
use crate::http::scan::Violation;
use crate::http::{host, underscore, upgrade};
use crate::policy::limiter::RateLimiter;
use crate::runtime::action::{Action, WeightedPools};
use crate::runtime::snapshot::{Route, Snapshot};
use crate::time::Timestamp;

/// What to do with an admitted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Pick a backend.
    Forward,
    /// Send the response that the route defines.
    Direct(DirectResponse),
}

/// A response that a route sends itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectResponse {
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The value of `Location`.
        location: String,
    },
    /// A fixed response.
    Respond(Arc<Respond>),
}

/// Where a route forwards a request.
struct Forwarding<'a> {
    pools: &'a WeightedPools,
    rewrite: &'a Rewrite,
    /// The path to rewrite; `None` for `*`.
    path: Option<&'a str>,
}

impl Exchange {
    /// Decides whether the request is admitted, and where it goes.
    ///
    /// # Errors
    /// The [`Refusal`] to respond with.
    pub fn admit(&mut self, head: &Head<'_>, now: Timestamp) -> Result<Admitted, Refusal> {
        let admitted = self.admit_or_refuse(head, now);
        self.record_refusal(admitted)
    }

    fn admit_or_refuse(&mut self, head: &Head<'_>, now: Timestamp) -> Result<Admitted, Refusal> {
        self.times.last_event = now;
        let snapshot = Arc::clone(&self.snapshot);
        self.client = Some(head.client(&snapshot));
        self.upgrade.wanted = upgrade::asks_for_websocket(head.method, head.version, head.headers);
        if let Some(timeout) = head.grpc_timeout() {
            self.times.deadline = self.times.started + timeout;
        }
        if matches!(*head.method, Method::TRACE | Method::CONNECT) {
            return Err(Refusal::MethodNotAllowed);
        }
        let length = head.length()?;
        self.body.plain = head.is_plain(length) && !self.upgrade.wanted;
        if snapshot.underscore_headers == UnderscoreHeaders::Refuse
            && underscore::names(head.headers).next().is_some()
        {
            self.set_detail(Violation::Underscore.code());
            return Err(Refusal::BadRequest);
        }
        if head.is_forwarding_loop() {
            return Err(Refusal::LoopDetected);
        }
        head.check_expectation()?;
        if let Some((length, most)) = length.zip(snapshot.body_bytes_max) {
            check_length(length, most)?;
        }
        let authority = head.host()?;
        let Ok(host) = host::canonical(authority) else {
            self.set_detail(Violation::Host.code());
            return Err(Refusal::BadRequest);
        };
        let (path, is_ambiguous) = head.routing_path()?;
        self.count(&snapshot)?;
        self.limit(snapshot.limiter.as_ref(), Scope::Global, now)?;
        let query = head.route_query(&host, &path, &snapshot);
        let index = snapshot.table.find(&query).ok_or(Refusal::NoRoute)?;
        if snapshot.ambiguous_paths == AmbiguousPaths::Refuse
            && is_ambiguous
            && snapshot.table.is_ambiguous(&query, head.path, Some(index))
        {
            return Err(Refusal::AmbiguousPath);
        }
        let route = snapshot.routes.get(index).ok_or(Refusal::NoRoute)?;
        self.destination.route = Some(index);
        let target = || RequestTarget {
            scheme: query.scheme,
            host: head.has_host().then_some(query.host),
            port: host::port(authority),
            path: query.path,
            query: query.query,
        };
        match &route.action {
            Action::Forward(pools, rewrite) => {
                let path = (head.path != "*").then_some(query.path);
                self.forward(&snapshot, route, &Forwarding { pools, rewrite, path }, now)
            }
            Action::Redirect(redirect) => {
                self.limit(route.limiter.as_ref(), Scope::Route, now)?;
                let location = redirect.location(&target()).ok_or(Refusal::BadRequest)?;
                self.destination.direct_outcome = Some(Outcome::Redirected);
                let status = redirect.status;
                Ok(Admitted::Direct(DirectResponse::Redirect { status, location }))
            }
            Action::Respond(respond) => {
                self.limit(route.limiter.as_ref(), Scope::Route, now)?;
                self.destination.direct_outcome = Some(Outcome::Responded);
                Ok(Admitted::Direct(DirectResponse::Respond(Arc::clone(respond))))
            }
        }
    }

    fn forward(
        &mut self,
        snapshot: &Snapshot,
        route: &Route,
        to: &Forwarding<'_>,
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let id = to.pools.pick().ok_or(Refusal::NoRoute)?;
        let pool = snapshot.pools.get(id).ok_or(Refusal::NoRoute)?;
        self.destination.pool = Some(id);
        if let Some(timeout) = pool.timeouts.request {
            self.times.deadline = self.times.deadline.min(self.times.started + timeout);
        }
        self.upgrade.wanted &= !pool.config.transport.protocol.is_http2_alone();
        self.limit(route.limiter.as_ref(), Scope::Route, now)?;
        self.limit(pool.limiter.as_ref(), Scope::Pool, now)?;
        // Checked here, while the client's connection can still be reused.
        if pool.available().is_empty() {
            return Err(Refusal::without_backend(pool));
        }
        if let Some((rule, path)) = to.rewrite.path.as_ref().zip(to.path) {
            let new = rule.of(path);
            if snapshot.ambiguous_paths == AmbiguousPaths::Refuse && !rule.keeps(&new) {
                return Err(Refusal::AmbiguousPath);
            }
            self.destination.new_path = Some(new);
        }
        Ok(Admitted::Forward)
    }

    /// Counts the request among those in progress, until it is complete. Invalid requests are rejected
    /// before, and a request that is rejected here takes nothing from a rate limit.
    fn count(&mut self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let Some(limit) =
            snapshot.request_limit.as_ref().filter(|_| self.conclusion.counted.is_none())
        else {
            return Ok(());
        };
        self.conclusion.counted = limit.enter();
        if self.conclusion.counted.is_some() {
            return Ok(());
        }
        self.observer.observe(&ExchangeEvent::Shed);
        Err(Refusal::RequestLimit)
    }

    fn limit(
        &self,
        limiter: Option<&RateLimiter>,
        scope: Scope,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (Some(limiter), Some(client)) = (limiter, self.client) else { return Ok(()) };
        limiter.admit(client.address, now).map_err(|wait| {
            self.observer.observe(&ExchangeEvent::RateLimited(scope));
            Refusal::RateLimited(scope, wait)
        })
    }

    /// The route that matched.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.snapshot.routes.get(self.destination.route?)
    }

    /// The rewritten path for the backend, without the query.
    #[must_use]
    pub fn new_path(&self) -> Option<&str> {
        self.destination.new_path.as_deref()
    }

    /// The outcome, if the route sends the response itself.
    #[must_use]
    pub fn direct_outcome(&self) -> Option<Outcome> {
        self.destination.direct_outcome
    }
}
