use ::http::{HeaderName, HeaderValue};

use super::*;
use crate::config::{Action, Condition, Conditions, Test, precedence};

fn route(host: &str, path: &str) -> Route {
    let host = match host.strip_prefix("*.") {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None if host.is_empty() => HostPattern::Any,
        None => HostPattern::Exact(host.to_owned()),
    };
    let path = match (path.strip_prefix('='), path.strip_prefix('~')) {
        (Some(exact), _) => PathPattern::Exact(exact.to_owned()),
        (_, Some(pattern)) => PathPattern::Regex(Pattern::new(pattern).unwrap()),
        _ => PathPattern::Prefix(path.to_owned()),
    };
    Route::new(host, path, Conditions::default(), Action::to_pool(0))
}

fn find(table: &Routes, host: &str, path: &str) -> Option<usize> {
    let headers = HeaderMap::new();
    table.find(&RouteQuery {
        scheme: Scheme::Http,
        host,
        path,
        query: None,
        method: &Method::GET,
        headers: &headers,
    })
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
    assert_eq!(find(&table(), "api.example.com", "/v1/users/7"), Some(2));
    assert_eq!(find(&table(), "api.example.com", "/v1/x"), Some(1));
}

#[test]
fn a_prefix_ends_on_a_segment_boundary() {
    assert_eq!(find(&table(), "api.example.com", "/v10"), Some(3));
    assert_eq!(find(&table(), "api.example.com", "/v1/"), Some(1));
}

#[test]
fn the_longest_suffix_comes_before_a_shorter_one() {
    assert_eq!(find(&table(), "a.b.example.com", "/deep/x"), Some(4));
    assert_eq!(find(&table(), "a.b.example.com", "/else"), Some(3));
}

#[test]
fn a_suffix_needs_a_label_in_front_of_it() {
    assert_eq!(find(&table(), "example.com", "/"), Some(0));
    assert_eq!(find(&table(), "badexample.com", "/"), Some(0));
}

#[test]
fn nothing_is_found_where_no_route_matches() {
    assert_eq!(find(&Routes::new(&[route("a.test", "/x")]), "b.test", "/x"), None);
    assert_eq!(find(&Routes::new(&[route("a.test", "/x")]), "a.test", "/y"), None);
}

#[test]
fn an_exact_path_beats_a_pattern_and_that_the_longest_prefix() {
    let table = Routes::new(&[
        route("", "/users/42"),
        route("", "~/users/[0-9]+"),
        route("", "=/users/42"),
        route("", "~/users/4.*"),
    ]);
    assert_eq!(find(&table, "h", "/users/42"), Some(2));
    assert_eq!(find(&table, "h", "/users/43"), Some(1), "the first pattern in the file");
    assert_eq!(find(&table, "h", "/users/4x"), Some(3));
    assert_eq!(find(&table, "h", "/users/42/x"), Some(3));
    assert_eq!(find(&table, "h", "/users/5x"), None);
}

#[test]
fn an_exact_path_matches_only_itself() {
    let table = Routes::new(&[route("", "=/a")]);
    assert_eq!(find(&table, "h", "/a"), Some(0));
    assert_eq!(find(&table, "h", "/a/"), None);
    assert_eq!(find(&table, "h", "/a/b"), None);
}

fn with(mut route: Route, conditions: Conditions) -> Route {
    route.conditions = conditions;
    route
}

fn header(name: &'static str, test: Test) -> Conditions {
    let name = HeaderName::from_static(name);
    Conditions { headers: vec![Condition { name, test }], ..Conditions::default() }
}

fn parameter(name: &str, test: Test) -> Conditions {
    let name = name.to_owned();
    Conditions { query: vec![Condition { name, test }], ..Conditions::default() }
}

fn methods(methods: &[Method]) -> Conditions {
    Conditions { methods: methods.to_vec(), ..Conditions::default() }
}

fn exact(value: &str) -> Test {
    Test::Exact(value.to_owned())
}

/// Whether a request with this method, headers and query meets these conditions.
fn met(conditions: Conditions, method: &Method, fields: &[(&str, &str)], query: &str) -> bool {
    let headers = fields.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    // `collect` would keep only the last of several lines.
    let mut all = HeaderMap::new();
    headers.for_each(|(name, value)| {
        all.append(name, value);
    });
    let query = (!query.is_empty()).then_some(query);
    let asked =
        RouteQuery { scheme: Scheme::Http, host: "h", path: "/", query, method, headers: &all };
    Routes::new(&[with(route("", "/"), conditions)]).find(&asked).is_some()
}

#[test]
fn a_method_is_one_of_those_listed_and_head_goes_with_get() {
    let post = || methods(&[Method::POST, Method::PUT]);
    assert!(met(post(), &Method::PUT, &[], ""));
    assert!(!met(post(), &Method::GET, &[], ""));
    assert!(!met(post(), &Method::HEAD, &[], ""));
    assert!(met(methods(&[Method::GET]), &Method::HEAD, &[], ""));
    assert!(!met(methods(&[Method::HEAD]), &Method::GET, &[], ""));
}

#[test]
fn a_header_value_is_tested_as_a_whole_and_is_case_sensitive() {
    let beta = || header("x-v", exact("beta"));
    assert!(met(beta(), &Method::GET, &[("X-V", "beta")], ""));
    assert!(!met(beta(), &Method::GET, &[("X-V", "Beta")], ""));
    assert!(!met(beta(), &Method::GET, &[("X-V", "beta2")], ""));
    assert!(!met(beta(), &Method::GET, &[], ""));
    let start = || header("x-v", Test::Prefix("be".to_owned()));
    assert!(met(start(), &Method::GET, &[("x-v", "beta")], ""));
    let pattern = || header("x-v", Test::Regex(Pattern::new("v[12]").unwrap()));
    assert!(met(pattern(), &Method::GET, &[("x-v", "v2")], ""));
    assert!(!met(pattern(), &Method::GET, &[("x-v", "v22")], ""));
}

#[test]
fn several_lines_of_a_header_are_one_value() {
    let lines = [("x-v", "a"), ("x-v", "b")];
    assert!(met(header("x-v", exact("a, b")), &Method::GET, &lines, ""));
    assert!(!met(header("x-v", exact("a")), &Method::GET, &lines, ""));
}

#[test]
fn presence_and_absence_ignore_the_value() {
    let there = [("x-v", "")];
    assert!(met(header("x-v", Test::Present(true)), &Method::GET, &there, ""));
    assert!(!met(header("x-v", Test::Present(true)), &Method::GET, &[], ""));
    assert!(met(header("x-v", Test::Present(false)), &Method::GET, &[], ""));
    assert!(!met(header("x-v", Test::Present(false)), &Method::GET, &there, ""));
}

#[test]
fn a_parameter_is_the_first_of_its_name_and_decoded() {
    assert!(met(parameter("v", exact("a b")), &Method::GET, &[], "x=1&v=a%20b&v=2"));
    assert!(!met(parameter("v", exact("2")), &Method::GET, &[], "v=1&v=2"));
    assert!(met(parameter("v", Test::Present(false)), &Method::GET, &[], "w=1"));
    assert!(met(parameter("v", Test::Present(true)), &Method::GET, &[], "v"));
}

#[test]
fn routes_with_more_conditions_come_first_whatever_the_order_of_the_file() {
    let two = Conditions { query: parameter("q", exact("1")).query, ..header("x-v", exact("1")) };
    let routes = [
        route("", "/"),
        with(route("", "/"), parameter("q", exact("1"))),
        with(route("", "/"), header("x-v", exact("1"))),
        with(route("", "/"), two),
        with(route("", "/"), methods(&[Method::POST])),
    ];
    let table = Routes::new(&routes);
    let headers = HeaderMap::from_iter([("x-v".parse().unwrap(), "1".parse().unwrap())]);
    let none = HeaderMap::new();
    let find = |method, headers, query| {
        table.find(&RouteQuery {
            scheme: Scheme::Http,
            host: "h",
            path: "/",
            query,
            method,
            headers,
        })
    };
    assert_eq!(find(&Method::POST, &headers, Some("q=1")), Some(4));
    assert_eq!(find(&Method::GET, &headers, Some("q=1")), Some(3));
    assert_eq!(find(&Method::GET, &headers, None), Some(2));
    assert_eq!(find(&Method::GET, &none, Some("q=1")), Some(1));
    assert_eq!(find(&Method::GET, &none, None), Some(0));
    assert_eq!(precedence(&routes), [4, 3, 2, 1, 0]);
}

#[test]
fn unmet_conditions_lead_to_a_shorter_path_and_then_to_another_host() {
    let table = Routes::new(&[
        with(route("a.test", "/x/y"), methods(&[Method::POST])),
        with(route("a.test", "/x"), methods(&[Method::PUT])),
        route("", "/"),
    ]);
    let headers = HeaderMap::new();
    let find = |method| {
        table.find(&RouteQuery {
            scheme: Scheme::Http,
            host: "a.test",
            path: "/x/y",
            query: None,
            method,
            headers: &headers,
        })
    };
    assert_eq!(find(&Method::POST), Some(0));
    assert_eq!(find(&Method::PUT), Some(1));
    assert_eq!(find(&Method::GET), Some(2));
}

#[test]
fn routes_for_one_scheme_come_before_those_for_both_whatever_their_host() {
    let of = |scheme, route| Route { scheme: Some(scheme), ..route };
    let table = Routes::new(&[
        route("a.test", "=/x"),
        of(Scheme::Http, route("", "/")),
        of(Scheme::Http, route("", "/.well-known")),
        of(Scheme::Https, route("", "/s")),
    ]);
    let headers = HeaderMap::new();
    let find = |scheme, path| {
        let method = &Method::GET;
        table.find(&RouteQuery {
            scheme,
            host: "a.test",
            path,
            query: None,
            method,
            headers: &headers,
        })
    };
    assert_eq!(find(Scheme::Http, "/x"), Some(1));
    assert_eq!(find(Scheme::Http, "/.well-known/y"), Some(2));
    assert_eq!(find(Scheme::Https, "/x"), Some(0));
    assert_eq!(find(Scheme::Https, "/s"), Some(3));
    assert_eq!(find(Scheme::Https, "/y"), None);
}
