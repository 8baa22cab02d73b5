//! Requests that a route is for.

use std::collections::BTreeSet;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::{Condition, HostPattern, PathPattern, Route, Test};
use crate::http::example::examples;
use crate::http::path::normalize_for_routing;
use crate::http::scheme::Scheme;
use crate::http::url::Url;

/// A name and a segment that are probably nobody's.
const ANY: &str = "any";

/// Hosts by paths.
const CROSSED_MAX: usize = 20_000;

/// A request, as far as routes look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What is asked for.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Those that the route wants.
    pub headers: HeaderMap,
}

/// Requests for `route` by one of `schemes`; another route may take them all the same. None where
/// nobody knows what would meet the route's conditions.
pub(super) fn samples(route: &Route, schemes: &[Scheme]) -> Vec<Sample> {
    let conditions = &route.conditions;
    let method = match conditions.methods.as_slice() {
        [first, ..] if !conditions.methods.iter().any(is_plain) => first.clone(),
        _ => Method::GET,
    };
    let (Some(headers), Some(query)) = (headers(&conditions.headers), query(&conditions.query))
    else {
        return Vec::new();
    };
    let host = host(&route.host);
    let paths = paths(&route.path);
    let mut samples = Vec::new();
    for &scheme in schemes.iter().filter(|one| route.scheme.is_none_or(|wanted| wanted == **one)) {
        samples.extend(paths.iter().map(|path| {
            let (host, path, query) = (host.clone(), path.clone(), query.clone());
            let url = Url { scheme, host, port: None, path, query };
            Sample { url, method: method.clone(), headers: headers.clone() }
        }));
    }
    samples
}

/// A plain request for every host at every path that some route is for. None where there are too
/// many of them: then those of each route alone have to do.
pub(super) fn crossed(routes: &[Route], schemes: &[Scheme]) -> Vec<Sample> {
    let hosts: BTreeSet<String> = routes.iter().map(|route| host(&route.host)).collect();
    let paths: BTreeSet<String> = routes.iter().flat_map(|route| paths(&route.path)).collect();
    if hosts.len().saturating_mul(paths.len()) > CROSSED_MAX {
        return Vec::new();
    }
    let mut samples = Vec::new();
    for (&scheme, host) in
        schemes.iter().flat_map(|scheme| hosts.iter().map(move |it| (scheme, it)))
    {
        samples.extend(paths.iter().map(|path| {
            let (host, path) = (host.clone(), path.clone());
            let url = Url { scheme, host, port: None, path, query: None };
            Sample { url, method: Method::GET, headers: HeaderMap::new() }
        }));
    }
    samples
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("{ANY}.{suffix}"),
        HostPattern::Any => format!("{ANY}.test"),
    }
}

fn is_plain(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn paths(pattern: &PathPattern) -> Vec<String> {
    match pattern {
        PathPattern::Exact(path) => vec![path.clone()],
        PathPattern::Prefix(path) => {
            let below = path.trim_end_matches('/');
            let mut all = vec![path.clone(), format!("{below}/"), format!("{below}/{ANY}")];
            all.dedup();
            all
        }
        PathPattern::Regex(pattern) => {
            let normal =
                examples(pattern).into_iter().map(|path| normalize_for_routing(&path).into_owned());
            normal.filter(|path| pattern.matches(path)).collect()
        }
    }
}

/// A value that passes; `None` inside if it must not be there.
fn value(test: &Test) -> Option<Option<String>> {
    match test {
        Test::Exact(value) => Some(Some(value.clone())),
        Test::Prefix(start) => Some(Some(start.clone())),
        Test::Present(present) => Some(present.then(|| "1".to_owned())),
        Test::Regex(pattern) => examples(pattern).into_iter().next().map(Some),
    }
}

fn headers(conditions: &[Condition<HeaderName>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for Condition { name, test } in conditions {
        if let Some(value) = value(test)? {
            headers.insert(name, HeaderValue::from_str(&value).ok()?);
        }
    }
    Some(headers)
}

fn query(conditions: &[Condition<String>]) -> Option<Option<String>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for Condition { name, test } in conditions {
        if let Some(value) = value(test)? {
            query.append_pair(name, &value);
        }
    }
    Some(Some(query.finish()).filter(|query| !query.is_empty()))
}
