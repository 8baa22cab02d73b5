//! Finds the route for a request.
//!
//! Routes for the client's scheme come before those for both. Then the most specific host comes
//! first: the exact name, then the longest `*.` suffix, then the routes for every host. Within one
//! host the most specific path comes first: the exact one, then the patterns in the order of the
//! file, then the longest prefix. Within one path the route with the most conditions comes first.
//! If the conditions of a route are not met, or no route of a host matches, the search continues
//! with the next less specific one.
//!
//! This is the order of the Gateway API's `HTTPRoute`; for patterns, which that leaves open, it is
//! the order of nginx. (After the prefixes, a pattern could never win against a route for `/`.)
//!
//! A search costs one hash for each suffix of the host and one for each segment of the path, as far
//! as there are routes that deep; the number of routes does not matter. All patterns of a host take
//! one pass over the path, unless that needs too much memory. Then they are tried one after the
//! other, as routes of the same path are, and `check` bounds both.

mod conditions;
mod hash;
mod trie;

use ::http::{HeaderMap, Method};
use smallvec::SmallVec;

use crate::config::{HostPattern, PathPattern, Route};
use crate::http::path::any_reading;
use crate::http::pattern::{Pattern, PatternSet};
use crate::http::scheme::Scheme;
use conditions::RouteCandidates;
use hash::Map;
use trie::Trie;

/// With fewer patterns, trying them one by one is as fast.
const SET_MIN: usize = 4;

/// The parts of a request that routes match.
#[derive(Debug, Clone, Copy)]
pub struct RouteQuery<'a> {
    /// The client's scheme.
    pub scheme: Scheme,
    /// In lower case, without port.
    pub host: &'a str,
    /// Normalized for routing.
    pub path: &'a str,
    /// As received, without the `?`.
    pub query: Option<&'a str>,
    /// As received.
    pub method: &'a Method,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// The route table. Routes for one scheme come before those for both.
#[derive(Debug, Default)]
pub struct Routes {
    http: Hosts,
    https: Hosts,
    either: Hosts,
}

/// The routes of one scheme.
#[derive(Debug, Default)]
struct Hosts {
    has_routes: bool,
    exact: Map<Paths>,
    suffix: Map<Paths>,
    any: Paths,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: Map<RouteCandidates>,
    patterns: Vec<(Pattern, RouteCandidates)>,
    /// All patterns as one automaton, if there are many.
    set: Option<PatternSet>,
    prefixes: Trie,
}

impl Paths {
    /// Whether every path leads to the same route.
    fn ignores_path(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty() && self.prefixes.is_root_alone()
    }

    fn insert(&mut self, route: &Route, index: usize) {
        match &route.path {
            PathPattern::Exact(path) => {
                self.exact
                    .entry(path.as_str().into())
                    .or_default()
                    .insert(&route.conditions, index);
            }
            PathPattern::Prefix(path) => {
                self.prefixes.entry(path).insert(&route.conditions, index);
            }
            PathPattern::Regex(pattern) => {
                let known = self.patterns.iter().position(|(other, _)| other == pattern);
                if known.is_none() {
                    self.patterns.push((pattern.clone(), RouteCandidates::default()));
                }
                let place = known.unwrap_or(self.patterns.len().saturating_sub(1));
                if let Some((_, candidates)) = self.patterns.get_mut(place) {
                    candidates.insert(&route.conditions, index);
                }
            }
        }
    }

    /// Called after the last insertion.
    fn seal(&mut self) {
        if self.patterns.len() >= SET_MIN {
            self.set = PatternSet::new(self.patterns.iter().map(|(pattern, _)| pattern));
        }
    }

    fn find(&self, asked: &RouteQuery<'_>) -> Option<usize> {
        // Most tables have one kind of path, and skip the others.
        let exact = || {
            if self.exact.is_empty() { None } else { self.exact.get(asked.path)?.find(asked) }
        };
        let one_by_one = || {
            let matching = self.patterns.iter().filter(|(pattern, _)| pattern.matches(asked.path));
            matching.map(|(_, candidates)| candidates).find_map(|one| one.find(asked))
        };
        let pattern = || {
            let Some(set) = &self.set else { return one_by_one() };
            let of = |index: usize| self.patterns.get(index).and_then(|(_, one)| one.find(asked));
            set.find(asked.path, of).unwrap_or_else(|_gave_up| one_by_one())
        };
        exact().or_else(pattern).or_else(|| self.prefixes.find(asked))
    }
}

impl Routes {
    /// Builds the table; results are indices into `routes`.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let mut table = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let hosts = match route.scheme {
                Some(Scheme::Http) => &mut table.http,
                Some(Scheme::Https) => &mut table.https,
                None => &mut table.either,
            };
            hosts.insert(route, index);
        }
        for hosts in [&mut table.http, &mut table.https, &mut table.either] {
            let named = hosts.exact.values_mut().chain(hosts.suffix.values_mut());
            named.chain([&mut hosts.any]).for_each(Paths::seal);
        }
        table
    }

    /// The route for a request.
    #[must_use]
    pub fn find(&self, asked: &RouteQuery<'_>) -> Option<usize> {
        let of_scheme = match asked.scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        of_scheme.find(asked).or_else(|| self.either.find(asked))
    }

    /// Whether any reading of `path`, as the client wrote it (see [`any_reading`]), leads to a
    /// different route than `found`. No route also counts as different.
    #[must_use]
    pub fn is_ambiguous(&self, asked: &RouteQuery<'_>, path: &str, found: Option<usize>) -> bool {
        let of_scheme = match asked.scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        let ignores_path =
            of_scheme.ignores_path(asked.host) && self.either.ignores_path(asked.host);
        !ignores_path
            && any_reading(path, |path| self.find(&RouteQuery { path, ..*asked }) != found)
    }
}

impl Hosts {
    fn insert(&mut self, route: &Route, index: usize) {
        self.has_routes = true;
        let paths = match &route.host {
            HostPattern::Exact(host) => self.exact.entry(host.as_str().into()).or_default(),
            HostPattern::Suffix(host) => self.suffix.entry(host.as_str().into()).or_default(),
            HostPattern::Any => &mut self.any,
        };
        paths.insert(route, index);
    }

    fn find(&self, asked: &RouteQuery<'_>) -> Option<usize> {
        if !self.has_routes {
            return None;
        }
        // Most tables have no suffix, and skip the labels of the host; many have no host.
        let exact = || self.of_name(asked.host)?.find(asked);
        let suffix = || self.of_suffixes(asked.host).find_map(|paths| paths.find(asked));
        exact().or_else(suffix).or_else(|| self.any.find(asked))
    }

    fn of_name(&self, host: &str) -> Option<&Paths> {
        if self.exact.is_empty() { None } else { self.exact.get(host) }
    }

    /// From the longest suffix to the shortest.
    fn of_suffixes(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let dots = if self.suffix.is_empty() { None } else { Some(host.match_indices('.')) };
        let parents = dots.into_iter().flatten().filter_map(|(at, _)| host.get(at + 1..));
        parents.filter_map(|parent| self.suffix.get(parent))
    }

    /// Whether every path of this host leads to the same route.
    fn ignores_path(&self, host: &str) -> bool {
        let named = self.of_name(host).into_iter().chain(self.of_suffixes(host));
        named.chain([&self.any]).all(Paths::ignores_path)
    }
}

/// Most paths match fewer prefixes.
type Depths<'a> = SmallVec<[&'a RouteCandidates; 8]>;

#[cfg(test)]
mod tests;
