//! Listeners that move: from one address to all addresses and back, and away and back again.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::configs::pool;
use crate::support::mixed_clients::{self, MixedClients};
use crate::support::ports::own_address;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// A port that is free on every address, and that no other test gets: a listener on `0.0.0.0` gets
/// in the way of every other one on its port. Each process of these tests has a block of addresses
/// of its own, and by that a range of ports.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let [_, block, _, _] = own_address().octets();
    let first = 12_000 + u16::from(block) * PORTS;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let next = || first + TAKEN.fetch_add(1, Relaxed) % PORTS;
    iter::repeat_with(next).take(usize::from(PORTS)).find(is_free).unwrap()
}

/// How many of them a process has.
const PORTS: u16 = 32;

/// A configuration with a listener at `HERE:8080` and these.
fn with_listeners(backends: &[Backend], more: &[SocketAddr]) -> String {
    let more: String = more.iter().map(|address| format!(", \"{address}\"")).collect();
    format!("{}\nlisteners: [\"HERE:8080\"{more}]\n", pool(backends, ""))
}

fn is_served(address: SocketAddr) -> bool {
    client::try_get(address, "/").is_ok_and(|response| response.status() == 200)
}

#[test]
fn a_listener_moves_to_all_addresses_and_back_and_no_other_listener_loses_a_request() {
    let backends = Backend::start_many(1);
    mixed_clients::pace(&backends);
    let port = free_port();
    let (one, other) = (SocketAddr::from((own_address(), port)), (own_address(), port).into());
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let weir = Weir::start(&with_listeners(&backends, &[one]));
    let mix = MixedClients::start(weir.address());
    for _turn in 0..3 {
        assert!(is_served(one) && !is_served(other));
        weir.write_config(&with_listeners(&backends, &[all]));
        weir.reload();
        eventually(TIMEOUT, "both are served", || is_served(one) && is_served(other));
        mix.go_on();
        weir.write_config(&with_listeners(&backends, &[one]));
        weir.reload();
        eventually(TIMEOUT, "one is served", || is_served(one) && !is_served(other));
        mix.go_on();
    }
    mix.stop().assert_flawless(&backends.iter().collect::<Vec<_>>());
}

#[test]
fn while_a_moved_listener_s_worker_warms_up_the_old_one_gets_the_connections() {
    let (backends, slow) = (Backend::start_many(1), Backend::start("slow"));
    slow.on("/health", Behaviour::NeverAnswer);
    let port = free_port();
    let one = SocketAddr::from((own_address(), port));
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let weir = Weir::start(&with_listeners(&backends, &[all]));
    let check = "{type: http, path: /health, interval: 60s, timeout: 60s, healthy_after: 1}";
    let url = slow.url();
    weir.write_config(&format!(
        "pools: [{{name: web, health_check: {check}, backends: [{url}]}}]\n\
         listeners: [\"HERE:8080\", \"{one}\"]\n"
    ));
    weir.signal("HUP");
    eventually(TIMEOUT, "the new worker probes", || slow.count_of("/health") == 1);
    assert_eq!(client::get(one, "/").text(), "b1", "the old worker answers");
    slow.release();
    eventually(TIMEOUT, "it moves", || weir.stderr().contains("reloaded: "));
    assert_eq!(client::get(one, "/").text(), "slow");
    assert!(!is_served((own_address(), port).into()));
}

#[test]
fn the_admin_port_moves_to_all_addresses_and_back() {
    let backends = Backend::start_many(1);
    let port = free_port();
    let one = SocketAddr::from((own_address(), port));
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let config =
        |admin: SocketAddr| format!("{}\nadmin: {{address: \"{admin}\"}}\n", pool(&backends, ""));
    let mut weir = Weir::spawn(&config(one));
    let answers =
        |to| client::try_get(to, "/healthz").is_ok_and(|response| response.status() == 200);
    let other = SocketAddr::from((own_address(), port));
    eventually(TIMEOUT, "it serves", || is_served(weir.address()));
    weir.write_config(&config(all));
    weir.reload();
    eventually(TIMEOUT, "it has moved", || answers(one) && answers(other));
    weir.write_config(&config(one));
    weir.reload();
    eventually(TIMEOUT, "it is back", || answers(one) && !answers(other));
    assert!(weir.is_running());
}

#[test]
fn a_listener_that_is_removed_and_put_back_at_once_is_had_again() {
    let backends = Backend::start_many(1);
    backends.iter().for_each(|backend| backend.on("/hang", Behaviour::NeverAnswer));
    let more = SocketAddr::from((own_address(), 8081));
    let weir = Weir::start(&with_listeners(&backends, &[more]));
    // Workers that drain for long.
    let mut clients = Vec::new();
    for turn in 1..=8 {
        let mut client = Client::connect(weir.address());
        client.send("GET /hang HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        let arrived = || backends.iter().any(|backend| backend.count_of("/hang") == turn);
        eventually(TIMEOUT, "the request is in flight", arrived);
        clients.push(client);
        weir.write_config(&with_listeners(&backends, &[]));
        weir.reload();
        weir.write_config(&with_listeners(&backends, &[more]));
        weir.reload();
        eventually(TIMEOUT, "it is served", || is_served(more));
    }
}
