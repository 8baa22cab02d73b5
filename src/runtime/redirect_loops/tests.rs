//! What is a loop, what is not, and what is uncertain.

use super::*;
use crate::config::{self, Overrides};

const POOL: &str = "pools: [{name: web, backends: [http://10.0.0.1:3000]}]";
const TLS: &str = "listeners: [0.0.0.0:80, {address: 0.0.0.0:443, tls: {certificates: [{cert: a, \
                   key: b}]}}]";

/// The loops found in these routes, next to one for the pool: `!` for certain ones, and the
/// positions.
fn found(more: &str, routes: &[&str]) -> Vec<String> {
    let routes: Vec<String> = routes.iter().map(|route| format!("  - {{{route}}}\n")).collect();
    let text =
        format!("{more}\nroutes:\n{}  - {{path: /pool, pool: web}}\n{POOL}", routes.concat());
    let config = config::load(Some(text.as_bytes()), &Overrides::default())
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let (loops, is_all) = find(&config);
    assert!(is_all);
    let text =
        |one: &Loop| format!("{}{}", if one.is_certain { "!" } else { "?" }, one.urls.join(" "));
    loops.iter().map(text).collect()
}

#[test]
fn a_redirect_to_itself_and_one_that_grows_are_reported() {
    assert_eq!(found("", &["path: /c, redirect: /c"]), ["!/c /c"]);
    assert_eq!(found("", &["redirect: /app"]), ["!/app /app"]);
    let grows = found("", &["path: /d, redirect: {prefix: /d/e}"]);
    assert_eq!(grows, ["!/d /d/e /d/e/e /d/e/e/e …"]);
    let query = found("", &["path: /q, redirect: /q?x=1"]);
    assert!(query[0].contains("/q?x=1&x=1&"), "{query:?}");
    assert_eq!(found("", &["path: /q, redirect: {to: '/q?x=1', query: drop}"]), ["!/q?x=1 /q?x=1"]);
}

#[test]
fn routes_that_redirect_to_each_other_are_reported_once() {
    let two = ["path: /a, redirect: {prefix: /b}", "path: /b, redirect: {prefix: /a}"];
    assert_eq!(found("", &two), ["!/a /b /a"]);
    let deep = ["path: /a, redirect: {prefix: /b}", "path: /b/c, redirect: {prefix: /a/c}"];
    assert_eq!(found("", &deep), ["!/b/c /a/c /b/c"]);
    let lead_in = ["path: /in, redirect: /c", "path: /c, redirect: /c"];
    assert_eq!(found("", &lead_in), ["!/c /c"]);
}

#[test]
fn hosts_schemes_and_ports_that_lead_back_are_reported() {
    let own = ["host: a.test, redirect: {host: a.test}"];
    assert_eq!(found("", &own), ["!http://a.test/ http://a.test/"]);
    let hosts =
        ["host: a.test, redirect: {host: b.test}", "host: b.test, redirect: {host: a.test}"];
    assert_eq!(found("", &hosts), ["!http://a.test/ http://b.test/ http://a.test/"]);
    let named = ["redirect: https://www.a.test", "host: www.a.test, path: /app, pool: web"];
    assert_eq!(found(TLS, &named), ["!https://www.a.test/ https://www.a.test/"]);
    let schemes = ["path: /x, redirect: {scheme: http}", "redirect: {scheme: https}"];
    assert_eq!(found(TLS, &schemes), ["!https://any.test/x http://any.test/x https://any.test/x"]);
    let port = ["redirect: {port: 8443}"];
    assert_eq!(
        found("listeners: [0.0.0.0:80, 0.0.0.0:8443]", &port),
        ["!http://any.test/ http://any.test:8443/"]
    );
    assert!(found("listeners: [0.0.0.0:80]", &port).is_empty(), "the port of another server");
}

#[test]
fn patterns_are_followed_by_an_example() {
    let pattern = ["path_regex: '/u/([0-9]+)', redirect: /u/$1"];
    assert_eq!(found("", &pattern), ["!/u/0 /u/0"]);
    let through =
        ["path_regex: '/u/([0-9]+)', redirect: /v/$1", "path: /v, redirect: {prefix: /u}"];
    assert_eq!(found("", &through), ["!/u/0 /v/0 /u/0"]);
    assert!(found("", &["path_regex: '/u/([0-9]+)', redirect: /pool/$1"]).is_empty());
}

#[test]
fn methods_and_queries_are_followed() {
    assert_eq!(
        found("", &["path: /p, methods: [POST], redirect: {to: /p, status: 308}"]),
        ["!/p /p"]
    );
    assert!(found("", &["path: /p, methods: [POST], redirect: {to: /p, status: 303}"]).is_empty());
    assert!(found("", &["path: /p, query: {x: '1'}, redirect: {to: /p, query: drop}"]).is_empty());
    let kept = ["path: /p, query: {x: '1'}, redirect: /p"];
    assert_eq!(found("", &kept), ["!/p?x=1 /p?x=1"]);
}

#[test]
fn a_loop_that_headers_or_other_servers_may_end_is_uncertain() {
    let cookie = ["path: /c, headers: {Cookie: {present: false}}, redirect: /c"];
    assert_eq!(found("", &cookie), ["?/c /c"]);
    let before =
        ["path: /c, headers: {Cookie: {present: true}}, pool: web", "path: /c, redirect: /c"];
    assert_eq!(found("", &before), ["?/c /c"]);
    let less = ["path: /, headers: {X-A: '1'}, pool: web", "path: /c, redirect: /c"];
    assert_eq!(found("", &less), ["!/c /c"]);
    let wide = ["host: '*.a.test', redirect: {host: www.a.test}"];
    assert_eq!(found("", &wide), ["?http://www.a.test/ http://www.a.test/"]);
    assert!(
        found("", &["redirect: https://www.a.test"]).is_empty(),
        "the host may belong to another server"
    );
}

#[test]
fn common_redirects_are_not_loops() {
    for routes in [
        ["redirect: {scheme: https}", "host: a.test, redirect: {host: www.a.test}"],
        ["host: a.test, redirect: https://www.a.test", "host: www.a.test, pool: web"],
        ["path_exact: /, redirect: /pool", "path_exact: /docs, redirect: /docs/"],
        ["path_regex: '/(.+[^/])', redirect: /$1/", "path_exact: /, redirect: /a/"],
        ["path: /old, redirect: {prefix: /pool}", "path: /older, redirect: /old"],
        ["scheme: http, path: /x, redirect: {scheme: https, port: 8443}", "path: /x, pool: web"],
    ] {
        assert_eq!(found(TLS, &routes), Vec::<String>::new(), "{routes:?}");
    }
    let trusted = "trusted_proxies: [10.0.0.0/8]";
    assert!(found(trusted, &["redirect: {scheme: https}"]).is_empty());
    assert!(found("", &["redirect: {scheme: https}"]).is_empty());
}

#[test]
fn a_loop_is_reported_at_its_position_and_names_the_other_routes() {
    let text = format!(
        "routes:\n  - {{path: /a, redirect: /b}}\n  - {{path: /b, redirect: /a}}\n  \
                        - {{path: /c, headers: {{X-A: '1'}}, redirect: /c}}\n  - {{pool: web}}\n{POOL}"
    );
    let mut draft = Draft::new(Some(text.as_bytes()), &Overrides::default(), "".as_ref()).unwrap();
    report_loops(&mut draft);
    let report = draft.finish();
    assert_eq!(
        report.config.unwrap_err().to_string(),
        "2:26: this redirect never ends: `/a` -> `/b` -> `/a` (help: it goes on at 3:26: lead \
         elsewhere)"
    );
    assert!(report.warnings[0].to_string().starts_with("4:47: warning: this redirect may never"));
}
