//! A limit over handovers: any number of workers, each with a clock and a table of its own, against
//! one bucket for each client that is charged with every request.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use proptest::prelude::*;

use weir::policy::bucket::Rate;
use weir::policy::debits::Baseline;
use weir::policy::limiter::{Params, RateLimiter};
use weir::time::Timestamp;

const CLIENTS: usize = 3;
const TABLE: usize = 48;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A client asks the current worker (0), the last one that drains (1), the one before …
    Ask {
        client: usize,
        worker: usize,
    },
    /// The current worker exports its buckets to a candidate.
    Export,
    /// The candidate takes over.
    Ready,
    /// Each worker that drains reports.
    Report,
    Pass(u64),
}

fn event(pass_max_ns: u64) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..CLIENTS, 0_usize..3).prop_map(|(client, worker)| Event::Ask { client, worker }),
        1 => Just(Event::Export),
        1 => Just(Event::Ready),
        2 => Just(Event::Report),
        3 => (0..pass_max_ns).prop_map(Event::Pass),
    ]
}

struct Worker {
    limiter: RateLimiter,
    /// Its clock minus the true time.
    ahead_ns: u64,
    /// What its successor knows, once it has exported.
    known: Option<Baseline>,
}

struct World {
    rate: Rate,
    now_ns: u64,
    /// The last one is current, those before drain.
    workers: Vec<Worker>,
    candidate: Option<Worker>,
    /// How many workers may drain at once.
    draining_max: usize,
    /// When the bucket of each client would be full if there were one, and what it has got.
    full_at_ns: [u64; CLIENTS],
    admitted: [u64; CLIENTS],
    /// The largest debt of each client.
    owed_ns: [u64; CLIENTS],
    reported_ns: u64,
    /// The longest time between two reports, or between an export and the report after it.
    lag_ns: u64,
}

impl World {
    fn new(rate: Rate, draining_max: usize) -> Self {
        let mut world = Self {
            rate,
            now_ns: 1_000_000_000,
            workers: Vec::new(),
            candidate: None,
            draining_max,
            full_at_ns: [0; CLIENTS],
            admitted: [0; CLIENTS],
            owed_ns: [0; CLIENTS],
            reported_ns: 1_000_000_000,
            lag_ns: 0,
        };
        let first = world.worker(0);
        world.workers.push(first);
        world
    }

    fn worker(&self, ahead_ns: u64) -> Worker {
        let params = Params {
            rate: self.rate,
            ipv6_prefix: 64,
            clients_max: NonZeroUsize::new(TABLE).unwrap(),
            exempt: Vec::new(),
        };
        Worker { limiter: RateLimiter::new(params, 7), ahead_ns, known: None }
    }

    fn clock(&self, worker: &Worker) -> Timestamp {
        Timestamp::from_nanos(self.now_ns + worker.ahead_ns)
    }

    fn current(&self) -> &Worker {
        self.workers.last().unwrap()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask { client, worker } => self.ask(client, worker),
            Event::Export => self.export(),
            Event::Ready => {
                if let Some(candidate) = self.candidate.take() {
                    self.workers.push(candidate);
                }
                // The oldest one ends, which reports for the last time.
                if self.workers.len() > self.draining_max + 1 {
                    self.report();
                    self.workers.remove(0);
                }
            }
            Event::Report => self.report(),
            Event::Pass(ns) => self.now_ns += ns,
        }
    }

    fn ask(&mut self, client: usize, worker: usize) {
        let worker = &self.workers[self.workers.len() - 1 - worker % self.workers.len()];
        if worker.limiter.admit(address(client), self.clock(worker)).is_ok() {
            let full_at_ns = self.full_at_ns[client].max(self.now_ns) + self.rate.token_ns();
            self.full_at_ns[client] = full_at_ns;
            self.admitted[client] += 1;
            let owed_ns = full_at_ns.saturating_sub(self.now_ns + self.rate.full_ns());
            self.owed_ns[client] = self.owed_ns[client].max(owed_ns);
        }
    }

    fn export(&mut self) {
        self.report();
        let next = self.worker(self.current().ahead_ns + 17_000_000_003);
        let now = self.clock(self.current());
        let buckets = self.current().limiter.export(now);
        let there = self.clock(&next);
        buckets.iter().for_each(|bucket| next.limiter.import(*bucket, there));
        self.workers.last_mut().unwrap().known = Some(Baseline::new(&buckets, now, TABLE + 1));
        self.candidate = Some(next);
    }

    fn report(&mut self) {
        self.lag_ns = self.lag_ns.max(self.now_ns - self.reported_ns);
        self.reported_ns = self.now_ns;
        let (current, draining) = self.workers.split_last_mut().unwrap();
        for worker in draining {
            let now = Timestamp::from_nanos(self.now_ns + worker.ahead_ns);
            let there = Timestamp::from_nanos(self.now_ns + current.ahead_ns);
            let known = worker.known.as_mut().unwrap();
            for debit in known.debits(&worker.limiter, now, TABLE + 1) {
                current.limiter.charge_debit(debit, there);
            }
        }
    }

    /// When the current worker takes the client's bucket to be full.
    fn believed_full_at_ns(&self, client: usize) -> u64 {
        let probe = self.worker(0);
        assert_eq!(probe.limiter.admit(address(client), Timestamp::ZERO), Ok(()));
        let tag = probe.limiter.export(Timestamp::ZERO)[0].tag;
        let buckets = self.current().limiter.export(self.clock(self.current()));
        let bucket = buckets.iter().find(|bucket| bucket.tag == tag);
        self.now_ns + bucket.map_or(0, |bucket| bucket.full_in_ns)
    }
}

fn address(client: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(client).unwrap()])
}

fn rate(requests_per_second: f64, burst: u32) -> Rate {
    Rate::new(requests_per_second, NonZeroU32::new(burst).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_worker_believes_that_a_client_has_more_than_is_left(
        burst in 1_u32..8,
        draining_max in 1_usize..4,
        events in proptest::collection::vec(event(300_000_000), 0..200),
    ) {
        let mut world = World::new(rate(10.0, burst), draining_max);
        events.into_iter().for_each(|event| world.happen(event));
        world.report();
        for client in 0..CLIENTS {
            // What is more than one burst of debt is forgiven.
            if world.owed_ns[client] <= world.rate.full_ns() {
                let (believed, truth) = (world.believed_full_at_ns(client), world.full_at_ns[client]);
                prop_assert!(believed >= truth, "{client}: {believed} is less than {truth}");
            }
        }
    }

    #[test]
    fn while_one_worker_drains_a_client_gets_one_burst_too_much_at_most_and_pays_it_back(
        burst in 1_u32..8,
        events in proptest::collection::vec(event(300_000_000), 0..200),
    ) {
        let mut world = World::new(rate(10.0, burst), 1);
        let start_ns = world.now_ns;
        for event in events {
            world.happen(event);
            let full_ns = world.rate.full_ns();
            let lag_ns = world.lag_ns.max(world.now_ns - world.reported_ns);
            let allowed_ns = full_ns + (world.now_ns - start_ns) + (full_ns + lag_ns);
            for client in 0..CLIENTS {
                let spent_ns = world.admitted[client] * world.rate.token_ns();
                prop_assert!(spent_ns <= allowed_ns, "{client}: {spent_ns} of {allowed_ns}");
            }
        }
        // Once nothing is owed, it has got exactly what it may get.
        world.report();
        let owed_ns = (0..CLIENTS).map(|client| world.believed_full_at_ns(client)).max().unwrap();
        world.now_ns = world.now_ns.max(owed_ns - world.rate.full_ns());
        for client in 0..CLIENTS {
            if world.owed_ns[client] <= world.rate.full_ns() {
                let spent_ns = world.admitted[client] * world.rate.token_ns();
                let allowed_ns = world.rate.full_ns() + (world.now_ns - start_ns);
                prop_assert!(spent_ns <= allowed_ns, "{client}: {spent_ns} of {allowed_ns}");
            }
        }
    }

    #[test]
    fn a_request_that_is_reported_at_once_leaves_exactly_one_bucket(
        burst in 1_u32..8,
        events in proptest::collection::vec(event(300_000_000), 0..200),
    ) {
        let mut world = World::new(rate(10.0, burst), 3);
        for event in events {
            world.report();
            // No request is admitted between an export and the takeover.
            match event {
                Event::Ready => {}
                Event::Export => {
                    world.happen(Event::Export);
                    world.happen(Event::Ready);
                }
                Event::Ask { .. } | Event::Report | Event::Pass(_) => world.happen(event),
            }
            world.report();
        }
        for client in 0..CLIENTS {
            if world.owed_ns[client] <= world.rate.full_ns() {
                let truth = world.full_at_ns[client].max(world.now_ns);
                prop_assert_eq!(world.believed_full_at_ns(client), truth, "client {}", client);
            }
        }
    }

    #[test]
    fn with_each_debit_a_client_is_charged_too_much_by_no_more_than_was_earned_since_the_last_report(
        burst in 1_u32..8,
        reports in proptest::collection::vec(
            proptest::collection::vec((0_usize..2, 0_u64..100_000_000), 0..6),
            1..6,
        ),
    ) {
        let mut world = World::new(rate(10.0, burst), 1);
        world.happen(Event::Export);
        world.happen(Event::Ready);
        let mut most_ns = 0;
        for asks in reports {
            let has_debit = asks.iter().any(|(worker, _)| *worker == 1);
            for (worker, pause) in asks {
                world.happen(Event::Pass(pause));
                world.happen(Event::Ask { client: 0, worker });
            }
            let lag_ns = world.now_ns - world.reported_ns;
            world.report();
            most_ns += if has_debit { lag_ns + world.rate.token_ns() / 2 } else { 0 };
            let truth = world.full_at_ns[0].max(world.now_ns);
            let believed = world.believed_full_at_ns(0);
            prop_assert!(believed <= truth + most_ns, "{believed} is more than {truth} + {most_ns}");
        }
    }
}

/// The error that the ADR names: it recurs with each report.
#[test]
fn one_late_request_before_each_report_is_charged_as_all_that_was_earned_since_the_last_one() {
    let mut world = World::new(rate(100.0, 50), 1);
    world.happen(Event::Export);
    world.happen(Event::Ready);
    (0..50).for_each(|_| world.happen(Event::Ask { client: 0, worker: 0 }));
    let mut before_ns = 0;
    for tokens_charged in [11, 10, 10, 10] {
        world.happen(Event::Pass(95_000_000));
        world.happen(Event::Ask { client: 0, worker: 1 });
        world.happen(Event::Pass(5_000_000));
        world.report();
        let error_ns = world.believed_full_at_ns(0) - world.full_at_ns[0];
        assert_eq!(error_ns - before_ns, (tokens_charged - 1) * world.rate.token_ns());
        before_ns = error_ns;
    }
}
