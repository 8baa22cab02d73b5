//! Routes, and whether they and the pools fit together.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::super::file;
use super::super::problem::{Found, Origin, Problem, Spanned, nearest, quote};
use super::super::read::List;
use super::super::value::Text;
use super::super::{HostPattern, Route};
use super::pool::Names;
use super::rate::rate_limit;

pub(super) fn routes(
    typed: Option<Spanned<List<file::Route>>>,
    names: &Names,
    found: &mut Found,
) -> Vec<Route> {
    let Some(typed) = typed else { return default_route(names, found) };
    if typed.value.typed == 0 {
        let problem = Problem::new(typed.at, "with no route no request could be answered");
        found
            .add(problem.help("for one pool leave `routes` out, or write `routes: [{pool: web}]`"));
        return Vec::new();
    }
    // A route that was refused may have led to any pool.
    let mut whole = names.complete && typed.value.entries.len() == typed.value.typed;
    let mut seen: HashMap<(HostPattern, String), Origin> = HashMap::new();
    let mut named = HashSet::new();
    let mut routes = Vec::new();
    for route in typed.value.entries {
        let Spanned { at, value: route } = route;
        let host = route.host.map_or(HostPattern::Any, |host| host.value);
        let path = route.path.map_or_else(|| "/".to_owned(), |path| path.value.0);
        if !route.refused.contains(&"host") && !route.refused.contains(&"path") {
            match seen.entry((host.clone(), path.clone())) {
                Entry::Vacant(new) => {
                    new.insert(at);
                }
                Entry::Occupied(first) => {
                    let what = "this route has the host and the path of an earlier one";
                    let help = format!("the first is at {}", first.get());
                    found.add(Problem::new(at, what).help(help));
                }
            }
        }
        whole &= route.pool.is_some();
        let rate_limit = route.rate_limit.and_then(|rate| rate_limit(rate.value, found));
        let pool = route.pool.and_then(|pool| find(&pool, names, found));
        named.extend(pool);
        routes.push(Route { host, path, pool: pool.unwrap_or(0), rate_limit });
    }
    if whole {
        unnamed(names, &named, found);
    }
    routes
}

/// Without routes everything goes to the only pool.
fn default_route(names: &Names, found: &mut Found) -> Vec<Route> {
    if let (Some(at), true) = (names.at, names.count > 1) {
        let what =
            format!("{} pools, but no `routes` that say which requests go where", names.count);
        let first = names.list.first().map_or("web", |name| name.value.as_str());
        found.add(
            Problem::new(at, what)
                .help(format!("for example `routes: [{{path: /, pool: {first}}}]`")),
        );
    }
    vec![Route { host: HostPattern::Any, path: "/".to_owned(), pool: 0, rate_limit: None }]
}

/// The index of the pool that a route names, or of the one that it probably means.
fn find(pool: &Spanned<Text>, names: &Names, found: &mut Found) -> Option<usize> {
    let typed = pool.value.0.as_str();
    let index = |name: &str| names.index.get(name).map(|index| index.value);
    if let Some(index) = index(typed) {
        return Some(index);
    }
    if !names.complete || found.is_full() {
        return None;
    }
    let known = || names.list.iter().map(|name| name.value.as_str());
    let near = nearest(typed, known());
    let problem = Problem::new(pool.at, format!("there is no pool {}", quote(typed)));
    if let (None, [only]) = (near, names.list.as_slice()) {
        found.add(problem.help(format!("the only pool is `{}`", only.value)));
        return index(only.value.as_str());
    }
    found.add(match near {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("`pools` has their names"),
    });
    near.and_then(index)
}

/// A pool that no route names gets no request, so it was not meant so.
fn unnamed(names: &Names, named: &HashSet<usize>, found: &mut Found) {
    for (name, Spanned { at, value: index }) in &names.index {
        if !named.contains(index) {
            let problem = Problem::new(*at, format!("no route leads to the pool `{name}`"));
            found.add(problem.help("add a route, or remove the pool"));
        }
    }
}
