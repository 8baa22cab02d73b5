//! Finds redirects that lead to themselves.
//!
//! A sample request for each redirect is made from its own host and path, and followed through the
//! real route table, as a client would. If each location leads to the same route again, the client
//! never arrives. That is an error, unless the outcome depends on something unknown: request
//! headers (a cookie set with the redirect ends many loops), or whether a host that only matches a
//! `*.` is served here. Then it is a warning. Not found are loops through several redirects, and
//! redirects for a `path_regex` whose new path has groups.

use ::http::{HeaderMap, Method};

use super::routes::{RouteQuery, Routes};
use crate::config::{
    Action, Condition, Config, ConfigBuilder, HostPattern, PathPattern, Problem, Route, Test,
};
use crate::http::path::normalize_for_routing;
use crate::http::redirect::Redirect;
use crate::http::rewrite::NewPath;
use crate::http::scheme::Scheme;
use crate::http::url::Url;

/// Clients give up after this many redirects.
const HOPS_MAX: usize = 20;
/// A host label and a path segment that are probably not in the configuration.
const ANY: &str = "any";

/// Adds a problem for each redirect that leads to itself. Nothing is reported for a configuration
/// with other errors: a route that could not be parsed might match the request instead.
pub fn report_self_redirects(builder: &mut ConfigBuilder) {
    if !builder.is_whole() {
        return;
    }
    for (is_certain, problem) in find(builder.config()) {
        if is_certain { builder.refuse(problem) } else { builder.warn(problem) }
    }
}

/// Each problem, and whether it depends on the configuration alone.
fn find(config: &Config) -> Vec<(bool, Problem)> {
    let relaxed: Vec<Route> = config.routes.iter().map(with_any_headers).collect();
    let tables = [Routes::new(&config.routes), Routes::new(&relaxed)];
    let mut problems = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let Action::Redirect(redirect) = &route.action else { continue };
        // Followed as a request without headers, and as one with the headers that routes require.
        let [plain, fitting] = tables.each_ref().map(|table| {
            let walk = Walk { config, table, index, route, redirect };
            samples(config, route, redirect).into_iter().find_map(|sample| walk.follow(sample))
        });
        let is_certain = plain.as_ref().zip(fitting.as_ref()).is_some_and(|(plain, fitting)| {
            route.conditions.headers.is_empty() && plain.is_served && fitting.is_served
        });
        if let Some(found) = plain.or(fitting) {
            problems.push((is_certain, problem(route, &found.urls, is_certain)));
        }
    }
    problems
}

/// The route for requests that have whatever headers it requires: a header that must be absent is
/// as specific as one that must be there, so the order of the routes stays as it is.
fn with_any_headers(route: &Route) -> Route {
    let mut route = route.clone();
    for condition in &mut route.conditions.headers {
        condition.test = Test::Present(false);
    }
    route
}

/// A redirect that is followed, and the route table.
struct Walk<'a> {
    config: &'a Config,
    table: &'a Routes,
    index: usize,
    route: &'a Route,
    redirect: &'a Redirect,
}

/// A redirect that does not end.
struct Endless {
    urls: Vec<Url>,
    /// Whether all hosts on the way are surely served here.
    is_served: bool,
}

impl Walk<'_> {
    /// The way of a client that begins at `url`, if it does not end.
    fn follow(&self, url: Url) -> Option<Endless> {
        let first = self.route.conditions.methods.first().unwrap_or(&Method::GET);
        let mut method = if *first == Method::HEAD { &Method::GET } else { first };
        let headers = HeaderMap::new();
        let mut found = Endless { urls: vec![url], is_served: true };
        while found.urls.len() <= HOPS_MAX {
            let from = found.urls.last()?;
            let asked = RouteQuery {
                scheme: from.scheme,
                host: &from.host,
                path: &from.path,
                query: from.query.as_deref(),
                method,
                headers: &headers,
            };
            if self.table.find(&asked) != Some(self.index) {
                return None;
            }
            let to = from.follow(&self.redirect.location(&from.place())?)?;
            found.is_served &= self.is_served(from, &to)?;
            let is_there = to == *from;
            found.urls.push(to);
            let next = next_method(self.redirect.status, method);
            if is_there && next == method {
                break;
            }
            method = next;
        }
        Some(found)
    }

    /// Whether the request for `to` surely comes here; `None` if it surely does not.
    fn is_served(&self, from: &Url, to: &Url) -> Option<bool> {
        if (to.scheme, &to.host, to.port) == (from.scheme, &from.host, from.port) {
            return Some(true);
        }
        let is_ours = match self.redirect.port {
            Some(port) => self.config.listeners.iter().any(|listener| {
                listener.address.port() == port && scheme_of(listener.tls.is_some()) == to.scheme
            }),
            None => is_used(self.config, to.scheme),
        };
        if !is_ours {
            return None;
        }
        let hosts = || self.config.routes.iter().map(|route| &route.host);
        if to.host == from.host || hosts().any(|host| is_named(host, &to.host)) {
            return Some(true);
        }
        hosts().any(|host| is_below(host, &to.host)).then_some(false)
    }
}

fn is_named(pattern: &HostPattern, host: &str) -> bool {
    matches!(pattern, HostPattern::Exact(name) if name == host)
}

fn is_below(pattern: &HostPattern, host: &str) -> bool {
    let HostPattern::Suffix(suffix) = pattern else { return false };
    host.strip_suffix(suffix).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
}

/// URLs that the route matches, unless another route comes before it.
fn samples(config: &Config, route: &Route, redirect: &Redirect) -> Vec<Url> {
    let Some(query) = sample_query(&route.conditions.query) else { return Vec::new() };
    let host = match &route.host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("{ANY}.{suffix}"),
        HostPattern::Any => format!("{ANY}.test"),
    };
    let paths = match (&route.path, &redirect.path) {
        (PathPattern::Exact(path), _) => vec![path.clone()],
        (PathPattern::Prefix(path), _) => {
            let below = path.trim_end_matches('/');
            vec![path.clone(), format!("{below}/"), format!("{below}/{ANY}")]
        }
        (PathPattern::Regex(_), Some(NewPath::Pattern(_, template)))
            if !template.source().contains('$') =>
        {
            vec![normalize_for_routing(template.source()).into_owned()]
        }
        (PathPattern::Regex(_), _) => Vec::new(),
    };
    let schemes = [Scheme::Http, Scheme::Https]
        .into_iter()
        .filter(|one| is_used(config, *one) && route.scheme.is_none_or(|wanted| wanted == *one));
    let of = |scheme| {
        let url = |path: &String| {
            let (host, path, query) = (host.clone(), path.clone(), query.clone());
            Url { scheme, host, port: None, path, query }
        };
        paths.iter().map(url).collect::<Vec<_>>()
    };
    schemes.flat_map(of).collect()
}

/// A query that meets the conditions; `None` if a pattern decides.
fn sample_query(conditions: &[Condition<String>]) -> Option<Option<String>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for Condition { name, test } in conditions {
        let value = match test {
            Test::Exact(value) | Test::Prefix(value) => value,
            Test::Present(true) => "1",
            Test::Present(false) => continue,
            Test::Regex(_) => return None,
        };
        query.append_pair(name, value);
    }
    Some(Some(query.finish()).filter(|query| !query.is_empty()))
}

/// Whether requests of this scheme come here.
fn is_used(config: &Config, scheme: Scheme) -> bool {
    let mut listeners = config.listeners.iter();
    !config.trusted_proxies.is_empty()
        || listeners.any(|listener| scheme_of(listener.tls.is_some()) == scheme)
}

fn scheme_of(tls: bool) -> Scheme {
    if tls { Scheme::Https } else { Scheme::Http }
}

/// The method with which a client follows a redirect (RFC 9110 §15.4, and the practice of
/// browsers).
fn next_method(status: u16, method: &Method) -> &Method {
    match status {
        303 if *method != Method::HEAD => &Method::GET,
        301 | 302 if *method == Method::POST => &Method::GET,
        _ => method,
    }
}

fn problem(route: &Route, urls: &[Url], is_certain: bool) -> Problem {
    const SHOWN_MAX: usize = 4;
    let mut shown: Vec<String> = urls.iter().take(SHOWN_MAX).map(|url| shown(urls, url)).collect();
    if urls.len() > SHOWN_MAX {
        shown.push("…".to_owned());
    }
    let ends = if is_certain { "never ends" } else { "may never end" };
    let help = if is_certain {
        "redirect to a path that this route does not match, or write `path_exact` for one path alone"
    } else {
        "it ends only if request headers change on the way, or another server has the host"
    };
    let what = format!("this redirect {ends}: {}", shown.join(" -> "));
    Problem { at: route.defined_at.0, what, help: Some(help.to_owned()) }
}

/// As a path if all `urls` have the same host.
fn shown(urls: &[Url], url: &Url) -> String {
    const LENGTH_MAX: usize = 60;
    let authority = |url: &Url| {
        let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", url.scheme, url.host)
    };
    let first = authority(url);
    let is_one = urls.iter().all(|other| authority(other) == first);
    let query = url.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let full = format!("{}{}{query}", if is_one { "" } else { &first }, url.path);
    match full.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("`{}…`", full.get(..end).unwrap_or(&full)),
        None => format!("`{full}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    const POOL: &str = "pools: [{name: web, backends: [http://10.0.0.1:3000]}]";
    const TLS: &str = "listeners: [0.0.0.0:80, {address: 0.0.0.0:443, tls: {certificates: \
                       [{cert: a, key: b}]}}]";

    /// The redirects found in these routes, next to one for the pool: `!` for certain ones, and the
    /// URLs.
    fn found(more: &str, routes: &[&str]) -> Vec<String> {
        let routes: Vec<String> = routes.iter().map(|route| format!("  - {{{route}}}\n")).collect();
        let text =
            format!("{more}\nroutes:\n{}  - {{path: /pool, pool: web}}\n{POOL}", routes.concat());
        let config = config::load(Some(text.as_bytes()), &Overrides::default())
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let text = |(is_certain, problem): (bool, Problem)| {
            let urls = problem.what.split_once(": ").unwrap().1.replace(['`', '>'], "");
            format!("{}{}", if is_certain { "!" } else { "?" }, urls.replace(" - ", " "))
        };
        find(&config).into_iter().map(text).collect()
    }

    #[test]
    fn a_redirect_to_itself_and_one_that_grows_are_reported() {
        assert_eq!(found("", &["path: /c, redirect: /c"]), ["!/c /c"]);
        assert_eq!(found("", &["redirect: /app"]), ["!/ /app /app"]);
        let grows = found("", &["path: /d, redirect: {prefix: /d/e}"]);
        assert_eq!(grows, ["!/d /d/e /d/e/e /d/e/e/e …"]);
        let query = found("", &["path: /q, redirect: /q?x=1"]);
        assert!(query[0].contains("/q?x=1&x=1"), "{query:?}");
        let fixed = found("", &["path: /q, redirect: {to: '/q?x=1', query: drop}"]);
        assert_eq!(fixed, ["!/q /q?x=1 /q?x=1"]);
        let behind = ["path_exact: /, pool: web", "redirect: /app"];
        assert_eq!(found("", &behind), ["!/any /app /app"]);
    }

    #[test]
    fn hosts_schemes_and_ports_that_lead_back_are_reported() {
        let own = ["host: a.test, redirect: {host: a.test}"];
        assert_eq!(found("", &own), ["!/ /"]);
        let named = ["redirect: https://www.a.test", "host: www.a.test, path: /app, pool: web"];
        assert_eq!(
            found(TLS, &named),
            ["!http://any.test/ https://www.a.test/ https://www.a.test/"]
        );
        let port = ["redirect: {port: 8443}"];
        let ports = "listeners: [0.0.0.0:80, 0.0.0.0:8443]";
        let back = ["!http://any.test/ http://any.test:8443/ http://any.test:8443/"];
        assert_eq!(found(ports, &port), back);
        assert!(found("listeners: [0.0.0.0:80]", &port).is_empty(), "the port of another server");
    }

    #[test]
    fn methods_and_queries_are_followed() {
        let post = ["path: /p, methods: [POST], redirect: {to: /p, status: 308}"];
        assert_eq!(found("", &post), ["!/p /p"]);
        let get = ["path: /p, methods: [POST], redirect: {to: /p, status: 303}"];
        assert!(found("", &get).is_empty());
        let kept = ["path: /p, query: {x: '1'}, redirect: /p"];
        assert_eq!(found("", &kept), ["!/p?x=1 /p?x=1"]);
        let dropped = ["path: /p, query: {x: '1'}, redirect: {to: /p, query: drop}"];
        assert!(found("", &dropped).is_empty());
    }

    #[test]
    fn a_pattern_that_matches_its_own_fixed_target_is_reported() {
        assert_eq!(found("", &["path_regex: '/u/.*', redirect: /u/all"]), ["!/u/all /u/all"]);
        assert!(found("", &["path_regex: '/u/[0-9]+', redirect: /u/all"]).is_empty());
    }

    #[test]
    fn what_headers_or_other_servers_may_end_is_uncertain() {
        let cookie = ["path: /c, headers: {Cookie: {present: false}}, redirect: /c"];
        assert_eq!(found("", &cookie), ["?/c /c"]);
        let required = ["path: /c, headers: {X-A: '1'}, redirect: /c"];
        assert_eq!(found("", &required), ["?/c /c"]);
        let before =
            ["path: /c, headers: {Cookie: {present: true}}, pool: web", "path: /c, redirect: /c"];
        assert_eq!(found("", &before), ["?/c /c"]);
        let less = ["path: /, headers: {X-A: '1'}, pool: web", "path: /c, redirect: /c"];
        assert_eq!(found("", &less), ["!/c /c"]);
        let wide = ["host: '*.a.test', redirect: {host: www.a.test}"];
        let urls = "?http://any.a.test/ http://www.a.test/ http://www.a.test/";
        assert_eq!(found("", &wide), [urls]);
        assert!(
            found("", &["redirect: https://www.a.test"]).is_empty(),
            "the host may belong to another server"
        );
    }

    #[test]
    fn redirects_that_end_are_not_reported() {
        for routes in [
            ["redirect: {scheme: https}", "host: a.test, redirect: {host: www.a.test}"],
            ["host: a.test, redirect: https://www.a.test", "host: www.a.test, pool: web"],
            ["path_exact: /, redirect: /pool", "path_exact: /docs, redirect: /docs/"],
            ["path_regex: '/(.+[^/])', redirect: /$1/", "path_exact: /, redirect: /a/"],
            ["path: /old, redirect: {prefix: /pool}", "path: /older, redirect: /old"],
            [
                "scheme: http, path: /x, redirect: {scheme: https, port: 8443}",
                "path: /x, pool: web",
            ],
        ] {
            assert_eq!(found(TLS, &routes), Vec::<String>::new(), "{routes:?}");
        }
        let trusted = "trusted_proxies: [10.0.0.0/8]";
        assert!(found(trusted, &["redirect: {scheme: https}"]).is_empty());
        assert!(found("", &["redirect: {scheme: https}"]).is_empty());
    }

    #[test]
    fn a_certain_one_is_an_error_at_its_position_and_an_uncertain_one_a_warning() {
        let text = format!(
            "routes:\n  - {{path: /a, redirect: /a}}\n  - {{path: /c, headers: {{X-A: '1'}}, \
             redirect: /c}}\n  - {{pool: web}}\n{POOL}"
        );
        let builder = ConfigBuilder::new(Some(text.as_bytes()), &Overrides::default(), "".as_ref());
        let mut builder = builder.unwrap();
        report_self_redirects(&mut builder);
        let report = builder.finish();
        assert_eq!(
            report.config.unwrap_err().to_string(),
            "2:26: this redirect never ends: `/a` -> `/a` (help: redirect to a path that this route \
             does not match, or write `path_exact` for one path alone)"
        );
        assert!(
            report.warnings[0].to_string().starts_with("3:47: warning: this redirect may never")
        );
    }
}
