//! Connections whose response is under way when their worker begins to drain.
//!
//! Such a response can no longer say `Connection: close`: the client already has its headers. So
//! the client may use the connection once more, and that request must be served.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::time::Duration;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::http2::{RawHttp2, frame, get_frame};
use crate::support::load_generator::Load;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

/// The pause between two pieces of a response. An idle connection of a draining worker is kept for
/// a shorter time.
const PAUSE: Duration = Duration::from_millis(1500);

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;

/// A backend that sends the response to `/long` in two pieces.
fn backend() -> Backend {
    let backend = Backend::start("one");
    let pieces = vec![b"first ".to_vec(), b"last".to_vec()];
    backend.on("/long", Behaviour::Chunked { pieces, pause: PAUSE });
    backend
}

/// Reads until `text` has come.
fn read_until(client: &mut Client, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        read += &String::from_utf8_lossy(&client.read_some().unwrap());
    }
    read
}

#[test]
fn the_request_after_a_response_that_was_under_way_is_served_and_is_the_last() {
    let backends = [backend()];
    let weir = Weir::start(&pool(&backends, ""));
    let mut client = Client::connect(weir.address());
    client.send("GET /long HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    let header = read_until(&mut client, "first ");
    assert!(!header.to_lowercase().contains("connection: close"), "{header}");
    weir.reload();
    read_until(&mut client, "0\r\n\r\n");
    weir.until_logged("the response has ended", |line| line["path"] == "/long");
    let next = client.get("/");
    assert_eq!((next.status(), next.head.is_last()), (200, true), "{:?}", next.head);
    assert!(client.is_closed_within(TIMEOUT));
    assert_eq!(backends[0].count_of("/"), 1);
}

#[test]
fn no_request_fails_where_responses_are_under_way_at_each_reload() {
    let backends = [backend()];
    let weir = Weir::start(&pool(&backends, ""));
    let load = Load { path: "/long".to_owned(), threads: 30, ..Load::on(weir.address()) }.start();
    for turn in 1..=4 {
        eventually(TIMEOUT, "responses are under way", || backends[0].in_flight() > 20);
        weir.reload();
        eventually(TIMEOUT, "each client goes on", || load.done() > turn * 30);
    }
    let tally = load.stop();
    assert_eq!((tally.failed(), tally.errors.clone()), (0, [].into()));
    assert_eq!(backends[0].count_of("/long"), usize::try_from(tally.total()).unwrap());
}

/// A client with a response under way, after a reload: everything up to the first GOAWAY is read.
fn http2_over_a_reload(backend: &Backend) -> (Weir, RawHttp2) {
    let pools = pool(std::slice::from_ref(backend), "");
    let weir = Weir::start(&format!("{LISTENER_KEYS}http2: true\n{pools}"));
    let mut client = RawHttp2::connect(weir.address());
    client.send(&get_frame(1, "/long")).unwrap();
    client.until(DATA, 0);
    weir.reload();
    let goaway = client.until(GOAWAY, 0);
    assert_eq!(goaway.last_stream(), u32::MAX >> 1, "it says only that it will end");
    (weir, client)
}

#[test]
fn a_stream_that_begins_before_the_last_goaway_is_served() {
    let backend = backend();
    let (_weir, mut client) = http2_over_a_reload(&backend);
    let ping = client.until(PING, 0);
    client.until(DATA, END_STREAM);
    client.send(&get_frame(3, "/")).unwrap();
    client.until(HEADERS, 0);
    client.until(DATA, END_STREAM);
    assert_eq!(backend.count_of("/"), 1);
    client.send(&frame(PING, ACK, 0, &ping.payload)).unwrap();
    assert_eq!(client.until(GOAWAY, 0).last_stream(), 3, "the last one that was served");
    assert_eq!(client.read_frame(), None, "and then the connection ends");
}

#[test]
fn a_client_that_does_not_see_the_first_goaway_at_once_may_still_ask() {
    let backend = backend();
    let (_weir, mut client) = http2_over_a_reload(&backend);
    client.until(DATA, END_STREAM);
    for stream in [3, 5, 7] {
        client.send(&get_frame(stream, "/long")).unwrap();
        client.until(HEADERS, 0);
        client.until(DATA, END_STREAM);
    }
    assert_eq!(backend.count_of("/long"), 4);
    assert_eq!(client.until(GOAWAY, 0).last_stream(), 7, "it is silent, and is not kept");
    assert_eq!(client.read_frame(), None, "and then the connection ends");
}
