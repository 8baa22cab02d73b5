//! The table of routes against the slowest way to find one: look at all of them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use weir::config::{
    self, Action, Condition, Conditions, HostPattern, Overrides, PathPattern, Route, Test,
    precedence,
};
use weir::http::path::{has_prefix, is_ambiguous, normalize_for_routing};
use weir::http::pattern::Pattern;
use weir::http::scheme::Scheme;
use weir::runtime::routes::{RouteQuery, Routes};

/// A request, as the strategies below make it.
#[derive(Debug, Clone)]
struct Request {
    scheme: Scheme,
    host: String,
    path: String,
    method: Method,
    headers: HeaderMap,
    query: Option<String>,
}

/// Which route a reader of the manual would expect.
fn oracle(routes: &[Route], request: &Request) -> Option<usize> {
    let matching = (0..routes.len()).filter(|&index| matches(&routes[index], request));
    matching.min_by_key(|&index| (rank(routes, index), index))
}

fn matches(route: &Route, request: &Request) -> bool {
    let host = match &route.host {
        HostPattern::Exact(host) => request.host == *host,
        HostPattern::Suffix(suffix) => request.host.ends_with(&format!(".{suffix}")),
        HostPattern::Any => true,
    };
    let path = match &route.path {
        PathPattern::Exact(path) => request.path == *path,
        PathPattern::Regex(pattern) => pattern.matches(&request.path),
        PathPattern::Prefix(prefix) => has_prefix(&request.path, prefix),
    };
    let conditions = &route.conditions;
    let method = conditions.methods.is_empty()
        || conditions.methods.iter().any(|method| {
            *method == request.method || (*method == Method::GET && request.method == Method::HEAD)
        });
    let headers = conditions.headers.iter().all(|Condition { name, test }| {
        test.passes(request.headers.get(name).map(|value| value.to_str().unwrap()))
    });
    let query = conditions.query.iter().all(|Condition { name, test }| {
        let query = request.query.as_deref().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        test.passes(pairs.into_iter().find(|(other, _)| other == name).map(|(_, value)| value))
    });
    let scheme = route.scheme.is_none_or(|scheme| scheme == request.scheme);
    scheme && host && path && method && headers && query
}

fn rank(routes: &[Route], index: usize) -> impl Ord + use<> {
    let route = &routes[index];
    let host = match &route.host {
        HostPattern::Exact(_) => (0, Reverse(0)),
        HostPattern::Suffix(suffix) => (1, Reverse(suffix.len())),
        HostPattern::Any => (2, Reverse(0)),
    };
    let path = match &route.path {
        PathPattern::Exact(_) => (0, 0, Reverse(0)),
        PathPattern::Regex(_) => {
            let same = |other: &Route| {
                (other.scheme, &other.host, &other.path) == (route.scheme, &route.host, &route.path)
            };
            (1, routes.iter().position(same).unwrap(), Reverse(0))
        }
        PathPattern::Prefix(prefix) => (2, 0, Reverse(prefix.len())),
    };
    (route.scheme.is_none(), host, path, route.conditions.rank())
}

/// Two hosts, three suffixes, so that they meet often.
fn host() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        Just(HostPattern::Any),
        "(a|b)\\.(x|y\\.x)".prop_map(HostPattern::Exact),
        "(x|y\\.x|a\\.x)".prop_map(HostPattern::Suffix),
    ]
}

/// Made once: that takes longer than all the rest.
static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let sources = ["/a+", "/[ab]*", "/a/.*", "/a|/b", "(?i)/A/b", "/(a|b)(/.*)?", "^/a/b?$"];
    sources.iter().map(|source| Pattern::new(source).unwrap()).collect()
});
static DIGITS: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("[12]+").unwrap());

fn path() -> impl Strategy<Value = PathPattern> {
    prop_oneof![
        3 => "(/[ab]){0,3}".prop_map(|path| PathPattern::Prefix(rooted(path))),
        1 => "(/[ab]){0,2}/?".prop_map(|path| PathPattern::Exact(rooted(path))),
        1 => prop::sample::select(PATTERNS.clone()).prop_map(PathPattern::Regex),
    ]
}

fn rooted(path: String) -> String {
    if path.is_empty() { "/".to_owned() } else { path }
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        "[12]".prop_map(Test::Exact),
        "[12]".prop_map(Test::Prefix),
        Just(Test::Regex(DIGITS.clone())),
        any::<bool>().prop_map(Test::Present),
    ]
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let methods = prop::sample::subsequence(vec![Method::GET, Method::POST, Method::HEAD], 0..3);
    let headers = prop::sample::subsequence(vec!["x-a", "x-b"], 0..=2);
    let query = prop::sample::subsequence(vec!["p", "q"], 0..=2);
    let tests = prop::collection::vec(test(), 4);
    (methods, headers, query, tests).prop_map(|(methods, headers, query, tests)| {
        let mut tests = tests.into_iter();
        let headers = headers.into_iter().map(|name| Condition {
            name: HeaderName::from_static(name),
            test: tests.next().unwrap(),
        });
        let headers = headers.collect();
        let query = query
            .into_iter()
            .map(|name| Condition { name: name.to_owned(), test: tests.next().unwrap() });
        let query = query.collect();
        Conditions { methods, headers, query }
    })
}

fn scheme() -> impl Strategy<Value = Option<Scheme>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(Scheme::Http)), 1 => Just(Some(Scheme::Https))]
}

fn route() -> impl Strategy<Value = Route> {
    let conditions = prop_oneof![2 => Just(Conditions::default()), 1 => conditions()];
    (scheme(), host(), path(), conditions).prop_map(|(scheme, host, path, conditions)| Route {
        scheme,
        ..Route::new(host, path, conditions, Action::to_pool(0))
    })
}

fn request() -> impl Strategy<Value = Request> {
    let method = prop::sample::select(vec![Method::GET, Method::POST, Method::HEAD, Method::PUT]);
    let values = prop::collection::vec(prop::option::of("[12]{0,2}"), 4);
    let scheme = prop::sample::select(vec![Scheme::Http, Scheme::Https]);
    (scheme, "([abc]\\.)?[ab]\\.(x|y\\.x)|x|a", "(/[abc]{1,2}){0,4}/?", method, values).prop_map(
        |(scheme, host, path, method, values)| {
            let mut headers = HeaderMap::new();
            for (name, value) in ["x-a", "x-b"].into_iter().zip(&values) {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
            let query = ["p", "q"].into_iter().zip(&values[2..]);
            let query: Vec<String> = query
                .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
                .collect();
            let query = (!query.is_empty()).then(|| query.join("&"));
            Request { scheme, host, path: rooted(path), method, headers, query }
        },
    )
}

fn find(table: &Routes, request: &Request) -> Option<usize> {
    table.find(&RouteQuery {
        scheme: request.scheme,
        host: &request.host,
        path: &request.path,
        query: request.query.as_deref(),
        method: &request.method,
        headers: &request.headers,
    })
}

proptest! {
    #[test]
    fn the_table_finds_what_a_look_at_every_route_finds(
        routes in prop::collection::vec(route(), 0..24),
        requests in prop::collection::vec(request(), 1..8),
    ) {
        let table = Routes::new(&routes);
        for request in &requests {
            prop_assert_eq!(find(&table, request), oracle(&routes, request), "{:?}", request);
        }
    }

    #[test]
    fn the_order_that_is_shown_is_the_order_that_decides(
        routes in prop::collection::vec(route(), 1..12),
        request in request(),
    ) {
        let order = precedence(&routes);
        let first = order.iter().copied().find(|&index| matches(&routes[index], &request));
        prop_assert_eq!(find(&Routes::new(&routes), &request), first);
    }
}

/// Every way in which an origin may read a path, written down as plainly as can be: all steps, each
/// done or not, on the path as it came and on a copy that a proxy in between has normalised.
fn naive_readings(path: &str) -> BTreeSet<String> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let base = naive_decode(path, unreserved);
    let mut texts = BTreeSet::from([base.clone(), naive_dots(&naive_merge(&base))]);
    let visible = |byte: u8| byte.is_ascii_graphic() && !b"%?#\"<>`".contains(&byte);
    let control = |byte: u8| byte.is_ascii_control();
    let steps: [&dyn Fn(&str) -> String; 8] = [
        &naive_cut,
        &|text| naive_decode(text, visible),
        &|text| {
            // NUL stands for the control characters, which no path has unescaped.
            let marked = naive_decode(text, |byte| visible(byte) || control(byte));
            let end = marked.find(|c: char| c.is_ascii_control()).unwrap_or(marked.len());
            marked[..end].to_owned()
        },
        &|text| {
            let marked = naive_decode(text, |byte| visible(byte) || control(byte));
            marked.replace(|c: char| c.is_ascii_control(), "")
        },
        &naive_cut,
        &|text| text.replace('\\', "/"),
        &naive_merge,
        &naive_dots,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let done: Vec<String> = texts.iter().map(|text| step(text)).collect();
        // A path is decoded once: the three ways to decode start from the same texts.
        texts.extend(done.into_iter().filter(|_| !(1..=3).contains(&number)));
        if number == 0 {
            let ways: Vec<String> = (1..=3)
                .flat_map(|way| texts.iter().map(move |text| (way, text)))
                .map(|(way, text)| steps[way](text))
                .collect();
            texts.extend(ways);
        }
    }
    texts
}

fn naive_decode(path: &str, which: impl Fn(u8) -> bool) -> String {
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let escape = rest.get(1..3).filter(|_| first == '%');
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if which(byte) => decoded.push(char::from(byte)),
            Some(byte) => decoded.push_str(&format!("%{byte:02X}")),
            None if first == '%' => decoded.push_str("%25"),
            None => decoded.push(first),
        }
        rest = &rest[if byte.is_some() { 3 } else { first.len_utf8() }..];
    }
    decoded
}

fn naive_cut(path: &str) -> String {
    let segments =
        path.split('/').map(|segment| segment.split_once(';').map_or(segment, |it| it.0));
    segments.collect::<Vec<_>>().join("/")
}

fn naive_merge(path: &str) -> String {
    let mut merged = path.to_owned();
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    merged
}

fn naive_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for segment in &segments {
        match *segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let folder = matches!(segments.last(), Some(&("." | "..")));
    format!("/{}{}", kept.join("/"), if folder && !kept.is_empty() { "/" } else { "" })
}

/// Paths in which everything that origins read differently comes often.
fn marked_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[ab]",
        3 => Just("/".to_owned()),
        3 => "\\.{1,2}",
        2 => ";[ab]?",
        1 => Just("\\".to_owned()),
        3 => "%(2[fFeE5]|5[cC]|3[bB]|00|0a|6[12]|7f|40|20|3[fF])",
        1 => Just("%".to_owned()),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| format!("/{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// No spelling reaches a pool that another reading of it would not have reached; and none is
    /// rejected of which all readings come to the same.
    #[test]
    fn a_path_is_rejected_exactly_if_two_readings_lead_to_different_routes(
        routes in prop::collection::vec(route(), 0..12),
        request in request(),
        path in marked_path(),
    ) {
        let table = Routes::new(&routes);
        let request = Request { path, ..request };
        let of = |path: &str| oracle(&routes, &Request { path: path.to_owned(), ..request.clone() });
        let own = normalize_for_routing(&request.path).into_owned();
        let found = of(&own);
        let differs = naive_readings(&request.path).iter().any(|reading| of(reading) != found);
        let asked = RouteQuery {
            scheme: request.scheme,
            host: &request.host,
            path: &own,
            query: request.query.as_deref(),
            method: &request.method,
            headers: &request.headers,
        };
        let rejected = is_ambiguous(&request.path)
            && table.is_ambiguous(&asked, &request.path, found);
        prop_assert_eq!(rejected, differs, "{:?}", naive_readings(&request.path));
    }
}

#[test]
fn a_pattern_of_one_scheme_does_not_move_its_twin_ahead() {
    let route = |scheme, pattern: usize| Route {
        scheme,
        ..Route::new(
            HostPattern::Any,
            PathPattern::Regex(PATTERNS[pattern].clone()),
            Conditions::default(),
            Action::to_pool(0),
        )
    };
    let routes = [route(Some(Scheme::Http), 5), route(None, 2), route(None, 5)];
    assert_eq!(precedence(&routes), [0, 1, 2]);
    let asked = |scheme| Request {
        scheme,
        host: "a.x".to_owned(),
        path: "/a/a".to_owned(),
        method: Method::GET,
        headers: HeaderMap::new(),
        query: None,
    };
    assert_eq!(find(&Routes::new(&routes), &asked(Scheme::Https)), Some(1));
    assert_eq!(find(&Routes::new(&routes), &asked(Scheme::Http)), Some(0));
}

fn file(routes: impl Iterator<Item = String>) -> Result<config::Config, String> {
    let routes: Vec<String> = routes.collect();
    let text = format!(
        "routes:\n{}\npools: [{{name: web, backends: [http://10.0.0.1]}}]",
        routes.join("\n")
    );
    config::load(Some(text.as_bytes()), &Overrides::default()).map_err(|error| error.to_string())
}

proptest! {
    /// What `check` calls unreachable is never found, and never the only way to an answer.
    #[test]
    fn a_route_that_is_refused_as_unreachable_really_is(
        conditions in prop::collection::vec(conditions(), 2..5),
        requests in prop::collection::vec(request(), 32),
    ) {
        let route = |conditions: &Conditions| Route {
            conditions: conditions.clone(),
            ..Route::for_all(0)
        };
        let routes: Vec<Route> = conditions.iter().map(route).collect();
        let typed = conditions.iter().map(|conditions| format!("  - {}", written(conditions)));
        let said = file(typed).err().unwrap_or_default();
        let table = Routes::new(&routes);
        for (index, _) in routes.iter().enumerate() {
            if said.contains(&format!("{}:5: ", index + 2)) {
                for request in &requests {
                    prop_assert_ne!(find(&table, request), Some(index), "{}\n{:?}", said, request);
                }
            }
        }
    }
}

/// Conditions as an entry of `routes`.
fn written(conditions: &Conditions) -> String {
    fn table<N: std::fmt::Display>(list: &[Condition<N>]) -> String {
        let entries: Vec<String> =
            list.iter().map(|Condition { name, test }| format!("{name}: {test}")).collect();
        format!("{{{}}}", entries.join(", "))
    }
    let mut keys = vec!["pool: web".to_owned()];
    if !conditions.methods.is_empty() {
        let methods: Vec<&str> = conditions.methods.iter().map(Method::as_str).collect();
        keys.push(format!("methods: [{}]", methods.join(", ")));
    }
    if !conditions.headers.is_empty() {
        keys.push(format!("headers: {}", table(&conditions.headers)));
    }
    if !conditions.query.is_empty() {
        keys.push(format!("query: {}", table(&conditions.query)));
    }
    format!("{{{}}}", keys.join(", "))
}

#[test]
fn what_is_tried_one_after_the_other_is_bounded() {
    let patterns = |count| (0..count).map(|n| format!("  - {{path_regex: '/{n}x*', pool: web}}"));
    assert!(file(patterns(1000)).is_ok());
    assert_eq!(
        file(patterns(1001)).unwrap_err(),
        "1002:5: more than 1000 routes by `path_regex` (help: they are tried one after the other: \
         use `path` where it is enough)"
    );
    let tenants = |count| (0..count).map(|n| format!("  - {{headers: {{X-T: t{n}}}, pool: web}}"));
    assert!(file(tenants(256)).is_ok());
    assert_eq!(
        file(tenants(257)).unwrap_err(),
        "258:5: more than 256 routes for one path (help: they are tried one after the other: \
         distinguish them by path)"
    );
}
