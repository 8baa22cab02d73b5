//! Rate limits and connection limits: they are exact, and do not affect other clients.

#![expect(clippy::panic, reason = "a test that cannot go on fails, which is what a panic does")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::Method;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{Client, Response};
use crate::support::http2::{Http2, request};
use crate::support::load_generator::Load;
use crate::support::ports::{own_address, own_addresses};
use crate::support::tls::{Authority, TlsConfig};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually, now};

/// Such a limit gives no token back while a test runs.
const NEVER: &str = "requests_per_second: 0.001";

/// One pool of one backend, with further keys of the file.
fn config(backend: &Backend, more: &str) -> String {
    format!("pools: [{{name: web, health_check: off, backends: [{}]}}]\n{more}", backend.url())
}

fn ask(weir: &Weir, from: Ipv4Addr, path: &str, headers: &[(&str, &str)]) -> Response {
    let answer = Client::connect_from(from, weir.address()).request("GET", path, headers, b"");
    answer.unwrap_or_else(|failure| panic!("GET {path} from {from}: {failure:?}"))
}

fn statuses(weir: &Weir, from: Ipv4Addr, path: &str, requests: usize) -> Vec<u16> {
    (0..requests).map(|_| ask(weir, from, path, &[]).status()).collect()
}

fn refused(weir: &Weir, scope: &str) -> Option<f64> {
    weir.metrics().value("lb_rate_limited_requests_total", &[("scope", scope)])
}

#[test]
fn a_client_gets_its_burst_and_then_429_with_the_time_to_wait() {
    let backend = Backend::start("one");
    let rate_limit = "rate_limit: {requests_per_second: 0.1, burst: 5}";
    let weir = Weir::start(&config(&backend, rate_limit));
    let mut client = Client::connect(weir.address());
    for _ in 0..5 {
        assert_eq!(client.get("/").status(), 200);
    }
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.text().as_str()), (429, "Too Many Requests\n"));
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap();
    assert!((5..=10).contains(&wait), "a token takes ten seconds: {wait}");
    assert!(!answer.head.is_last(), "the connection is kept: {:?}", answer.head);
    assert_eq!(backend.count(), 5);
}

#[test]
fn not_one_request_more_than_the_burst_gets_through_however_many_come_at_once() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, &format!("rate_limit: {{{NEVER}, burst: 50}}")));
    let client = vec![own_address()];
    let load = Load { count: Some(400), threads: 8, from: client, ..Load::on(weir.address()) };
    let tally = load.run();
    assert_eq!((tally.with_status(200), tally.with_status(429)), (50, 350));
    assert_eq!(backend.count(), 50);
    assert_eq!(refused(&weir, "global"), Some(350.0));
}

#[test]
fn a_rejected_client_that_waits_for_retry_after_is_admitted() {
    let backend = Backend::start("one");
    let rate_limit = "rate_limit: {requests_per_second: 1, burst: 1}";
    let weir = Weir::start(&config(&backend, rate_limit));
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/").status(), 200);
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("1")));
    let wait_over = now() + Duration::from_secs(1);
    eventually(TIMEOUT, "the wait is over", || now() >= wait_over);
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(client.get("/").status(), 429, "one second earns one token");
}

#[test]
fn fractions_of_tokens_are_not_lost() {
    let backend = Backend::start("one");
    // No token is lost while the clients do not have their turn for half a second.
    let rate_limit = "rate_limit: {requests_per_second: 10, burst: 5}";
    let weir = Weir::start(&config(&backend, rate_limit));
    let start = now();
    let load = Load { time: Some(Duration::from_secs(2)), threads: 2, ..Load::on(weir.address()) };
    let admitted = load.run().with_status(200);
    let most = 5 + (now() - start).as_millis() / 100;
    assert!(u128::from(admitted) <= most, "{admitted} are more than {most}");
    // Rounded to whole tokens at each request, some would be lost in every second.
    assert!(admitted >= 20, "only {admitted} of some 25");
}

#[test]
fn another_client_is_unaffected() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, &format!("rate_limit: {{{NEVER}, burst: 2}}")));
    let clients = own_addresses(2);
    assert_eq!(statuses(&weir, clients[0], "/", 4), [200, 200, 429, 429]);
    assert_eq!(statuses(&weir, clients[1], "/", 3), [200, 200, 429]);
}

#[test]
fn exempt_networks_are_not_limited() {
    let backend = Backend::start("one");
    let clients = own_addresses(2);
    let exempt = format!("rate_limit: {{{NEVER}, burst: 1, exempt: [{}]}}", clients[0]);
    let weir = Weir::start(&config(&backend, &exempt));
    assert_eq!(statuses(&weir, clients[0], "/", 5), [200; 5]);
    assert_eq!(statuses(&weir, clients[1], "/", 2), [200, 429]);
}

#[test]
fn a_route_limits_its_own_requests_alone() {
    let backend = Backend::start("one");
    let routes = format!(
        "routes: [{{pool: web}}, {{path: /login, pool: web, rate_limit: {{{NEVER}, burst: 2}}}}]"
    );
    let weir = Weir::start(&config(&backend, &routes));
    let client = own_address();
    assert_eq!(statuses(&weir, client, "/login", 3), [200, 200, 429]);
    assert_eq!(statuses(&weir, client, "/", 3), [200; 3]);
    assert_eq!(refused(&weir, "route"), Some(1.0));
    assert_eq!(refused(&weir, "global"), Some(0.0));
}

#[test]
fn a_pool_limits_whatever_route_leads_to_it() {
    let backends = Backend::start_many(2);
    let weir = Weir::start(&format!(
        "routes: [{{path: /x, pool: a}}, {{path: /y, pool: a}}, {{path: /z, pool: b}}]\npools:\n  \
         - {{name: a, health_check: off, backends: [{}], rate_limit: {{{NEVER}, burst: 3}}}}\n  \
         - {{name: b, health_check: off, backends: [{}]}}",
        backends[0].url(),
        backends[1].url()
    ));
    let client = own_address();
    assert_eq!(statuses(&weir, client, "/x", 2), [200; 2]);
    assert_eq!(statuses(&weir, client, "/y", 2), [200, 429]);
    assert_eq!(statuses(&weir, client, "/z", 5), [200; 5]);
    assert_eq!(refused(&weir, "pool"), Some(1.0));
}

#[test]
fn an_untrusted_client_cannot_dodge_the_limit_with_a_forwarded_address() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, &format!("rate_limit: {{{NEVER}, burst: 2}}")));
    let client = own_address();
    let as_client = |address: &str| {
        ask(&weir, client, "/", &[("X-Forwarded-For", address), ("X-Real-IP", address)]).status()
    };
    let statuses = [as_client("192.0.2.1"), as_client("192.0.2.2"), as_client("192.0.2.3")];
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn an_untrusted_client_cannot_spend_the_tokens_of_another() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, &format!("rate_limit: {{{NEVER}, burst: 1}}")));
    let clients = own_addresses(2);
    let victim = clients[1].to_string();
    ask(&weir, clients[0], "/", &[("X-Forwarded-For", &victim)]);
    assert_eq!(ask(&weir, clients[1], "/", &[]).status(), 200);
}

/// With a burst of one; every peer of these tests is a trusted proxy.
fn behind_a_proxy(backend: &Backend, more: &str) -> Weir {
    let limit = format!("rate_limit: {{{NEVER}, burst: 1{more}}}\ntrusted_proxies: [127.0.0.0/8]");
    Weir::start(&config(backend, &limit))
}

fn forwarded(weir: &Weir, chain: &str) -> u16 {
    ask(weir, own_address(), "/", &[("X-Forwarded-For", chain)]).status()
}

#[test]
fn a_trusted_proxy_says_whose_bucket_it_is() {
    let backend = Backend::start("one");
    let weir = behind_a_proxy(&backend, "");
    assert_eq!(forwarded(&weir, "192.0.2.1"), 200);
    assert_eq!(forwarded(&weir, "192.0.2.1"), 429, "whichever proxy it came through");
    assert_eq!(forwarded(&weir, "192.0.2.2"), 200);
}

#[test]
fn behind_a_proxy_the_rightmost_untrusted_address_counts_and_not_what_the_client_claims() {
    let backend = Backend::start("one");
    let weir = behind_a_proxy(&backend, "");
    assert_eq!(forwarded(&weir, "198.51.100.1, 192.0.2.1, 127.0.0.9"), 200);
    assert_eq!(forwarded(&weir, "198.51.100.2, 192.0.2.1, 127.0.0.9"), 429);
}

#[test]
fn ipv6_clients_are_distinguished_by_their_network() {
    let backend = Backend::start("one");
    let weir = behind_a_proxy(&backend, "");
    assert_eq!(forwarded(&weir, "2001:db8::1"), 200);
    assert_eq!(forwarded(&weir, "2001:db8::ffff:2"), 429, "the same /64");
    assert_eq!(forwarded(&weir, "2001:db8:0:1::1"), 200, "another one");
}

#[test]
fn a_new_client_is_not_rejected_because_the_table_is_full() {
    let backend = Backend::start("one");
    let weir = behind_a_proxy(&backend, ", clients_max: 4");
    for last in 1..=20 {
        assert_eq!(forwarded(&weir, &format!("192.0.2.{last}")), 200, "client {last}");
    }
    let remembered = weir.metrics().value("lb_rate_limit_clients", &[("scope", "global")]);
    assert!(remembered <= Some(4.0), "{remembered:?}");
}

/// This number of connections, each after one response.
fn connected(weir: &Weir, count: usize) -> Vec<Client> {
    let connect = || {
        let mut client = Client::connect(weir.address());
        assert_eq!(client.get("/").status(), 200);
        client
    };
    std::iter::repeat_with(connect).take(count).collect()
}

#[test]
fn one_connection_too_many_is_answered_503_and_closed() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "limits: {connections: 3}"));
    let mut inside = connected(&weir, 3);
    let mut outside = Client::connect(weir.address());
    let answer = outside.get("/");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.text(), "Service Unavailable: too many connections\n");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.head.is_last(), "{:?}", answer.head);
    assert!(outside.is_closed_within(TIMEOUT));
    assert_eq!(backend.count(), 3);
    assert!(inside.iter_mut().all(|client| client.get("/").status() == 200), "they go on");
}

#[test]
fn a_place_that_a_connection_leaves_is_free_again() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "limits: {connections: 2}"));
    let mut inside = connected(&weir, 2);
    for _ in 0..5 {
        assert_eq!(Client::connect(weir.address()).get("/").status(), 503);
    }
    drop(inside.pop());
    let open = || weir.metrics().value("lb_downstream_connections", &[]);
    eventually(TIMEOUT, "the place is free", || open() == Some(1.0));
    inside.extend(connected(&weir, 1));
    assert_eq!(Client::connect(weir.address()).get("/").status(), 503, "and taken again");
}

#[test]
fn a_connection_that_was_reset_leaves_its_place_too() {
    let backend = Backend::start("one");
    backend.on("/stuck", Behaviour::NeverAnswer);
    let weir = Weir::start(&config(&backend, "limits: {connections: 1}"));
    let mut client = Client::connect(weir.address());
    client.send("GET /stuck HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    backend.until_count(1);
    client.reset();
    let try_again = || Client::connect(weir.address()).get("/").status() == 200;
    eventually(TIMEOUT, "the place is free", try_again);
}

#[test]
fn the_limit_of_connections_is_not_the_admin_ports() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "limits: {connections: 1}"));
    let _inside = connected(&weir, 1);
    let mut admin = Client::connect(weir.admin());
    assert_eq!(admin.get("/healthz").status(), 200);
    let from: IpAddr = own_address().into();
    let second = Client::try_connect(weir.admin(), Some(from));
    assert_eq!(second.map(|mut client| client.get("/healthz").status()).ok(), Some(200));
}

/// Waits until connections of one client were too many.
fn until_turned_away(weir: &Weir) {
    let labels = [("reason", "too_many_connections_per_client")];
    let count = || weir.metrics().sum("lb_connection_failures_total", &labels);
    eventually(TIMEOUT, "it is counted", || count() > 0.0);
    eventually(TIMEOUT, "it is logged", || {
        weir.stderr().contains("reason=too_many_connections_per_client")
    });
}

#[test]
fn the_limit_of_connections_per_client_applies_to_each_client_alone() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "limits: {connections_per_client: 2}"));
    let client = own_address();
    let mut held: Vec<Client> =
        (0..2).map(|_| Client::connect_from(client, weir.address())).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    let mut third = Client::connect_from(client, weir.address());
    let answer = third.read_answer();
    assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("1")));
    assert!(third.is_closed_within(TIMEOUT));
    until_turned_away(&weir);
    assert_eq!(ask(&weir, own_address(), "/", &[]).status(), 200, "another client");
    held.pop();
    eventually(TIMEOUT, "its place is free again", || {
        let mut again = Client::connect_from(client, weir.address());
        again.request("GET", "/", &[], b"").is_ok_and(|answer| answer.status() == 200)
    });
}

#[test]
fn a_client_that_is_silent_over_tls_takes_no_more_than_its_places() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let tls =
        format!("tls: {{certificates: [{}]}}", authority.identity("site", &["weir.test"]).yaml());
    let limits = "limits: {connections: 6, connections_per_client: 2, header_timeout: 60s}";
    let weir = Weir::start(&format!("{LISTENER_KEYS}{tls}\n{}", config(&backend, limits)));
    let silent = own_address();
    let _held: Vec<Client> = (0..2).map(|_| Client::connect_from(silent, weir.address())).collect();
    eventually(TIMEOUT, "both have a place", || weir.status()["downstream_connections"] == 2);
    for _ in 0..10 {
        let mut more = Client::connect_from(silent, weir.address());
        assert!(more.is_closed_within(TIMEOUT), "without a handshake");
    }
    let mut other = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    assert_eq!(other.get("/", &[]).status(), 200, "another client");
    until_turned_away(&weir);
}

#[test]
fn a_client_that_a_proxy_names_has_its_places_before_the_handshake() {
    let (backend, authority, proxy) = (Backend::start("one"), Authority::new(), own_address());
    let tls =
        format!("tls: {{certificates: [{}]}}", authority.identity("site", &["weir.test"]).yaml());
    let keys = format!("{LISTENER_KEYS}{tls}, proxy_protocol: {{from: [{proxy}]}}\n");
    let limits = "limits: {connections_per_client: 1, header_timeout: 60s}";
    let weir = Weir::start(&format!("{keys}{}", config(&backend, limits)));
    let named = |client: &str| {
        let mut connection = Client::connect_from(proxy, weir.address());
        connection.send(format!("PROXY TCP4 {client} 198.51.100.2 4711 443\r\n"));
        connection
    };
    let mut both = [named("192.0.2.1"), named("192.0.2.1")];
    let shortly = Duration::from_millis(300);
    eventually(TIMEOUT, "one of them is closed", || {
        both.iter_mut().filter_map(|it| it.is_closed_within(shortly).then_some(())).count() == 1
    });
    let mut other = named("192.0.2.2");
    assert!(!other.is_closed_within(shortly), "another client");
}

#[test]
fn a_client_that_is_rejected_in_the_middle_of_a_request_is_not_reset() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "limits: {connections: 1}"));
    let _inside = connected(&weir, 1);
    let mut outside = Client::connect(weir.address());
    outside.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(outside.read_answer().status(), 503);
    assert!(outside.is_closed_within(TIMEOUT), "nothing more comes");
    for _ in 0..10 {
        outside.send([b'x'; 1000]);
    }
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let limits = format!("limits: {{connections_per_client: 1}}\ntrusted_proxies: [{proxy}]");
    let weir = Weir::start(&config(&backend, &limits));
    let mut held: Vec<Client> =
        (0..5).map(|_| Client::connect_from(proxy, weir.address())).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
}

#[test]
fn a_connection_serves_a_limited_number_of_requests_and_announces_the_last() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "limits: {requests_per_connection: 3}"));
    let mut client = Client::connect(weir.address());
    let last: Vec<bool> = (0..3).map(|_| client.get("/").head.is_last()).collect();
    assert_eq!(last, [false, false, true]);
    assert!(client.is_closed_within(TIMEOUT));
}

// ── limits.requests ──

fn in_progress(weir: &Weir) -> serde_json::Value {
    let status = weir.status();
    status.pointer("/request_limit/requests_in_progress").cloned().unwrap_or_default()
}

fn until_in_progress(weir: &Weir, count: u32) {
    eventually(TIMEOUT, "the requests in progress", || in_progress(weir) == count);
}

fn shed(weir: &Weir) -> Option<f64> {
    weir.metrics().value("lb_shed_total", &[("reason", "requests")])
}

#[test]
fn a_request_above_the_limit_of_requests_gets_503_and_reaches_no_backend() {
    let backend = Backend::start("one");
    backend.on("/held", Behaviour::NeverAnswer);
    let routes = "routes: [{path: /own, respond: {status: 204}}, {pool: web}]";
    let weir = Weir::start(&config(&backend, &format!("{routes}\nlimits: {{requests: 2}}")));
    assert_eq!(shed(&weir), Some(0.0), "the series exists from the start");
    let held: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = Client::connect(weir.address());
            client.send("GET /held HTTP/1.1\r\nHost: weir.test\r\n\r\n");
            client
        })
        .collect();
    backend.until_count(2);
    let mut other = Client::connect(weir.address());
    for path in ["/", "/own", "/"] {
        let response = other.get(path);
        assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")), "{path}");
        assert_eq!(response.text(), "Service Unavailable: too many requests in progress\n");
        assert!(!response.head.is_last(), "the connection is kept: {:?}", response.head);
    }
    assert_eq!(Client::connect(weir.admin()).get("/healthz").status(), 200);
    assert_eq!((shed(&weir), backend.count()), (Some(3.0), 2));
    assert_eq!(
        (&in_progress(&weir), &weir.status()["request_limit"]["max_requests"]),
        (&2.into(), &2.into())
    );
    let line = weir.until_logged("the rejection", |line| line["status"] == 503);
    assert_eq!(line["reason"], "request_limit");
    assert!(line["client"].is_string(), "{line}");
    backend.release();
    for mut client in held {
        assert_eq!(client.read_answer().status(), 200);
    }
    until_in_progress(&weir, 0);
    assert_eq!((other.get("/").status(), shed(&weir)), (200, Some(3.0)));
}

#[test]
fn requests_whose_clients_disconnect_and_those_that_wait_in_a_queue_count_until_they_end() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let pool = "pools: [{name: web, health_check: off, queue: {length: 5, timeout: 60s}, \
                backends: [{url: URL, max_requests: 1}]}]\nlimits: {requests: 2}";
    let weir = Weir::start(&pool.replace("URL", &backend.url()));
    for _ in 0..3 {
        let before = backend.count();
        let clients: Vec<Client> = (0..2)
            .map(|_| {
                let mut client = Client::connect(weir.address());
                client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
                client
            })
            .collect();
        until_in_progress(&weir, 2);
        assert_eq!(weir.get("/").status(), 503);
        eventually(TIMEOUT, "one is at the backend", || backend.count() > before);
        drop(clients);
        until_in_progress(&weir, 0);
    }
    assert_eq!(shed(&weir), Some(3.0));
}

#[test]
fn streams_of_one_http2_connection_count_one_by_one() {
    let backend = Backend::start("one");
    backend.on("/held", Behaviour::NeverAnswer);
    let text = config(&backend, "limits: {requests: 2}");
    let weir = Weir::start(&format!("{LISTENER_KEYS}http2: true\n{text}"));
    let mut client = Http2::connect(weir.address());
    let held = [(); 2].map(|()| client.start(request(Method::GET, "/held", &[]), false).unwrap());
    backend.until_count(2);
    for _ in 0..2 {
        let response = client.get("/", &[]).unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.head.headers()["retry-after"], "1");
    }
    assert_eq!((shed(&weir), backend.count()), (Some(2.0), 2));
    backend.release();
    for stream in held {
        assert_eq!(stream.answer().unwrap().status(), 200);
    }
    until_in_progress(&weir, 0);
    assert_eq!(client.get("/", &[]).unwrap().status(), 200);
}
