//! Backends that come back cold: they get few requests until they are warm, and the others are not left
//! alone with the load.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use weir::exchange::refusal::Outcome;
use weir::exchange::{Exchange, Replay, Rolls};
use weir::runtime::backend::Backend;
use weir::runtime::ids::BackendId;
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

use crate::dice::Dice;
use crate::incoming::Incoming;
use crate::outages::{Recorder, build};
use crate::seeds;

const PER_SECOND: u64 = 400;
const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);
const REPLAY: Replay =
    Replay { idempotent: true, response_started: false, body_whole: true, half_closed: false };

/// A server with a number of places, each for this service time. Other requests wait.
struct Server {
    free_at: Vec<Timestamp>,
    service: Duration,
    /// It is warm after this many further requests.
    cold_for: u64,
    /// The requests that it got in this second, and since it came back.
    second: u64,
    got: u64,
}

impl Server {
    fn warm() -> Self {
        let (free_at, service) = (vec![Timestamp::ZERO; 40], Duration::from_millis(20));
        Self { free_at, service, cold_for: 0, second: 0, got: 0 }
    }

    /// A tenth of the places, ten times as slow: a twentieth of the others' capacity.
    fn cold(requests: u64) -> Self {
        let (free_at, service) = (vec![Timestamp::ZERO; 4], Duration::from_millis(200));
        Self { free_at, service, cold_for: requests, ..Self::warm() }
    }

    /// When it responds to a request of `now`.
    fn serve(&mut self, now: Timestamp, dice: &mut Dice) -> Timestamp {
        self.second += 1;
        self.got += 1;
        self.cold_for = self.cold_for.saturating_sub(1);
        if self.cold_for == 0 && self.free_at.len() < 40 {
            *self = Self { second: self.second, got: self.got, ..Self::warm() };
        }
        // Some are three times as slow.
        let factor = if dice.u64(0..20) == 0 { 3 } else { 1 };
        let slot = self.free_at.iter_mut().min().unwrap();
        *slot = now.max(*slot) + self.service * factor;
        *slot
    }
}

struct World {
    dice: Dice,
    snapshot: Arc<Snapshot>,
    now: Timestamp,
    servers: Vec<Server>,
    /// When each response is due, and its place in the list of exchanges.
    due: BinaryHeap<Reverse<(Timestamp, usize)>>,
    exchanges: Vec<Option<Exchange>>,
    /// The requests so far.
    requests: u64,
    /// The latencies in the last period.
    took: Vec<Duration>,
    /// The largest share of one backend in any second, in per cent.
    peak: u64,
}

impl World {
    fn new(algorithm: &str, backends: usize, keys: &str, seed: u64) -> Self {
        let urls: Vec<_> = (1..=backends).map(|n| format!("http://10.0.0.{n}:80")).collect();
        let text = format!(
            "pools: [{{name: web, algorithm: {algorithm}, health_check: {{path: /}}, \
             backends: [{}], {keys}}}]",
            urls.join(", "),
        );
        let world = Self {
            dice: Dice::of_seed(seed),
            snapshot: build(&text, seed),
            now: Timestamp::ZERO,
            servers: (0..backends).map(|_| Server::warm()).collect(),
            due: BinaryHeap::new(),
            exchanges: Vec::new(),
            requests: 0,
            took: Vec::new(),
            peak: 0,
        };
        for index in 0..backends {
            world.backend(index).probed(Ok(()), world.now);
        }
        world
    }

    fn backend(&self, index: usize) -> &Arc<Backend> {
        self.snapshot.pools[0].backend(BackendId::new(index)).unwrap()
    }

    /// Its health checks fail, or pass again.
    fn set_healthy(&self, index: usize, healthy: bool) {
        let result = || if healthy { Ok(()) } else { Err("down".to_owned()) };
        while self.backend(index).is_healthy() != healthy {
            self.backend(index).probed(result(), self.now);
        }
    }

    /// Serves for this time.
    fn run(&mut self, time: Duration) {
        self.took.clear();
        let end = self.now + time;
        while self.now < end {
            self.requests += 1;
            if self.requests.is_multiple_of(PER_SECOND) {
                let most = self.servers.iter().map(|server| server.second).max().unwrap();
                self.peak = self.peak.max(most * 100 / PER_SECOND);
                self.servers.iter_mut().for_each(|server| server.second = 0);
            }
            self.now = self.now + SECOND / u32::try_from(PER_SECOND).unwrap();
            while let Some(Reverse((at, place))) =
                self.due.peek().copied().filter(|Reverse((at, _))| *at <= self.now)
            {
                self.due.pop();
                self.respond(place, at);
            }
            self.request();
        }
    }

    fn respond(&mut self, place: usize, now: Timestamp) {
        let mut exchange = self.exchanges[place].take().unwrap();
        exchange.response_head(200, REPLAY, now);
        exchange.finished(Outcome::Completed, None, now);
        self.took.push(now.since(exchange.started()));
    }

    fn request(&mut self) {
        let client = u32::from_be_bytes([10, 1, 0, 0]) + self.dice.u32(0..5000);
        let recorder = Arc::new(Recorder::default());
        let request = Incoming::get(Ipv4Addr::from(client));
        let mut exchange = request.admitted(&self.snapshot, recorder, self.now);
        let rolls = Rolls { pick: self.dice.u64(..), backoff: self.dice.u64(..) };
        let backend = exchange.pick(self.now, rolls).unwrap().id.position();
        let at = self.servers[backend].serve(self.now, &mut self.dice);
        self.due.push(Reverse((at, self.exchanges.len())));
        self.exchanges.push(Some(exchange));
    }

    fn weight(&self, index: usize) -> f64 {
        self.snapshot.pools[0].balancing.refresh(&self.snapshot.pools[0].members, self.now);
        self.backend(index).weight.units()
    }

    fn p99(&mut self) -> Duration {
        self.took.sort_unstable();
        self.took[self.took.len() * 99 / 100]
    }
}

/// One of five is down for three seconds and comes back cold. Returns the world eight seconds later.
fn one_comes_back_cold(algorithm: &str, cold_for: u64, keys: &str, seed: u64) -> World {
    let mut world = World::new(algorithm, 5, keys, seed);
    world.run(2 * SECOND);
    world.set_healthy(0, false);
    world.run(3 * SECOND);
    world.servers[0] = Server::cold(cold_for);
    world.set_healthy(0, true);
    world.run(8 * SECOND);
    world
}

/// Without it, a breaker would not take the cold backend out.
const ON: &str = "slow_start: 10s, breaker: {open: 1ms, out_max: 1%, share: 100%, slower: 100x}";
const OFF: &str = "breaker: {slower: 100x}";

#[test]
fn a_cold_backend_gets_less_than_one_per_cent_of_the_requests() {
    for algorithm in ["round_robin", "least_conn", "random", "ip_hash"] {
        for seed in seeds::chosen(5) {
            let mut world = one_comes_back_cold(algorithm, u64::MAX, ON, seed);
            let got = world.servers[0].got;
            assert!(got < 8 * PER_SECOND / 100, "{algorithm} seed={seed}: {got}");
            assert!(got > 0, "{algorithm} seed={seed}: it is starved");
            assert!(world.p99() < Duration::from_millis(70), "{algorithm} seed={seed}");
        }
    }
}

#[test]
fn without_slow_start_it_gets_more_than_it_can_take() {
    for algorithm in ["round_robin", "random", "ip_hash"] {
        let mut world = one_comes_back_cold(algorithm, u64::MAX, OFF, 1);
        let got = world.servers[0].got;
        assert!(got > 8 * PER_SECOND / 50, "{algorithm}: {got}: the simulation shows nothing");
        assert!(world.p99() > Duration::from_millis(150), "{algorithm}");
    }
}

#[test]
fn a_backend_that_has_become_warm_gets_its_whole_share() {
    for algorithm in ["round_robin", "least_conn", "random", "ip_hash"] {
        for seed in seeds::chosen(4) {
            let mut world = one_comes_back_cold(algorithm, 30, ON, seed);
            world.run(4 * WINDOW);
            assert!((world.weight(0) - 1.0).abs() < 1e-9, "{algorithm} seed={seed}");
            world.servers[0].got = 0;
            world.run(5 * SECOND);
            let got = world.servers[0].got;
            let fair = 5 * PER_SECOND / 5;
            assert!(got.abs_diff(fair) < fair / 4, "{algorithm} seed={seed}: {got} of {fair}");
        }
    }
}

#[test]
fn a_warm_backend_has_its_whole_share_after_the_configured_time() {
    let mut seconds = 0;
    for seed in seeds::chosen(4) {
        let mut world = one_comes_back_cold("round_robin", 1, ON, seed);
        world.run(4 * SECOND);
        seconds += u64::from(world.weight(0) < 1.0);
    }
    assert!(seconds <= 1, "{seconds} took longer, though they were as fast as the others");
}

#[test]
fn a_rolling_restart_leaves_no_backend_alone_with_the_load() {
    for algorithm in ["round_robin", "least_conn", "random"] {
        for seed in seeds::chosen(4) {
            let mut world = World::new(algorithm, 5, ON, seed);
            world.run(SECOND);
            for index in 0..5 {
                world.set_healthy(index, false);
                world.run(SECOND);
                world.set_healthy(index, true);
                world.run(SECOND / 2);
            }
            world.run(2 * WINDOW);
            // A quarter to a third, and what chance adds to it.
            assert!(world.peak <= 36, "{algorithm} seed={seed}: {} %", world.peak);
        }
    }
}

#[test]
fn a_pool_that_recovers_as_a_whole_serves_at_once() {
    for (down, most) in [(0..5, 30), (1..5, 33), (2..5, 33)] {
        let mut world = World::new("round_robin", 5, ON, 3);
        down.clone().for_each(|index| world.set_healthy(index, false));
        down.clone().for_each(|index| world.set_healthy(index, true));
        world.run(2 * WINDOW);
        assert!(world.peak <= most, "{down:?}: {} %", world.peak);
    }
}

#[test]
fn nothing_starts_slowly_with_the_process() {
    let mut world = World::new("round_robin", 5, ON, 1);
    world.run(SECOND);
    assert!((0..5).all(|index| (world.weight(index) - 1.0).abs() < 1e-9));
}
