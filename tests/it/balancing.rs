//! Who gets the next request: routes choose the pool, selectors the backend. All of it is counted
//! where the requests arrive.

#![expect(clippy::panic, reason = "a test that cannot go on fails, which is what a panic does")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::support::backend::{Backend, Behaviour};
use crate::support::client::{self, Client};
use crate::support::load_generator::Load;
use crate::support::ports::own_addresses;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// One pool of these backends, all of them counted as healthy. `more` is further keys of the pool.
fn pool(backends: &[Backend], more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let urls = urls.join(", ");
    format!("pools: [{{name: web, health_check: off, backends: [{urls}]{more}}}]")
}

/// Sends this number of requests on one connection and returns which backends responded.
fn answered_by(weir: &Weir, requests: usize) -> Vec<String> {
    let mut client = Client::connect(weir.address());
    (0..requests).map(|_| client.get("/").text()).collect()
}

fn counts(backends: &[Backend]) -> Vec<usize> {
    backends.iter().map(Backend::count).collect()
}

#[test]
fn nine_requests_to_three_backends_are_three_each_in_turn() {
    let backends = Backend::start_many(3);
    let weir = Weir::start(&pool(&backends, ""));
    let order = answered_by(&weir, 9);
    assert_eq!(counts(&backends), [3, 3, 3], "{order:?}");
    let first: BTreeSet<&String> = order[..3].iter().collect();
    assert_eq!(first.len(), 3, "{order:?}");
    assert_eq!((&order[..3], &order[..3]), (&order[3..6], &order[6..]), "in turn");
}

#[test]
fn turns_are_taken_over_all_connections_together() {
    let backends = Backend::start_many(3);
    let weir = Weir::start(&pool(&backends, ""));
    let load = Load { count: Some(90), threads: 6, reconnect: true, ..Load::on(weir.address()) };
    assert_eq!(load.run().with_status(200), 90);
    assert_eq!(counts(&backends), [30, 30, 30]);
}

#[test]
fn weights_5_1_1_give_these_shares_in_a_smooth_order() {
    let backends = Backend::start_many(3);
    let config = format!(
        "pools: [{{name: web, health_check: off, backends: [{{url: {}, weight: 5}}, {}, {}]}}]",
        backends[0].url(),
        backends[1].url(),
        backends[2].url()
    );
    let weir = Weir::start(&config);
    let order = answered_by(&weir, 70);
    assert_eq!(counts(&backends), [50, 10, 10]);
    let runs = order.split(|name| name != "b1").map(<[String]>::len);
    assert!(runs.max() <= Some(4), "a light backend waits too long: {order:?}");
    let light_pairs = order.windows(2).filter(|pair| pair.iter().all(|name| name != "b1"));
    assert_eq!(light_pairs.count(), 0, "the light ones one after the other: {order:?}");
}

#[test]
fn least_conn_sends_a_slow_backend_the_smallest_share() {
    let backends = Backend::start_many(3);
    let slow = &backends[1];
    // So slow that it answers nothing before the others have answered nearly all.
    slow.set(Behaviour::NeverAnswer);
    let weir = Weir::start(&pool(&backends, ", algorithm: least_conn"));
    let load = Load { count: Some(300), threads: 8, ..Load::on(weir.address()) }.start();
    eventually(TIMEOUT * 3, "the others answer", || load.done() >= 290);
    // With three of eight requests it has more than each of the others; two may be sent at once.
    assert!(slow.count() <= 4, "{:?}", counts(&backends));
    slow.set(Behaviour::Good);
    eventually(TIMEOUT, "it answers, too", || {
        slow.release();
        load.done() == 300
    });
    assert_eq!(load.stop().with_status(200), 300);
    assert_eq!(counts(&backends).iter().sum::<usize>(), 300);
}

#[test]
fn least_conn_fills_the_backend_with_the_fewest_requests_in_flight() {
    let backends = Backend::start_many(3);
    backends.iter().for_each(|backend| backend.set(Behaviour::NeverAnswer));
    let weir = Weir::start(&pool(&backends, ", algorithm: least_conn"));
    let mut waiting: Vec<Client> = Vec::new();
    for number in 1..=9 {
        let mut client = Client::connect(weir.address());
        client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        waiting.push(client);
        let in_flight = || backends.iter().map(Backend::in_flight).sum::<usize>();
        eventually(TIMEOUT, "the request is at a backend", || in_flight() == number);
    }
    let in_flight: Vec<usize> = backends.iter().map(Backend::in_flight).collect();
    assert_eq!(in_flight, [3, 3, 3]);
}

/// Which backend answers each client, asked on a connection of its own.
fn by_client(weir: &Weir, clients: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, String> {
    let ask = |&from: &Ipv4Addr| (from, Client::connect_from(from, weir.address()).get("/").text());
    clients.iter().map(ask).collect()
}

#[test]
fn ip_hash_always_sends_a_client_to_the_same_backend() {
    let backends = Backend::start_many(3);
    let weir = Weir::start(&pool(&backends, ", algorithm: ip_hash"));
    let clients = own_addresses(60);
    let first = by_client(&weir, &clients);
    assert_eq!(by_client(&weir, &clients), first);
    assert_eq!(by_client(&weir, &clients), first);
    let used: BTreeSet<&String> = first.values().collect();
    assert_eq!(used.len(), 3, "sixty clients are spread: {first:?}");
}

#[test]
fn ip_hash_sends_a_client_to_the_same_backend_after_a_restart() {
    let backends = Backend::start_many(3);
    let config = pool(&backends, ", algorithm: ip_hash");
    let clients = own_addresses(30);
    let before = by_client(&Weir::start(&config), &clients);
    assert_eq!(by_client(&Weir::start(&config), &clients), before);
}

#[test]
fn ip_hash_moves_only_the_clients_of_a_backend_that_is_down() {
    let backends = Backend::start_many(3);
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, algorithm: ip_hash, backends: [{}],\n  \
         health_check: {{interval: 250ms}}}}]",
        urls.join(", ")
    ));
    let clients = own_addresses(60);
    let before = by_client(&weir, &clients);
    backends[1].stop();
    eventually(TIMEOUT, "b2 is unhealthy", || weir.status()["healthy_backends"] == 2);
    let after = by_client(&weir, &clients);
    for (client, backend) in &before {
        if backend == "b2" {
            assert_ne!(after[client], "b2", "{client} has to move");
        } else {
            assert_eq!(&after[client], backend, "{client} has no reason to move");
        }
    }
    assert!(before.values().any(|backend| backend == "b2"), "b2 had no client: {before:?}");
}

#[test]
fn ip_hash_uses_the_client_address_of_a_trusted_proxy_only() {
    let backends = Backend::start_many(3);
    let ask = |weir: &Weir, claim: &str| {
        let mut client = Client::connect(weir.address());
        let answer = client.request("GET", "/", &[("X-Forwarded-For", claim)], b"");
        answer.unwrap_or_else(|failure| panic!("{claim}: {failure:?}")).text()
    };
    let config = pool(&backends, ", algorithm: ip_hash");
    let reached = |weir: &Weir, prefix: &str| -> BTreeSet<String> {
        (1..=40).map(|number| ask(weir, &format!("{prefix}198.51.100.{number}"))).collect()
    };
    let untrusting = Weir::start(&config);
    assert_eq!(reached(&untrusting, "").len(), 1, "whatever a client claims, it is one");
    let trusting = Weir::start(&format!("{config}\ntrusted_proxies: [127.0.0.0/8]"));
    assert_eq!(reached(&trusting, "").len(), 3, "forty clients behind one proxy");
    let claimed: BTreeSet<String> =
        (1..=40).map(|number| ask(&trusting, &format!("198.51.100.{number}, 192.0.2.1"))).collect();
    assert_eq!(claimed.len(), 1, "one client, whatever it put in front");
}

#[test]
fn random_gives_every_backend_a_share() {
    let backends = Backend::start_many(3);
    let weir = Weir::start(&pool(&backends, ", algorithm: random"));
    let order = answered_by(&weir, 300);
    let counts = counts(&backends);
    // Six standard deviations from the even hundred.
    assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
    let in_turn = order.windows(4).filter(|names| names[0] == names[3]).count();
    assert!(in_turn < 250, "that is a turn, not a random order: {in_turn} of 297");
}

#[test]
fn a_backend_that_is_down_leaves_its_turns_to_all_the_others() {
    let backends = Backend::start_many(3);
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    backends[0].stop();
    let weir = Weir::start(&format!(
        "pools: [{{name: web, backends: [{}], health_check: {{interval: 1s}}}}]",
        urls.join(", ")
    ));
    answered_by(&weir, 40);
    assert_eq!(counts(&backends), [0, 20, 20]);
}

/// Pools `a`, `b` … of one backend each, and these routes.
fn routed(backends: &[Backend], routes: &str) -> Weir {
    let pool = |(name, backend): (char, &Backend)| {
        format!("{{name: {name}, health_check: off, backends: [{}]}}", backend.url())
    };
    let pools: Vec<String> = ('a'..).zip(backends).map(pool).collect();
    Weir::start(&format!("routes: [{routes}]\npools: [{}]", pools.join(", ")))
}

/// The backend that responds, or the status of Weir's own response.
fn ask(weir: &Weir, host: &str, path: &str) -> String {
    let mut client = Client::connect(weir.address());
    let answer = client.request("GET", path, &[("Host", host)], b"");
    let answer = answer.unwrap_or_else(|failure| panic!("{host}{path}: {failure:?}"));
    if answer.status() == 200 { answer.text() } else { answer.status().to_string() }
}

#[test]
fn a_route_takes_exactly_its_host() {
    let backends = Backend::start_many(2);
    let weir = routed(&backends, "{host: a.test, pool: a}, {host: b.test, pool: b}");
    assert_eq!(ask(&weir, "a.test", "/"), "b1");
    assert_eq!(ask(&weir, "b.test", "/"), "b2");
    assert_eq!(ask(&weir, "A.Test", "/"), "b1", "case does not matter");
    assert_eq!(ask(&weir, "a.test:8080", "/"), "b1", "nor does the port");
    assert_eq!(ask(&weir, "x.a.test", "/"), "404");
    assert_eq!(ask(&weir, "aa.test", "/"), "404");
}

#[test]
fn a_star_stands_for_whole_labels_and_loses_to_the_exact_host() {
    let backends = Backend::start_many(2);
    let weir = routed(&backends, "{host: \"*.test\", pool: a}, {host: b.test, pool: b}");
    assert_eq!(ask(&weir, "x.test", "/"), "b1");
    assert_eq!(ask(&weir, "y.x.test", "/"), "b1");
    assert_eq!(ask(&weir, "b.test", "/"), "b2", "exact first");
    assert_eq!(ask(&weir, "test", "/"), "404", "the name itself has no label in front");
    assert_eq!(ask(&weir, "xtest", "/"), "404");
}

#[test]
fn a_path_ends_on_a_segment_boundary_and_the_longest_wins() {
    let backends = Backend::start_many(3);
    let weir = routed(&backends, "{pool: a}, {path: /v1, pool: b}, {path: /v1/users, pool: c}");
    for (path, expected) in [
        ("/", "b1"),
        ("/v1", "b2"),
        ("/v1/", "b2"),
        ("/v1/x?y=/v1/users", "b2"),
        ("/v10", "b1"),
        ("/v1/users", "b3"),
        ("/v1/users/7", "b3"),
        ("/v1/usersx", "b2"),
        ("/x/v1", "b1"),
    ] {
        assert_eq!(ask(&weir, "weir.test", path), expected, "{path}");
    }
}

#[test]
fn the_host_decides_before_the_path() {
    let backends = Backend::start_many(2);
    let weir = routed(&backends, "{path: /long/path, pool: a}, {host: b.test, pool: b}");
    assert_eq!(ask(&weir, "b.test", "/long/path"), "b2");
    assert_eq!(ask(&weir, "x.test", "/long/path"), "b1");
}

#[test]
fn without_a_route_it_is_404_and_no_backend_hears_of_it() {
    let backends = Backend::start_many(1);
    let weir = routed(&backends, "{path: /known, pool: a}");
    let mut client = Client::connect(weir.address());
    let answer = client.get("/unknown");
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.text(), "Not Found: no route matches this request\n");
    assert_eq!(backends[0].count(), 0);
    assert_eq!(client.get("/known").status(), 200, "the connection is still good");
}

#[test]
fn each_pool_takes_its_own_turns() {
    let (a, b) = (Backend::start_many(2), Backend::start_many(2));
    let urls = |of: &[Backend]| format!("{}, {}", of[0].url(), of[1].url());
    let weir = Weir::start(&format!(
        "routes: [{{path: /a, pool: a}}, {{path: /b, pool: b}}]\npools:\n  \
         - {{name: a, health_check: off, backends: [{}]}}\n  \
         - {{name: b, health_check: off, backends: [{}]}}",
        urls(&a),
        urls(&b)
    ));
    // If the turns were shared, each pool would use one backend alone.
    for _ in 0..10 {
        client::get(weir.address(), "/a");
        client::get(weir.address(), "/b");
    }
    assert_eq!((counts(&a), counts(&b)), (vec![5, 5], vec![5, 5]));
}

/// Sends a request that hangs, and waits until it has arrived at one of the backends.
fn hang(weir: &Weir, backends: &[&Backend]) -> Client {
    let before: usize = backends.iter().map(|backend| backend.in_flight()).sum();
    let mut client = Client::connect(weir.address());
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    eventually(TIMEOUT, "the request is at a backend", || {
        backends.iter().map(|backend| backend.in_flight()).sum::<usize>() == before + 1
    });
    client
}

#[test]
fn after_a_reload_least_conn_counts_what_the_old_worker_has_in_flight_until_it_ends() {
    let backends = Backend::start_many(2);
    backends.iter().for_each(|backend| backend.set(Behaviour::NeverAnswer));
    let [first, second] = &backends[..] else { panic!("two backends") };
    let weir = Weir::start(&pool(&backends[..1], ", algorithm: least_conn"));
    let of_old: Vec<Client> = (0..4).map(|_| hang(&weir, &[first])).collect();
    weir.write_config(&pool(&backends, ", algorithm: least_conn"));
    weir.reload();
    let _of_new: Vec<Client> = (0..4).map(|_| hang(&weir, &[first, second])).collect();
    assert_eq!((first.in_flight(), second.in_flight()), (4, 4), "the old worker's are counted");
    first.release();
    of_old.into_iter().for_each(|mut client| assert_eq!(client.read_answer().status(), 200));
    // The same message says both.
    eventually(TIMEOUT, "the new worker knows that the old one has ended", || {
        weir.metrics().sum("lb_draining_workers", &[]) == 0.0
    });
    let _more: Vec<Client> = (0..3).map(|_| hang(&weir, &[first, second])).collect();
    assert_eq!((first.in_flight(), second.in_flight()), (3, 4), "and no longer once it has ended");
}

#[test]
fn what_a_dead_worker_had_in_flight_is_not_counted() {
    let backends = Backend::start_many(2);
    backends.iter().for_each(|backend| backend.set(Behaviour::NeverAnswer));
    let [first, second] = &backends[..] else { panic!("two backends") };
    let weir = Weir::start(&pool(&backends, ", algorithm: least_conn"));
    let worker = weir.worker_pid();
    let of_old: Vec<Client> = (0..6).map(|_| hang(&weir, &[first, second])).collect();
    crate::support::weir::kill("KILL", &[worker]).unwrap();
    drop(of_old);
    backends.iter().for_each(Backend::release);
    eventually(TIMEOUT, "they are gone", || first.in_flight() + second.in_flight() == 0);
    let _of_new: Vec<Client> = (0..4).map(|_| hang(&weir, &[first, second])).collect();
    assert_eq!((first.in_flight(), second.in_flight()), (2, 2));
}

/// How many of `requests`, one after the other, go to each of two backends of weights 3 and 1.
fn shares_of_three_and_one(algorithm: &str, requests: usize) -> Vec<usize> {
    let backends = Backend::start_many(2);
    let [first, second] = &backends[..] else { panic!("two backends") };
    let weir = Weir::start(&format!(
        "pools: [{{name: web, health_check: off, algorithm: {algorithm}, \
         backends: [{{url: {}, weight: 3}}, {}]}}]",
        first.url(),
        second.url()
    ));
    answered_by(&weir, requests);
    counts(&backends)
}

#[test]
fn at_low_load_least_conn_and_random_share_by_weight() {
    for algorithm in ["least_conn", "random"] {
        let counts = shares_of_three_and_one(algorithm, 400);
        // 300 and 100; a standard deviation is 9.
        assert!((250..350).contains(&counts[0]), "{algorithm}: {counts:?}");
    }
}
