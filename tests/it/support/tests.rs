//! The tools themselves: a client that overlooks a fault, or a backend that miscounts, would
//! make every other test say less than it seems to.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::backend::{Answer, Backend, Behaviour, Deaf};
use super::client::{Client, Failure, Framing, try_get};
use super::load_generator::Load;
use super::metrics::Metrics;
use super::ports::{own_address, own_addresses, own_socket};
use super::{TIMEOUT, client, eventually, now, within};

fn refused(failure: &Failure) -> bool {
    matches!(failure, Failure::Io(text) if text.contains("refused"))
}

#[test]
fn every_address_is_given_once() {
    let addresses: BTreeSet<_> = own_addresses(300).into_iter().collect();
    assert_eq!(addresses.len(), 300);
}

#[test]
fn waiting_ends_with_nothing_at_the_deadline() {
    let start = now();
    assert_eq!(within(Duration::from_millis(30), || None::<()>), None);
    assert!(now() - start >= Duration::from_millis(30), "it gave up early");
}

#[test]
fn an_answer_with_a_length_is_read_to_its_length() {
    let backend = Backend::start("one");
    let answer = client::get(backend.address(), "/");
    assert_eq!(answer.framing, Framing::ContentLength);
    assert_eq!(answer.text(), "one");
    assert_eq!(answer.header("X-Backend"), Some("one"));
}

#[test]
fn the_chunks_of_an_answer_are_joined() {
    let backend = Backend::start("one");
    let pieces = vec![b"ab".to_vec(), b"cde".to_vec()];
    backend.set(Behaviour::Chunked { pieces, pause: Duration::from_millis(10) });
    let answer = client::get(backend.address(), "/");
    assert_eq!(answer.framing, Framing::Chunked);
    assert_eq!(answer.text(), "abcde");
}

#[test]
fn a_body_may_end_with_the_connection() {
    let backend = Backend::start("one");
    backend.set(Behaviour::UntilClosed(b"abc".to_vec()));
    let answer = client::get(backend.address(), "/");
    assert_eq!(answer.framing, Framing::Close);
    assert_eq!(answer.text(), "abc");
}

#[test]
fn head_and_204_have_no_body() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    let head = connection.request("HEAD", "/", &[], b"").unwrap();
    assert_eq!((head.framing, head.header("content-length")), (Framing::Bodiless, Some("3")));
    backend.set(Behaviour::status(204));
    assert_eq!(connection.get("/").framing, Framing::Bodiless);
    backend.set(Behaviour::Good);
    assert_eq!(connection.get("/").text(), "one", "the connection is still in step");
}

#[test]
fn interim_answers_are_kept_apart_from_the_final_one() {
    let backend = Backend::start("one");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_owned();
    backend.set(Behaviour::Interim(hints, Box::new(Behaviour::Good)));
    let answer = client::get(backend.address(), "/");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.interim.len(), 1);
    assert_eq!(answer.interim[0].header("link"), Some("</x>"));
}

#[test]
fn a_body_shorter_than_promised_is_truncated() {
    let backend = Backend::start("one");
    backend.set(Behaviour::WrongLength { promised: 10, sent: 4 });
    let failure = try_get(backend.address(), "/").unwrap_err();
    assert!(matches!(failure, Failure::TruncatedBody { got: 4, .. }), "{failure:?}");
}

#[test]
fn chunks_without_an_end_are_truncated() {
    let backend = Backend::start("one");
    backend.set(Behaviour::Garbage(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec(),
    ));
    let failure = try_get(backend.address(), "/").unwrap_err();
    assert!(matches!(failure, Failure::TruncatedBody { got: 3, .. }), "{failure:?}");
}

#[test]
fn a_head_without_an_end_is_truncated() {
    let backend = Backend::start("one");
    backend.set(Behaviour::Garbage(b"HTTP/1.1 200 OK\r\nX: 1\r\n".to_vec()));
    let failure = try_get(backend.address(), "/").unwrap_err();
    assert!(matches!(failure, Failure::TruncatedHead(_)), "{failure:?}");
}

#[test]
fn what_is_no_http_is_malformed() {
    let backend = Backend::start("one");
    backend.set(Behaviour::Garbage(b"hello\r\n\r\n".to_vec()));
    let failure = try_get(backend.address(), "/").unwrap_err();
    assert!(matches!(failure, Failure::Malformed(_)), "{failure:?}");
}

#[test]
fn a_length_beside_chunks_is_malformed() {
    let backend = Backend::start("one");
    backend.set(Behaviour::Garbage(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_vec(),
    ));
    let failure = try_get(backend.address(), "/").unwrap_err();
    assert!(matches!(failure, Failure::Malformed(_)), "{failure:?}");
}

#[test]
fn a_connection_closed_instead_of_an_answer_is_no_answer() {
    let backend = Backend::start("one");
    backend.set(Behaviour::CloseBeforeAnswer);
    assert_eq!(try_get(backend.address(), "/").unwrap_err(), Failure::NoAnswer);
}

#[test]
fn a_reset_instead_of_an_answer_is_a_reset() {
    let backend = Backend::start("one");
    backend.set(Behaviour::ResetBeforeAnswer);
    assert_eq!(try_get(backend.address(), "/").unwrap_err(), Failure::Reset { got: 0 });
}

#[test]
fn a_reset_inside_a_body_says_how_much_had_come() {
    let backend = Backend::start("one");
    backend.set(Behaviour::ResetMidBody);
    assert_eq!(try_get(backend.address(), "/").unwrap_err(), Failure::Reset { got: 1000 });
}

#[test]
fn a_dripping_head_runs_into_the_clients_deadline() {
    let backend = Backend::start("one");
    backend.set(Behaviour::HalfHead { pause: Duration::from_millis(20) });
    let mut connection = Client::connect(backend.address());
    connection.set_timeout(Duration::from_millis(200));
    assert_eq!(connection.request("GET", "/", &[], b"").unwrap_err(), Failure::TimedOut);
}

#[test]
fn a_slow_answer_comes_after_its_time_and_not_before() {
    let backend = Backend::start("one");
    backend.set(Behaviour::slow(Duration::from_millis(150)));
    let start = now();
    assert_eq!(client::get(backend.address(), "/").status(), 200);
    assert!(now() - start >= Duration::from_millis(150), "it came early");
}

#[test]
fn a_request_waits_until_it_is_released() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let mut connection = Client::connect(backend.address());
    connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually(TIMEOUT, "the request is in flight", || backend.in_flight() == 1);
    backend.release();
    assert_eq!(connection.read_answer().status(), 200);
    eventually(TIMEOUT, "nothing is in flight", || backend.in_flight() == 0);
}

#[test]
fn a_client_that_leaves_is_noticed_while_an_answer_is_due() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let mut connection = Client::connect(backend.address());
    connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    backend.until_count(1);
    drop(connection);
    eventually(TIMEOUT, "it is noticed", || backend.abandoned() == 1);
}

#[test]
fn requests_are_seen_as_they_were_sent() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    connection.request("POST", "/a%20b?q", &[("X-A", "1"), ("x-a", "2")], b"body").unwrap();
    let seen = backend.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/a%20b?q"));
    assert_eq!(seen.header_values("X-A"), ["1", "2"]);
    assert_eq!((seen.body.as_slice(), seen.is_whole), (b"body".as_slice(), true));
    assert_eq!(seen.peer, connection.local_addr());
}

#[test]
fn a_chunked_request_is_seen_with_its_chunks_joined() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    connection.send(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    );
    assert_eq!(connection.read_answer().status(), 200);
    assert_eq!(backend.seen()[0].body, b"abc");
}

#[test]
fn a_body_cut_off_is_seen_as_not_whole() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    connection.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
    eventually(TIMEOUT, "two bytes", || {
        backend.seen().first().is_some_and(|seen| seen.body == b"ab")
    });
    drop(connection);
    eventually(TIMEOUT, "the connection ends", || backend.connections_open() == 0);
    assert!(!backend.seen()[0].is_whole);
}

#[test]
fn probes_are_counted_apart() {
    let backend = Backend::start("one");
    client::get(backend.address(), "/health");
    client::get(backend.address(), "/?a");
    assert_eq!((backend.count(), backend.count_of("/health"), backend.count_of("/")), (1, 1, 1));
}

#[test]
fn a_kept_connection_is_one_connection() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    connection.get("/");
    connection.get("/");
    assert_eq!((backend.connections(), backend.count()), (1, 2));
}

#[test]
fn a_connection_may_end_after_its_first_answer() {
    let backend = Backend::start("one");
    backend.set(Behaviour::CloseAfterRequests(1));
    let mut connection = Client::connect(backend.address());
    connection.get("/");
    assert_eq!(connection.request("GET", "/", &[], b"").unwrap_err(), Failure::NoAnswer);
    assert_eq!(backend.count(), 2, "the second request did arrive");
}

#[test]
fn behaviours_that_were_queued_are_used_once_each() {
    let backend = Backend::start("one");
    backend.next([Behaviour::status(503), Behaviour::status(502)]);
    let statuses = [0; 3].map(|_| client::get(backend.address(), "/").status());
    assert_eq!(statuses, [503, 502, 200]);
}

#[test]
fn a_path_can_have_a_behaviour_of_its_own() {
    let backend = Backend::start("one");
    backend.on("/health", Behaviour::status(500));
    assert_eq!(client::get(backend.address(), "/health").status(), 500);
    assert_eq!(client::get(backend.address(), "/").status(), 200);
}

#[test]
fn a_behaviour_can_be_decided_by_the_request() {
    let backend = Backend::start("one");
    backend.set(Behaviour::By(Arc::new(|seen| {
        Behaviour::Answer(Answer::body(seen.target.clone()).header("X-Was", &seen.method))
    })));
    let answer = client::get(backend.address(), "/here");
    assert_eq!((answer.text().as_str(), answer.header("x-was")), ("/here", Some("GET")));
}

#[test]
fn an_upgraded_connection_gives_every_byte_back() {
    let backend = Backend::start("one");
    backend.set(Behaviour::Upgrade("echo".to_owned()));
    let mut connection = Client::connect(backend.address());
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "echo")];
    assert_eq!(connection.request("GET", "/", &upgrade, b"").unwrap().status(), 101);
    connection.send(b"\x00\xff");
    assert_eq!(connection.read_some().unwrap(), b"\x00\xff");
}

#[test]
fn a_stopped_backend_refuses_connections_and_has_closed_its_own() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    connection.get("/");
    backend.stop();
    assert!(connection.is_closed_within(TIMEOUT));
    let failure = try_get(backend.address(), "/").unwrap_err();
    assert!(refused(&failure), "{failure:?}");
}

#[test]
fn a_crashed_backend_resets_its_connections() {
    let backend = Backend::start("one");
    let mut connection = Client::connect(backend.address());
    connection.get("/");
    backend.crash();
    assert_eq!(connection.read_some().unwrap_err(), Failure::Reset { got: 0 });
}

#[test]
fn a_stopped_backend_comes_back_on_the_same_address() {
    let backend = Backend::start("one");
    client::get(backend.address(), "/");
    backend.stop();
    backend.restart();
    assert_eq!(client::get(backend.address(), "/").text(), "one");
    assert_eq!(backend.count(), 2, "the count goes on");
}

#[test]
fn a_stop_does_not_wait_for_answers_that_are_due() {
    let backend = Backend::start("one");
    backend.set(Behaviour::NeverAnswer);
    let mut connection = Client::connect(backend.address());
    connection.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    backend.until_count(1);
    backend.stop();
    assert!(connection.is_closed_within(TIMEOUT));
    assert_eq!(backend.abandoned(), 0, "it was not the client that left");
}

#[test]
fn connecting_to_a_full_backlog_does_not_end() {
    let address = own_socket(3000);
    let _deaf = Deaf::on(address);
    let connected = TcpStream::connect_timeout(&address, Duration::from_millis(200));
    assert_eq!(connected.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn an_address_that_was_deaf_can_serve_again() {
    let backend = Backend::start("one");
    backend.stop();
    drop(Deaf::on(backend.address()));
    backend.restart();
    assert_eq!(client::get(backend.address(), "/").status(), 200);
}

#[test]
fn a_client_can_be_at_any_loopback_address() {
    let backend = Backend::start("one");
    let from = own_address();
    Client::connect_from(from, backend.address()).get("/");
    assert_eq!(backend.seen()[0].peer.ip(), from);
}

#[test]
fn a_load_sends_exactly_the_requested_number_of_requests() {
    let backend = Backend::start("one");
    let tally = Load { count: Some(100), ..Load::on(backend.address()) }.run();
    assert_eq!((tally.with_status(200), tally.total(), backend.count()), (100, 100, 100));
    assert!(backend.connections() <= 4, "connections are kept");
}

#[test]
fn a_load_counts_failures_by_their_kind() {
    let backend = Backend::start("one");
    backend.next([Behaviour::CloseBeforeAnswer, Behaviour::status(503)]);
    let tally = Load { count: Some(10), threads: 1, ..Load::on(backend.address()) }.run();
    assert_eq!(tally.errors.get("NoAnswer"), Some(&1));
    assert_eq!((tally.with_status(503), tally.with_status(200), tally.failed()), (1, 8, 2));
}

#[test]
fn a_load_can_come_from_many_clients() {
    let backend = Backend::start("one");
    let from = own_addresses(3);
    let load = Load {
        count: Some(30),
        threads: 3,
        reconnect: true,
        from: from.clone(),
        ..Load::on(backend.address())
    };
    load.run();
    let peers: BTreeSet<_> = backend.seen().iter().map(|seen| seen.peer.ip()).collect();
    assert!(peers.iter().all(|peer| from.iter().any(|from| peer == from)), "{peers:?}");
    assert_eq!(backend.connections(), 30, "a connection each");
}

#[test]
fn a_load_goes_on_until_it_is_stopped() {
    let backend = Backend::start("one");
    let load = Load::on(backend.address()).start();
    eventually(TIMEOUT, "fifty requests", || load.done() >= 50);
    let tally = load.stop();
    assert_eq!(tally.failed(), 0, "{:?}", tally.errors);
    assert_eq!(tally.total(), u64::try_from(backend.count()).unwrap());
}

#[test]
fn a_percentile_is_a_latency_that_was_measured() {
    let backend = Backend::start("one");
    backend.next([Behaviour::slow(Duration::from_millis(80))]);
    let tally = Load { count: Some(5), threads: 1, ..Load::on(backend.address()) }.run();
    assert!(tally.latency(100) >= Duration::from_millis(80));
    assert!(tally.latency(50) < Duration::from_millis(80));
}

#[test]
fn metrics_are_read_with_their_labels() {
    let metrics = Metrics::parse(
        "# HELP a x\n# TYPE a counter\na{p=\"w\",s=\"a\\\"b,}\\n\"} 2\na{p=\"v\",s=\"\"} 3.5\nb 1e3\n",
    );
    assert_eq!(metrics.sum("a", &[]), 5.5);
    assert_eq!(metrics.value("a", &[("s", "a\"b,}\n")]), Some(2.0));
    assert_eq!(metrics.value("b", &[]), Some(1000.0));
    assert_eq!(metrics.value("c", &[]), None);
    assert_eq!(metrics.series().len(), 3);
}
