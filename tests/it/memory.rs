//! What clients that do not read cost: the memory of a worker stays within bounds.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::support::client::Client;
use crate::support::http2::{RawHttp2, frame, get_frame};
use crate::support::ports::own_socket;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{PATIENCE, eventually};

const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;
const MIB: u64 = 1 << 20;

/// A backend that sends to `/big` as much as is taken, and is brief otherwise.
fn backend() -> SocketAddr {
    let address = own_socket(3000);
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // An error says that the other side has left.
            thread::spawn(move || drop(respond(socket)));
        }
    });
    address
}

fn respond(mut socket: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    loop {
        let read = socket.read(&mut request)?;
        if read == 0 {
            return Ok(());
        }
        if !request.starts_with(b"GET /big ") {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall")?;
            continue;
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        let piece = vec![b'x'; 65_536];
        for _ in 0..10_000 {
            socket.write_all(&piece)?;
        }
    }
}

fn start(more: &str) -> Weir {
    let url = format!("http://{}", backend());
    let pools = format!("pools: [{{name: web, health_check: off, backends: [{url}]}}]");
    Weir::start(&format!("{LISTENER_KEYS}http2: true\n{pools}\n{more}\n"))
}

/// The resident memory of a process, in bytes.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What it comes to once it grows no more.
fn settled_memory(pid: u32) -> u64 {
    let (mut before, mut equal) = (0, 0);
    eventually(PATIENCE * 3, "the memory grows no more", || {
        let now = memory(pid);
        equal = if now.abs_diff(before) < MIB / 4 { equal + 1 } else { 0 };
        before = now;
        equal > 100
    });
    before
}

/// A client that asks for `/big` on so many streams, allows any amount, and reads nothing.
fn stalled_http2(weir: &Weir, streams: u32) -> RawHttp2 {
    let mut client = RawHttp2::connect(weir.address());
    let any = 0x7fff_ffff_u32.to_be_bytes();
    client.send(&frame(SETTINGS, 0, 0, &[&[0, 4][..], &any].concat())).unwrap();
    let more = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
    client.send(&frame(WINDOW_UPDATE, 0, 0, &more)).unwrap();
    for number in 0..streams {
        client.send(&get_frame(2 * number + 1, "/big")).unwrap();
    }
    client
}

fn until_active(weir: &Weir, count: f64) {
    eventually(PATIENCE * 3, "all are at the backend", || {
        weir.metrics().sum("lb_active_connections", &[]) >= count
    });
}

fn assert_others_are_served(weir: &Weir) {
    for _ in 0..50 {
        assert_eq!(weir.get("/").text(), "small");
    }
}

#[test]
fn hundreds_of_streams_that_are_not_read_take_a_bounded_memory() {
    let weir = start("");
    assert_others_are_served(&weir);
    let worker = weir.worker_pid();
    let before = memory(worker);
    let _clients: Vec<RawHttp2> = (0..6).map(|_| stalled_http2(&weir, 100)).collect();
    until_active(&weir, 600.0);
    assert_others_are_served(&weir);
    let grown = settled_memory(worker) - before;
    assert!(grown < 200 * MIB, "grown by {} MiB", grown / MIB);
    assert_others_are_served(&weir);
}

#[test]
fn clients_of_http1_that_do_not_read_take_a_bounded_memory() {
    let weir = start("");
    assert_others_are_served(&weir);
    let worker = weir.worker_pid();
    let before = memory(worker);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(weir.address())).collect();
    for client in &mut clients {
        client.send("GET /big HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    }
    until_active(&weir, 100.0);
    let grown = settled_memory(worker) - before;
    assert!(grown < 50 * MIB, "grown by {} MiB", grown / MIB);
    assert_others_are_served(&weir);
}

#[test]
fn where_too_many_responses_wait_those_that_have_waited_for_the_longest_are_ended() {
    let weir = start("limits: {response_buffers: 5MiB}");
    let mut first = Client::connect(weir.address());
    first.send("GET /big HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    let waiting = || weir.metrics().value("lb_stalled_responses", &[]);
    eventually(PATIENCE, "the first one waits", || waiting() == Some(1.0));
    let _streams = stalled_http2(&weir, 40);
    let ended = || weir.metrics().value("lb_stalled_responses_ended_total", &[]);
    eventually(PATIENCE * 2, "the others are ended", || ended() >= Some(28.0));
    eventually(PATIENCE, "as many wait as may", || waiting() == Some(13.0));
    let line = weir.until_logged("the first one is ended", |line| {
        line["protocol"] == "HTTP/1.1" && line["path"] == "/big"
    });
    assert_eq!(
        (&line["reason"], &line["detail"]),
        (&"client_stalled".into(), &"response_buffers".into())
    );
    assert_others_are_served(&weir);
}
