//! What routes ask of a request, counted where it arrives.

#![expect(clippy::panic, reason = "a test that cannot go on fails, which is what a panic does")]

use crate::support::backend::Backend;
use crate::support::client::{Client, Response};
use crate::support::weir::Weir;

/// Pools `a`, `b` … of one backend each, and these routes, one a line.
fn routed(backends: &[Backend], routes: &[&str]) -> Weir {
    let pool = |(name, backend): (char, &Backend)| {
        format!("  - {{name: {name}, health_check: off, backends: [{}]}}\n", backend.url())
    };
    let pools: String = ('a'..).zip(backends).map(pool).collect();
    let routes: String = routes.iter().map(|route| format!("  - {route}\n")).collect();
    Weir::start(&format!("routes:\n{routes}pools:\n{pools}"))
}

#[track_caller]
fn request(weir: &Weir, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut client = Client::connect(weir.address());
    let answer = client.request(method, target, headers, b"");
    answer.unwrap_or_else(|failure| panic!("{method} {target}: {failure:?}"))
}

/// Who answers, or with which status nobody does.
#[track_caller]
fn asked(weir: &Weir, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let answer = request(weir, method, target, headers);
    if answer.status() == 200 { answer.text() } else { answer.status().to_string() }
}

#[test]
fn an_exact_path_comes_before_a_pattern_and_that_before_a_prefix() {
    let backends = Backend::start_many(4);
    let weir = routed(
        &backends,
        &[
            "{pool: a}",
            "{path: /users/42, pool: b}",
            "{path_regex: '/users/[0-9]+', pool: c}",
            "{path_exact: /users/42, pool: d}",
        ],
    );
    for (target, expected) in [
        ("/users/42", "b4"),
        ("/users/42?x", "b4"),
        ("/users/4%32", "b4"),
        ("/x/../users//42", "b4"),
        ("/users/43", "b3"),
        ("/users/42/", "b2"),
        ("/users/x", "b1"),
        ("/users/43%2F", "b1"),
    ] {
        assert_eq!(asked(&weir, "GET", target, &[]), expected, "{target}");
    }
    let seen = backends[3].requests();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    let sent = ["/users/42", "/users/42?x", "/users/4%32", "/x/../users//42"];
    assert_eq!(targets, sent, "as the client wrote it");
}

#[test]
fn methods_tell_routes_apart_and_head_goes_where_get_goes() {
    let backends = Backend::start_many(3);
    let weir = routed(
        &backends,
        &["{methods: [GET], pool: a}", "{methods: [POST, PURGE], pool: b}", "{path: /x, pool: c}"],
    );
    assert_eq!(asked(&weir, "GET", "/", &[]), "b1");
    assert_eq!(asked(&weir, "POST", "/", &[]), "b2");
    assert_eq!(asked(&weir, "PURGE", "/", &[]), "b2");
    assert_eq!(request(&weir, "HEAD", "/", &[]).status(), 200);
    assert_eq!(backends[0].count(), 2);
    assert_eq!(asked(&weir, "PUT", "/", &[]), "404");
    assert_eq!(asked(&weir, "PUT", "/x", &[]), "b3");
}

#[test]
fn fields_and_parameters_tell_routes_apart() {
    let backends = Backend::start_many(4);
    let weir = routed(
        &backends,
        &[
            "{pool: a}",
            "{headers: {X-Canary: \"1\"}, pool: b}",
            "{query: {version: {prefix: beta}}, pool: c}",
            "{headers: {X-Canary: \"1\", Cookie: {regex: \".*staff=yes.*\"}}, pool: d}",
        ],
    );
    let canary = [("x-canary", "1")];
    assert_eq!(asked(&weir, "GET", "/", &[]), "b1");
    assert_eq!(asked(&weir, "GET", "/", &canary), "b2");
    assert_eq!(asked(&weir, "GET", "/", &[("X-Canary", "2")]), "b1");
    assert_eq!(asked(&weir, "GET", "/?a=b&version=bet%61-7", &[]), "b3");
    assert_eq!(asked(&weir, "GET", "/?version=beta", &canary), "b2", "fields before parameters");
    let staff = [("X-Canary", "1"), ("Cookie", "a=b; staff=yes")];
    assert_eq!(asked(&weir, "GET", "/?version=beta", &staff), "b4");
    let twice = [("X-Canary", "1"), ("X-Canary", "1")];
    assert_eq!(asked(&weir, "GET", "/", &twice), "b1", "two lines are another value");
}

#[test]
fn a_route_whose_conditions_are_not_met_leaves_the_request_to_a_less_specific_one() {
    let backends = Backend::start_many(3);
    let weir = routed(
        &backends,
        &[
            "{host: a.test, path: /x, headers: {X-A: {present: true}}, pool: a}",
            "{host: \"*.test\", path: /x, methods: [POST], pool: b}",
            "{path: /x, pool: c}",
        ],
    );
    let host = ("Host", "a.test");
    assert_eq!(asked(&weir, "GET", "/x", &[host, ("X-A", "")]), "b1");
    assert_eq!(asked(&weir, "POST", "/x", &[host]), "b2");
    assert_eq!(asked(&weir, "GET", "/x", &[host]), "b3");
}
