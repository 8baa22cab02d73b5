//! What a backend sees of a request's head, and a client of an answer's.

use std::slice::from_ref;

use crate::support::backend::{Answer, Backend, Behaviour, Seen};
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::ports::{own_address, own_addresses};
use crate::support::weir::Weir;

/// A backend and a balancer in front of it. `more` is further keys of the file.
fn one(more: &str) -> (Backend, Weir) {
    let backend = Backend::start("one");
    let weir = Weir::start(&format!("{}{more}", pool(from_ref(&backend), "")));
    (backend, weir)
}

/// What has arrived for one request.
#[track_caller]
fn only(backend: &Backend) -> Seen {
    let mut requests = backend.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

/// What arrives for a `GET /` with these fields.
#[track_caller]
fn arrives(headers: &[(&str, &str)]) -> Seen {
    let (backend, weir) = one("");
    let answer = Client::connect(weir.address()).request("GET", "/", headers, b"");
    assert_eq!(answer.map(|answer| answer.status()), Ok(200));
    only(&backend)
}

/// The status of the answer to these bytes, and what arrived for them.
#[track_caller]
fn sent(bytes: &str) -> (u16, Vec<Seen>) {
    let (backend, weir) = one("");
    let mut client = Client::connect(weir.address());
    client.send(bytes);
    (client.read_answer().status(), backend.requests())
}

// ── who asks ──

#[test]
fn the_host_is_kept() {
    assert_eq!(arrives(&[("Host", "Shop.Example:8080")]).header("host"), Some("Shop.Example:8080"));
}

#[test]
fn a_backend_gets_the_forwarding_headers() {
    let (backend, weir) = one("");
    let from = own_address();
    let mut client = Client::connect_from(from, weir.address());
    client.request("GET", "/", &[("Host", "a.test:81")], b"").unwrap();
    let seen = only(&backend);
    let from = from.to_string();
    assert_eq!(seen.header("x-forwarded-for"), Some(from.as_str()));
    assert_eq!(seen.header("x-real-ip"), Some(from.as_str()));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test:81"));
}

#[test]
fn what_a_stranger_says_about_hops_before_us_is_replaced() {
    let (backend, weir) = one("");
    let from = own_address();
    let mut client = Client::connect_from(from, weir.address());
    let claims = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-For", "7.7.7.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "admin.test"),
        ("X-Forwarded-Port", "443"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
    ];
    client.request("GET", "/", &claims, b"").unwrap();
    let seen = only(&backend);
    let from = from.to_string();
    assert_eq!(seen.header("x-forwarded-for"), Some(from.as_str()));
    assert_eq!(seen.header("x-real-ip"), Some(from.as_str()));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("weir.test"));
    let port = weir.address().port().to_string();
    assert_eq!(seen.header("x-forwarded-port"), Some(port.as_str()));
    assert_eq!(seen.header("forwarded"), None);
}

#[test]
fn a_trusted_proxys_list_is_continued() {
    let proxy = own_address();
    let (backend, weir) = one(&format!("trusted_proxies: [{proxy}/32]"));
    let mut client = Client::connect_from(proxy, weir.address());
    let claims = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.test"),
    ];
    client.request("GET", "/", &claims, b"").unwrap();
    let seen = only(&backend);
    let list = format!("192.0.2.1, {proxy}");
    assert_eq!(seen.header("x-forwarded-for"), Some(list.as_str()));
    assert_eq!(seen.header("x-real-ip"), Some("192.0.2.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.test"));
}

#[test]
fn the_client_is_the_first_stranger_from_the_right() {
    let proxies = own_addresses(2);
    let trusted = format!("trusted_proxies: [{}/32, {}/32]", proxies[0], proxies[1]);
    let (backend, weir) = one(&trusted);
    let mut client = Client::connect_from(proxies[0], weir.address());
    let list = format!("6.6.6.6, 192.0.2.1, {}", proxies[1]);
    client.request("GET", "/", &[("X-Forwarded-For", &list)], b"").unwrap();
    assert_eq!(only(&backend).header("x-real-ip"), Some("192.0.2.1"));
    let line = weir.until_logged("the request", |_| true);
    assert_eq!(line["client"], "192.0.2.1");
    assert_eq!(line["peer"], proxies[0].to_string());
}

#[test]
fn we_add_ourselves_to_via() {
    assert_eq!(arrives(&[]).header("via"), Some("1.1 weir"));
    let before = [("Via", "1.0 fred"), ("Via", "1.1 edge")];
    assert_eq!(arrives(&before).header("via"), Some("1.0 fred, 1.1 edge, 1.1 weir"));
}

// ── request ids ──

#[test]
fn a_clients_request_id_is_kept_to_the_backend_to_the_client_and_in_the_log() {
    let (backend, weir) = one("");
    let id = "trace-1.a_b~c";
    let mut client = Client::connect(weir.address());
    let answer = client.request("GET", "/", &[("X-Request-Id", id)], b"").unwrap();
    assert_eq!(answer.header("x-request-id"), Some(id));
    assert_eq!(only(&backend).header("x-request-id"), Some(id));
    assert_eq!(weir.until_logged("the request", |_| true)["request_id"], id);
}

#[test]
fn a_request_id_that_a_log_cannot_carry_is_replaced() {
    for bad in ["a b", "<script>", "x".repeat(129).as_str()] {
        let seen = arrives(&[("X-Request-Id", bad)]);
        let id = seen.header("x-request-id").unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{bad} → {id}");
    }
}

#[test]
fn two_request_ids_become_one() {
    let seen = arrives(&[("X-Request-Id", "one"), ("X-Request-Id", "two")]);
    assert_eq!(seen.header_values("x-request-id").len(), 1, "{:?}", seen.headers);
}

#[test]
fn a_request_without_an_id_gets_one_of_its_own() {
    let (backend, weir) = one("");
    let mut client = Client::connect(weir.address());
    let first = client.get("/");
    let second = client.get("/");
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    let seen = backend.requests();
    assert_eq!(seen[0].header("x-request-id"), first.header("x-request-id"));
    assert_eq!(seen[1].header("x-request-id"), second.header("x-request-id"));
}

#[test]
fn a_backends_own_request_id_does_not_reach_the_client() {
    let (backend, weir) = one("");
    backend.set(Behaviour::Answer(Answer::status(200).header("X-Request-Id", "mine")));
    let mut client = Client::connect(weir.address());
    let answer = client.request("GET", "/", &[("X-Request-Id", "yours")], b"").unwrap();
    assert_eq!(answer.header("x-request-id"), Some("yours"));
}

#[test]
fn every_refusal_carries_the_request_id() {
    let backend = Backend::start("one");
    backend.on("/reset", Behaviour::ResetBeforeAnswer);
    backend.on("/never", Behaviour::NeverAnswer);
    let more = "retry: {attempts: 1}\ntimeouts: {response: 1s}";
    let config = format!(
        "routes: [{{host: a.test, pool: web}}, {{host: b.test, pool: web, \
         rate_limit: {{requests_per_second: 0.001}}}}]\n{}",
        pool(from_ref(&backend), more)
    );
    let weir = Weir::start(&config);
    let refused = |method: &str, path: &str, host: &str| {
        let headers = [("Host", host), ("X-Request-Id", "id-1")];
        let answer = Client::connect(weir.address()).request(method, path, &headers, b"").unwrap();
        assert_eq!(answer.header("x-request-id"), Some("id-1"), "{}", answer.status());
        answer.status()
    };
    assert_eq!(refused("GET", "/", "a..b"), 400);
    assert_eq!(refused("GET", "/", "nowhere.test"), 404);
    assert_eq!(refused("TRACE", "/", "a.test"), 405);
    assert_eq!(refused("GET", "/", "b.test"), 200);
    assert_eq!(refused("GET", "/", "b.test"), 429);
    assert_eq!(refused("GET", "/reset", "a.test"), 502);
    assert_eq!(refused("GET", "/never", "a.test"), 504);
    backend.stop();
    assert_eq!(refused("GET", "/", "a.test"), 503);
}

// ── fields that end here ──

#[test]
fn fields_of_the_clients_connection_end_here() {
    let seen = arrives(&[
        ("Connection", "keep-alive, X-Only-Here"),
        ("Keep-Alive", "timeout=5"),
        ("X-Only-Here", "1"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eA=="),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("X-Further", "1"),
        ("Authorization", "Bearer x"),
    ]);
    for name in
        ["keep-alive", "x-only-here", "proxy-connection", "proxy-authorization", "te", "trailer"]
    {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(
        (seen.header("x-further"), seen.header("authorization")),
        (Some("1"), Some("Bearer x"))
    );
}

#[test]
fn fields_of_the_backends_connection_end_here() {
    let (backend, weir) = one("");
    let answer = Answer::status(200)
        .header("Connection", "X-Only-Here, keep-alive")
        .header("X-Only-Here", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Upgrade", "h2c")
        .header("X-Further", "1");
    backend.set(Behaviour::Answer(answer));
    let answer = weir.get("/");
    for name in ["x-only-here", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-further"), Some("1"));
}

#[test]
fn what_a_backend_must_know_cannot_be_erased_by_nomination() {
    for name in ["X-Forwarded-For", "X-Real-IP", "Host", "X-Request-Id", "Via", "Cookie"] {
        let (status, seen) = sent(&format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
             X-Request-Id: a\r\nVia: 1.1 x\r\nCookie: a=b\r\nConnection: {name}\r\n\r\n"
        ));
        assert_eq!((status, seen.len()), (200, 1), "{name}");
        let value = seen[0].header(name);
        assert!(value.is_some_and(|value| value != "6.6.6.6"), "{name}: {value:?}");
    }
}

#[test]
fn an_upgrade_to_anything_but_websocket_is_not_passed_on() {
    let (backend, weir) = one("");
    let headers = [("Connection", "Upgrade"), ("Upgrade", "TLS/1.2, irc")];
    let answer = Client::connect(weir.address()).request("GET", "/", &headers, b"").unwrap();
    assert_eq!(answer.status(), 200, "it is served as the request that it is without it");
    assert_eq!(only(&backend).header("upgrade"), None);
}

#[test]
fn a_backend_cannot_switch_protocols_by_itself() {
    let (backend, weir) = one("");
    backend.set(Behaviour::Upgrade("websocket".to_owned()));
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let answer = Client::connect(weir.address()).request("POST", "/", &headers, b"x").unwrap();
    assert_eq!(answer.status(), 502);
}

// ── what is asked for ──

#[test]
fn a_request_without_host_is_refused() {
    assert_eq!(sent("GET / HTTP/1.1\r\n\r\n"), (400, vec![]));
    assert_eq!(sent("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), (400, vec![]));
}

#[test]
fn a_request_of_http_1_0_may_go_without_host() {
    let (status, seen) = sent("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((status, seen.len()), (200, 1));
}

#[test]
fn a_backend_gets_the_path_of_an_absolute_target_and_its_authority_as_host() {
    let (status, seen) =
        sent("GET http://shop.test:81/a?b=c HTTP/1.1\r\nHost: shop.test:81\r\n\r\n");
    assert_eq!(status, 200);
    assert_eq!(seen[0].target, "/a?b=c");
    assert_eq!(seen[0].header("host"), Some("shop.test:81"));
}

#[test]
fn an_absolute_target_without_path_asks_for_the_root() {
    let (status, seen) = sent("GET http://shop.test HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!((status, seen[0].target.as_str()), (200, "/"));
}

#[test]
fn an_absolute_target_routes_by_its_authority() {
    let backend = Backend::start("one");
    let routes = "routes: [{host: shop.test, pool: web}]\n";
    let weir = Weir::start(&format!("{routes}{}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    // HTTP/1.0, where there need not be a Host beside it.
    client.send("GET http://shop.test/a HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    let seen = only(&backend);
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/a", Some("shop.test")));
    assert_eq!(weir.until_logged("the request", |_| true)["host"], "shop.test");
}

#[test]
fn a_query_right_after_the_authority_is_one_of_the_root() {
    let (status, seen) = sent("GET http://shop.test?a=b HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!((status, seen[0].target.as_str()), (200, "/?a=b"));
}

#[test]
fn a_url_in_a_query_is_no_absolute_target() {
    let (status, seen) = sent("GET /?to=http://b.test/c HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((status, seen[0].target.as_str()), (200, "/?to=http://b.test/c"));
    assert_eq!(seen[0].header("host"), Some("a.test"));
}

#[test]
fn a_host_that_contradicts_an_absolute_target_never_reaches_a_backend() {
    let (status, seen) = sent("GET http://shop.test/ HTTP/1.1\r\nHost: admin.test\r\n\r\n");
    match seen.as_slice() {
        [] => assert_eq!(status, 400),
        [one, ..] => assert_eq!(one.header("host"), Some("shop.test")),
    }
}

#[test]
fn trace_and_connect_are_refused_with_the_methods_that_are_served() {
    for request in [
        "TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    ] {
        let (backend, weir) = one("");
        let mut client = Client::connect(weir.address());
        client.send(request);
        let answer = client.read_answer();
        assert_eq!(answer.status(), 405, "{request}");
        let allow = answer.header("allow").unwrap_or_default();
        assert!(allow.contains("GET") && !allow.contains("TRACE"), "{request}: {allow:?}");
        assert_eq!(backend.count(), 0);
        let line = weir.until_logged("the refusal", |_| true);
        assert_eq!((&line["status"], &line["reason"]), (&405.into(), &"method_not_allowed".into()));
    }
}

#[test]
fn a_target_is_forwarded_as_it_came() {
    let (backend, weir) = one("");
    let mut client = Client::connect(weir.address());
    let targets = [
        "/?",
        "/?a=1&a=2&b=%20+%2B",
        "/a//b/./c/../d",
        "/%7Euser/%2e%2E/%2F%5c",
        "/;v=1/,/:@!$&'()*=~._-",
        "/?q=/path?and=more",
        "/a%zz",
        "/{id}|x^y",
    ];
    for target in targets {
        assert_eq!(client.get(target).status(), 200, "{target}");
    }
    let seen: Vec<String> = backend.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, targets);
}

#[test]
fn options_may_ask_about_the_server_as_a_whole() {
    let (status, seen) = sent("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((status, seen[0].target.as_str()), (200, "*"));
}

#[test]
fn a_method_of_ones_own_is_forwarded() {
    let (status, seen) = sent("PURGE /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((status, seen[0].method.as_str()), (200, "PURGE"));
}

// ── Forwarded, and the one rule for who asks ──

/// What arrives of a request with these fields at a balancer that trusts 127.0.0.0/8.
#[track_caller]
fn arrives_trusted(more: &str, headers: &[(&str, &str)]) -> (Seen, Weir) {
    let (backend, weir) = one(&format!("\ntrusted_proxies: [127.0.0.0/8]\n{more}"));
    let answer = Client::connect(weir.address()).request("GET", "/", headers, b"");
    assert_eq!(answer.map(|answer| answer.status()), Ok(200));
    (only(&backend), weir)
}

#[test]
fn forwarded_is_believed_and_continued_where_the_file_says_so() {
    let field = "for=203.0.113.9, for=\"[2001:db8::7]:4711\";proto=https;host=\"a.test:444\"";
    let headers = [
        ("Forwarded", field),
        ("X-Forwarded-For", "8.8.8.8"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.test"),
    ];
    let (seen, weir) = arrives_trusted("forwarded: {accept: forwarded, send: both}", &headers);
    assert_eq!(seen.header("x-real-ip"), Some("2001:db8::7"));
    let hops = "203.0.113.9, 2001:db8::7, 127.0.0.1";
    assert_eq!(seen.header_values("x-forwarded-for"), [hops]);
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test:444"));
    let host = seen.header("host").unwrap_or_default().to_owned();
    let all = seen.header_values("forwarded");
    assert_eq!(all.len(), 1, "one line: {all:?}");
    assert!(all[0].starts_with(&format!("{field}, for=127.0.0.1;host=")), "{all:?}");
    assert!(all[0].ends_with(";proto=http") && all[0].contains(&host), "{all:?}");
    let line = weir.until_logged("the request", |line| line["status"] == 200);
    assert_eq!((&line["client"], &line["peer"]), (&"2001:db8::7".into(), &"127.0.0.1".into()));
}

#[test]
fn the_header_that_is_not_accepted_is_trusted_from_no_peer() {
    let headers = [("Forwarded", "for=8.8.8.8"), ("X-Forwarded-For", "192.0.2.1")];
    let (seen, _) = arrives_trusted("", &headers);
    assert_eq!(seen.header("forwarded"), None);
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    let (seen, _) = arrives_trusted("forwarded: {accept: forwarded}", &headers);
    assert_eq!(seen.header("x-real-ip"), Some("8.8.8.8"));
    assert_eq!(seen.header("x-forwarded-for"), Some("8.8.8.8, 127.0.0.1"));
    let (seen, _) = arrives_trusted("forwarded: {send: forwarded}", &headers);
    assert_eq!(seen.header("x-forwarded-for"), None);
    let all = seen.header_values("forwarded");
    assert!(all[0].starts_with("for=192.0.2.1, for=127.0.0.1;host="), "{all:?}");
}

#[test]
fn everything_that_a_stranger_says_about_itself_is_removed() {
    let (backend, weir) = one("\nforwarded: {accept: forwarded, send: both}");
    let headers = [
        ("Forwarded", "for=8.8.8.8;proto=https"),
        ("X-Forwarded-For", "8.8.8.8"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Server", "a"),
        ("X_Forwarded_Host", "evil.test"),
        ("X-Real-IP", "8.8.8.8"),
    ];
    let mut client = Client::connect(weir.address());
    client.request("GET", "/", &headers, b"").unwrap();
    let seen = only(&backend);
    assert_eq!(seen.header_values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header_values("x-forwarded-proto"), ["http"]);
    let port = weir.address().port().to_string();
    assert_eq!(seen.header_values("x-forwarded-port"), [port.as_str()]);
    assert_eq!(seen.header("x-forwarded-server"), None);
    assert_eq!(seen.header("x_forwarded_host"), None);
    assert_eq!(seen.header_values("x-real-ip"), ["127.0.0.1"]);
    assert!(!seen.header_values("forwarded").concat().contains("8.8.8.8"));
}

#[test]
fn a_trace_context_is_passed_on_only_if_it_is_one() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let seen = arrives(&[("traceparent", good), ("tracestate", "a=b")]);
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (Some(good), Some("a=b")));
    for parents in [vec![], vec!["00-00-00-00"], vec![good, good]] {
        let mut headers: Vec<(&str, &str)> = vec![("tracestate", "a=b")];
        headers.extend(parents.iter().map(|parent| ("traceparent", *parent)));
        let seen = arrives(&headers);
        assert_eq!(
            (seen.header("traceparent"), seen.header("tracestate")),
            (None, None),
            "{parents:?}"
        );
    }
}
