//! What clients and backends that do not read cost: the memory of a worker stays within bounds.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use bytes::Bytes;

use crate::support::cgroup::MemoryGroup;
use crate::support::client::Client;
use crate::support::http2::{RawHttp2, frame, get_frame};
use crate::support::ports::own_socket;
use crate::support::tls::{Authority, TlsConfig};
use crate::support::weir::{BINARY, LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

const DATA: u8 = 0x0;
const END_STREAM: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const UPGRADE: &str = "Host: weir.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A backend that sends to `/big` as much as is taken, to `/some` 48 KiB, and is brief otherwise. A WebSocket that it opens
/// for `/talks` is written to as much as is taken; none is ever read.
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
        if request.starts_with(b"GET /tunnel/") {
            socket.write_all(AGREED)?;
            if request.starts_with(b"GET /tunnel/talks ") {
                return flood(&mut socket);
            }
            thread::park(); // until the test's process ends
        }
        if request.starts_with(b"GET /some ") {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 49152\r\n\r\n")?;
            socket.write_all(&[b'x'; 49_152])?;
            continue;
        }
        if !request.starts_with(b"GET /big ") {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall")?;
            continue;
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        flood(&mut socket)?;
    }
}

const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Writes as much as is taken, and no more than 640 MB.
fn flood(socket: &mut TcpStream) -> io::Result<()> {
    let piece = vec![b'x'; 65_536];
    for _ in 0..10_000 {
        socket.write_all(&piece)?;
    }
    Ok(())
}

/// The same over HTTP/2, for every request.
fn h2c_backend() -> SocketAddr {
    let address = own_socket(3001);
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await?;
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        let stream = respond.send_response(http::Response::new(()), false)?;
                        tokio::spawn(flood_stream(stream));
                    }
                    Ok::<(), h2::Error>(())
                });
            }
        });
    });
    address
}

async fn flood_stream(mut stream: h2::SendStream<Bytes>) -> Result<(), h2::Error> {
    for _ in 0..100_000 {
        stream.reserve_capacity(16_384);
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(room) = room.transpose()? else { break };
        stream.send_data(vec![b'x'; room.min(16_384)].into(), false)?;
    }
    Ok(())
}

fn start(more: &str) -> Weir {
    start_by(Command::new(BINARY), more)
}

fn start_by(launcher: Command, more: &str) -> Weir {
    let url = format!("http://{}", backend());
    // On a busy machine, 120 clients take longer than a minute to begin.
    let keys = "health_check: off, timeouts: {request: off}";
    let pools = format!("pools: [{{name: web, {keys}, backends: [{url}]}}]");
    Weir::start_by(launcher, &format!("{LISTENER_KEYS}http2: true\n{pools}\n{more}\n"))
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
    eventually(TIMEOUT * 3, "the memory grows no more", || {
        let now = memory(pid);
        equal = if now.abs_diff(before) < MIB / 4 { equal + 1 } else { 0 };
        before = now;
        equal > 100
    });
    before
}

/// A client that requests `/big` on this number of streams, with unlimited windows, and reads nothing.
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
    eventually(TIMEOUT * 3, "all are at the backend", || {
        weir.metrics().sum("lb_backend_in_flight_requests", &[]) >= count
    });
}

fn assert_others_are_served(weir: &Weir) {
    for _ in 0..50 {
        assert_eq!(weir.get("/").text(), "small");
    }
}

#[test]
fn hundreds_of_streams_that_are_not_read_take_a_bounded_memory() {
    let weir = start("limits: {response_buffers: 64MiB}");
    assert_others_are_served(&weir);
    let worker = weir.worker_pid();
    let before = memory(worker);
    let _clients: Vec<RawHttp2> = (0..6).map(|_| stalled_http2(&weir, 100)).collect();
    // Some are ended before others begin.
    eventually(TIMEOUT * 3, "all have waited", || waiting(&weir) + ended(&weir) >= 600.0);
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

/// A client that asks for `/big` and reads nothing.
fn stalled_http1(weir: &Weir) -> Client {
    let mut client = Client::connect(weir.address());
    client.send("GET /big HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    client
}

/// A WebSocket to a backend that writes as much as is taken, whose client reads nothing.
fn tunnel_unread_by_client(weir: &Weir) -> Client {
    let mut client = Client::connect(weir.address());
    client.send(format!("GET /tunnel/talks HTTP/1.1\r\n{UPGRADE}"));
    client
}

/// A WebSocket whose client writes as much as is taken, to a backend that reads nothing.
fn tunnel_unread_by_backend(weir: &Weir) -> TcpStream {
    let mut client = TcpStream::connect(weir.address()).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.write_all(format!("GET /tunnel/silent HTTP/1.1\r\n{UPGRADE}").as_bytes()).unwrap();
    let mut head = [0; 512];
    let read = client.read(&mut head).unwrap();
    assert!(read > 0 && head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut writer = client.try_clone().unwrap();
    thread::spawn(move || drop(flood(&mut writer)));
    client
}

fn waiting(weir: &Weir) -> f64 {
    weir.metrics().sum("lb_stalled_responses", &[])
}

fn ended(weir: &Weir) -> f64 {
    weir.metrics().sum("lb_stalled_responses_ended_total", &[])
}

#[test]
fn where_too_many_responses_wait_those_that_have_waited_for_the_longest_are_ended() {
    // As much as two hold, and one of one connection.
    let weir = start("limits: {response_buffers: 1MiB}");
    let _first = stalled_http1(&weir);
    eventually(TIMEOUT, "the first one waits", || waiting(&weir) == 1.0);
    let _others: Vec<RawHttp2> = (0..7).map(|_| stalled_http2(&weir, 10)).collect();
    let line = weir.until_logged("the first one is ended", |line| {
        line["protocol"] == "HTTP/1.1" && line["path"] == "/big"
    });
    assert_eq!(
        (&line["reason"], &line["detail"]),
        (&"client_write_timeout".into(), &"response_buffers".into())
    );
    eventually(TIMEOUT * 2, "no more wait than may", || waiting(&weir) <= 2.0);
    assert_eq!(waiting(&weir) + ended(&weir), 71.0);
    assert!(weir.stderr().contains("unread responses or WebSockets closed:"));
    assert_others_are_served(&weir);
}

#[test]
fn streams_of_one_connection_share_a_quarter_and_others_lose_nothing() {
    // As much as 45 hold, and 11 of one connection.
    let weir = start("limits: {response_buffers: 20MiB}");
    let _other = stalled_http1(&weir);
    eventually(TIMEOUT, "the other one waits", || waiting(&weir) == 1.0);
    let mut client = stalled_http2(&weir, 40);
    eventually(TIMEOUT * 2, "all but eleven are ended", || ended(&weir) == 29.0);
    eventually(TIMEOUT, "eleven and the other one wait", || waiting(&weir) == 12.0);
    let is_of_other =
        |line: &serde_json::Value| line["protocol"] == "HTTP/1.1" && line["path"] == "/big";
    assert!(!weir.access_log().iter().any(is_of_other), "the other one was ended");
    let mut resets = 0;
    while resets < 29 {
        let frame = client.read_frame().unwrap();
        resets += usize::from(frame.kind == RST_STREAM);
    }
    assert_others_are_served(&weir);
}

#[test]
fn a_tunnel_that_its_backend_does_not_read_is_ended_where_the_memory_is_needed() {
    // As much as two hold.
    let weir = start("limits: {response_buffers: 1MiB}");
    let _first = tunnel_unread_by_backend(&weir);
    eventually(TIMEOUT, "the first one waits", || waiting(&weir) == 1.0);
    let _others: Vec<TcpStream> = (0..6).map(|_| tunnel_unread_by_backend(&weir)).collect();
    let line = weir.until_logged("a tunnel is ended", |line| line["path"] == "/tunnel/silent");
    assert_eq!(
        (&line["status"], &line["reason"], &line["detail"]),
        (&101.into(), &"tunnel_idle".into(), &"response_buffers".into())
    );
    eventually(TIMEOUT * 2, "no more wait than may", || waiting(&weir) == 2.0);
    assert_eq!(ended(&weir), 5.0);
    assert_eq!(weir.metrics().sum("lb_tunnels", &[]), 2.0);
}

#[test]
fn a_tunnel_that_its_client_does_not_read_is_ended_where_the_memory_is_needed() {
    let weir = start("limits: {response_buffers: 1MiB}");
    let _clients: Vec<Client> = (0..7).map(|_| tunnel_unread_by_client(&weir)).collect();
    let line = weir.until_logged("a tunnel is ended", |line| line["path"] == "/tunnel/talks");
    assert_eq!(
        (&line["reason"], &line["detail"]),
        (&"client_write_timeout".into(), &"response_buffers".into()),
        "{line}"
    );
    eventually(TIMEOUT * 2, "no more wait than may", || waiting(&weir) == 2.0);
}

/// A client with the windows of the RFC that asks for all of its streams at once and reads as fast as it
/// can. Most of the streams wait for its connection's window most of the time.
#[test]
fn a_client_that_reads_gets_all_of_its_responses_however_many_wait() {
    // As much as 27 hold, and 6 of one connection.
    let weir = start("limits: {response_buffers: 12MiB}");
    for _ in 0..3 {
        let mut client = RawHttp2::connect(weir.address());
        for number in 0..100 {
            client.send(&get_frame(2 * number + 1, "/some")).unwrap();
        }
        // Each stream's own window, 65,535 bytes, has room for all of its response.
        let (mut whole, mut taken) = (0, 0);
        while whole < 100 {
            let read = client.read_frame().unwrap();
            assert_ne!(read.kind, RST_STREAM, "stream {} of a client that reads", read.stream);
            if read.kind != DATA {
                continue;
            }
            whole += u32::from(read.flags & END_STREAM != 0);
            taken += u32::try_from(read.payload.len()).unwrap();
            if taken >= 32_768 {
                client.send(&frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes())).unwrap();
                taken = 0;
            }
        }
    }
    assert_eq!(ended(&weir), 0.0);
}

/// Opens exchanges that are not read, and holds what the worker grows by for each against what they are
/// counted as. The first ones are not measured: with them comes what a worker needs once.
#[track_caller]
fn assert_each_holds_at_most<T>(weir: &Weir, bytes: u64, open: impl Fn(&Weir, u32) -> Vec<T>) {
    let worker = weir.worker_pid();
    let _first = open(weir, 20);
    eventually(TIMEOUT * 3, "the first ones wait", || waiting(weir) == 20.0);
    let before = settled_memory(worker);
    let _held = open(weir, 100);
    eventually(TIMEOUT * 6, "all wait", || waiting(weir) == 120.0);
    let each = (settled_memory(worker) - before) / 100;
    eprintln!("{} KiB, counted as {} KiB", each / KIB, bytes / KIB);
    assert!(each <= bytes, "{} KiB, counted as {} KiB", each / KIB, bytes / KIB);
    assert!(each > 64 * KIB, "{} KiB: it holds nothing, and the test says nothing", each / KIB);
}

const OFF: &str = "limits: {response_buffers: off}";

/// A client that reads 4 MiB of `/big`, so that the rest comes in large pieces, and then nothing.
fn stalled_http1_later(weir: &Weir) -> TcpStream {
    let mut client = TcpStream::connect(weir.address()).unwrap();
    client.write_all(b"GET /big HTTP/1.1\r\nHost: weir.test\r\n\r\n").unwrap();
    let mut some = vec![0; 1 << 22];
    client.read_exact(&mut some).unwrap();
    client
}

#[test]
fn a_large_response_that_is_no_longer_read_holds_no_more_than_it_is_counted_as() {
    assert_each_holds_at_most(&start(OFF), 928 * KIB, |weir, count| {
        (0..count).map(|_| stalled_http1_later(weir)).collect()
    });
}

#[test]
fn an_exchange_that_is_not_read_holds_no_more_than_it_is_counted_as() {
    let clients = |one: fn(&Weir) -> Client| {
        move |weir: &Weir, count| (0..count).map(|_| one(weir)).collect::<Vec<_>>()
    };
    assert_each_holds_at_most(&start(OFF), 448 * KIB, clients(stalled_http1));
    assert_each_holds_at_most(&start(OFF), 448 * KIB, clients(tunnel_unread_by_client));
    assert_each_holds_at_most(&start(OFF), 448 * KIB, |weir, count| {
        vec![stalled_http2(weir, count)]
    });
    assert_each_holds_at_most(&start(OFF), 448 * KIB, |weir, count| {
        (0..count).map(|_| tunnel_unread_by_backend(weir)).collect()
    });
}

#[test]
fn a_response_of_an_http2_backend_holds_no_more_than_it_is_counted_as() {
    let start = || {
        let url = format!("http://{}", h2c_backend());
        let pools =
            format!("pools: [{{name: web, health_check: off, protocol: h2c, backends: [{url}]}}]");
        Weir::start(&format!("{LISTENER_KEYS}http2: true\n{pools}\n{OFF}\n"))
    };
    assert_each_holds_at_most(&start(), 704 * KIB, |weir, count| vec![stalled_http2(weir, count)]);
    assert_each_holds_at_most(&start(), 704 * KIB, |weir, count| {
        (0..count).map(|_| stalled_http1(weir)).collect()
    });
}

#[test]
fn a_response_over_tls_holds_no_more_than_it_is_counted_as() {
    let authority = Authority::new();
    let identity = authority.identity("site", &["weir.test"]);
    let url = format!("http://{}", backend());
    let weir = Weir::start(&format!(
        "{LISTENER_KEYS}tls: {{certificates: [{}]}}\n\
         pools: [{{name: web, health_check: off, backends: [{url}]}}]\n{OFF}\n",
        identity.yaml()
    ));
    let config = TlsConfig::new(&authority, None);
    assert_each_holds_at_most(&weir, 512 * KIB, |weir, count| {
        let connect = |_| {
            let mut client = config.connect(weir.address(), "weir.test");
            client.send(b"GET /big HTTP/1.1\r\nHost: weir.test\r\n\r\n");
            client
        };
        (0..count).map(connect).collect()
    });
}

/// The most that a process and its children have used, in bytes.
fn peak(weir: &Weir) -> u64 {
    let peak = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * KIB
    };
    weir.process_tree().iter().map(peak).sum()
}

const THIRTY_TWO: &str = "limits: {response_buffers: 32MiB}";

#[test]
fn a_container_of_256_mib_survives_clients_and_backends_that_read_nothing() {
    let group = MemoryGroup::with_limit(256 * MIB);
    let launcher = group.as_ref().map_or_else(|| Command::new(BINARY), MemoryGroup::launcher);
    // In the cgroup the default is an eighth of it, 32 MiB, which is what 73 hold.
    let weir = start_by(launcher, if group.is_some() { "" } else { THIRTY_TWO });
    assert_others_are_served(&weir);
    let worker = weir.worker_pid();
    let mut held = Vec::new();
    for wave in 1..=3_u8 {
        let streams: Vec<RawHttp2> = (0..6).map(|_| stalled_http2(&weir, 100)).collect();
        let http1: Vec<Client> = (0..30).map(|_| stalled_http1(&weir)).collect();
        let talks: Vec<Client> = (0..10).map(|_| tunnel_unread_by_client(&weir)).collect();
        let silent: Vec<TcpStream> = (0..10).map(|_| tunnel_unread_by_backend(&weir)).collect();
        held.push((streams, http1, talks, silent));
        assert_others_are_served(&weir);
        let all = f64::from(wave) * 650.0;
        eventually(TIMEOUT * 3, "they are ended", || {
            assert_eq!(weir.get("/").text(), "small");
            waiting(&weir) <= 73.0 && waiting(&weir) + ended(&weir) >= all
        });
    }
    assert_others_are_served(&weir);
    assert_eq!(weir.worker_pid(), worker, "it was restarted");
    let used = group.as_ref().map_or_else(|| Some(peak(&weir)), MemoryGroup::peak);
    eprintln!("cgroup: {}, at most {:?} MiB", group.is_some(), used.map(|bytes| bytes / MIB));
    match &group {
        Some(group) => assert_eq!(group.killed().unwrap_or_default(), 0, "the kernel killed"),
        None => assert!(used.is_some_and(|bytes| bytes < 256 * MIB), "{used:?}"),
    }
    drop(weir);
}
