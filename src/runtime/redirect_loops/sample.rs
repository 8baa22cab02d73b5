//! Generates sample requests for routes.

use std::collections::BTreeSet;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::{Condition, HostPattern, PathPattern, Route, Test};
use crate::http::example::examples;
use crate::http::path::normalize_for_routing;
use crate::http::scheme::Scheme;
use crate::http::url::Url;

/// A host label and a path segment that are probably not in the configuration.
const ANY: &str = "any";

/// The maximum number of hosts times paths.
const CROSSED_MAX: usize = 20_000;

/// A request, as far as routes match it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The requested URL.
    pub url: Url,
    /// The method.
    pub method: Method,
    /// The headers that the route requires.
    pub headers: HeaderMap,
}

/// Requests for `route` with one of `schemes`; another route may match them nevertheless. Empty if
/// no value is known that meets the route's conditions.
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

/// A plain request for every host at every path of all routes. Empty if there are too many of them;
/// then the samples of each route must be enough.
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

/// A value that passes; the inner `None` means that it must be absent.
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
