//! Where messages begin and end: bodies, chunks, connections that serve one request after another.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::backend::{Answer, Backend, Behaviour};
use crate::support::client::{Client, Failure, Framing, request_bytes};
use crate::support::configs::pool;
use crate::support::origin::Origin;
use crate::support::tls::{Authority, TlsConfig};
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

fn one() -> (Backend, Weir) {
    let backend = Backend::start("one");
    let weir = Weir::start(&pool(from_ref(&backend), ""));
    (backend, weir)
}

/// Clients that close their side still get their response.
fn serving_half_closed() -> (Backend, Weir) {
    let backend = Backend::start("one");
    let config = pool(from_ref(&backend), "") + "limits: {half_closed: serve}\n";
    let weir = Weir::start(&config);
    (backend, weir)
}

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn bytes(count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(count).collect()
}

/// Answers with the body that came.
fn echo() -> Behaviour {
    Behaviour::By(Arc::new(|seen| Behaviour::Answer(Answer::body(seen.body.clone()))))
}

fn chunks(pieces: &[&str]) -> Behaviour {
    let pieces = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    Behaviour::Chunked { pieces, pause: Duration::from_millis(20) }
}

// ── HTTP/1.0 ──

#[test]
fn a_client_of_http_1_0_gets_a_body_without_chunks_and_its_end_by_the_end_of_the_connection() {
    let (backend, weir) = one();
    backend.set(chunks(&["one ", "two ", "three"]));
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let answer = client.read_answer();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!((answer.framing, answer.text().as_str()), (Framing::Close, "one two three"));
}

#[test]
fn asking_to_keep_the_connection_does_not_bring_chunks_to_http_1_0() {
    let (backend, weir) = one();
    backend.set(chunks(&["one ", "two"]));
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.read_answer();
    assert_eq!((answer.framing, answer.text().as_str()), (Framing::Close, "one two"));
    assert!(answer.head.is_last(), "{:?}", answer.head);
}

#[test]
fn a_client_of_http_1_0_that_does_not_ask_to_keep_the_connection_sees_it_closed() {
    let (_backend, weir) = one();
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.read_answer().text(), "one");
    assert!(client.is_closed_within(TIMEOUT));
}

/// Begins a response without a length, and breaks off: at once, or after `timeouts.response`.
fn breaking_off() -> Origin {
    Origin::start(|conversation| {
        let Some(message) = conversation.message()? else { return Ok(()) };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        conversation.send(head)?;
        if message.line().contains("/silent") {
            return conversation.until_closed();
        }
        conversation.pause(Duration::from_millis(100))
    })
}

#[test]
fn a_response_that_breaks_off_does_not_look_whole_to_http_1_0() {
    let (origin, authority) = (breaking_off(), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let pools = format!(
        "pools: [{{name: web, health_check: off, timeouts: {{response: 500ms}}, backends: [{}]}}]",
        origin.url()
    );
    let clear = Weir::start(&pools);
    let tls = format!("{LISTENER_KEYS}tls: {{certificates: [{}]}}\n{pools}", identity.yaml());
    let tls = Weir::start(&tls);
    for (method, path) in [("GET", "/"), ("GET", "/silent"), ("POST", "/")] {
        let length = if method == "POST" { "Content-Length: 5\r\n" } else { "" };
        let head = format!("{method} {path} HTTP/1.0\r\nHost: a.test\r\n{length}\r\n");
        let mut client = Client::connect(clear.address());
        client.send(&head);
        if method == "POST" {
            client.send("12345");
        }
        let failure = client.try_read_answer(method).expect_err("it is not whole");
        assert!(matches!(failure, Failure::Reset { .. }), "{path}: {failure:?}");

        let stream = TlsConfig::new(&authority, None).connect(tls.address(), "weir.test");
        let mut stream = stream.into_stream(TIMEOUT);
        assert!(stream.write_all(head.as_bytes()).is_ok());
        if method == "POST" {
            assert!(stream.write_all(b"12345").is_ok());
        }
        let mut all = Vec::new();
        let ended = stream.read_to_end(&mut all);
        assert!(ended.is_err(), "{path}: {:?}", String::from_utf8_lossy(&all));
    }
}

// ── one connection, many requests ──

#[test]
fn ten_pipelined_requests_are_answered_in_order() {
    let (backend, weir) = one();
    backend.set(Behaviour::By(Arc::new(|seen| {
        let wait = Duration::from_millis(if seen.target == "/0" { 200 } else { 0 });
        let echo = Behaviour::Answer(Answer::body(seen.body.clone()));
        Behaviour::AnswerSlowly(wait, Box::new(echo))
    })));
    let mut all = Vec::new();
    for number in 0..10 {
        let body = format!("body {number}");
        all.extend(request_bytes("POST", &format!("/{number}"), &[], body.len()));
        all.extend(body.into_bytes());
    }
    let mut client = Client::connect(weir.address());
    client.send(all);
    let answers: Vec<String> = (0..10).map(|_| client.read_answer().text()).collect();
    let wanted: Vec<String> = (0..10).map(|number| format!("body {number}")).collect();
    assert_eq!(answers, wanted);
    assert_eq!(backend.count(), 10);
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let (backend, weir) = one();
    backend.set(Behaviour::By(Arc::new(|seen| {
        Behaviour::Answer(Answer::body(seen.target.clone().into_bytes()))
    })));
    let all: Vec<u8> =
        (0..100).flat_map(|number| request_bytes("GET", &format!("/{number}"), &[], 0)).collect();
    let mut client = Client::connect(weir.address());
    client.send(all);
    for number in 0..100 {
        assert_eq!(client.read_answer().text(), format!("/{number}"));
    }
    assert_eq!(backend.count(), 100);
}

#[test]
fn a_request_that_comes_while_another_is_served_waits_its_turn() {
    let (backend, weir) = one();
    backend.on("/first", Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", "/first", &[], 0));
    backend.until_count(1);
    client.send(request_bytes("GET", "/second", &[], 0));
    backend.release();
    assert_eq!((client.read_answer().status(), client.read_answer().status()), (200, 200));
    let targets: Vec<String> = backend.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/first", "/second"]);
}

#[test]
fn a_client_that_has_said_all_it_has_to_say_still_gets_its_answer() {
    let (backend, weir) = serving_half_closed();
    backend.set(Behaviour::NeverAnswer);
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", "/", &[], 0));
    client.half_close();
    backend.until_count(1);
    backend.release();
    assert_eq!(client.read_answer().text(), "one");
    assert!(client.is_closed_within(TIMEOUT));
}

#[test]
fn a_half_close_right_after_a_body_does_not_cut_the_request() {
    let (backend, weir) = serving_half_closed();
    backend.set(echo());
    let mut client = Client::connect(weir.address());
    let body = bytes(100_000);
    client.send(request_bytes("POST", "/", &[], body.len()));
    client.send(&body);
    client.half_close();
    assert!(client.read_answer().body == body);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (backend, weir) = one();
    let mut client = Client::connect(weir.address());
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!((backend.count(), backend.connections()), (20, 1));
}

#[test]
fn a_backends_connection_serves_one_client_after_another() {
    let (backend, weir) = one();
    for done in 1..=5 {
        assert_eq!(weir.get("/").status(), 200);
        // The client has its answer a moment before the connection is given back; the line is
        // written after that.
        eventually(TIMEOUT, "it is logged", || weir.access_log().len() == done);
    }
    assert_eq!((backend.count(), backend.connections()), (5, 1));
}

#[test]
fn a_client_that_wants_to_close_is_closed() {
    let (_backend, weir) = one();
    let mut client = Client::connect(weir.address());
    let answer = client.request("GET", "/", &[("Connection", "close")], b"").unwrap();
    assert!(answer.head.is_last(), "{:?}", answer.head);
    assert!(client.is_closed_within(TIMEOUT));
}

#[test]
fn a_backend_that_closes_does_not_close_the_client() {
    let (backend, weir) = one();
    backend.set(Behaviour::Answer(Answer::status(200).header("Connection", "close")));
    let mut client = Client::connect(weir.address());
    for _ in 0..3 {
        assert!(!client.get("/").head.is_last());
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn a_refusal_leaves_the_connection_in_step() {
    let backend = Backend::start("one");
    let routes = "routes: [{host: a.test, pool: web}]\n";
    let weir = Weir::start(&format!("{routes}{}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    assert_eq!(client.get("/").status(), 404);
    let answer = client.request("GET", "/", &[("Host", "a.test")], b"").unwrap();
    assert_eq!(answer.text(), "one");
}

#[test]
fn a_refused_body_is_not_taken_for_the_next_request() {
    let backend = Backend::start("one");
    let routes = "routes: [{host: a.test, pool: web}]\n";
    let weir = Weir::start(&format!("{routes}{}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    let smuggled = request_bytes("GET", "/smuggled", &[("Host", "a.test")], 0);
    let answer = client.request("POST", "/", &[], &smuggled).unwrap();
    assert_eq!(answer.status(), 404);
    if !answer.head.is_last() {
        let answer = client.request("GET", "/good", &[("Host", "a.test")], b"").unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(backend.count_of("/smuggled"), 0);
}

// ── answers without a body ──

#[test]
fn head_gets_the_fields_and_no_body() {
    let (_backend, weir) = one();
    let mut client = Client::connect(weir.address());
    let answer = client.request("HEAD", "/", &[], b"").unwrap();
    assert_eq!((answer.status(), answer.header("content-length")), (200, Some("3")));
    assert_eq!(client.get("/").text(), "one", "the connection is still in step");
}

#[test]
fn a_refusal_of_head_has_no_body() {
    let backend = Backend::start("one");
    let routes = "routes: [{host: a.test, pool: web}]\n";
    let weir = Weir::start(&format!("{routes}{}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    assert_eq!(client.request("HEAD", "/", &[], b"").unwrap().status(), 404);
    let answer = client.request("GET", "/", &[("Host", "a.test")], b"").unwrap();
    assert_eq!(answer.text(), "one", "the connection is still in step");
}

#[test]
fn answers_204_and_304_have_no_body() {
    let (backend, weir) = one();
    let mut client = Client::connect(weir.address());
    for status in [204, 304] {
        backend.next([Behaviour::status(status)]);
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.framing), (status, Framing::Bodiless));
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(client.get("/").text(), "one", "in step after {status}");
    }
}

// ── bodies ──

#[test]
fn a_chunked_answer_stays_chunked() {
    let (backend, weir) = one();
    backend.set(chunks(&["one ", "two ", "three"]));
    let mut client = Client::connect(weir.address());
    let answer = client.get("/");
    assert_eq!((answer.framing, answer.text().as_str()), (Framing::Chunked, "one two three"));
    assert_eq!(client.get("/").text(), "one two three", "in step");
}

#[test]
fn a_piece_of_an_answer_is_passed_on_before_the_next_comes() {
    let (backend, weir) = one();
    let answered = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n".to_vec();
    backend.set(Behaviour::Raw(answered));
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("GET", "/", &[], 0));
    let mut come = Vec::new();
    while !come.ends_with(b"one\r\n") {
        come.extend(client.read_some().unwrap());
    }
}

/// Reads until what has come ends so; fails the test if it does not.
#[track_caller]
fn until_come(client: &mut impl Read, end: &str) {
    let mut come = Vec::new();
    while !come.ends_with(end.as_bytes()) {
        let mut piece = [0; 4096];
        let read = client.read(&mut piece);
        assert!(read.as_ref().is_ok_and(|count| *count > 0), "{read:?} after {come:?}");
        come.extend(piece.iter().take(read.unwrap_or_default()));
    }
}

/// Asks for a response whose pieces go out one by one, each once the client has the one before.
#[track_caller]
fn see_each_piece(client: &mut (impl Read + Write), step: &AtomicUsize) {
    assert!(client.write_all(&request_bytes("GET", "/", &[], 0)).is_ok());
    for (number, end) in ["\r\n\r\n", "hello", " you!"].into_iter().enumerate() {
        until_come(client, end);
        step.store(number + 1, Ordering::SeqCst);
    }
    step.store(0, Ordering::SeqCst);
}

#[test]
fn what_has_come_of_a_response_with_a_length_does_not_wait_for_the_rest() {
    let (step, authority) = (Arc::new(AtomicUsize::new(0)), Authority::new());
    let identity = authority.identity("site", &["weir.test"]);
    let client_has = Arc::clone(&step);
    let origin = Origin::start(move |conversation| {
        while conversation.message()?.is_some() {
            for (number, piece) in ["", "hello", " you!"].into_iter().enumerate() {
                while client_has.load(Ordering::SeqCst) < number {
                    conversation.pause(Duration::from_millis(1))?;
                }
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
                conversation.send(if number == 0 { head } else { piece })?;
            }
        }
        Ok(())
    });
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{}]}}]", origin.url());
    let clear = Weir::start(&pools);
    let mut stream = TcpStream::connect(clear.address()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    see_each_piece(&mut stream, &step);
    let tls = format!("{LISTENER_KEYS}tls: {{certificates: [{}]}}\n{pools}", identity.yaml());
    let tls = Weir::start(&tls);
    let stream = TlsConfig::new(&authority, None).connect(tls.address(), "weir.test");
    see_each_piece(&mut stream.into_stream(TIMEOUT), &step);
}

#[test]
fn a_chunked_request_arrives_whole_and_alone() {
    let (backend, weir) = one();
    backend.set(echo());
    let mut client = Client::connect(weir.address());
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("4\r\none \r\n");
    backend.until_count(1);
    client.send("3;ext=1\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.read_answer().text(), "one two");
    let seen = backend.requests().remove(0);
    assert_eq!((seen.header("content-length"), seen.is_whole), (None, true));
    assert_eq!(client.get("/").status(), 200, "in step");
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let (backend, weir) = one();
    let body = bytes(100_000);
    backend.set(Behaviour::UntilClosed(body.clone()));
    let mut client = Client::connect(weir.address());
    assert!(client.get("/").body == body);
    assert!(client.get("/").body == body, "the client's connection goes on");
}

#[test]
fn bodies_of_every_size_pass_intact_both_ways() {
    let (backend, weir) = one();
    backend.set(echo());
    let mut client = Client::connect(weir.address());
    for size in [0, 1, 64 * 1024, 64 * 1024 + 1, 1024 * 1024] {
        let body = bytes(size);
        let answer = client.request("POST", "/", &[], &body).unwrap();
        assert!(answer.body == body, "{size} bytes became {}", answer.body.len());
    }
    assert_eq!((backend.count(), backend.connections()), (5, 1));
}

#[test]
fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let (backend, weir) = one();
    let mut client = Client::connect(weir.address());
    // The backend answers once it has the whole body, so it must not be asked for it: a refusal
    // of our own does not wait for the body either.
    client.send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nxxx");
    assert_eq!(client.read_answer().status(), 400, "there is no Host");
    assert_eq!(backend.count(), 0);
}

// ── 1xx ──

#[test]
fn interim_answers_are_passed_on() {
    let (backend, weir) = one();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    backend.set(Behaviour::Interim(hints.to_owned(), Box::new(Behaviour::Good)));
    let mut client = Client::connect(weir.address());
    let answer = client.get("/");
    let interim: Vec<u16> = answer.interim.iter().map(|head| head.status).collect();
    assert_eq!((interim, answer.status()), (vec![103], 200));
    assert_eq!(answer.interim[0].header("link"), Some("</style.css>"));
    assert_eq!(client.get("/").status(), 200, "in step");
}

#[test]
fn a_client_of_http_1_0_gets_no_interim_answer() {
    let (backend, weir) = one();
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
    backend.set(Behaviour::Interim(hints.to_owned(), Box::new(Behaviour::Good)));
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let answer = client.read_answer();
    assert_eq!((answer.interim.len(), answer.status()), (0, 200));
}

#[test]
fn a_client_that_waits_for_leave_to_send_its_body_gets_it_once() {
    let (backend, weir) = one();
    backend.set(echo());
    let mut client = Client::connect(weir.address());
    let expects = [("Expect", "100-continue")];
    client.send(request_bytes("POST", "/", &expects, 5));
    let leave = client.read_head(crate::support::now() + TIMEOUT).unwrap();
    assert_eq!(leave.status, 100);
    client.send("hello");
    let answer = client.read_answer();
    assert_eq!((answer.interim.len(), answer.text().as_str()), (0, "hello"));
}

#[test]
fn a_client_that_waits_for_leave_gets_a_refusal_in_its_place() {
    let backend = Backend::start("one");
    let routes = "routes: [{host: a.test, pool: web}]\n";
    let weir = Weir::start(&format!("{routes}{}", pool(from_ref(&backend), "")));
    let mut client = Client::connect(weir.address());
    client.send(request_bytes("POST", "/", &[("Expect", "100-continue")], 5));
    let answer = client.read_answer();
    assert_eq!((answer.interim.len(), answer.status()), (0, 404));
}

#[test]
fn what_a_client_of_http_1_0_expects_goes_no_further() {
    let (backend, weir) = one();
    backend.set(echo());
    let mut client = Client::connect(weir.address());
    let fields = "Host: a.test\r\nExpect: 100-continue\r\nContent-Length: 5";
    client.send(format!("POST / HTTP/1.0\r\n{fields}\r\n\r\nhello"));
    let answer = client.read_answer();
    assert_eq!((answer.interim.len(), answer.text().as_str()), (0, "hello"));
    assert_eq!(backend.requests()[0].header("expect"), None);
}
