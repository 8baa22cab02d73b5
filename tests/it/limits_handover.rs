//! A rate limit holds over handovers: what an old worker admits is charged to the client by the new one.

use std::net::Ipv4Addr;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::load_generator::Load;
use crate::support::ports::own_address;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually, now};

/// The client's tokens. None comes back while a test runs.
const BURST: usize = 40;

fn limited(backends: &[Backend], limit: &str) -> Weir {
    Weir::start(&format!("rate_limit: {{{limit}}}\n{}", pool(backends, "")))
}

fn spent_once(backends: &[Backend]) -> Weir {
    limited(backends, &format!("requests_per_second: 0.001, burst: {BURST}"))
}

/// Opens keep-alive connections to the worker that serves now; each has had a response.
fn keep_alive(weir: &Weir, from: Ipv4Addr, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = Client::connect_from(from, weir.address());
        assert_eq!(client.get("/").status(), 200);
        client
    };
    (0..count).map(connect).collect()
}

/// Sends one more request on each of these connections; gives how many the old worker admitted.
fn ask_again(clients: Vec<Client>) -> usize {
    let admitted = clients.into_iter().filter_map(|mut client| {
        let response = client.request("GET", "/", &[], b"").ok()?;
        (response.status() == 200).then_some(())
    });
    admitted.count()
}

fn until_drained(weir: &Weir) {
    eventually(TIMEOUT, "the old worker has ended", || weir.workers().len() == 1);
}

/// Sends requests on new connections until the limit rejects one.
fn spend_the_rest(weir: &Weir, from: Ipv4Addr) {
    let rejected =
        || (0..=BURST).any(|_| Client::connect_from(from, weir.address()).get("/").status() == 429);
    assert!(rejected(), "more than the whole burst was admitted by one worker");
}

#[test]
fn a_request_that_a_draining_worker_admits_takes_a_token_of_the_new_worker() {
    let backends = Backend::start_many(1);
    let weir = spent_once(&backends);
    let client = own_address();
    let clients = keep_alive(&weir, client, BURST / 4);
    weir.reload();
    let admitted = ask_again(clients);
    assert!(admitted > 0, "the old worker had closed every connection");
    until_drained(&weir);
    spend_the_rest(&weir, client);
    assert_eq!(backends[0].count(), BURST, "{admitted} were admitted by the old worker");
}

#[test]
fn tokens_that_several_draining_workers_gave_are_charged_by_the_last_one() {
    let backends = Backend::start_many(1);
    let weir = spent_once(&backends);
    let client = own_address();
    let mut admitted = 0;
    for _ in 0..3 {
        let clients = keep_alive(&weir, client, 4);
        weir.reload();
        admitted += ask_again(clients);
    }
    assert!(admitted > 0, "the old workers had closed every connection");
    until_drained(&weir);
    spend_the_rest(&weir, client);
    assert_eq!(backends[0].count(), BURST, "{admitted} were admitted by old workers");
}

#[test]
fn a_draining_worker_reports_what_it_admits_after_the_supervisor_was_replaced() {
    let backends = Backend::start_many(1);
    let weir = spent_once(&backends);
    let client = own_address();
    weir.signal("USR2");
    eventually(TIMEOUT, "it is replaced", || weir.stderr().contains("supervisor replaced"));
    let clients = keep_alive(&weir, client, BURST / 4);
    weir.reload();
    let admitted = ask_again(clients);
    assert!(admitted > 0, "the old worker had closed every connection");
    until_drained(&weir);
    spend_the_rest(&weir, client);
    assert_eq!(backends[0].count(), BURST, "{admitted} were admitted by the old worker");
}

#[test]
fn a_stream_of_one_client_over_many_reloads_gets_its_burst_and_its_rate_and_no_more() {
    const RATE: u64 = 500;
    const STREAM_BURST: u64 = 20;
    let backends = Backend::start_many(1);
    let limit = format!("requests_per_second: {RATE}, burst: {STREAM_BURST}");
    let weir = limited(&backends, &limit);
    let start = now();
    let load = Load { threads: 4, from: vec![own_address()], ..Load::on(weir.address()) }.start();
    // The stream has emptied its bucket before the first handover.
    eventually(TIMEOUT, "the limit rejects", || load.done() > 4 * STREAM_BURST);
    (0..6).for_each(|_| drop(weir.reload()));
    until_drained(&weir);
    // A client that owes tokens gets none. So it has paid them back once it gets further ones.
    let before = backends[0].count();
    let burst = usize::try_from(STREAM_BURST).unwrap();
    eventually(TIMEOUT, "the stream goes on", || backends[0].count() > before + burst);
    let tally = load.stop();
    let elapsed = now() - start;
    let allowance = STREAM_BURST + u64::try_from(elapsed.as_micros()).unwrap() * RATE / 1_000_000;
    assert!(tally.with_status(429) > 0, "the stream did not reach its limit: {tally:?}");
    let admitted = u64::try_from(backends[0].count()).unwrap();
    assert!(admitted <= allowance, "{admitted} admitted in {elapsed:?}, {allowance} are allowed");
}
