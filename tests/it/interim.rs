//! Interim responses (1xx): passed on, or given in place of a backend, whatever either side speaks.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::io;

use http::Method;

use crate::body_ends::{Comes, World};
use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{Client, request_bytes};
use crate::support::configs::pool;
use crate::support::http2::{Http2, request};
use crate::support::origin::{Conversation, Origin};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, now};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
const HOSTS: [&str; 3] = ["http1.test", "h2c.test", "h2.test"];

/// Gives leave to send a body, and hints.
fn interim(conversation: &mut Conversation) -> io::Result<()> {
    while let Some(head) = conversation.head()? {
        if head.starts_with("GET /hints ") {
            conversation.send(HINTS)?;
        }
        if head.to_ascii_lowercase().contains("\r\nexpect: 100-continue") {
            conversation.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        conversation.rest(head)?;
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

fn origin(host: &str, comes: Comes) -> String {
    let scheme = if comes == Comes::H2 { "https" } else { "http" };
    format!("{scheme}://{host}")
}

#[test]
fn a_client_that_waits_for_leave_to_send_its_body_gets_it_whatever_is_spoken() {
    let world = World::new(Origin::start(interim));
    for host in HOSTS {
        let mut client = Client::connect(world.weir(Comes::Http1).address());
        let fields = [("Host", host), ("Expect", "100-continue")];
        client.send(request_bytes("PUT", "/expect", &fields, 5));
        let leave = client.read_head(now() + TIMEOUT);
        assert_eq!(leave.unwrap_or_else(|failure| panic!("{host}: {failure:?}")).status, 100);
        client.send("hello");
        let answer = client.read_answer();
        assert_eq!((answer.interim.len(), answer.status()), (0, 200), "{host}: leave comes once");
        assert!(!answer.head.is_last(), "{host}: the connection is kept: {:?}", answer.head);
        for comes in [Comes::H2c, Comes::H2] {
            let fields = [("expect", "100-continue"), ("content-length", "5")];
            let head = request(Method::PUT, &(origin(host, comes) + "/expect"), &fields);
            let mut stream = world.http2(comes, host).start(head, true).unwrap();
            let leave = stream.interim().unwrap_or_else(|| panic!("{comes:?} to {host}"));
            assert_eq!(leave.status(), 100);
            stream.send(b"hello", true).unwrap();
            assert_eq!(stream.answer().unwrap().status(), 200, "{comes:?} to {host}");
        }
    }
    let bodies = world.origin.messages().into_iter().map(|message| message.body);
    let bodies: Vec<_> = bodies.chain(world.h2.calls().into_iter().map(|call| call.body)).collect();
    assert_eq!(bodies, vec![b"hello"; 9]);
}

#[test]
fn hints_of_a_backend_of_http1_come_to_every_client_and_nothing_else_is_lost() {
    let world = World::new(Origin::start(interim));
    for host in HOSTS {
        // Pingora shows no interim response of a backend of HTTP/2; the response itself comes.
        let shows_hints = host == "http1.test";
        let mut client = Client::connect(world.weir(Comes::Http1).address());
        let answer = client.request("GET", "/hints", &[("Host", host)], b"").unwrap();
        let hints: Vec<u16> = answer.interim.iter().map(|head| head.status).collect();
        assert_eq!((hints, answer.status()), (vec![103; usize::from(shows_hints)], 200), "{host}");
        for comes in [Comes::H2c, Comes::H2] {
            let head = request(Method::GET, &(origin(host, comes) + "/hints"), &[]);
            let mut stream = world.http2(comes, host).start(head, false).unwrap();
            if shows_hints {
                let hints = stream.interim().unwrap_or_else(|| panic!("{comes:?}"));
                assert_eq!(hints.status(), 103);
                assert_eq!(hints.headers()["link"], LINK);
            }
            assert_eq!(stream.answer().unwrap().status(), 200, "{comes:?} to {host}");
        }
    }
}

const LINK: &str = "</style.css>";

fn after_hints(behaviour: Behaviour) -> (Vec<Backend>, Weir) {
    let backends = Backend::start_many(2);
    let retry = "retry: {attempts: 2, backoff: 5ms}";
    let weir = format!("{LISTENER_KEYS}http2: true\n{}", pool(&backends, retry));
    backends[0].set(Behaviour::Interim(HINTS.to_owned(), Box::new(behaviour)));
    (backends, Weir::start(&weir))
}

#[test]
fn a_backend_that_fails_after_hints_is_replaced_like_any_other() {
    let (backends, weir) = after_hints(Behaviour::ResetBeforeAnswer);
    for _ in 0..2 {
        let answer = Client::connect(weir.address()).request("GET", "/", &[], b"");
        assert_eq!(answer.unwrap().text(), "b2");
        let answer = Http2::connect(weir.address()).get("/", &[]).unwrap();
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"b2"[..]));
    }
    assert!(backends[0].count() > 0);
}

#[test]
fn a_client_that_has_only_hints_gets_a_refusal() {
    let (backends, weir) = after_hints(Behaviour::ResetBeforeAnswer);
    backends[1].set(Behaviour::ResetBeforeAnswer);
    let answer = Client::connect(weir.address()).request("GET", "/", &[], b"").unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(Http2::connect(weir.address()).get("/", &[]).unwrap().status(), 502);
    weir.until_logged("it", |line| line["status"] == 502 && line["reason"] == "connection_reset");
}
