//! Minutes of overload: requests that wait for places at backends, and what a queue promises.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use weir::config::{Overrides, load};
use weir::exchange::refusal::{Outcome, Refusal};
use weir::exchange::{Choice, Exchange, Replay, Rolls};
use weir::policy::retry::AttemptFailure;
use weir::runtime::endpoint::Lookup;
use weir::runtime::pool::Pool;
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

use crate::dice::Dice;
use crate::incoming::Incoming;
use crate::outages::Recorder;
use crate::seeds;

const DAYS: u64 = 200;
const STEPS: usize = 400;

/// Notes that a request was woken.
#[derive(Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Running {
    exchange: Exchange,
    due: Timestamp,
}

struct Queued {
    exchange: Exchange,
    /// In the order of arrival.
    number: u64,
    is_retry: bool,
    until: Timestamp,
    alarm: Arc<Alarm>,
}

impl Queued {
    fn is_woken(&self) -> bool {
        self.alarm.0.load(SeqCst)
    }
}

/// What happened on all days.
#[derive(Debug, Default)]
struct Sums {
    served: u64,
    waited: u64,
    evicted: u64,
    full: u64,
    timeouts: u64,
    left: u64,
    retries: u64,
    recoveries: u64,
}

struct Day {
    dice: Dice,
    snapshot: Arc<Snapshot>,
    recorder: Arc<Recorder>,
    order: &'static str,
    length: usize,
    max: u64,
    running: Vec<Running>,
    queued: Vec<Queued>,
    arrived: u64,
    /// Some have got a place and do not run yet.
    is_late: bool,
    now: Timestamp,
}

#[test]
fn no_overload_breaks_a_promise_of_the_queue() {
    let seeds = seeds::chosen(DAYS);
    let mut sums = Sums::default();
    for seed in seeds.clone() {
        Day::new(seed).live(&mut sums);
    }
    println!("overloads={} {sums:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= DAYS {
        assert!(sums.served > 5_000 && sums.waited > 1_000 && sums.full > 100, "{sums:?}");
        assert!(sums.evicted > 100 && sums.timeouts > 100 && sums.left > 100, "{sums:?}");
        assert!(sums.retries > 100 && sums.recoveries > 100, "{sums:?}");
    }
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::of_seed(seed);
        let order = dice.choice(["lifo", "fifo", "codel"]).unwrap();
        let algorithm = dice.choice(["round_robin", "least_conn", "random", "ip_hash"]).unwrap();
        let (length, max) = (dice.u64(1..=12), dice.u64(1..=4));
        let backends: Vec<_> = (1..=dice.u64(1..=4))
            .map(|n| format!("{{url: http://10.0.0.{n}:80, max_requests: {max}}}"))
            .collect();
        let text = format!(
            "pools: [{{name: web, algorithm: {algorithm}, backends: [{}], breaker: off, \
             health_check: {{healthy_after: 1, unhealthy_after: 1}}, \
             queue: {{length: {length}, timeout: {}ms, order: {order}}}, \
             retry: {{attempts: 3, backoff: 0s, on: [reset]}}, timeouts: {{request: {}ms}}}}]",
            backends.join(", "),
            dice.u64(5..=60),
            dice.u64(20..=500),
        );
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        let unknown = |_: &str, _| Lookup::Failed("no names".to_owned());
        let snapshot = Arc::new(Snapshot::new(&config, "v", seed, unknown));
        for member in snapshot.pools[0].members.iter() {
            member.backend.probed(Ok(()), Timestamp::ZERO);
        }
        Self {
            dice,
            snapshot,
            recorder: Arc::default(),
            order,
            length: usize::try_from(length).unwrap(),
            max,
            running: Vec::new(),
            queued: Vec::new(),
            arrived: 0,
            is_late: false,
            now: Timestamp::ZERO,
        }
    }

    fn pool(&self) -> &Pool {
        &self.snapshot.pools[0]
    }

    fn live(mut self, sums: &mut Sums) {
        for _ in 0..STEPS {
            self.now = self.now + Duration::from_micros(self.dice.u64(1..=3000));
            match self.dice.u8(0..100) {
                0..55 => self.arrive(sums),
                55..60 => self.leave(sums),
                60..63 => self.flip_health(sums),
                63..65 => self.hear_of_others(),
                65..70 => self.fail_one(sums),
                _ => self.finish_due(sums),
            }
            // Some get a place, and do not run before other things have happened.
            self.is_late |= self.dice.u8(0..4) == 0;
            if !self.is_late || self.dice.u8(0..2) == 0 {
                self.collect_served(sums);
            }
            self.expire(sums);
            self.check();
        }
        self.queued.clear();
        self.running.clear();
        let pool = self.pool();
        assert_eq!(pool.waiters.as_ref().unwrap().waiting(), 0, "none is left");
        assert!(pool.members.iter().all(|member| member.backend.in_flight() == 0));
    }

    fn arrive(&mut self, sums: &mut Sums) {
        let observer: Arc<Recorder> = Arc::clone(&self.recorder);
        let request = Incoming::get(Ipv4Addr::from(self.dice.u32(1..=9)));
        let (mut exchange, admitted) = request.begin(&self.snapshot, observer, self.now);
        if let Err(refusal) = admitted {
            assert_eq!(refusal, Refusal::NoBackend, "all are down");
            return exchange.finished(Outcome::Refused(refusal), None, self.now);
        }
        self.arrived += 1;
        self.pick(exchange, self.arrived, sums);
    }

    fn pick(&mut self, mut exchange: Exchange, number: u64, sums: &mut Sums) {
        let rolls = Rolls { pick: self.dice.u64(..), backoff: self.dice.u64(..) };
        let is_retry = !exchange.attempts().is_empty();
        match exchange.pick_or_wait(self.now, rolls) {
            Ok(Choice::Attempt(_)) => self.run(exchange, sums),
            Ok(Choice::Wait(until)) => {
                assert!(until <= exchange.deadline());
                let alarm = Arc::new(Alarm::default());
                let waker = Waker::from(Arc::clone(&alarm));
                if exchange.poll_wait(&Context::from_waker(&waker)).is_ready() {
                    alarm.0.store(true, SeqCst);
                }
                self.queued.push(Queued { exchange, number, is_retry, until, alarm });
            }
            Err(refusal) => {
                sums.full += u64::from(refusal == Refusal::QueueFull);
                exchange.finished(Outcome::Refused(refusal), None, self.now);
            }
        }
    }

    fn run(&mut self, exchange: Exchange, sums: &mut Sums) {
        sums.served += 1;
        let due = self.now + Duration::from_micros(self.dice.u64(100..=20_000));
        self.running.push(Running { exchange, due });
    }

    /// The time of some that wait is over.
    fn expire(&mut self, sums: &mut Sums) {
        let now = self.now;
        let (over, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queued)
            .into_iter()
            .partition(|one| one.until <= now && !one.is_woken());
        self.queued = rest;
        for mut one in over {
            match one.exchange.end_wait(now) {
                Ok(_) => panic!("it was given a place, and nothing has collected it"),
                Err(refusal) => {
                    sums.timeouts += u64::from(refusal == Refusal::QueueTimeout);
                    one.exchange.finished(Outcome::Refused(refusal), None, now);
                }
            }
        }
    }

    /// A client disconnects, at any point.
    fn leave(&mut self, sums: &mut Sums) {
        // A task that is cancelled does not say when.
        self.is_late = true;
        let which = self.dice.u8(0..2) == 0;
        if which && !self.queued.is_empty() {
            let index = self.any(self.queued.len());
            let mut one = self.queued.swap_remove(index);
            sums.left += 1;
            if self.dice.u8(0..2) == 0 {
                one.exchange.finished(Outcome::ClientAborted, None, self.now);
            }
        } else if !self.running.is_empty() {
            let index = self.any(self.running.len());
            drop(self.running.swap_remove(index));
        }
    }

    fn flip_health(&mut self, sums: &mut Sums) {
        let index = self.any(self.pool().members.len());
        let backend = Arc::clone(&self.pool().members[index].backend);
        let result = if backend.is_healthy() { Err("down".to_owned()) } else { Ok(()) };
        if backend.probed(result, self.now) == Some(true) {
            sums.recoveries += 1;
            // As the health checks do.
            self.pool().dispatch(self.now);
        }
    }

    /// A draining worker reports what it has.
    fn hear_of_others(&mut self) {
        let index = self.any(self.pool().members.len());
        let others = self.dice.u64(0..=self.max / 2);
        self.pool().members[index].backend.set_other_workers(others);
        self.pool().dispatch(self.now);
    }

    fn fail_one(&mut self, sums: &mut Sums) {
        if self.running.is_empty() {
            return;
        }
        let index = self.any(self.running.len());
        let Running { mut exchange, .. } = self.running.swap_remove(index);
        let replay = Replay {
            idempotent: true,
            response_started: false,
            body_whole: true,
            half_closed: false,
        };
        if exchange.attempt_failed(AttemptFailure::Reset, "reset", replay, self.now) {
            sums.retries += 1;
            // The place that it had may serve others before it picks again.
            self.collect_served(sums);
            self.arrived += 1;
            let number = self.arrived;
            self.pick(exchange, number, sums);
        } else {
            exchange.finished(Outcome::Refused(Refusal::ConnectionReset), None, self.now);
        }
    }

    fn finish_due(&mut self, sums: &mut Sums) {
        while let Some(index) = self.running.iter().position(|one| one.due <= self.now) {
            let mut one = self.running.swap_remove(index);
            one.exchange.finished(Outcome::Completed, None, self.now);
            // One after the other, so that the order can be checked.
            self.collect_served(sums);
        }
    }

    /// Those that were woken go on.
    fn collect_served(&mut self, sums: &mut Sums) {
        let (woken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.queued).into_iter().partition(Queued::is_woken);
        self.queued = rest;
        for mut one in woken {
            match one.exchange.end_wait(self.now) {
                Ok(_) => {
                    assert!(self.now < one.exchange.deadline(), "served after its deadline");
                    if !self.is_late {
                        assert!(self.now < one.until, "served after its time was over");
                        self.check_order(&one);
                    }
                    sums.waited += 1;
                    self.run(one.exchange, sums);
                }
                Err(refusal) => {
                    sums.evicted += u64::from(refusal == Refusal::QueueFull);
                    one.exchange.finished(Outcome::Refused(refusal), None, self.now);
                }
            }
        }
        self.is_late = false;
    }

    /// Of those that can use the same places, none that comes before is left.
    fn check_order(&self, served: &Queued) {
        if served.is_retry {
            return;
        }
        for other in self
            .queued
            .iter()
            .filter(|other| !other.is_retry && !other.is_woken() && self.now < other.until)
        {
            match self.order {
                "fifo" => assert!(served.number < other.number, "a newer one was served"),
                "lifo" => assert!(served.number > other.number, "an older one was served"),
                _ => {}
            }
        }
    }

    fn check(&self) {
        let pool = self.pool();
        let waiting = pool.waiters.as_ref().unwrap().waiting();
        assert!(waiting <= self.length, "{waiting} wait");
        let asleep: Vec<_> = self.queued.iter().filter(|one| !one.is_woken()).collect();
        assert_eq!(waiting, asleep.len(), "each is woken when it leaves the queue");
        for member in pool.members.iter() {
            assert!(member.backend.in_flight() <= self.max, "more than max_requests");
        }
        // No wake-up is lost: who waits can use none of the free places.
        let is_free = |index: usize| {
            let member = &pool.members[index];
            member.backend.is_healthy() && member.has_place()
        };
        let free: Vec<_> = (0..pool.members.len()).filter(|index| is_free(*index)).collect();
        for one in asleep.into_iter().filter(|one| self.now < one.until) {
            let tried = |index: &&usize| {
                one.exchange.attempts().iter().any(|attempt| attempt.backend.position() == **index)
            };
            let usable: Vec<_> = free.iter().filter(|index| !tried(index)).collect();
            assert!(usable.is_empty(), "it waits, and {usable:?} have places");
        }
    }

    fn any(&mut self, count: usize) -> usize {
        let last = u64::try_from(count - 1).unwrap();
        usize::try_from(self.dice.u64(0..=last)).unwrap()
    }
}
