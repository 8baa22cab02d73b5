//! PROXY headers to backends: whose requests come, ahead of anything else.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use weir::http::proxy_protocol::{Addresses, parse};

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::h2::H2Backend;
use crate::support::ports;
use crate::support::tls::Authority;
use crate::support::tls_front::TlsFront;
use crate::support::weir::{LISTENER_KEYS, Weir};
use crate::support::{TIMEOUT, eventually};

/// Takes the PROXY header of each connection, and passes on what follows it. A connection that
/// begins otherwise is closed, and noted as such.
struct Taker {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: Runtime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Client(Addresses),
    Local,
    Nothing,
}

impl Taker {
    fn start(behind: SocketAddr) -> Self {
        let address = ports::own_socket(3001);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let listener = runtime.block_on(TcpListener::bind(address)).expect("binding");
        let recorded = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(take(socket, behind, Arc::clone(&recorded)));
            }
        });
        Self { address, seen, _runtime: runtime }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn take(mut socket: TcpStream, behind: SocketAddr, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut bytes = Vec::new();
    let header = loop {
        match parse(&bytes) {
            Ok(Some(header)) => break header,
            Ok(None) => {}
            Err(_) => return seen.lock().unwrap().push(Seen::Nothing),
        }
        match socket.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    seen.lock().unwrap().push(header.addresses.map_or(Seen::Local, Seen::Client));
    if let Ok(mut backend) = TcpStream::connect(behind).await {
        drop(backend.write_all(&bytes[header.length..]).await);
        drop(copy_bidirectional(&mut socket, &mut backend).await);
    }
}

fn pool(url: &str, keys: &str) -> String {
    format!(
        "pools: [{{name: web, proxy_protocol: v2, health_check: off, backends: [\"{url}\"], {keys}}}]\n"
    )
}

#[test]
fn a_backend_gets_the_clients_address_in_the_proxy_header() {
    let backend = Backend::start("one");
    let taker = Taker::start(backend.address());
    let weir = Weir::start(&pool(&taker.url("http"), ""));
    let mut clients: Vec<Client> = [Ipv4Addr::new(127, 0, 0, 7), Ipv4Addr::new(127, 0, 0, 8)]
        .map(|from| Client::connect_from(from, weir.address()))
        .into();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "one");
        }
    }
    let seen = taker.seen();
    let expected = clients.iter().map(|client| {
        Seen::Client(Addresses { source: client.local_addr(), destination: weir.address() })
    });
    assert_eq!(seen, expected.collect::<Vec<_>>(), "a connection for each client, and kept");
    assert_eq!(backend.count(), 6);
}

#[test]
fn no_client_gets_the_connection_of_another() {
    let backend = Backend::start("one");
    let taker = Taker::start(backend.address());
    let weir = Weir::start(&pool(&taker.url("http"), ""));
    for count in 1..=5 {
        let mut client = Client::connect(weir.address());
        assert_eq!(client.get("/").text(), "one");
        let own = Addresses { source: client.local_addr(), destination: weir.address() };
        assert_eq!(taker.seen().len(), count);
        assert_eq!(taker.seen()[count - 1], Seen::Client(own));
    }
}

#[test]
fn who_came_by_a_proxy_header_leaves_by_one() {
    let backend = Backend::start("one");
    let taker = Taker::start(backend.address());
    let listener = format!("{LISTENER_KEYS}proxy_protocol: {{from: [127.0.0.0/8]}}\n");
    let weir = Weir::start(&format!("{listener}{}", pool(&taker.url("http"), "")));
    let mut client = Client::connect(weir.address());
    client.send("PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n");
    assert_eq!(client.get("/").text(), "one");
    let said = Addresses {
        source: "192.0.2.1:4711".parse().unwrap(),
        destination: "198.51.100.2:443".parse().unwrap(),
    };
    assert_eq!(taker.seen(), [Seen::Client(said)]);
}

#[test]
fn the_header_comes_ahead_of_tls() {
    let (authority, backend) = (Authority::new(), Backend::start("one"));
    let front = TlsFront::start(backend.address(), &authority.identity("site", &["web.internal"]));
    let taker = Taker::start(front.address());
    let tls = format!("tls: {{ca: {}, server_name: web.internal}}", authority.ca().display());
    let weir = Weir::start(&pool(&taker.url("https"), &tls));
    assert_eq!(weir.get("/").text(), "one");
    assert!(matches!(taker.seen()[..], [Seen::Client(_)]), "{:?}", taker.seen());
    assert_eq!(front.shakes().len(), 1);
}

#[test]
fn the_header_comes_ahead_of_http_2() {
    let backend = H2Backend::start();
    let taker = Taker::start(backend.address());
    let weir = Weir::start(&pool(&taker.url("http"), "protocol: h2c"));
    let mut client = Client::connect(weir.address());
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "h2");
    }
    let own = Addresses { source: client.local_addr(), destination: weir.address() };
    assert_eq!(taker.seen(), [Seen::Client(own)]);
}

#[test]
fn probes_speak_for_the_balancer_itself() {
    for check in ["type: tcp", "path: /health"] {
        let backend = Backend::start("one");
        let taker = Taker::start(backend.address());
        let weir = Weir::start(&format!(
            "pools: [{{name: web, proxy_protocol: v2, health_check: {{{check}}}, \
             backends: [\"{}\"]}}]",
            taker.url("http")
        ));
        eventually(TIMEOUT, check, || taker.seen() == [Seen::Local]);
        assert_eq!(weir.get("/").text(), "one");
        assert!(matches!(taker.seen()[..], [Seen::Local, Seen::Client(_)]), "{:?}", taker.seen());
    }
}

#[test]
fn a_backend_that_is_gone_is_passed_over() {
    let backend = Backend::start("one");
    let taker = Taker::start(backend.address());
    let gone = ports::own_socket(3001);
    let weir = Weir::start(&format!(
        "pools: [{{name: web, proxy_protocol: v2, health_check: off, backends: [\"http://{gone}\", \"{}\"]}}]",
        taker.url("http")
    ));
    for _ in 0..3 {
        let answer = Client::connect(weir.address()).request("POST", "/", &[], b"once").unwrap();
        assert_eq!(answer.text(), "one");
    }
    assert_eq!(backend.count(), 3);
}
