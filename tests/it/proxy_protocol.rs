//! The PROXY protocol: listed peers must send a header, other peers must not.

use std::net::Ipv4Addr;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::ports::own_address;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 443\r\n";

/// The same as [`LINE`], in version 2, with a note behind it.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10".to_vec();
    header.extend([192, 0, 2, 7, 198, 51, 100, 2, 0x12, 0x67, 0x01, 0xbb, 0x04, 0, 1, 0]);
    header
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// Takes PROXY headers from `proxy` alone.
fn weir(backend: &Backend, proxy: Ipv4Addr, more: &str) -> Weir {
    weir_from(backend, &proxy.to_string(), more)
}

fn weir_from(backend: &Backend, proxy: &str, more: &str) -> Weir {
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{}]}}]", backend.url());
    Weir::start(&format!("{LISTENER_KEYS}proxy_protocol: {{from: [\"{proxy}\"]}}\n{pools}\n{more}"))
}

fn failures(weir: &Weir, reason: &str) -> Option<f64> {
    weir.metrics().value("lb_connection_failures_total", &[("reason", reason)])
}

#[test]
fn the_backend_and_the_log_hear_of_the_client_that_the_header_names() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    for (index, header) in [LINE.to_vec(), binary()].into_iter().enumerate() {
        let mut client = Client::connect_from(proxy, weir.address());
        client.send(header);
        // The header is for the connection, not for one request.
        for _ in 0..2 {
            assert_eq!(client.get("/").status(), 200);
        }
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.header("x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(request.header("x-real-ip"), Some("192.0.2.7"));
        eventually(TIMEOUT, "the log names the client", || {
            weir.stdout().matches("\"client\":\"192.0.2.7\"").count() == (index + 1) * 2
        });
    }
}

#[test]
fn limits_are_the_named_clients_and_not_the_proxys() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "rate_limit: {requests_per_second: 0.001, burst: 1}");
    let ask = |from: &str| {
        let mut client = Client::connect_from(proxy, weir.address());
        client.send(format!("PROXY TCP4 {from} 198.51.100.2 4711 443\r\n"));
        client.get("/").status()
    };
    assert_eq!((ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2")), (200, 429, 200));
}

#[test]
fn a_header_and_a_request_may_come_in_any_pieces() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    let mut client = Client::connect_from(proxy, weir.address());
    let bytes = [&binary()[..], b"GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n"].concat();
    for byte in bytes {
        client.send([byte]);
    }
    assert_eq!(client.read_answer().status(), 200);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    let mut client = Client::connect_from(proxy, weir.address());
    client.send(LOCAL);
    assert_eq!(client.get("/").status(), 200);
    let request = backend.requests().pop().unwrap();
    assert_eq!(request.header("x-real-ip"), Some(proxy.to_string().as_str()));
}

#[test]
fn a_listed_peer_must_send_a_header() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    let mut client = Client::connect_from(proxy, weir.address());
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert!(client.is_closed_within(TIMEOUT));
    eventually(TIMEOUT, "it is counted", || failures(&weir, "proxy_header_missing") == Some(1.0));
    weir.until_said("no PROXY header");
    let mut client = Client::connect_from(proxy, weir.address());
    client.send("PROXY TCP4 192.0.2.7 no-address 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.is_closed_within(TIMEOUT));
    eventually(TIMEOUT, "it is counted", || failures(&weir, "proxy_header_invalid") == Some(1.0));
    assert_eq!(backend.count(), 0);
}

#[test]
fn connections_that_fail_do_not_fill_the_log() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    for _ in 0..100 {
        let mut client = Client::connect_from(proxy, weir.address());
        client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        assert!(client.is_closed_within(TIMEOUT));
    }
    eventually(TIMEOUT, "each is counted", || {
        failures(&weir, "proxy_header_missing") == Some(100.0)
    });
    // Five, and one more for each minute that it took.
    let logged = weir.stderr().matches("reason=proxy_header_missing").count();
    assert!((5..20).contains(&logged), "{logged}: {}", weir.stderr());
}

#[test]
fn a_header_of_an_unlisted_peer_is_a_bad_request() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    for header in [LINE.to_vec(), binary()] {
        let mut client = Client::connect_from(own_address(), weir.address());
        client.send([&header[..], b"GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n"].concat());
        assert_eq!(client.read_answer().status(), 400);
    }
    assert_eq!(backend.count(), 0);
    let mut client = Client::connect_from(own_address(), weir.address());
    assert_eq!(client.get("/").status(), 200, "without one it is a client like any other");
}

#[test]
fn a_header_that_trickles_is_not_waited_for() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "limits: {header_timeout: 300ms}");
    let mut client = Client::connect_from(proxy, weir.address());
    let mut bytes = binary().into_iter();
    eventually(TIMEOUT, "the connection is closed", || {
        client.is_closed_within(std::time::Duration::from_millis(100))
            || bytes.next().is_none_or(|byte| client.try_send([byte]).is_err())
    });
    assert!(bytes.len() > 0, "not before the header was whole");
    eventually(TIMEOUT, "it is counted", || failures(&weir, "timeout") == Some(1.0));
}

#[test]
fn a_probe_that_says_nothing_is_no_failure() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let weir = weir(&backend, proxy, "");
    Client::connect_from(proxy, weir.address()).half_close();
    let mut client = Client::connect_from(proxy, weir.address());
    client.send(LINE);
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(weir.metrics().sum("lb_connection_failures_total", &[]), 0.0);
}

#[test]
fn a_network_may_be_written_as_ipv4_mapped() {
    let (backend, proxy) = (Backend::start("one"), own_address());
    let mapped = format!("::ffff:{proxy}/128");
    let weir = weir_from(&backend, &mapped, "trusted_proxies: [\"::ffff:192.0.2.0/120\"]");
    let mut client = Client::connect_from(proxy, weir.address());
    client.send(LINE);
    let forwarded = [("X-Forwarded-For", "203.0.113.9")];
    assert_eq!(client.request("GET", "/", &forwarded, b"").unwrap().status(), 200);
    let request = backend.requests().pop().unwrap();
    assert_eq!(request.header("x-real-ip"), Some("203.0.113.9"));
}
