//! Redirects that never end: what is told is one, and what is not told ends.
//!
//! The client here takes a `Location` apart by itself, and asks the table that serves.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use http::{HeaderMap, Method, Uri};
use proptest::prelude::*;
use weir::config::{self, Action, Config, HostPattern, Overrides};
use weir::http::path::normalize_for_routing;
use weir::http::redirect::RequestTarget;
use weir::http::scheme::Scheme;
use weir::runtime::redirect_loops::{self, HOPS_MAX};
use weir::runtime::routes::{RouteQuery, Routes};

const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];

/// A route that sends on or answers, as an entry of `routes`. Without `fields`, nothing but the file
/// decides.
fn route() -> impl Strategy<Value = String> {
    let host = prop_oneof![2 => Just(String::new()), 1 => prop::sample::select(&HOSTS[..2])
        .prop_map(|host| format!("host: {host}, "))];
    let kind = prop::sample::select(vec!["path", "path", "path_exact"]);
    let scheme = prop_oneof![4 => Just(""), 1 => Just("scheme: http, ")];
    let action = prop_oneof![
        3 => "(/[ab]){1,2}".prop_map(|to| format!("redirect: {to}")),
        2 => "(/[ab]){1,2}".prop_map(|to| format!("redirect: {{prefix: {to}}}")),
        1 => Just("redirect: {scheme: https}".to_owned()),
        1 => Just("redirect: {scheme: http}".to_owned()),
        2 => prop::sample::select(&HOSTS[..])
            .prop_map(|host| format!("redirect: {{host: {host}, query: drop}}")),
        2 => Just("pool: web".to_owned()),
    ];
    (scheme, host, kind, "(/[ab]){0,2}", action).prop_map(|(scheme, host, kind, path, action)| {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        format!("  - {{{scheme}{host}{kind}: {path}, {action}}}\n")
    })
}

fn table() -> impl Strategy<Value = Option<Config>> {
    prop::collection::vec(route(), 1..6).prop_map(|routes| {
        let text = format!(
            "listeners: [0.0.0.0:80, {{address: 0.0.0.0:443, tls: {{certificates: [{{cert: a, key: \
             b}}]}}}}]\nroutes:\n{}  - {{host: d.test, pool: web}}\npools: [{{name: web, backends: \
             [http://10.0.0.1]}}]",
            routes.concat()
        );
        config::load(Some(text.as_bytes()), &Overrides::default()).ok()
    })
}

/// How often a client is sent on; `None` if it is more than any client goes along with, or leaves.
fn follow(config: &Config, url: &str, method: &Method) -> Option<usize> {
    let (table, headers) = (Routes::new(&config.routes), HeaderMap::new());
    let mut uri: Uri = url.parse().unwrap();
    for hop in 0..=3 * HOPS_MAX {
        let scheme = Scheme::named(uri.scheme_str().unwrap()).unwrap();
        let (host, path) = (uri.host().unwrap(), normalize_for_routing(uri.path()));
        let asked =
            RouteQuery { scheme, host, path: &path, query: uri.query(), method, headers: &headers };
        let Some(index) = table.find(&asked) else { return Some(hop) };
        let Action::Redirect(redirect) = &config.routes[index].action else { return Some(hop) };
        let (port, query) = (uri.port_u16(), uri.query());
        let place = RequestTarget { scheme, host: Some(host), port, path: &path, query };
        let location = redirect.location(&place).unwrap();
        if location.starts_with('/') {
            let mut parts = uri.into_parts();
            parts.path_and_query = Some(location.parse().unwrap());
            uri = Uri::from_parts(parts).unwrap();
        } else {
            uri = location.parse().unwrap();
        }
    }
    None
}

/// Whether a client is sent to a host that no route names. Nobody knows where that is.
fn leaves(config: &Config) -> bool {
    let named = |host: &str| {
        let exact = HostPattern::Exact(host.to_owned());
        config.routes.iter().any(|route| route.host == exact)
    };
    config.routes.iter().any(|route| match &route.action {
        Action::Redirect(redirect) => redirect.host.as_deref().is_some_and(|host| !named(host)),
        Action::Forward(_) | Action::Respond(_) => false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_told_never_ends(config in table()) {
        let Some(config) = config else { return Ok(()) };
        for one in redirect_loops::find(&config).0 {
            let sample = &one.sample;
            let url = format!("{}://{}{}", sample.url.scheme, sample.url.host, sample.url.path);
            prop_assert!(one.is_certain, "nothing is uncertain here: {:?}", one);
            prop_assert_eq!(follow(&config, &url, &sample.method), None, "{:?}", one);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_not_told_ends(
        config in table(),
        https in any::<bool>(),
        host in prop::sample::select(&HOSTS[..]),
        path in "(/[abx]){0,4}/?",
    ) {
        let Some(config) = config else { return Ok(()) };
        if leaves(&config) || !redirect_loops::find(&config).0.is_empty() {
            return Ok(());
        }
        let path = if path.is_empty() { "/" } else { &path };
        let url = format!("{}://{host}{path}", if https { "https" } else { "http" });
        let hops = follow(&config, &url, &Method::GET);
        prop_assert!(hops.is_some_and(|hops| hops < HOPS_MAX), "{} goes on: {:?}", url, config.routes);
    }
}
