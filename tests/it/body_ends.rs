//! How a body ends: every way that a client and a backend have to say it, byte by byte.
//!
//! An end that is written twice is read as the beginning of the next message, and its answer goes to
//! whichever client uses the connection next. So each row is followed by one more request on the same
//! connections.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::io;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::support::client::Client;
use crate::support::h2::H2Backend;
use crate::support::http2::{Http2, Stream, request};
use crate::support::origin::{Conversation, Origin};
use crate::support::ports::own_socket;
use crate::support::tls::{Authority, TlsConfig};
use crate::support::tls_front::TlsFront;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

// ── requests ──

/// A way to end a request's body. Each but the first few says `hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// No body at all.
    None,
    /// A length of 0.
    Zero,
    /// A length, and the end with the last of the body.
    Length,
    /// A length; over HTTP/2 the end is a frame of its own.
    LengthThenEnd,
    /// No length, and the end with the last of the body.
    Unknown,
    /// No length; the end comes after a while, by itself.
    UnknownThenEnd,
    /// No length, and nothing but an end.
    UnknownNothing,
    /// No length, and trailers.
    Trailers,
}

const BODIES: [Body; 8] = [
    Body::None,
    Body::Zero,
    Body::Length,
    Body::LengthThenEnd,
    Body::Unknown,
    Body::UnknownThenEnd,
    Body::UnknownNothing,
    Body::Trailers,
];

impl Body {
    fn content(self) -> &'static str {
        match self {
            Self::None | Self::Zero | Self::UnknownNothing => "",
            Self::Length
            | Self::LengthThenEnd
            | Self::Unknown
            | Self::UnknownThenEnd
            | Self::Trailers => "hello",
        }
    }

    fn length(self) -> Option<usize> {
        match self {
            Self::Zero => Some(0),
            Self::Length | Self::LengthThenEnd => Some(5),
            Self::None
            | Self::Unknown
            | Self::UnknownThenEnd
            | Self::UnknownNothing
            | Self::Trailers => None,
        }
    }

    /// What an HTTP/1 backend may get of it, framing included. Without a body there is nothing, and
    /// without a length there are chunks.
    fn on_the_wire(self) -> &'static [&'static str] {
        match self {
            Self::None | Self::Zero => &[""],
            Self::Length | Self::LengthThenEnd => &["hello"],
            // Where it is known at once that there is nothing, it may be said so.
            Self::UnknownNothing => &["0\r\n\r\n", ""],
            Self::Unknown | Self::UnknownThenEnd | Self::Trailers => &["5\r\nhello\r\n0\r\n\r\n"],
        }
    }
}

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comes {
    Http1,
    H2c,
    H2,
}

/// The backends of all kinds, and a balancer with a listener in clear and one with TLS before them.
pub(crate) struct World {
    pub(crate) origin: Origin,
    pub(crate) h2: H2Backend,
    _front: TlsFront,
    authority: Authority,
    clear: Weir,
    tls: Weir,
}

impl World {
    pub(crate) fn new(origin: Origin) -> Self {
        let (h2, authority) = (H2Backend::start(), Authority::new());
        let identity = authority.identity("web", &["web.internal"]);
        let front = TlsFront::with(own_socket(3443), h2.address(), &identity, None, &["h2"]);
        let pool = |name: &str, url: &str, more: &str| {
            format!(
                "  - {{name: {name}, health_check: off, backends: [{url}], \
                 retry: {{attempts: 2, backoff: 1ms}}, {more}}}\n"
            )
        };
        let trust = format!("tls: {{ca: {}, server_name: web.internal}}", authority.ca().display());
        let config = [
            "routes:\n".to_owned(),
            "  - {host: http1.test, pool: http1}\n  - {host: h2c.test, pool: h2c}\n".to_owned(),
            "  - {host: h2.test, pool: h2}\npools:\n".to_owned(),
            pool("http1", &origin.url(), "protocol: http1"),
            pool("h2c", &h2.url(), "protocol: h2c"),
            pool("h2", &front.url(), &format!("protocol: h2, {trust}")),
        ]
        .concat();
        let identity = authority.identity("site", &["http1.test", "h2c.test", "h2.test"]);
        let tls = format!("{LISTENER_KEYS}tls: {{certificates: [{}]}}\n", identity.yaml());
        let clear = Weir::start(&format!("{LISTENER_KEYS}http2: true\n{config}"));
        let tls = Weir::start(&(tls + &config));
        Self { origin, h2, _front: front, authority, clear, tls }
    }

    pub(crate) fn weir(&self, comes: Comes) -> &Weir {
        if comes == Comes::H2 { &self.tls } else { &self.clear }
    }

    pub(crate) fn http2(&self, comes: Comes, host: &str) -> Http2 {
        if comes == Comes::H2 {
            let config = TlsConfig::new(&self.authority, None);
            return Http2::connect_tls(self.tls.address(), config, host);
        }
        Http2::connect(self.clear.address())
    }

    /// Waits until the line of the access log is there: by then the connections are given back.
    fn until_over(&self, comes: Comes, path: &str) {
        self.weir(comes).until_logged(path, |line| line["path"] == path);
    }

    /// Waits until the backend has some of a body and waits for the end.
    fn until_begun(&self, host: &str, path: &str) {
        eventually(TIMEOUT, "the first of the body is there", || match host {
            "http1.test" => self.origin.has_come_to("5\r\nhello\r\n"),
            _ => {
                let calls = self.h2.calls();
                calls.last().is_some_and(|call| call.path == path && call.body == b"hello")
            }
        });
    }
}

fn method(body: Body) -> Method {
    if body == Body::None { Method::GET } else { Method::PUT }
}

/// Sends it over HTTP/1; the status of the response.
fn send_http1(world: &World, host: &str, path: &str, body: Body, fails: bool) -> u16 {
    let mut client = Client::connect(world.clear.address());
    let mut head = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n", method(body));
    if fails {
        head.push_str("X-Fail-First: 1\r\n");
    }
    match (body, body.length()) {
        (Body::None, _) => {}
        (_, Some(length)) => head.push_str(&format!("Content-Length: {length}\r\n")),
        (_, None) => head.push_str("Transfer-Encoding: chunked\r\n"),
    }
    let text = match body {
        Body::None | Body::Zero => "",
        Body::Length | Body::LengthThenEnd => "hello",
        Body::Unknown => "5\r\nhello\r\n0\r\n\r\n",
        Body::UnknownThenEnd => "5\r\nhello\r\n",
        Body::UnknownNothing => "0\r\n\r\n",
        Body::Trailers => "5\r\nhello\r\n0\r\nX-After: 1\r\n\r\n",
    };
    client.send(format!("{head}\r\n{text}"));
    if body == Body::UnknownThenEnd {
        world.until_begun(host, path);
        client.send("0\r\n\r\n");
    }
    let status = client.read_answer().status();
    world.until_over(Comes::Http1, path);
    let next = client.request("GET", "/next", &[("Host", host)], b"");
    assert_eq!(next.unwrap_or_else(|failure| panic!("{failure:?}")).status(), 200, "in step");
    status
}

/// The same over HTTP/2.
fn send_http2(world: &World, comes: Comes, (host, path): (&str, &str), row: (Body, bool)) -> u16 {
    let (body, fails) = row;
    let mut client = world.http2(comes, host);
    let scheme = if comes == Comes::H2 { "https" } else { "http" };
    let length = body.length().map(|length| length.to_string());
    let mut fields = Vec::new();
    if let Some(length) = &length {
        fields.push(("content-length", length.as_str()));
    }
    if fails {
        fields.push(("x-fail-first", "1"));
    }
    let head = request(method(body), &format!("{scheme}://{host}{path}"), &fields);
    let mut stream = client.start(head, body != Body::None).unwrap();
    send_frames(&mut stream, body, || world.until_begun(host, path));
    let status = stream.answer().unwrap().status();
    world.until_over(comes, path);
    let next = client.get(&format!("{scheme}://{host}/next"), &[]).unwrap();
    assert_eq!(next.status(), 200, "in step");
    status
}

fn send_frames(stream: &mut Stream, body: Body, until_begun: impl Fn()) {
    match body {
        Body::None => {}
        Body::Zero | Body::UnknownNothing => stream.send(b"", true).unwrap(),
        Body::Length | Body::Unknown => stream.send(b"hello", true).unwrap(),
        Body::LengthThenEnd => {
            stream.send(b"hello", false).unwrap();
            stream.send(b"", true).unwrap();
        }
        Body::UnknownThenEnd => {
            stream.send(b"hello", false).unwrap();
            until_begun();
            stream.send(b"", true).unwrap();
        }
        Body::Trailers => {
            stream.send(b"hello", false).unwrap();
            let after = (HeaderName::from_static("x-after"), HeaderValue::from_static("1"));
            stream.send_trailers(HeaderMap::from_iter([after])).unwrap();
        }
    }
}

/// Answers everything, but for the first request for each path that is to fail: that is read to its
/// end, and reset.
fn answering(conversation: &mut Conversation) -> io::Result<()> {
    while let Some(head) = conversation.head()? {
        let message = conversation.rest(head)?;
        if message.has("x-fail-first: 1") && !conversation.has_seen_before(message.line()) {
            return conversation.reset();
        }
        conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

/// What has come at an HTTP/1 backend for `path`, and what came next on that connection. Whether
/// anything did: on a busy machine a connection is not always back in the pool in time.
fn check_origin(world: &World, path: &str, body: Body, attempts: usize, row: &str) -> bool {
    let messages = world.origin.messages();
    let line = format!("{} {path} HTTP/1.1", method(body));
    let of_path: Vec<_> = messages.iter().filter(|message| message.line() == line).collect();
    assert_eq!(of_path.len(), attempts, "{row}: {messages:?}");
    for message in &of_path {
        let wire = String::from_utf8_lossy(&message.body).into_owned();
        assert!(body.on_the_wire().contains(&wire.as_str()), "{row}: {wire:?}");
        let is_chunked = message.has("transfer-encoding: chunked");
        assert_eq!(is_chunked, wire.ends_with("0\r\n\r\n"), "{row}: {}", message.head);
        assert!(!(is_chunked && message.names("content-length")), "{row}: {}", message.head);
    }
    let last = of_path.last().unwrap_or_else(|| panic!("{row}"));
    let here: Vec<_> =
        messages.iter().filter(|message| message.connection == last.connection).collect();
    let at = here.iter().position(|message| message == last);
    let next = at.and_then(|at| here.get(at + 1)).map(|message| message.line());
    if let Some(next) = next {
        assert_eq!(next, "GET /next HTTP/1.1", "{row}: what follows is the next request");
    }
    next.is_some()
}

#[test]
fn every_end_of_a_request_body_reaches_every_backend_once() {
    let world = World::new(Origin::start(answering));
    let (mut number, mut followed, mut alone) = (0, 0, 0);
    for comes in [Comes::Http1, Comes::H2c, Comes::H2] {
        for host in ["http1.test", "h2c.test", "h2.test"] {
            for (body, fails) in BODIES.iter().flat_map(|body| [(*body, false), (*body, true)]) {
                number += 1;
                let (path, attempts) = (format!("/{number}"), 1 + usize::from(fails));
                let row = format!("{comes:?} to {host}, {body:?}, fails first: {fails}");
                let status = match comes {
                    Comes::Http1 => send_http1(&world, host, &path, body, fails),
                    Comes::H2c | Comes::H2 => {
                        send_http2(&world, comes, (host, &path), (body, fails))
                    }
                };
                assert_eq!(status, 200, "{row}");
                if host == "http1.test" {
                    let is_followed = check_origin(&world, &path, body, attempts, &row);
                    *(if is_followed { &mut followed } else { &mut alone }) += 1;
                    continue;
                }
                let calls = world.h2.calls();
                let of_path: Vec<_> = calls.iter().filter(|call| call.path == path).collect();
                assert_eq!(of_path.len(), attempts, "{row}");
                for call in of_path {
                    assert_eq!(String::from_utf8_lossy(&call.body), body.content(), "{row}");
                }
            }
        }
    }
    assert!(followed > 4 * alone, "{followed} connections were used again, {alone} were not");
}

#[test]
fn a_body_that_is_sent_again_before_it_is_whole_ends_once_too() {
    let world = World::new(Origin::start(|conversation| {
        if conversation.number() % 2 == 0 {
            conversation.message()?;
            return conversation
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        conversation.head()?;
        conversation.until("hello\r\n")?;
        conversation.reset()
    }));
    let until_again = |connections| {
        eventually(TIMEOUT, "it is sent again", || {
            world.origin.connections() == connections && world.origin.has_come_to("hello\r\n")
        });
    };
    let mut client = Client::connect(world.clear.address());
    let head = "PUT /1 HTTP/1.1\r\nHost: http1.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhello\r\n"));
    until_again(2);
    client.send("6\r\n again\r\n0\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    world.until_over(Comes::Http1, "/1");
    let head = request(Method::PUT, "http://http1.test/2", &[]);
    let mut stream = world.http2(Comes::H2c, "http1.test").start(head, true).unwrap();
    stream.send(b"hello", false).unwrap();
    until_again(4);
    stream.send(b" again", false).unwrap();
    stream.send(b"", true).unwrap();
    assert_eq!(stream.answer().unwrap().status(), 200);
    for message in world.origin.messages() {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        assert_eq!(body, "5\r\nhello\r\n6\r\n again\r\n0\r\n\r\n", "{}", message.line());
    }
}

// ── responses ──

/// What an HTTP/1 backend says, and the body of it that a client gets.
const RESPONSES: [(&str, &[&str], &str); 9] = [
    ("/length", &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], "hello"),
    ("/length-later", &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hel", "lo"], "hello"),
    ("/zero", &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], ""),
    (
        "/chunked",
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
        "hello",
    ),
    (
        "/chunked-end-later",
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "0\r\n\r\n"],
        "hello",
    ),
    (
        "/chunked-end-apart",
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n", "\r\n"],
        "hello",
    ),
    ("/chunked-nothing", &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], ""),
    (
        "/chunked-trailers",
        &[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-After: 1\r\n\r\n",
        ],
        "hello",
    ),
    ("/until-closed", &["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhel", "lo"], "hello"),
];

/// Responses without a body, whatever their fields say.
const BODILESS: [(&str, &str, &str); 4] = [
    ("GET", "/none", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", "/same", "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n"),
    ("HEAD", "/length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("HEAD", "/chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
];

fn responding(conversation: &mut Conversation) -> io::Result<()> {
    while let Some(message) = conversation.message()? {
        let mut words = message.line().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let bodiless = BODILESS.iter().find(|row| (row.0, row.1) == (method, path));
        let pieces = match bodiless {
            Some((_, _, head)) => std::slice::from_ref(head),
            None => {
                let row = RESPONSES.iter().find(|row| row.0 == path);
                row.map_or(&["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"][..], |row| row.1)
            }
        };
        for piece in pieces {
            conversation.send(piece)?;
            if pieces.len() > 1 {
                conversation.pause(std::time::Duration::from_millis(20))?;
            }
        }
        if path == "/until-closed" {
            return Ok(());
        }
    }
    Ok(())
}

/// Every path with the body that comes of it, by the host that has it.
fn responses() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    let mut rows = Vec::new();
    rows.extend(RESPONSES.iter().map(|row| ("http1.test", "GET", row.0, row.2)));
    rows.extend(BODILESS.iter().map(|row| ("http1.test", row.0, row.1, "")));
    for host in ["h2c.test", "h2.test"] {
        for end in ["data", "empty", "trailers", "length", "length-empty"] {
            let path = ["/end/", end].concat();
            rows.push((host, "GET", String::leak(path), "hello"));
        }
        rows.push((host, "GET", "/end/head", ""));
        rows.push((host, "GET", "/end/nothing", ""));
        rows.push((host, "GET", "/end/none", ""));
        rows.push((host, "HEAD", "/end/length", ""));
        rows.push((host, "HEAD", "/end/data", ""));
    }
    rows
}

#[test]
fn every_end_of_a_response_body_reaches_every_client_once() {
    let world = World::new(Origin::start(responding));
    for (host, method, path, body) in responses() {
        let row = format!("{method} {path} from {host}");
        let mut client = Client::connect(world.clear.address());
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.try_read_answer(method);
        let answer = answer.unwrap_or_else(|failure| panic!("{row}: {failure:?}"));
        assert_eq!(answer.text(), body, "{row}");
        assert!(!answer.head.is_last(), "{row}: {:?}", answer.head);
        let next = client.request("GET", "/next", &[("Host", host)], b"");
        assert_eq!(next.unwrap_or_else(|failure| panic!("{row}: {failure:?}")).status(), 200);

        let mut old = Client::connect(world.clear.address());
        old.send(format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"));
        let answer = old.try_read_answer(method);
        let answer = answer.unwrap_or_else(|failure| panic!("{row}, HTTP/1.0: {failure:?}"));
        assert_eq!(answer.text(), body, "{row}, HTTP/1.0");
        assert!(old.is_closed_within(TIMEOUT), "{row}, HTTP/1.0");

        for comes in [Comes::H2c, Comes::H2] {
            let scheme = if comes == Comes::H2 { "https" } else { "http" };
            let mut client = world.http2(comes, host);
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let head = request(method, &format!("{scheme}://{host}{path}"), &[]);
            let answer = client.start(head, false).unwrap().answer();
            let answer = answer.unwrap_or_else(|error| panic!("{row}, {comes:?}: {error}"));
            assert_eq!(String::from_utf8_lossy(&answer.body), body, "{row}, {comes:?}");
            let next = client.get(&format!("{scheme}://{host}/next"), &[]);
            assert_eq!(next.unwrap_or_else(|error| panic!("{row}: {error}")).status(), 200);
        }
    }
}
