//! What a search of the table of routes costs. `cargo bench --manifest-path benches/Cargo.toml --bench routes`

use std::hint::black_box;

use divan::Bencher;
use http::{HeaderMap, Method};

use weir::config::{Action, Conditions, HostPattern, PathPattern, Route};
use weir::http::path::{is_ambiguous, normalize_for_routing};
use weir::http::pattern::Pattern;
use weir::http::scheme::Scheme;
use weir::runtime::routes::{RouteQuery, Routes};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [10, 1_000, 10_000];

fn route(host: HostPattern, path: PathPattern) -> Route {
    Route::new(host, path, Conditions::default(), Action::to_pool(0))
}

fn search(bencher: Bencher, routes: &[Route], asked: impl Fn(usize) -> (String, String)) {
    let table = Routes::new(routes);
    let questions: Vec<(String, String)> = (0..1024).map(asked).collect();
    let headers = HeaderMap::new();
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % questions.len();
        let (host, path) = &questions[turn];
        let method = &Method::GET;
        let asked = RouteQuery { scheme: Scheme::Http, host, path, query: None, method, headers: &headers };
        table.find(black_box(&asked))
    });
}

/// One host, this many prefixes: `/team-7/service-123`.
#[divan::bench(args = SIZES)]
fn prefixes(bencher: Bencher, count: usize) {
    let path = |n: usize| format!("/team-{}/service-{n}", n % 97);
    let routes: Vec<Route> =
        (0..count).map(|n| route(HostPattern::Any, PathPattern::Prefix(path(n)))).collect();
    let asked = |n: usize| {
        let n = n * 7919 % count;
        ("api.example.com".to_owned(), format!("{}/v1/users/42", path(n)))
    };
    search(bencher, &routes, asked);
}

/// This many hosts, of one route each.
#[divan::bench(args = SIZES)]
fn hosts(bencher: Bencher, count: usize) {
    let host = |n: usize| format!("shop-{n}.example.com");
    let routes: Vec<Route> = (0..count)
        .map(|n| route(HostPattern::Exact(host(n)), PathPattern::Prefix("/".to_owned())))
        .collect();
    search(bencher, &routes, |n| (host(n * 7919 % count), "/cart/items/42".to_owned()));
}

/// This many wildcards and exact paths, asked for with a host of four labels.
#[divan::bench(args = SIZES)]
fn wildcards_and_exact_paths(bencher: Bencher, count: usize) {
    let routes: Vec<Route> = (0..count)
        .map(|n| {
            let host = HostPattern::Suffix(format!("zone-{}.example.com", n / 10));
            route(host, PathPattern::Exact(format!("/page-{n}")))
        })
        .collect();
    let asked = |n: usize| {
        let n = n * 7919 % count;
        (format!("www.zone-{}.example.com", n / 10), format!("/page-{n}"))
    };
    search(bencher, &routes, asked);
}

/// Nothing is found after every place was looked at.
#[divan::bench(args = SIZES)]
fn not_found(bencher: Bencher, count: usize) {
    let routes: Vec<Route> = (0..count)
        .map(|n| route(HostPattern::Any, PathPattern::Prefix(format!("/a/b/c-{n}"))))
        .collect();
    search(bencher, &routes, |_| ("h.example.com".to_owned(), "/a/b/x/y".to_owned()));
}

/// The last of this many patterns, which are tried in turn.
#[divan::bench(args = [10, 100, 1_000])]
fn patterns(bencher: Bencher, count: usize) {
    let routes: Vec<Route> = (0..count)
        .map(|n| {
            let pattern = Pattern::new(&format!("/service-{n}/[a-z]+/[0-9]+")).unwrap();
            route(HostPattern::Any, PathPattern::Regex(pattern))
        })
        .collect();
    let path = format!("/service-{}/users/42", count - 1);
    search(bencher, &routes, |_| ("h.example.com".to_owned(), path.clone()));
}

/// A path of 8 KB that each pattern reads to its end: with the table, and one pattern after the other.
#[divan::bench(args = [10, 100, 1_000])]
fn patterns_at_worst(bencher: Bencher, count: usize) {
    let routes: Vec<Route> = worst(count).map(|one| route(HostPattern::Any, PathPattern::Regex(one))).collect();
    let path = format!("/a/{}", "b".repeat(8000));
    search(bencher, &routes, |_| ("h.example.com".to_owned(), path.clone()));
}

#[divan::bench(args = [10, 100, 1_000])]
fn patterns_at_worst_in_turn(bencher: Bencher, count: usize) {
    let patterns: Vec<Pattern> = worst(count).collect();
    let path = format!("/a/{}", "b".repeat(8000));
    bencher.bench_local(|| patterns.iter().any(|pattern| pattern.matches(black_box(&path))));
}

fn worst(count: usize) -> impl Iterator<Item = Pattern> {
    (0..count).map(|n| Pattern::new(&format!("/a/[a-z]+/{n}")).unwrap())
}

/// What a path costs before the search: a plain one has one look, an ambiguous one is compared under
/// each reading.
#[divan::bench(args = [
    "/team-7/service-123/v1/users/42/photos/large.jpeg",
    "/team-7/service-123/v1/users/4%202/photos/large.jpeg",
    "/team-7/service-123//v1/users/42/photos/large.jpeg",
    "/team-7/service-123/v1;a=1/users%2F42/../photos//large.jpeg",
])]
fn readings(bencher: Bencher, path: &str) {
    read(bencher, path);
}

/// The most that a target of 8 KiB can cost.
#[divan::bench(args = ["a/..;/b//%2F", "%2F..;%00\\//"])]
fn readings_at_worst(bencher: Bencher, part: &str) {
    read(bencher, &format!("/team-7/service-1/{}", part.repeat(8000 / part.len())));
}

fn read(bencher: Bencher, path: &str) {
    let prefix = |n: usize| PathPattern::Prefix(format!("/team-{}/service-{n}", n % 97));
    let mut routes: Vec<Route> = (0..1000).map(|n| route(HostPattern::Any, prefix(n))).collect();
    routes.push(route(HostPattern::Any, PathPattern::Prefix("/".to_owned())));
    let (table, headers) = (Routes::new(&routes), HeaderMap::new());
    bencher.bench_local(|| {
        let path = black_box(path);
        let marked = is_ambiguous(path);
        let own = if marked { normalize_for_routing(path) } else { path.into() };
        let asked = RouteQuery {
            scheme: Scheme::Http,
            host: "api.example.com",
            path: &own,
            query: None,
            method: &Method::GET,
            headers: &headers,
        };
        let found = table.find(&asked);
        marked && table.is_ambiguous(&asked, path, found)
    });
}
