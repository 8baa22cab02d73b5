//! Actions of routes.

use std::collections::HashMap;

use super::super::action::{Action, Forward, Header, HeaderChanges, Respond, Rewrite, Share};
use super::super::file::{
    QueryFate, RawFields, RawRedirect, RawRespond, RawRewrite, RawRoute, RawShare,
};
use super::super::limits;
use super::super::problem::{Diagnostics, Origin, Problem, Spanned, quote};
use super::super::read::{List, Table};
use super::super::route::PathPattern;
use super::super::value::{ChangedField, ContentType, FieldValue, HostName, normal_host};
use super::references::{Names, only_one, resolve_pool};
use crate::http::path::normalize_for_routing;
use crate::http::pattern::Pattern;
use crate::http::redirect::Redirect;
use crate::http::rewrite::{NewPath, Template};
use crate::http::scheme::Scheme;

/// The action; `None` if it is invalid.
pub(super) fn action(
    at: Origin,
    route: &mut RawRoute,
    path: Option<&PathPattern>,
    names: &Names,
    found: &mut Diagnostics,
) -> Option<Action> {
    let keys = [
        ("pool", route.pool.as_ref().map(|pool| pool.at)),
        ("pools", route.pools.as_ref().map(|pools| pools.at)),
        ("redirect", route.redirect.as_ref().map(|redirect| redirect.at)),
        ("respond", route.respond.as_ref().map(|respond| respond.at)),
    ];
    only_one(&keys, found)?;
    let unclear = keys.iter().any(|(name, _)| route.refused.contains(name));
    if keys.iter().all(|(_, there)| there.is_none()) && !unclear {
        let problem = Problem::new(at, "this route has no action");
        found.add(
            problem.help(
                "add one of `pool`, `pools`, `redirect` and `respond`, for example `pool: web`",
            ),
        );
    }
    let rewritten = route.rewrite.take();
    if let (Some(rewrite), None, None) = (&rewritten, &route.pool, &route.pools)
        && !unclear
    {
        let problem = Problem::new(rewrite.at, "`rewrite` needs a pool");
        found.add(problem.help("remove `rewrite`, or add `pool`"));
    }
    if let Some(redirect) = route.redirect.take() {
        return self::redirect(redirect, path, found).map(Action::Redirect);
    }
    if let Some(respond) = route.respond.take() {
        return self::respond(respond.value, found).map(Action::Respond);
    }
    let pools = match (route.pool.take(), route.pools.take()) {
        (Some(pool), _) => vec![Share { pool: resolve_pool(&pool, names, found)?, weight: 1 }],
        (None, Some(pools)) => shares(pools, names, found)?,
        (None, None) => return None,
    };
    let rewrite = match rewritten {
        Some(rewrite) => self::rewrite(rewrite, path, found),
        None => Rewrite::default(),
    };
    Some(Action::Forward(Forward { pools, rewrite }))
}

fn shares(
    typed: Spanned<List<RawShare>>,
    names: &Names,
    found: &mut Diagnostics,
) -> Option<Vec<Share>> {
    let Spanned { at, value: typed } = typed;
    let mut seen: HashMap<usize, Origin> = HashMap::new();
    let mut shares = Vec::new();
    let mut whole = typed.typed == typed.entries.len();
    if typed.typed == 0 {
        let problem =
            Problem::new(at, "`pools` is empty, so the route could not serve any request");
        found.add(problem.help("for example `pools: [{pool: web, weight: 9}, {pool: canary}]`"));
    }
    for share in typed.entries {
        let refused = share.value.refused.contains(&"weight");
        let weight = (!refused).then(|| share.value.weight());
        let place = share.value.pool.as_ref().map(|pool| pool.at);
        let pool = share.value.pool.and_then(|pool| resolve_pool(&pool, names, found));
        let (Some(pool), Some(weight), Some(place)) = (pool, weight, place) else {
            whole = false;
            continue;
        };
        if let Some(first) = seen.insert(pool, place) {
            let problem = Problem::new(place, "this pool is listed twice");
            found.add(
                problem.help(format!("add the weights up in one entry; the first is at {first}")),
            );
        }
        shares.push(Share { pool, weight });
    }
    if whole && !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
        let problem =
            Problem::new(at, "all weights are 0, so the route could not serve any request");
        found.add(problem.help("give at least one pool a weight above 0"));
    }
    whole.then_some(shares)
}

fn rewrite(
    typed: Spanned<RawRewrite>,
    path: Option<&PathPattern>,
    found: &mut Diagnostics,
) -> Rewrite {
    let Spanned { at, value: typed } = typed;
    let keys = [
        ("prefix", typed.prefix.as_ref().map(|prefix| prefix.at)),
        ("to", typed.to.as_ref().map(|to| to.at)),
    ];
    let clear = only_one(&keys, found).is_some();
    if keys.iter().all(|(_, there)| there.is_none())
        && typed.host.is_none()
        && typed.regex.is_none()
        && typed.refused.is_empty()
    {
        let problem = Problem::new(at, "this rewrite has no effect");
        found.add(problem.help("add one of `prefix`, `to` and `host`"));
    }
    if let (Some(regex), None) = (&typed.regex, &typed.to)
        && !typed.refused.contains(&"to")
    {
        let problem = Problem::new(regex.at, "`regex` has no effect without `to`");
        found.add(problem.help("for example `to: /new/$1`"));
    }
    let new = match (typed.prefix, typed.to) {
        (Some(prefix), _) => new_prefix(prefix.at, prefix.value.0, path, found),
        (None, Some(to)) if !to.value.0.starts_with('/') => {
            let problem = Problem::new(to.at, "`to` of a rewrite must be a path, not a URL");
            found.add(problem.help(
                "to change the `Host` header write `host`; to redirect the client write `redirect`",
            ));
            None
        }
        (None, Some(to)) if to.value.0.contains('?') => {
            let problem = Problem::new(to.at, "a rewritten path cannot have a query");
            found.add(problem.help("remove it: the query of the request stays as it is"));
            None
        }
        (None, Some(to)) => {
            let regex = typed.regex.map(|regex| regex.value);
            new_path(to.at, &to.value.0, regex.as_ref().or(pattern(path)), found)
        }
        (None, None) => None,
    };
    Rewrite { path: new.filter(|_| clear), host: typed.host.map(|host| host.value.0) }
}

fn pattern(path: Option<&PathPattern>) -> Option<&Pattern> {
    match path {
        Some(PathPattern::Regex(pattern)) => Some(pattern),
        Some(PathPattern::Exact(_) | PathPattern::Prefix(_)) | None => None,
    }
}

fn new_prefix(
    at: Origin,
    new: String,
    path: Option<&PathPattern>,
    found: &mut Diagnostics,
) -> Option<NewPath> {
    match path? {
        PathPattern::Prefix(old) => return Some(NewPath::Prefix { old: old.clone(), new }),
        PathPattern::Exact(_) | PathPattern::Regex(_) => {}
    }
    let problem = Problem::new(
        at,
        "`prefix` replaces the prefix matched by `path`, but this route has no `path`",
    );
    found.add(problem.help("write `to`, or use `path` instead of `path_exact` or `path_regex`"));
    None
}

/// A whole path, with capture groups if there is a pattern.
fn new_path(
    at: Origin,
    text: &str,
    pattern: Option<&Pattern>,
    found: &mut Diagnostics,
) -> Option<NewPath> {
    let Some(pattern) = pattern else {
        if text.contains('$') {
            let problem = Problem::new(
                at,
                format!("{} uses a capture group, but the route has no `path_regex`", quote(text)),
            );
            found.add(problem.help("use `path_regex` instead of `path`"));
            return None;
        }
        return Some(NewPath::Whole(normalize_for_routing(text).into_owned()));
    };
    match Template::new(text, pattern) {
        Ok(template) => Some(NewPath::Pattern(pattern.clone(), template)),
        Err(error) => {
            let problem =
                Problem::new(at, format!("{} does not fit the regular expression", quote(text)));
            found.add(problem.help(error.to_string()));
            None
        }
    }
}

fn redirect(
    typed: Spanned<RawRedirect>,
    path: Option<&PathPattern>,
    found: &mut Diagnostics,
) -> Option<Redirect> {
    let Spanned { at, value: typed } = typed;
    let others = [
        ("prefix", typed.prefix.as_ref().map(|prefix| prefix.at)),
        ("scheme", typed.scheme.as_ref().map(|scheme| scheme.at)),
        ("host", typed.host.as_ref().map(|host| host.at)),
        ("port", typed.port.as_ref().map(|port| port.at)),
    ];
    let nothing = typed.to.is_none() && others.iter().all(|(_, there)| there.is_none());
    if nothing && typed.refused.is_empty() {
        let problem = Problem::new(at, "this redirect leads to the same URL");
        found.add(problem.help("for example `redirect: {scheme: https}` or `redirect: /new`"));
        return None;
    }
    let host = match &typed.host {
        Some(host) => Some(host_alone(host, found)?),
        None => None,
    };
    let mut redirect = Redirect {
        status: typed.status().0,
        keep_query: typed.query().0 == QueryFate::Keep,
        scheme: typed.scheme.map(|scheme| scheme.value.0),
        host,
        port: typed.port.map(|port| port.value.get()),
        path: None,
        query: None,
    };
    if let Some(to) = typed.to {
        let url = !to.value.0.starts_with('/');
        if let Some((name, Some(at))) =
            others.iter().find(|(name, at)| at.is_some() && (url || *name == "prefix"))
        {
            let problem = Problem::new(*at, format!("`{name}` and `to` cannot be combined"));
            found.add(problem.help("keep one of the two"));
            return None;
        }
        parse_target(&mut redirect, to.at, &to.value.0, pattern(path), found)?;
    } else if let Some(prefix) = typed.prefix {
        redirect.path = Some(new_prefix(prefix.at, prefix.value.0, path, found)?);
    }
    Some(redirect)
}

/// A host without a port, which has a key of its own.
fn host_alone(typed: &Spanned<HostName>, found: &mut Diagnostics) -> Option<String> {
    let text = typed.value.0.as_str();
    match normal_host(text) {
        Ok(host) => Some(host),
        Err(_) if crate::http::host::port(text).is_some() => {
            let problem = Problem::new(typed.at, format!("{} has a port", quote(text)));
            found.add(problem.help("write it as `port`"));
            None
        }
        Err(wrong) => {
            found.add(wrong.at(typed.at));
            None
        }
    }
}

/// Splits a URL, or a path with a query.
fn parse_target(
    redirect: &mut Redirect,
    at: Origin,
    to: &str,
    pattern: Option<&Pattern>,
    found: &mut Diagnostics,
) -> Option<()> {
    let mut rest = to;
    if let Some((scheme, authority)) = to.split_once("://").filter(|_| !to.starts_with('/')) {
        redirect.scheme = Scheme::named(scheme);
        let end = authority.find(['/', '?']).unwrap_or(authority.len());
        let (authority, path) = authority.split_at_checked(end)?;
        rest = path;
        let colon = authority
            .rfind(':')
            .filter(|at| authority.get(*at..).is_some_and(|port| !port.contains(']')));
        let (host, port) = authority.split_at_checked(colon.unwrap_or(authority.len()))?;
        match (normal_host(host), port.strip_prefix(':').map(str::parse::<u16>)) {
            (Ok(host), None) => redirect.host = Some(host),
            (Ok(host), Some(Ok(port))) if port > 0 => {
                (redirect.host, redirect.port) = (Some(host), Some(port));
            }
            (Err(wrong), _) => {
                found.add(wrong.at(at));
                return None;
            }
            (Ok(_), Some(_)) => {
                let what = format!("{} is not a host with a port", quote(authority));
                found.add(Problem::new(at, what).help("a port is a number from 1 to 65535"));
                return None;
            }
        }
    }
    let (path, query) =
        rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    redirect.query = query.filter(|query| !query.is_empty()).map(str::to_owned);
    if !path.is_empty() {
        redirect.path = Some(new_path(at, path, pattern, found)?);
    }
    Some(())
}

fn respond(typed: RawRespond, found: &mut Diagnostics) -> Option<Respond> {
    let status = typed.status.as_ref()?.value;
    let ContentType(content_type) = typed.content_type();
    if let Some(body) = &typed.body {
        let has_none = matches!(status, 204 | 205 | 304);
        if has_none {
            let problem = Problem::new(
                body.at,
                format!("a response with status {status} cannot have a body"),
            );
            found.add(problem.help("remove `body`, or use another status"));
        }
        if body.value.0.len() > limits::RESPOND_BYTES_MAX {
            let what = format!("the body has {} bytes", body.value.0.len());
            let help = format!("{} are the most", limits::RESPOND_BYTES_MAX);
            found.add(Problem::new(body.at, what).help(help));
        }
    }
    Some(Respond {
        status,
        body: typed.body.map(|body| body.value.0).unwrap_or_default(),
        content_type,
    })
}

/// Header changes.
pub(super) fn changes(typed: Option<Spanned<RawFields>>, found: &mut Diagnostics) -> HeaderChanges {
    let Some(Spanned { at, value: typed }) = typed else { return HeaderChanges::default() };
    let empty = typed.set.as_ref().is_none_or(|set| set.value.typed == 0)
        && typed.add.as_ref().is_none_or(|add| add.value.typed == 0)
        && typed.remove.as_ref().is_none_or(|remove| remove.value.typed == 0);
    if empty && typed.refused.is_empty() {
        let problem = Problem::new(at, "no header is changed here");
        found.add(problem.help("for example `{set: {X-Env: prod}}`"));
    }
    let fields = |table: Option<Spanned<Table<ChangedField, FieldValue>>>| {
        let entries = table.map(|table| table.value.entries).unwrap_or_default();
        let field = |(name, value): (Spanned<ChangedField>, Spanned<FieldValue>)| Header {
            name: name.value.typed,
            value: value.value.0,
        };
        entries.into_iter().map(field).collect()
    };
    let remove = typed.remove.map(|remove| remove.value.entries).unwrap_or_default();
    HeaderChanges {
        set: fields(typed.set),
        add: fields(typed.add),
        remove: remove.into_iter().map(|name| name.value.name).collect(),
    }
}
