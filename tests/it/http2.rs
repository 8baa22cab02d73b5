//! HTTP/2 with clients: every promise that is kept for HTTP/1, and those of its own.

use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, Method};

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::Client;
use crate::support::http2::{Http2, RawHttp2, frame, request};
use crate::support::tls::{Authority, TlsConfig};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A clear listener that speaks HTTP/2, one pool of one backend, with further keys.
fn config(backend: &Backend, pool: &str, more: &str) -> String {
    let url = backend.url();
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{url}]{pool}}}]");
    format!("{LISTENER_KEYS}http2: true\n{pools}\n{more}")
}

fn start(backend: &Backend) -> Weir {
    Weir::start(&config(backend, "", ""))
}

#[test]
fn a_client_speaks_it_over_tls_by_alpn() {
    let (backend, authority) = (Backend::start("one"), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{}]}}]", backend.url());
    let tls = format!("tls: {{certificates: [{}]}}", identity.yaml());
    let weir = Weir::start(&format!("{LISTENER_KEYS}{tls}\n{pools}"));
    let config = TlsConfig::new(&authority, None);
    let mut client = Http2::connect_tls(weir.address(), config, "weir.test");
    for _ in 0..3 {
        let answer = client.get("/path?query", &[]).unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.head.headers().contains_key("x-request-id"));
    }
    let request = backend.requests().pop().unwrap();
    assert_eq!(request.header("host"), Some("weir.test"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("via"), Some("2 weir"));
    let line = weir.until_logged("the protocol", |line| line["protocol"] == "HTTP/2");
    assert_eq!(
        (&line["host"], &line["path"], &line["scheme"]),
        (&"weir.test".into(), &"/path".into(), &"https".into())
    );
    let mut old = TlsConfig::new(&authority, None).connect(weir.address(), "weir.test");
    assert_eq!(old.get("/", &[]).status(), 200, "who asks for nothing gets HTTP/1.1");
}

#[test]
fn a_clear_port_speaks_both_whatever_the_pieces_of_the_first_bytes() {
    let backend = Backend::start("one");
    let weir = start(&backend);
    assert_eq!(Http2::connect(weir.address()).get("/", &[]).unwrap().status(), 200);
    assert_eq!(weir.get("/").status(), 200);
    let mut client = Client::connect(weir.address());
    // The first byte could be the preface's.
    for byte in b"PUT / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 0\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.read_answer().status(), 200);
    assert_eq!(client.get("/").status(), 200, "and the connection is kept");
}

#[test]
fn where_it_is_off_its_preface_is_no_request_and_named_like_other_protocols() {
    let backend = Backend::start("one");
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{}]}}]", backend.url());
    let weir = Weir::start(&pools);
    for (detail, bytes) in [
        ("http2_preface", &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]),
        ("proxy_header", b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 443\r\n"),
        ("proxy_header", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
        ("tls", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
    ] {
        let mut client = Client::connect(weir.address());
        client.send(bytes);
        assert_eq!(client.read_answer().status(), 400, "{detail}");
        weir.until_logged(detail, |line| line["detail"] == detail);
    }
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_hundred_streams_are_served_at_once_on_one_connection() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let weir = start(&backend);
    let mut client = Http2::connect(weir.address());
    let streams: Vec<_> =
        (0..100).map(|_| client.start(request(Method::GET, "/", &[]), false).unwrap()).collect();
    eventually(TIMEOUT, "all are at the backend", || backend.in_flight() == 100);
    assert_eq!(weir.status()["downstream_connections"], 1);
    assert_eq!(weir.metrics().sum("lb_backend_in_flight_requests", &[("pool", "web")]), 100.0);
    backend.release();
    for stream in streams {
        assert_eq!(stream.answer().unwrap().status(), 200);
    }
    eventually(TIMEOUT, "every lease is back", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[("pool", "web")]) == 0.0
    });
}

#[test]
fn bodies_of_any_length_pass_and_crumbs_of_cookies_are_joined() {
    let backend = Backend::start("one");
    let weir = start(&backend);
    let mut client = Http2::connect(weir.address());
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2")];
    let mut stream = client.start(request(Method::POST, "/echo", &crumbs), true).unwrap();
    stream.send(&body, true).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 200);
    let received = backend.requests().pop().unwrap();
    assert_eq!(received.body.len(), body.len());
    assert_eq!(received.body, body);
    assert_eq!(received.header_values("cookie"), ["a=1; b=2"]);
}

#[test]
fn what_is_no_request_is_refused_and_the_others_go_on() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "", "limits: {headers: 20, target_bytes: 1KiB}"));
    let mut client = Http2::connect(weir.address());
    let many: Vec<(String, &str)> = (0..30).map(|number| (format!("x-{number}"), "y")).collect();
    let many: Vec<(&str, &str)> =
        many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(client.get("/", &many).unwrap().status(), 431);
    assert_eq!(client.get(&format!("/{}", "a".repeat(2000)), &[]).unwrap().status(), 414);
    assert_eq!(client.get("/", &[("host", "other.test")]).unwrap().status(), 400);
    assert_eq!(client.get("/ä", &[]).unwrap().status(), 400);
    let line = weir.until_logged("why", |line| line["detail"] == "target");
    assert_eq!((&line["reason"], &line["path"]), (&"bad_request".into(), &"/ä".into()));
    assert_eq!(client.get("/", &[("host", "weir.test")]).unwrap().status(), 200);
    let line = weir.until_logged("why", |line| line["detail"] == "http2_malformed");
    assert_eq!((&line["status"], &line["client"]), (&400.into(), &"127.0.0.1".into()));
    let trace = client.start(request(Method::TRACE, "/", &[]), false).unwrap().answer();
    assert_eq!(trace.unwrap().status(), 405);
    let large = "a".repeat(100_000);
    assert_eq!(client.get("/", &[("x-large", &large)]).unwrap().status(), 431);
    assert_eq!(client.get("/", &[]).unwrap().status(), 200);
    assert_eq!(backend.count(), 2);
}

#[test]
fn nothing_follows_the_head_of_an_answer_that_has_no_body() {
    let backend = Backend::start("one");
    let url = backend.url();
    let weir = Weir::start(&format!(
        "{LISTENER_KEYS}http2: true\n\
         pools: [{{name: web, health_check: off, backends: [{url}]}}]\n\
         routes:\n\
         - {{path: /respond, respond: {{status: 200, body: hello}}}}\n\
         - {{path: /empty, respond: 200}}\n\
         - {{path: /moved, redirect: {{to: /x}}}}\n\
         - {{path: /web, pool: web}}\n"
    ));
    let mut client = Http2::connect(weir.address());
    for target in ["/respond", "/moved", "/nothing", "/web"] {
        let asked = client.start(request(Method::HEAD, target, &[]), false).unwrap();
        let answer = asked.answer().unwrap_or_else(|why| panic!("{target}: {why}"));
        assert!(answer.ended_with_its_head, "{target}");
        assert!(answer.head.headers().contains_key("content-length"), "{target}");
    }
    let traced = client.start(request(Method::HEAD, "/respond", &[]), false).unwrap();
    assert_eq!(traced.answer().unwrap().head.headers()["content-length"], "5");
    let empty = client.get("/empty", &[]).unwrap();
    assert!(empty.ended_with_its_head && empty.body.is_empty());
    assert_eq!(client.get("/respond", &[]).unwrap().body, b"hello");
}

#[test]
fn fields_of_a_connection_are_malformed() {
    let backend = Backend::start("one");
    let weir = start(&backend);
    // `:method: GET`, `:scheme: http`, `:path: /` by index, `:authority: a`, then a field as text.
    let head = |name: &[u8], value: &[u8]| {
        let field = |name: &[u8], value: &[u8]| {
            let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
            [&[0, length(name)], name, &[length(value)], value].concat()
        };
        [&[0x82, 0x86, 0x84][..], &field(b":authority", b"a"), &field(name, value)].concat()
    };
    for (name, value) in [
        (&b"connection"[..], &b"close"[..]),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"keep-alive", b"5"),
        (b"proxy-connection", b"close"),
        (b"te", b"gzip"),
        (b"X-Upper", b"case"),
        (b"x", b"a\r\nb"),
        (b"a b", b"space"),
        (b":path", b"/again"),
        (b":unknown", b"x"),
    ] {
        let mut client = RawHttp2::connect(weir.address());
        client.send(&frame(0x1, 0x5, 1, &head(name, value))).unwrap();
        // Then the client leaves, and says so.
        client.send(&frame(0x7, 0, 0, &[0; 8])).unwrap();
        client.set_timeout(Duration::from_millis(500));
        let _whatever = client.goaway();
    }
    assert_eq!(Http2::connect(weir.address()).get("/", &[]).unwrap().status(), 200);
    assert_eq!(backend.count(), 1, "none of them came through");
}

#[test]
fn a_silent_backend_is_answered_for_at_the_deadline() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let weir = Weir::start(&config(&backend, ", timeouts: {request: 300ms}", ""));
    let mut client = Http2::connect(weir.address());
    assert_eq!(client.get("/", &[]).unwrap().status(), 504);
    weir.until_logged("the reason", |line| line["reason"] == "request_timeout");
    backend.set(Behaviour::default());
    assert_eq!(client.get("/", &[]).unwrap().status(), 200, "the connection goes on");
}

#[test]
fn a_client_that_resets_its_stream_gives_its_lease_back() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let weir = start(&backend);
    let mut client = Http2::connect(weir.address());
    let mut stream = client.start(request(Method::GET, "/", &[]), false).unwrap();
    eventually(TIMEOUT, "it is at the backend", || backend.in_flight() == 1);
    stream.reset();
    eventually(TIMEOUT, "the lease is back", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[("pool", "web")]) == 0.0
    });
    let line = weir.until_logged("the client left", |line| line["reason"] == "client_aborted");
    assert_eq!(line["status"], 499);
    backend.set(Behaviour::default());
    assert_eq!(client.get("/", &[]).unwrap().status(), 200);
}

#[test]
fn a_connection_that_is_replaced_finishes_what_it_has() {
    let backend = Backend::start("one");
    let text = config(&backend, "", "");
    let weir = Weir::start(&text);
    let mut client = Http2::connect(weir.address());
    assert_eq!(client.get("/", &[]).unwrap().status(), 200);
    backend.set(Behaviour::NeverAnswer);
    let stream = client.start(request(Method::GET, "/", &[]), false).unwrap();
    eventually(TIMEOUT, "it is at the backend", || backend.in_flight() == 1);
    weir.write_config(&format!("{text}\nlimits: {{connections: 1000}}"));
    weir.reload();
    eventually(TIMEOUT, "no more streams may begin", || client.is_going_away());
    backend.release();
    assert_eq!(stream.answer().unwrap().status(), 200);
    assert_eq!(client.ended(), None, "ended without an error");
    eventually(TIMEOUT, "the old worker ends", || weir.workers().len() == 1);
}

#[test]
fn an_idle_connection_is_ended() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "", "limits: {keepalive: 300ms}"));
    let mut client = Http2::connect(weir.address());
    assert_eq!(client.get("/", &[]).unwrap().status(), 200);
    assert_eq!(client.ended(), None);
    eventually(TIMEOUT, "it is gone", || weir.status()["downstream_connections"] == 0);
}

#[test]
fn half_a_preface_is_not_waited_for() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "", "limits: {header_timeout: 300ms}"));
    let mut client = Client::connect(weir.address());
    client.send("PRI * HTTP/2.0\r\n");
    assert!(client.is_closed_within(TIMEOUT));
    let mut silent = RawHttp2::connect(weir.address());
    assert_eq!(silent.goaway(), Some(Reason::NO_ERROR.into()), "nor is a first request");
}

#[test]
fn a_client_that_takes_none_of_our_answers_does_not_hold_its_connection() {
    let backend = Backend::start("one");
    let routes = "routes: [{path: /there, pool: web}]\n";
    let limits = "limits: {header_timeout: 500ms, keepalive: 500ms}";
    let weir = Weir::start(&config(&backend, "", &format!("{routes}{limits}")));
    let mut client = RawHttp2::connect(weir.address());
    // A window of nothing for each stream.
    client.send(&frame(0x4, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    // `:method: GET`, `:scheme: http`, `:path: /` by index, `:authority: a`.
    let head = [&[0x82, 0x86, 0x84, 0x41, 1][..], b"a"].concat();
    for number in 0..50 {
        client.send(&frame(0x1, 0x5, number * 2 + 1, &head)).unwrap();
    }
    assert_eq!(client.goaway(), Some(Reason::NO_ERROR.into()));
    eventually(TIMEOUT, "it is gone", || weir.status()["downstream_connections"] == 0);
    let logged = || weir.access_log().iter().filter(|line| line["status"] == 404).count();
    eventually(TIMEOUT, "each is logged", || logged() == 50);
    assert_eq!(backend.count(), 0);
}

#[test]
fn a_refusal_in_place_of_a_backends_answer_is_not_waited_for_either() {
    let backend = Backend::start("one");
    backend.stop();
    let pool = ", retry: {attempts: 1}, timeouts: {request: off, response: 1h}";
    let limits = "limits: {header_timeout: 500ms, keepalive: 500ms}";
    let weir = Weir::start(&config(&backend, pool, limits));
    let mut client = RawHttp2::connect(weir.address());
    client.send(&frame(0x4, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    let head = [&[0x82, 0x86, 0x84, 0x41, 1][..], b"a"].concat();
    client.send(&frame(0x1, 0x5, 1, &head)).unwrap();
    assert_eq!(client.goaway(), Some(Reason::NO_ERROR.into()));
    let line = weir.until_logged("the refusal", |_| true);
    assert_eq!((&line["status"], &line["reason"]), (&503.into(), &"no_backend".into()));
}

#[test]
fn floods_close_only_their_own_connection() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "", ""));
    let mut good = Http2::connect(weir.address());
    let floods = [
        ("ping", frame(0x6, 0, 0, &[7; 8])),
        ("settings", frame(0x4, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("priority", frame(0x2, 0, 1, &[0, 0, 0, 3, 7])),
        ("unknown", frame(0xfa, 0, 0, b"?")),
        (
            "empty continuation",
            [frame(0x1, 0x1, 1, b""), frame(0x9, 0, 1, b"").repeat(10)].concat(),
        ),
    ];
    for (name, bytes) in &floods {
        let sent = RawHttp2::connect(weir.address()).flood(bytes, 200_000);
        assert!(sent < 200_000, "{name}: {sent}");
        assert_eq!(good.get("/", &[]).unwrap().status(), 200, "beside {name}");
    }
    let mut pings = RawHttp2::connect(weir.address());
    // 1000 are allowed at once, and 100 more for each second that they take to be read.
    pings.send(&frame(0x6, 0, 0, &[7; 8]).repeat(1300)).unwrap();
    assert_eq!(pings.goaway(), Some(ENHANCE_YOUR_CALM));
    eventually(TIMEOUT, "each is counted", || floods_counted(&weir) == 6.0);
}

fn floods_counted(weir: &Weir) -> f64 {
    weir.metrics().sum("lb_connection_failures_total", &[("reason", "http2_flood")])
}

#[test]
fn a_head_without_an_end_ends_its_connection_and_is_counted() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "", ""));
    let fields = b"\x10\x01x\x01y".repeat(2000);
    let head = [frame(0x1, 0x1, 1, &[0x82, 0x84, 0x86]), frame(0x9, 0, 1, &fields).repeat(6)];
    let mut client = RawHttp2::connect(weir.address());
    client.send(&head.concat()).unwrap();
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM));
    eventually(TIMEOUT, "it is counted", || floods_counted(&weir) == 1.0);
    assert!(backend.requests().is_empty());
}

#[test]
fn streams_that_are_reset_at_once_end_their_connection() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let weir = start(&backend);
    let mut client = Http2::connect(weir.address());
    let mut begun = 0;
    while begun < 20_000 {
        let Ok(mut stream) = client.start(request(Method::GET, "/", &[]), false) else { break };
        stream.reset();
        begun += 1;
    }
    assert!(begun < 20_000, "after {begun}");
    eventually(TIMEOUT, "it is counted", || floods_counted(&weir) == 1.0);
    eventually(TIMEOUT, "every lease is back", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[("pool", "web")]) == 0.0
    });
}

#[test]
fn trailers_of_a_request_do_not_break_it() {
    let backend = Backend::start("one");
    let weir = start(&backend);
    let mut client = Http2::connect(weir.address());
    let mut stream = client.start(request(Method::POST, "/", &[]), true).unwrap();
    stream.send(b"body", false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 200);
    assert_eq!(backend.requests().pop().unwrap().body, b"body");
}

#[test]
fn a_connection_that_has_served_enough_goes_away_and_finishes_what_it_has() {
    let backend = Backend::start("one");
    let weir = Weir::start(&config(&backend, "", "limits: {requests_per_connection: 3}"));
    let mut client = Http2::connect(weir.address());
    for _ in 0..3 {
        assert_eq!(client.get("/", &[]).unwrap().status(), 200);
    }
    assert_eq!(client.ended(), None, "without an error");
    assert_eq!(backend.count(), 3);
}
