//! Trailers, as they are today: what passes, and what is dropped.
//!
//! Between HTTP/1 and anything else they are dropped, which RFC 9110 §6.5.1 lets a proxy do; from an
//! HTTP/2 backend to an HTTP/2 client they pass as they came, but for what the `h2` library rejects.

use http::{HeaderMap, Method};

use crate::body_ends::{Comes, World};
use crate::support::client::Client;
use crate::support::http2::request;
use crate::support::origin::Origin;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const H2_HOSTS: [&str; 2] = ["h2c.test", "h2.test"];

fn url(comes: Comes, host: &str, path: &str) -> String {
    let scheme = if comes == Comes::H2 { "https" } else { "http" };
    format!("{scheme}://{host}{path}")
}

#[test]
fn trailers_of_a_request_are_dropped() {
    let world = World::new(Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    for host in ["http1.test", "h2c.test", "h2.test"] {
        let mut client = Client::connect(world.weir(Comes::Http1).address());
        let head = format!("PUT /1 HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{head}5\r\nhello\r\n0\r\nX-After: 1\r\n\r\n"));
        assert_eq!(client.read_answer().status(), 200, "{host}");
        for comes in [Comes::H2c, Comes::H2] {
            let head = request(Method::PUT, &url(comes, host, "/1"), &[]);
            let mut stream = world.http2(comes, host).start(head, true).unwrap();
            stream.send(b"hello", false).unwrap();
            let after = ("x-after".parse().unwrap(), "1".parse().unwrap());
            stream.send_trailers(HeaderMap::from_iter([after])).unwrap();
            assert_eq!(stream.answer().unwrap().status(), 200, "{comes:?} to {host}");
        }
    }
    for message in world.origin.messages() {
        assert_eq!(message.body, b"5\r\nhello\r\n0\r\n\r\n");
    }
    let calls = world.h2.calls();
    assert_eq!(calls.len(), 6);
    assert!(calls.iter().all(|call| call.body == b"hello" && call.trailers.is_none()));
}

#[test]
fn trailers_of_an_http1_backend_are_dropped() {
    let trailers = "5\r\nhello\r\n0\r\nX-After: 1\r\nContent-Length: 7\r\n\r\n";
    let world = World::new(Origin::saying([CHUNKED, trailers].concat()));
    let mut client = Client::connect(world.weir(Comes::Http1).address());
    let answer = client.request("GET", "/", &[("Host", "http1.test")], b"").unwrap();
    assert_eq!((answer.text().as_str(), answer.trailers.len()), ("hello", 0));
    for comes in [Comes::H2c, Comes::H2] {
        let mut client = world.http2(comes, "http1.test");
        let answer = client.get(&url(comes, "http1.test", "/"), &[]).unwrap();
        assert_eq!((answer.body.as_slice(), answer.trailers), (&b"hello"[..], None), "{comes:?}");
    }
}

#[test]
fn trailers_of_an_http2_backend_pass_to_clients_of_http2_alone() {
    let world = World::new(Origin::saying(""));
    for host in H2_HOSTS {
        let mut client = Client::connect(world.weir(Comes::Http1).address());
        let answer = client.request("GET", "/end/trailers", &[("Host", host)], b"").unwrap();
        assert_eq!((answer.text().as_str(), answer.trailers.len()), ("hello", 0), "{host}");
        for comes in [Comes::H2c, Comes::H2] {
            let answer = world.http2(comes, host).get(&url(comes, host, "/end/trailers"), &[]);
            let trailers = answer.unwrap().trailers.unwrap_or_else(|| panic!("{comes:?} {host}"));
            assert_eq!(trailers.get("grpc-status").unwrap(), "0", "{comes:?} from {host}");
        }
    }
}

#[test]
fn fields_that_have_no_place_in_trailers_pass_from_http2_to_http2() {
    let world = World::new(Origin::saying(""));
    let path = "/end/forbidden-trailers";
    for host in H2_HOSTS {
        // Towards HTTP/1 they are dropped with all others.
        let mut client = Client::connect(world.weir(Comes::Http1).address());
        let answer = client.request("GET", path, &[("Host", host)], b"").unwrap();
        assert_eq!((answer.text().as_str(), answer.trailers.len()), ("hello", 0), "{host}");
        assert_eq!(answer.header("set-cookie"), None, "{host}");
        for comes in [Comes::H2c, Comes::H2] {
            let answer = world.http2(comes, host).get(&url(comes, host, path), &[]).unwrap();
            let mut names: Vec<String> =
                answer.trailers.unwrap().keys().map(ToString::to_string).collect();
            names.sort();
            // They are not merged into the headers, here or by a client that keeps to the rules.
            assert_eq!(names, ["content-length", "set-cookie", "x-after"], "{comes:?} from {host}");
            assert!(!answer.head.headers().contains_key("set-cookie"), "{comes:?} from {host}");
        }
    }
}
