//! From host and path to a route.
//!
//! The most specific host comes first: the exact name, then the longest `*.` suffix, then the
//! routes for every host. Within one host the longest path wins. A host whose routes do not
//! match the path does not end the search: the next less specific host is asked.

use std::collections::HashMap;

use crate::config::{HostPattern, Route};
use crate::http::path::has_prefix;

/// The table of routes. Its lookup costs one hash per host label and the paths of those hosts.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<String, Paths>,
    suffix: HashMap<String, Paths>,
    any: Paths,
}

/// The routes of one host, longest path first.
#[derive(Debug, Default)]
struct Paths(Vec<(String, usize)>);

impl Paths {
    fn insert(&mut self, path: &str, route: usize) {
        // Behind those of the same length: of two equal routes the first in the file wins.
        let at = self.0.partition_point(|(other, _)| other.len() >= path.len());
        self.0.insert(at, (path.to_owned(), route));
    }

    fn find(&self, path: &str) -> Option<usize> {
        self.0.iter().find(|(prefix, _)| has_prefix(path, prefix)).map(|&(_, route)| route)
    }
}

impl Routes {
    /// The table of these routes; a lookup answers with an index into them.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let mut table = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let paths = match &route.host {
                HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default(),
                HostPattern::Suffix(host) => table.suffix.entry(host.clone()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            paths.insert(&route.path, index);
        }
        table
    }

    /// The route for a host (lower case, without port) and a path (prepared for routing).
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let exact = || self.exact.get(host)?.find(path);
        let suffix = || {
            let dots = host.match_indices('.').filter_map(|(at, _)| host.get(at + 1..));
            dots.filter_map(|parent| self.suffix.get(parent)).find_map(|paths| paths.find(path))
        };
        // Most tables have no suffix, and need no look at the host's labels.
        let suffix = || if self.suffix.is_empty() { None } else { suffix() };
        exact().or_else(suffix).or_else(|| self.any.find(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str, path: &str) -> Route {
        let host = match host.strip_prefix("*.") {
            Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
            None if host.is_empty() => HostPattern::Any,
            None => HostPattern::Exact(host.to_owned()),
        };
        Route { host, path: path.to_owned(), pool: 0, rate_limit: None }
    }

    fn table() -> Routes {
        Routes::new(&[
            route("", "/"),
            route("api.example.com", "/v1"),
            route("api.example.com", "/v1/users"),
            route("*.example.com", "/"),
            route("*.b.example.com", "/deep"),
        ])
    }

    #[test]
    fn the_longest_path_of_a_host_wins() {
        assert_eq!(table().find("api.example.com", "/v1/users/7"), Some(2));
        assert_eq!(table().find("api.example.com", "/v1/x"), Some(1));
    }

    #[test]
    fn a_prefix_ends_on_a_segment_boundary() {
        assert_eq!(table().find("api.example.com", "/v10"), Some(3));
    }

    #[test]
    fn the_longest_suffix_comes_before_a_shorter_one() {
        assert_eq!(table().find("a.b.example.com", "/deep/x"), Some(4));
        assert_eq!(table().find("a.b.example.com", "/else"), Some(3));
    }

    #[test]
    fn a_suffix_needs_a_label_in_front_of_it() {
        assert_eq!(table().find("example.com", "/"), Some(0));
        assert_eq!(table().find("badexample.com", "/"), Some(0));
    }

    #[test]
    fn nothing_is_found_where_no_route_matches() {
        assert_eq!(Routes::new(&[route("a.test", "/x")]).find("b.test", "/x"), None);
        assert_eq!(Routes::new(&[route("a.test", "/x")]).find("a.test", "/y"), None);
    }
}
