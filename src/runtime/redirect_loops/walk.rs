//! A client that follows every redirect.

use std::collections::HashSet;

use ::http::Method;

use super::sample::Sample;
use super::{HOPS_MAX, Loop};
use crate::config::{Action, Conditions, Config, HostPattern, PathPattern, Route, precedence};
use crate::http::redirect::Redirect;
use crate::http::scheme::Scheme;
use crate::http::url::Url;
use crate::runtime::routes::{RouteQuery, Routes};

/// One redirect.
pub(super) struct Hop {
    pub(super) from: Sample,
    pub(super) route: usize,
    pub(super) location: String,
    pub(super) is_certain: bool,
}

pub(super) struct Walker<'a> {
    config: &'a Config,
    table: Routes,
    /// The routes with header conditions, without those conditions.
    ignoring_headers: Routes,
    /// The index of each of them in the file.
    places: Vec<usize>,
    /// The rank of each route in the order of precedence.
    order: Vec<usize>,
    named: HashSet<&'a str>,
    /// The cost of one search, and of all so far.
    cost: usize,
    checks: usize,
}

/// Whether the client's next request reaches this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Surely,
    Maybe,
    Elsewhere,
}

impl<'a> Walker<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let routes = &config.routes;
        let mut order = vec![0; routes.len()];
        for (place, index) in precedence(routes).into_iter().enumerate() {
            if let Some(of_route) = order.get_mut(index) {
                *of_route = place;
            }
        }
        let asking = routes.iter().enumerate().filter(|(_, it)| !it.conditions.headers.is_empty());
        let (places, asking): (Vec<usize>, Vec<Route>) = asking
            .map(|(index, route)| {
                let conditions = Conditions { headers: Vec::new(), ..route.conditions.clone() };
                (index, Route { conditions, ..route.clone() })
            })
            .unzip();
        let patterns = routes.iter().filter(|it| matches!(it.path, PathPattern::Regex(_))).count();
        let named = routes.iter().filter_map(|route| match &route.host {
            HostPattern::Exact(host) => Some(host.as_str()),
            HostPattern::Suffix(_) | HostPattern::Any => None,
        });
        Self {
            config,
            table: Routes::new(routes),
            ignoring_headers: Routes::new(&asking),
            places,
            order,
            named: named.collect(),
            cost: 1 + patterns,
            checks: 0,
        }
    }

    /// The schemes of requests.
    pub(super) fn schemes(&self) -> Vec<Scheme> {
        [Scheme::Http, Scheme::Https].into_iter().filter(|one| self.comes_by(*one)).collect()
    }

    pub(super) fn checks(&self) -> usize {
        self.checks
    }

    /// The route that matches a request.
    fn find(&mut self, sample: &Sample) -> Option<usize> {
        self.checks += self.cost;
        self.table.find(&asked(sample))
    }

    /// The loop that a request enters, if any.
    pub(super) fn walk(&mut self, start: Sample) -> Option<Loop> {
        let mut at = start.clone();
        let mut hops: Vec<Hop> = Vec::new();
        // Once the client may have left, the result is uncertain.
        let mut is_here = true;
        while hops.len() < HOPS_MAX {
            let index = self.find(&at)?;
            let route = self.config.routes.get(index)?;
            let Action::Redirect(redirect) = &route.action else { return None };
            let location = redirect.location(&at.url.place())?;
            let url = at.url.follow(&location)?;
            let comes = self.comes(redirect, &at.url, &url);
            if comes == Comes::Elsewhere {
                return None;
            }
            is_here &= comes == Comes::Surely;
            let is_certain = is_here
                && route.conditions.headers.is_empty()
                && !self.may_be_taken_before(index, &at);
            let method = next_method(redirect.status, &at.method);
            let next = Sample { url, method, headers: at.headers.clone() };
            hops.push(Hop { from: at, route: index, location, is_certain });
            if let Some(again) = hops.iter().position(|hop| hop.from == next) {
                return Some(Loop::of(hops.get(again..)?, start));
            }
            at = next;
        }
        Some(Loop::endless(&hops, start))
    }

    /// Whether a route with header conditions might match the request before the one at `index`.
    fn may_be_taken_before(&mut self, index: usize, sample: &Sample) -> bool {
        if self.places.is_empty() {
            return false;
        }
        self.checks += self.cost;
        let found = self.ignoring_headers.find(&asked(sample));
        let found = found.and_then(|found| self.places.get(found).copied());
        let place = |index: usize| self.order.get(index);
        found.is_some_and(|found| place(found) < place(index))
    }

    fn comes(&self, redirect: &Redirect, from: &Url, to: &Url) -> Comes {
        if (to.scheme, &to.host, to.port) == (from.scheme, &from.host, from.port) {
            return Comes::Surely;
        }
        let ours = match redirect.port {
            Some(port) => self.config.listeners.iter().any(|listener| {
                listener.address.port() == port && scheme_of(listener.tls.is_some()) == to.scheme
            }),
            None => self.comes_by(to.scheme),
        };
        match ours {
            false => Comes::Elsewhere,
            true if to.host == from.host => Comes::Surely,
            true => self.is_served(&to.host),
        }
    }

    /// Whether this server serves a host, according to the routes.
    fn is_served(&self, host: &str) -> Comes {
        if self.named.contains(host) {
            return Comes::Surely;
        }
        let below = |suffix: &str| {
            host.strip_suffix(suffix)
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        };
        let wide = self.config.routes.iter().any(|route| match &route.host {
            HostPattern::Suffix(suffix) => below(suffix),
            HostPattern::Exact(_) | HostPattern::Any => false,
        });
        if wide { Comes::Maybe } else { Comes::Elsewhere }
    }

    fn comes_by(&self, scheme: Scheme) -> bool {
        let mut listeners = self.config.listeners.iter();
        !self.config.trusted_proxies.is_empty()
            || listeners.any(|listener| scheme_of(listener.tls.is_some()) == scheme)
    }
}

fn scheme_of(tls: bool) -> Scheme {
    if tls { Scheme::Https } else { Scheme::Http }
}

fn asked(sample: &Sample) -> RouteQuery<'_> {
    let Sample { url, method, headers } = sample;
    RouteQuery {
        scheme: url.scheme,
        host: &url.host,
        path: &url.path,
        query: url.query.as_deref(),
        method,
        headers,
    }
}

/// The method with which a client follows a redirect (RFC 9110 §15.4, and the practice of
/// browsers).
fn next_method(status: u16, method: &Method) -> Method {
    match status {
        303 if *method != Method::HEAD => Method::GET,
        301 | 302 if *method == Method::POST => Method::GET,
        _ => method.clone(),
    }
}
