//! Paths that a backend may read as another route's, counted where they arrive.

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::http2::Http2;
use crate::support::weir::{LISTENER_KEYS, Weir};

/// What common origins serve as `/admin`, or as something below it.
const SPELLINGS: [&str; 16] = [
    "/admin/../x",
    "/admin;x",
    "/admin;x=1/y",
    "/x/..;/admin",
    "/admin%2f",
    "/admin%2Fy",
    "/x%2f..%2fadmin",
    "/x/..%2fadmin",
    "/\\admin",
    "/%5cadmin",
    "/x\\..\\admin",
    "/x%5c..%5cadmin",
    "/admin%00",
    "/admin%0a",
    "/admin%3bx",
    "//admin/..//x",
];

const DENY: &str = "routes:
  - {path: /admin, respond: {status: 403}}
  - {path_exact: /admin, respond: {status: 403}}
  - {pool: web}
";

fn weir(routes: &str, limits: &str, backend: &Backend) -> Weir {
    Weir::start(&format!(
        "{LISTENER_KEYS}http2: true\n{routes}limits: {limits}\n\
         pools: [{{name: web, health_check: off, backends: [{}]}}]\n",
        backend.url()
    ))
}

fn status(weir: &Weir, target: &str) -> u16 {
    let mut client = Client::connect(weir.address());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: weir.test\r\n\r\n"));
    client.read_answer().status()
}

#[test]
fn no_spelling_passes_by_a_route_that_denies() {
    let backend = Backend::start("one");
    let weir = weir(DENY, "{}", &backend);
    let mut http2 = Http2::connect(weir.address());
    for spelling in SPELLINGS {
        let over = (status(&weir, spelling), http2.get(spelling, &[]).unwrap().status());
        assert!(matches!(over, (400 | 403, 400 | 403)), "{spelling}: {over:?}");
    }
    assert_eq!(backend.count(), 0);
    let line = weir.until_logged("a reason", |line| line["path"] == json!("/x/..;/admin"));
    assert_eq!((&line["reason"], &line["status"]), (&json!("ambiguous_path"), &json!(400)));
    assert_eq!(line["method"], json!("GET"));
    let labels = [("type", "bad_request")];
    assert!(weir.metrics().sum("lb_errors_total", &labels) >= 16.0);
    for plain in ["/", "/adm", "/a/b;v=1/c", "/files/a%2Fb//c/../d", "/administrator/%2e"] {
        assert_eq!(status(&weir, plain), 200, "{plain}");
        assert_eq!(http2.get(plain, &[]).unwrap().status(), 200, "{plain}");
    }
}

#[test]
fn with_one_route_every_spelling_goes_on_as_it_came() {
    let backend = Backend::start("one");
    let weir = weir("", "{}", &backend);
    for spelling in SPELLINGS {
        assert_eq!(status(&weir, spelling), 200, "{spelling}");
    }
    let seen: Vec<String> = backend.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, SPELLINGS);
}

/// And this is what the other tests would see if nothing were rejected.
#[test]
fn where_it_may_pass_our_own_reading_decides() {
    let backend = Backend::start("one");
    let weir = weir(DENY, "{ambiguous_paths: pass}", &backend);
    let denied = ["/admin/..//admin", "/x/../admin", "//admin"];
    for spelling in denied {
        assert_eq!(status(&weir, spelling), 403, "{spelling}");
    }
    let passed = ["/admin/../x", "/admin;x", "/x/..;/admin", "/admin%2f", "/\\admin", "/admin%00"];
    for spelling in passed {
        assert_eq!(status(&weir, spelling), 200, "{spelling}");
    }
    let seen: Vec<String> = backend.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, passed);
}

#[test]
fn no_spelling_escapes_the_rate_limit_of_a_route() {
    let backend = Backend::start("one");
    let limited = "routes:
  - {path: /login, pool: web, rate_limit: {requests_per_second: 0.001, burst: 1}}
  - {pool: web}
";
    let weir = weir(limited, "{}", &backend);
    assert_eq!(status(&weir, "/login"), 200);
    for spelling in ["/login", "/x/..;/login", "/login;x", "/login%2f", "/./login", "/%5clogin"] {
        assert!(matches!(status(&weir, spelling), 400 | 429), "{spelling}");
    }
    assert_eq!(backend.count(), 1);
}

#[test]
fn no_spelling_leaves_the_start_of_a_rewritten_path() {
    let backend = Backend::start("one");
    let weir = weir("routes: [{pool: web, rewrite: {prefix: /app}}]\n", "{}", &backend);
    for stays in ["/x", "/../x", "/a;b/c", "/a%2Fb", "/a/..;/x"] {
        assert_eq!(status(&weir, stays), 200, "{stays}");
    }
    let seen: Vec<String> = backend.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, ["/app/x", "/app/x", "/app/a;b/c", "/app/a%2Fb", "/app/a/..;/x"]);
    for leaves in ["/..;/admin", "/..%2fadmin", "/..\\admin", "/a%2f..%2f../..%5cadmin"] {
        assert_eq!(status(&weir, leaves), 400, "{leaves}");
    }
    assert_eq!(backend.count(), 5);
}

#[test]
fn no_spelling_redirects_to_another_host_or_past_a_rule() {
    let backend = Backend::start("one");
    let routes = "routes: [{path: /old, redirect: {prefix: /}}, {pool: web}]\n";
    let weir = weir(routes, "{}", &backend);
    for (target, expected) in [
        ("/old//evil.test", Some("/evil.test")),
        ("/old/\\evil.test", Some("/%5Cevil.test")),
        ("/old/x//y", Some("/x/y")),
        ("/old;/x", None),
        ("/old/..;/x", None),
    ] {
        let mut client = Client::connect(weir.address());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: weir.test\r\n\r\n"));
        let answer = client.read_answer();
        assert_eq!(answer.header("location"), expected, "{target}");
        assert_eq!(answer.status() == 400, expected.is_none(), "{target}");
    }
    assert_eq!(backend.count(), 0);
}
