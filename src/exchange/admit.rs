//! Whether a request may come in, and where it goes.

use std::sync::Arc;

use ::http::Method;

use super::event::Event;
use super::refusal::{Ending, Refusal, Scope};
use super::{Exchange, Head};
use crate::config::{AmbiguousPaths, Respond, Rewrite, UnderscoreHeaders};
use crate::http::redirect::RequestTarget;
use crate::http::scan::Violation;
use crate::http::{host, underscore, upgrade};
use crate::policy::limiter::RateLimiter;
use crate::runtime::action::{Action, WeightedPools};
use crate::runtime::snapshot::{Route, Snapshot};
use crate::time::Timestamp;

/// What is to be done with a request that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Pick a backend.
    Forward,
    /// Answer, because the route says so.
    Answer(OwnAnswer),
}

/// An answer that a route gives itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnAnswer {
    /// Elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The value of `Location`.
        location: String,
    },
    /// Here.
    Respond(Arc<Respond>),
}

impl Exchange {
    /// Decides whether the request may come in, and where it goes.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with.
    pub fn admit(&mut self, head: &Head<'_>, now: Timestamp) -> Result<Admitted, Refusal> {
        let admitted = self.admit_or_refuse(head, now);
        self.note(admitted)
    }

    fn admit_or_refuse(&mut self, head: &Head<'_>, now: Timestamp) -> Result<Admitted, Refusal> {
        self.last_seen = now;
        let snapshot = Arc::clone(&self.snapshot);
        self.client = Some(head.client(&snapshot));
        self.asks_tunnel = upgrade::asks_for_websocket(head.method, head.version, head.headers);
        if let Some(patience) = head.patience() {
            self.deadline = self.started + patience;
        }
        if matches!(*head.method, Method::TRACE | Method::CONNECT) {
            return Err(Refusal::MethodNotAllowed);
        }
        head.check_length(snapshot.body_bytes_max)?;
        if snapshot.underscore_headers == UnderscoreHeaders::Refuse
            && underscore::names(head.headers).next().is_some()
        {
            self.because(Violation::Underscore.code());
            return Err(Refusal::BadRequest);
        }
        if head.loops() {
            return Err(Refusal::Loop);
        }
        head.check_expectation()?;
        let authority = head.host()?;
        let Ok(host) = host::canonical(authority) else {
            self.because(Violation::Host.code());
            return Err(Refusal::BadRequest);
        };
        let (path, is_ambiguous) = head.routing_path()?;
        self.limit(snapshot.limiter.as_ref(), Scope::Global, now)?;
        let asked = head.asked(&host, &path, &snapshot);
        let index = snapshot.table.find(&asked).ok_or(Refusal::NoRoute)?;
        if snapshot.ambiguous_paths == AmbiguousPaths::Refuse
            && is_ambiguous
            && snapshot.table.is_ambiguous(&asked, head.path, Some(index))
        {
            return Err(Refusal::AmbiguousPath);
        }
        let route = snapshot.routes.get(index).ok_or(Refusal::NoRoute)?;
        self.route = Some(index);
        let place = || RequestTarget {
            scheme: asked.scheme,
            host: head.names_a_host().then_some(asked.host),
            port: host::port(authority),
            path: asked.path,
            query: asked.query,
        };
        match &route.action {
            Action::Forward(split, rewrite) => {
                let path = (head.path != "*").then_some(asked.path);
                self.forward(&snapshot, route, (split, rewrite, path), now)
            }
            Action::Redirect(redirect) => {
                self.limit(route.limiter.as_ref(), Scope::Route, now)?;
                let location = redirect.location(&place()).ok_or(Refusal::BadRequest)?;
                self.own_answer = Some(Ending::Redirected);
                let status = redirect.status;
                Ok(Admitted::Answer(OwnAnswer::Redirect { status, location }))
            }
            Action::Respond(respond) => {
                self.limit(route.limiter.as_ref(), Scope::Route, now)?;
                self.own_answer = Some(Ending::Responded);
                Ok(Admitted::Answer(OwnAnswer::Respond(Arc::clone(respond))))
            }
        }
    }

    fn forward(
        &mut self,
        snapshot: &Snapshot,
        route: &Route,
        (split, rewrite, path): (&WeightedPools, &Rewrite, Option<&str>),
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let index = split.pick().ok_or(Refusal::NoRoute)?;
        let pool = snapshot.pools.get(index).ok_or(Refusal::NoRoute)?;
        self.pool = Some(index);
        if let Some(patience) = pool.timeouts.request {
            self.deadline = self.deadline.min(self.started + patience);
        }
        self.asks_tunnel &= !pool.protocol.is_http2_alone();
        self.limit(route.limiter.as_ref(), Scope::Route, now)?;
        self.limit(pool.limiter.as_ref(), Scope::Pool, now)?;
        // RouteQuery here, where the client's connection can still be kept.
        if pool.healthy().is_empty() {
            return Err(Refusal::NoBackend);
        }
        if let Some((rule, path)) = rewrite.path.as_ref().zip(path) {
            let new = rule.of(path);
            if snapshot.ambiguous_paths == AmbiguousPaths::Refuse && !rule.keeps(&new) {
                return Err(Refusal::AmbiguousPath);
            }
            self.new_path = Some(new);
        }
        Ok(Admitted::Forward)
    }

    fn limit(
        &self,
        limiter: Option<&RateLimiter>,
        scope: Scope,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (Some(limiter), Some(client)) = (limiter, self.client) else { return Ok(()) };
        limiter.admit(client.address, now).map_err(|wait| {
            self.observer.observe(&Event::RateLimited(scope));
            Refusal::RateLimited(scope, wait)
        })
    }

    /// The route that was found.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.snapshot.routes.get(self.route?)
    }

    /// The path that the backend gets in place of the client's, without the query.
    #[must_use]
    pub fn new_path(&self) -> Option<&str> {
        self.new_path.as_deref()
    }

    /// How it ended, if the route answered.
    #[must_use]
    pub fn own_answer(&self) -> Option<Ending> {
        self.own_answer
    }
}
