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

/// The backend that responds, or the status of Weir's own response.
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
        ("/x/../users//42", "400"),
        ("/users/43", "b3"),
        ("/users/42/", "b2"),
        ("/users/x", "b1"),
        ("/users/43%2F", "b1"),
    ] {
        assert_eq!(asked(&weir, "GET", target, &[]), expected, "{target}");
    }
    let seen = backends[3].requests();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    let sent = ["/users/42", "/users/42?x", "/users/4%32"];
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

// ── what routes do ──

#[test]
fn pools_that_share_a_route_get_exact_shares_and_keep_their_retries() {
    let backends = Backend::start_many(3);
    let url = |index: usize| backends[index].url();
    backends[2].stop();
    let weir = Weir::start(&format!(
        "routes:\n  - {{pools: [{{pool: a, weight: 9}}, {{pool: b, weight: 1}}]}}\n\
         pools:\n  - {{name: a, health_check: off, backends: [{}]}}\n  \
         - {{name: b, health_check: off, backends: [{}, {}]}}",
        url(0),
        url(1),
        url(2)
    ));
    let mut client = Client::connect(weir.address());
    let answers: Vec<String> = (0..100).map(|_| client.get("/").text()).collect();
    assert_eq!(backends[0].count(), 90, "{answers:?}");
    assert_eq!(backends[1].count(), 10, "those that met the dead one stayed in their pool");
    for ten in answers.chunks(10) {
        assert_eq!(ten.iter().filter(|name| *name == "b2").count(), 1, "{ten:?}");
    }
}

#[test]
fn a_redirect_keeps_the_query_and_reaches_no_backend() {
    let backends = Backend::start_many(1);
    let weir = routed(
        &backends,
        &[
            "{name: moved, path: /old, redirect: {prefix: /new, status: 308}}",
            "{path: /away, redirect: {to: \"https://b.test:8443/x?from=a\", status: 302}}",
            "{path: /bare, redirect: {to: /x, query: drop}}",
            "{path: /strip, redirect: {prefix: /}}",
            "{path_regex: '/u/([0-9]+)/(.*)', redirect: '/users/$1?rest'}",
            "{pool: a}",
        ],
    );
    let location = |target: &str| {
        let answer = request(&weir, "GET", target, &[("Host", "a.test:81")]);
        (answer.status(), answer.header("location").unwrap_or_default().to_owned(), answer.text())
    };
    let to = |status, location: &str| (status, location.to_owned(), String::new());
    assert_eq!(location("/old/a?b=c&d"), to(308, "/new/a?b=c&d"));
    assert_eq!(location("/old"), to(308, "/new"));
    assert_eq!(location("/old/x/../%61"), to(308, "/new/a"));
    assert_eq!(location("/away/y?z=1"), to(302, "https://b.test:8443/x?from=a&z=1"));
    assert_eq!(location("/bare?q"), to(301, "/x"));
    assert_eq!(location("/u/7/x"), to(301, "/users/7?rest"));
    assert_eq!(location("/strip//evil.test"), to(301, "/evil.test"));
    assert_eq!(location("/strip/%2f/evil.test"), to(301, "/%2F/evil.test"));
    assert_eq!(location("/strip/\\evil.test"), to(301, "/%5Cevil.test"));
    assert_eq!(backends[0].count(), 0);
    let line = weir.until_logged("the redirect", |line| line["route"] == "moved");
    assert_eq!((&line["reason"], &line["status"]), (&"redirect".into(), &308.into()), "{line}");
    let metrics = weir.metrics();
    assert_eq!(metrics.sum("lb_errors_total", &[]), 0.0, "a redirect is no error");
}

#[test]
fn who_comes_by_http_is_sent_to_https_unless_a_trusted_proxy_says_otherwise() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&format!(
        "trusted_proxies: [127.0.0.0/8]\nroutes:\n  - {{redirect: {{scheme: https}}}}\n  \
         - {{scheme: http, path: /.well-known, pool: b}}\n  - {{host: a.test, path: /deep, pool: a}}\n\
         pools:\n  - {{name: a, health_check: off, backends: [{}]}}\n  \
         - {{name: b, health_check: off, backends: [{}]}}",
        backends[0].url(),
        backends[1].url()
    ));
    let host = ("Host", "a.test:8080");
    let answer = request(&weir, "GET", "/deep?q=1", &[host]);
    assert_eq!(answer.header("location"), Some("https://a.test/deep?q=1"));
    assert_eq!(asked(&weir, "GET", "/.well-known/acme", &[host]), "b2");
    let over_tls = ("X-Forwarded-Proto", "https");
    assert_eq!(asked(&weir, "GET", "/deep", &[host, over_tls]), "b1");
    let mut old = Client::connect(weir.address());
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.read_answer().status(), 400, "there is no host to send it to");
}

#[test]
fn a_fixed_answer_has_its_length_and_no_body_for_head() {
    let backends = Backend::start_many(1);
    let weir = routed(
        &backends,
        &[
            "{name: blocked, path: /admin, respond: {status: 403, body: \"not here\\n\"}}",
            "{path: /empty, respond: 204}",
            "{path: /json, respond: {status: 200, body: '{}', content_type: application/json}}",
            "{pool: a}",
        ],
    );
    let mut client = Client::connect(weir.address());
    let answer = client.get("/admin/x");
    assert_eq!((answer.status(), answer.text().as_str()), (403, "not here\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = client.request("HEAD", "/%61dmin", &[], b"").unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!((head.status(), head.header("content-length")), (403, Some("9")));
    assert_eq!(head.body, b"");
    let empty = client.get("/empty");
    assert_eq!((empty.status(), empty.header("content-length")), (204, None));
    let post =
        client.request("POST", "/json", &[], b"thrown away").unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!((post.status(), post.text().as_str()), (200, "{}"));
    assert_eq!(post.header("content-type"), Some("application/json"));
    assert_eq!(backends[0].count(), 0);
    let line = weir.until_logged("the answer", |line| line["route"] == "blocked");
    assert_eq!(line["reason"], "respond");
}

#[test]
fn a_limit_comes_before_a_routes_own_answer() {
    let backends = Backend::start_many(1);
    let weir = routed(
        &backends,
        &[
            "{path: /old, redirect: /new, rate_limit: {requests_per_second: 0.001, burst: 2}}",
            "{pool: a}",
        ],
    );
    let statuses: Vec<u16> = (0..3).map(|_| request(&weir, "GET", "/old", &[]).status()).collect();
    assert_eq!(statuses, [301, 301, 429]);
}

#[test]
fn a_rewritten_request_has_its_new_path_and_the_query_that_came() {
    let backends = Backend::start_many(1);
    let weir = routed(
        &backends,
        &[
            "{path: /api, pool: a, rewrite: {prefix: /v1, host: \"internal.test:81\"}}",
            "{path_regex: '/u/([0-9]+)(/.*)?', pool: a, rewrite: /users/$1$2}",
            "{path_exact: /status, pool: a, rewrite: /state}",
            "{path: /plain, pool: a}",
        ],
    );
    for (target, expected) in [
        ("/api/a%2fb/c?x=%41&y", "/v1/a%2Fb/c?x=%41&y"),
        ("/api", "/v1"),
        ("/api/../api//x", "/v1/x"),
        ("/u/7/photo?", "/users/7/photo?"),
        ("http://weir.test/status?a", "/state?a"),
        ("/plain//%61?x", "/plain//%61?x"),
    ] {
        backends[0].forget();
        assert_eq!(
            request(&weir, "GET", target, &[("Host", "weir.test")]).status(),
            200,
            "{target}"
        );
        backends[0].until_count(1);
        let seen = &backends[0].requests()[0];
        assert_eq!(seen.target, expected, "{target}");
    }
    backends[0].forget();
    request(&weir, "GET", "/api", &[("Host", "a.test")]);
    backends[0].until_count(1);
    let seen = &backends[0].requests()[0];
    assert_eq!(seen.header("host"), Some("internal.test:81"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test"));
}

#[test]
fn fields_are_removed_set_and_added_both_ways() {
    let backends = Backend::start_many(1);
    let weir = routed(
        &backends,
        &[
            "{path: /a, pool: a, request_headers: {set: {X-Env: prod}, add: {X-Tag: two}, remove: [Cookie]}, \
             response_headers: {set: {X-Frame-Options: DENY}, remove: [Server]}}",
            "{path: /b, respond: {status: 200}, response_headers: {set: {Content-Type: text/x}}}",
            "{path: /c, redirect: /d, response_headers: {add: {X-A: b}}}",
        ],
    );
    let sent = [("X-Env", "forged"), ("x-env", "again"), ("X-Tag", "one"), ("Cookie", "a=b")];
    let answer = request(&weir, "GET", "/a", &sent);
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    let seen = &backends[0].requests()[0];
    assert_eq!(seen.header_values("x-env"), ["prod"]);
    assert_eq!(seen.header_values("x-tag"), ["one", "two"]);
    assert_eq!(seen.header("cookie"), None);
    assert_eq!(request(&weir, "GET", "/b", &[]).header("content-type"), Some("text/x"));
    assert_eq!(request(&weir, "GET", "/c", &[]).header("x-a"), Some("b"));
    backends[0].crash();
    let failed = request(&weir, "GET", "/a", &[]);
    assert_eq!((failed.status(), failed.header("x-frame-options")), (503, Some("DENY")));
}
