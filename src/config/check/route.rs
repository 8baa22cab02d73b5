//! Routes, and their references to pools.

use std::collections::{HashMap, HashSet};

use super::super::action::Action;
use super::super::file::RawRoute;
use super::super::limits;
use super::super::problem::{Diagnostics, Origin, Problem, SourcePosition, Spanned};
use super::super::read::{KeywordValue, List};
use super::super::route::{PathPattern, Route};
use super::super::terms::HostPattern;
use super::action::{action, changes};
use super::conditions::conditions;
use super::rate_limit;
use super::references::{Names, only_one};
use super::shadowing::ShadowedRoutes;
use crate::http::scheme::Scheme;
use crate::name::RouteName;

pub(super) fn routes(
    typed: Option<Spanned<List<RawRoute>>>,
    names: &Names,
    found: &mut Diagnostics,
) -> Vec<Route> {
    let Some(typed) = typed else { return default_route(names, found) };
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "`routes` is empty, so no request could be served");
        found.add(problem.help("with one pool remove `routes`, or write `routes: [{pool: web}]`"));
        return Vec::new();
    }
    // An invalid route may have been for any pool.
    let mut whole = names.complete && typed.value.entries.len() == typed.value.typed;
    let mut reach = ShadowedRoutes::default();
    let mut named = HashSet::new();
    let mut routes = Vec::new();
    let mut patterns = 0;
    let mut route_names = HashMap::new();
    for route in typed.value.entries {
        let Spanned { at, value: mut route } = route;
        let (path, conditions) = (path(&mut route, found), conditions(&mut route, found));
        if matches!(path, Some(PathPattern::Regex(_))) {
            patterns += 1;
            if patterns == limits::PATTERNS_MAX + 1 {
                let what = format!("more than {} routes by `path_regex`", limits::PATTERNS_MAX);
                let problem = Problem::new(at, what);
                found.add(
                    problem
                        .help("they are tried one after the other: use `path` where it is enough"),
                );
            }
        }
        let unclear =
            ["scheme", "host", "path", "path_exact", "path_regex", "methods", "headers", "query"];
        let known = !route.refused.iter().any(|key| unclear.contains(key));
        let host = route.host.take().map_or(HostPattern::Any, |host| host.value);
        let one_pool = route.pool.is_some();
        let defined_at = route.redirect.as_ref().map_or(at, |redirect| redirect.at).position();
        let action = action(at, &mut route, path.as_ref(), names, found);
        whole &= one_pool || action.is_some();
        named.extend(action.iter().flat_map(Action::pools).map(|share| share.pool));
        let scheme = scheme(route.scheme.take(), action.as_ref(), found);
        let name = route.name.take().map(|name| register_name(name, &mut route_names, found));
        let clear = known && path.is_some() && conditions.is_some();
        let path = path.unwrap_or_else(|| PathPattern::Prefix("/".to_owned()));
        let conditions = conditions.unwrap_or_default();
        let route = Route {
            name,
            scheme,
            host,
            path,
            conditions,
            action: action.unwrap_or_else(|| Action::to_pool(0)),
            request_headers: changes(route.request_headers.take(), found),
            response_headers: changes(route.response_headers.take(), found),
            rate_limit: route.rate_limit.and_then(|rate| rate_limit(rate.value)),
            defined_at: SourcePosition(defined_at),
        };
        if clear {
            reach.add(&route, at);
        }
        routes.push(route);
    }
    reach.check(found);
    if whole {
        unnamed(names, &named, found);
    }
    routes
}

/// Reports routes for https where no client can use https.
pub(super) fn all_come_by_http(typed: Option<&Spanned<List<RawRoute>>>, found: &mut Diagnostics) {
    let routes = typed.iter().flat_map(|typed| &typed.value.entries);
    for scheme in routes.filter_map(|route| route.value.scheme.as_ref()) {
        if scheme.value.0 == Scheme::Https {
            let problem =
                Problem::new(scheme.at, "no request can use https, because no listener has `tls`");
            found.add(problem.help(
                "add `tls` to a listener, or list the proxy that terminates TLS in `trusted_proxies`",
            ));
        }
    }
}

/// The scheme that a request must have. A redirect that changes only the scheme must not match requests
/// that already have the new scheme.
fn scheme(
    typed: Option<Spanned<KeywordValue<Scheme>>>,
    action: Option<&Action>,
    found: &mut Diagnostics,
) -> Option<Scheme> {
    let target = match action {
        Some(Action::Redirect(redirect)) if redirect.changes_scheme_alone() => redirect.scheme,
        Some(Action::Redirect(_) | Action::Forward(_) | Action::Respond(_)) | None => None,
    };
    let Some(typed) = typed else { return target.map(Scheme::other) };
    if target == Some(typed.value.0) {
        let problem = Problem::new(typed.at, "this redirect leads to the same URL");
        found.add(
            problem.help("remove `scheme`: the redirect applies to requests of the other scheme"),
        );
    }
    Some(typed.value.0)
}

/// Reports a name that an earlier route has.
fn register_name(
    name: Spanned<RouteName>,
    names: &mut HashMap<RouteName, Origin>,
    found: &mut Diagnostics,
) -> RouteName {
    if let Some(first) = names.insert(name.value.clone(), name.at) {
        let problem = Problem::new(name.at, format!("another route is named `{}`", name.value));
        found.add(problem.help(format!("it is at {first}")));
    }
    name.value
}

/// The path pattern; `None` if it is invalid.
fn path(route: &mut RawRoute, found: &mut Diagnostics) -> Option<PathPattern> {
    let keys = [
        ("path", route.path.as_ref().map(|path| path.at)),
        ("path_exact", route.path_exact.as_ref().map(|path| path.at)),
        ("path_regex", route.path_regex.as_ref().map(|path| path.at)),
    ];
    only_one(&keys, found)?;
    let exact = route.path_exact.take().map(|path| PathPattern::Exact(path.value.0));
    let regex = route.path_regex.take().map(|pattern| PathPattern::Regex(pattern.value.0));
    let prefix = route.path.take().map(|path| PathPattern::Prefix(path.value.0));
    Some(exact.or(regex).or(prefix).unwrap_or_else(|| PathPattern::Prefix("/".to_owned())))
}

/// Without routes all requests go to the only pool.
fn default_route(names: &Names, found: &mut Diagnostics) -> Vec<Route> {
    if let (Some(at), true) = (names.at, names.count > 1) {
        let what =
            format!("there are {} pools, but no `routes` to choose between them", names.count);
        let first = names.list.first().map_or("web", |name| name.value.as_str());
        found.add(
            Problem::new(at, what)
                .help(format!("for example `routes: [{{path: /, pool: {first}}}]`")),
        );
    }
    vec![Route::for_all(0)]
}

/// Reports pools that no route uses.
fn unnamed(names: &Names, named: &HashSet<usize>, found: &mut Diagnostics) {
    for (name, Spanned { at, value: index }) in &names.index {
        if !named.contains(index) {
            let problem = Problem::new(*at, format!("no route leads to the pool `{name}`"));
            found.add(problem.help("add a route, or remove the pool"));
        }
    }
}
