//! A day: a configuration drawn by lot, backends with a will of their own, and requests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use weir::config::{
    AccessLog, Admin, Algorithm, Backend, BackendAddress, Config, HealthCheck, HostPattern, Limits,
    Listener, LogFormat, LogTarget, Pool, RateLimit, ReadyWhen, RequestQueue, ResponseBuffers,
    Retry, RetryOn, Route, Shutdown, SourcePosition, Threads, Timeouts, Transport,
};
use weir::exchange::refusal::Refusal;
use weir::exchange::{Admitted, Attempt, Exchange, Replay, Rolls};
use weir::http::scan::Limits as HeadLimits;
use weir::name::PoolName;
use weir::policy::retry::AttemptFailure;
use weir::policy::wait_queue::QueueOrder;
use weir::runtime::backend_set::BackendSet;
use weir::runtime::endpoint::Lookup;
use weir::runtime::ids::BackendId;
use weir::runtime::snapshot::Snapshot;
use weir::time::{Timestamp, nanos};

use crate::checker::{Checker, Sums, count};
use crate::dice::Dice;
use crate::incoming::Incoming;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Requests arrive in bursts of ten; this is the number of bursts in a whole day.
pub(crate) const BURSTS: usize = 15;

/// What a backend does with new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Refuses,
    Resets,
    Hangs,
    Answers(u16),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrive,
    Probe { pool: usize, backend: usize },
    Change { pool: usize, backend: usize },
    Continue { request: u64 },
    Cancel { request: u64 },
}

/// A request that has been sent to a backend.
struct Running {
    exchange: Exchange,
    pool: usize,
    backend: usize,
    method: Method,
}

/// The checker's own idea of a backend's health, by counting runs.
#[derive(Debug, Default, Clone, Copy)]
struct Model {
    healthy: bool,
    known: bool,
    against: u32,
}

impl Model {
    fn observe(&mut self, pass: bool, rise: u32, fall: u32) -> bool {
        let before = (self.healthy, self.known);
        if !self.known {
            (self.known, self.healthy) = (true, pass);
        } else if pass == self.healthy {
            self.against = 0;
        } else {
            self.against += 1;
            if self.against >= if pass { rise } else { fall } {
                (self.healthy, self.against) = (pass, 0);
            }
        }
        before != (self.healthy, self.known)
    }
}

pub(crate) struct World {
    dice: Dice,
    day: Duration,
    config: Config,
    snapshot: Arc<Snapshot>,
    checker: Arc<Checker>,
    moods: BTreeMap<(usize, usize), Mood>,
    models: BTreeMap<(usize, usize), Model>,
    running: BTreeMap<u64, Running>,
    agenda: BinaryHeap<Reverse<(Timestamp, u64, Step)>>,
    now: Timestamp,
    serial: u64,
    flips: u64,
    arrivals: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(Dice::of_seed(seed), DAY, BURSTS)
    }

    /// A day of this length, with this number of bursts of requests.
    pub(crate) fn of(mut dice: Dice, day: Duration, bursts: usize) -> Self {
        let config = draw_config(&mut dice);
        let snapshot = Snapshot::new(&config, "simulated", dice.u64(..), |_, _| {
            Lookup::Failed("no names".to_owned())
        });
        let mut world = Self {
            dice,
            day,
            snapshot: Arc::new(snapshot),
            config,
            checker: Arc::default(),
            moods: BTreeMap::new(),
            models: BTreeMap::new(),
            running: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            now: Timestamp::ZERO,
            serial: 0,
            flips: 0,
            arrivals: 0,
        };
        world.plan_the_day(bursts);
        world
    }

    fn plan_the_day(&mut self, bursts: usize) {
        for pool in 0..self.config.pools.len() {
            for backend in 0..self.config.pools[pool].backends.len() {
                self.moods.insert((pool, backend), Mood::Well);
                self.models.insert((pool, backend), Model::default());
                self.plan(Duration::ZERO, Step::Probe { pool, backend });
                self.plan_within(self.day / 8, Step::Change { pool, backend });
            }
        }
        for _ in 0..bursts {
            let start = self.within(self.day);
            for _ in 0..10 {
                let after = self.within(Duration::from_millis(500));
                self.plan(start + after, Step::Arrive);
            }
        }
    }

    fn within(&mut self, span: Duration) -> Duration {
        Duration::from_nanos(self.dice.u64(0..=nanos(span)))
    }

    fn plan(&mut self, after: Duration, step: Step) {
        self.serial += 1;
        self.agenda.push(Reverse((self.now + after, self.serial, step)));
    }

    fn plan_within(&mut self, span: Duration, step: Step) {
        let after = self.within(span);
        self.plan(after, step);
    }

    pub(crate) fn live_a_day(mut self) -> Sums {
        while let Some(Reverse((at, _, step))) = self.agenda.pop() {
            if at > Timestamp::ZERO + self.day {
                break;
            }
            self.now = at;
            match step {
                Step::Arrive => self.arrive(),
                Step::Probe { pool, backend } => self.probe(pool, backend),
                Step::Change { pool, backend } => self.change(pool, backend),
                Step::Continue { request } => self.go_on(request),
                Step::Cancel { request } => drop(self.running.remove(&request)),
            }
            self.check_leases();
        }
        self.running.clear();
        self.check_leases();
        let mut sums = self.checker.sums();
        assert_eq!(sums.exchanges, self.arrivals, "each exchange tells its end exactly once");
        sums.flips = self.flips;
        sums
    }

    /// In flight is exactly what is running, after every single step.
    fn check_leases(&self) {
        for (p, pool) in self.snapshot.pools.iter().enumerate() {
            for (b, member) in pool.members.iter().enumerate() {
                let here = |running: &&Running| (running.pool, running.backend) == (p, b);
                let expected = count(self.running.values().filter(here).count());
                assert_eq!(
                    member.backend.in_flight(),
                    expected,
                    "leases of {p}/{b} at {:?}",
                    self.now
                );
                assert_eq!(
                    member.backend.failures(),
                    self.checker.failed(p, b),
                    "failures of {p}/{b}"
                );
            }
        }
    }

    fn probe(&mut self, pool: usize, backend: usize) {
        let check = self.config.pools[pool].health_check.clone().expect("every pool is probed");
        let pass = self.moods[&(pool, backend)] == Mood::Well;
        let result = if pass { Ok(()) } else { Err("unwell".to_owned()) };
        let server = self.snapshot.pools[pool].backend(BackendId::new(backend)).unwrap();
        let flipped = server.probed(result, self.now);
        let model = self.models.get_mut(&(pool, backend)).unwrap();
        let expected = model.observe(pass, check.healthy_after.get(), check.unhealthy_after.get());
        assert_eq!(flipped.is_some(), expected, "a flip of {pool}/{backend}");
        assert_eq!(server.is_healthy(), model.healthy, "the health of {pool}/{backend}");
        self.flips += u64::from(expected);
        let jitter = self.within(check.interval / 5);
        self.plan(check.interval * 9 / 10 + jitter, Step::Probe { pool, backend });
    }

    fn change(&mut self, pool: usize, backend: usize) {
        let mood = match self.dice.u8(0..10) {
            0..5 => Mood::Well,
            5 | 6 => Mood::Refuses,
            7 => Mood::Resets,
            8 => Mood::Hangs,
            _ => Mood::Answers(self.dice.choice([500, 502, 503, 504]).unwrap()),
        };
        self.moods.insert((pool, backend), mood);
        // Some flap, some stay.
        let span = if self.dice.u8(0..4) > 0 { Duration::from_secs(240) } else { self.day / 6 };
        self.plan_within(span, Step::Change { pool, backend });
    }

    fn arrive(&mut self) {
        self.arrivals += 1;
        let method = self.dice.choice([Method::GET, Method::POST, Method::PUT]).unwrap();
        let host = self.dice.choice(["a.test", "b.test", "c.test"]).unwrap();
        let client = Ipv4Addr::new(10, 0, 0, self.dice.u8(0..40));
        let request = Incoming { client, method: method.clone(), host };
        let observer: Arc<Checker> = Arc::clone(&self.checker);
        let (exchange, admitted) = request.begin(&self.snapshot, observer, self.now);
        match admitted {
            Err(refusal) => self.refused(exchange, refusal),
            Ok(admitted) => {
                assert_eq!(admitted, Admitted::Forward, "no route answers itself");
                self.attempt(exchange, method)
            }
        }
    }

    fn refused(&self, mut exchange: Exchange, refusal: Refusal) {
        if refusal == Refusal::NoBackend {
            let pool = exchange.pool_id().expect("it had a pool").position();
            let tried = exchange.attempts().iter().map(|attempt| attempt.backend).collect();
            assert!(self.eligible(pool, &tried).is_empty(), "rejected with an eligible backend");
        }
        let ending = weir::exchange::refusal::Outcome::Refused(refusal);
        exchange.finished(ending, None, self.now);
    }

    /// Where a request may go that has failed at those in `tried`.
    fn eligible(&self, pool: usize, tried: &BackendSet) -> BackendSet {
        let of = |is_one: fn(&Model) -> bool| -> BackendSet {
            let models = self.models.iter().filter(|((p, _), model)| *p == pool && is_one(model));
            models.map(|((_, backend), _)| BackendId::new(*backend)).collect()
        };
        let healthy = of(|model| model.healthy);
        let recovering = of(|model| model.known && !model.healthy && model.against > 0);
        let sets = [healthy.without(tried), recovering.without(tried)];
        let first = sets.into_iter().take(if tried.is_empty() { 1 } else { 2 });
        first.into_iter().find(|set| !set.is_empty()).unwrap_or(healthy)
    }

    fn attempt(&mut self, mut exchange: Exchange, method: Method) {
        let pool = exchange.pool_id().expect("it has a pool").position();
        let tried: BackendSet = exchange.attempts().iter().map(|attempt| attempt.backend).collect();
        let rolls = Rolls { pick: self.dice.u64(..), backoff: self.dice.u64(..) };
        let target = match exchange.pick(self.now, rolls) {
            Err(refusal) => return self.refused(exchange, refusal),
            Ok(target) => target,
        };
        let backend = exchange.attempts().last().unwrap().backend;
        let expected = self.eligible(pool, &tried);
        assert!(expected.contains(backend), "{backend:?} was picked, not one of {expected:?}");
        let backend = backend.position();
        assert!(self.now < exchange.deadline(), "an attempt after the deadline");
        let attempts = self.config.pools[pool].retry.attempts.get();
        let backends = self.config.pools[pool].backends.len();
        assert!(exchange.attempts().len() <= usize::from(attempts) + backends, "too many attempts");

        self.serial += 1;
        let request = self.serial;
        let takes = target.backoff + self.within(Duration::from_secs(2));
        self.running.insert(request, Running { exchange, pool, backend, method });
        self.plan(takes, Step::Continue { request });
        if self.dice.u8(0..8) == 0 {
            self.plan_within(takes * 2, Step::Cancel { request });
        }
    }

    fn go_on(&mut self, request: u64) {
        let Some(mut running) = self.running.remove(&request) else { return };
        let mood = self.moods[&(running.pool, running.backend)];
        let replay = Replay {
            idempotent: running.method != Method::POST,
            response_started: false,
            body_whole: self.dice.u8(0..10) > 0,
            half_closed: false,
        };
        let now = self.now;
        let exchange = &mut running.exchange;
        let (failure, again) = match mood {
            Mood::Well => return self.answered(running),
            Mood::Answers(status) => {
                let again = exchange.response_head(status, replay, now);
                if !again {
                    return self.answered(running);
                }
                (AttemptFailure::Status(status), again)
            }
            Mood::Refuses => (
                AttemptFailure::Connect,
                exchange.attempt_failed(AttemptFailure::Connect, "refused", replay, now),
            ),
            Mood::Resets => (
                AttemptFailure::Reset,
                exchange.attempt_failed(AttemptFailure::Reset, "reset", replay, now),
            ),
            Mood::Hangs => (
                AttemptFailure::Timeout,
                exchange.attempt_failed(AttemptFailure::Timeout, "hangs", replay, now),
            ),
        };
        if again {
            self.check_retry(&running, failure, replay);
            return self.attempt(running.exchange, running.method);
        }
        self.refused(running.exchange, Refusal::ConnectionReset);
    }

    fn answered(&self, mut running: Running) {
        let ending = weir::exchange::refusal::Outcome::Completed;
        running.exchange.finished(ending, None, self.now);
    }

    /// The policy as the file has it, written down a second time.
    fn check_retry(&self, running: &Running, failure: AttemptFailure, replay: Replay) {
        let retry = &self.config.pools[running.pool].retry;
        let made = running.exchange.attempts().len();
        // Refused connections are free while another backend is left; then all count.
        let attempts = running.exchange.attempts();
        let is_refused = |one: &&Attempt| one.failure == Some(AttemptFailure::Connect);
        let refused = attempts.iter().filter(is_refused).count();
        let tried: BackendSet = attempts.iter().map(|one| one.backend).collect();
        let left = !self.eligible(running.pool, &tried).without(&tried).is_empty();
        let free = if left && retry.attempts.get() > 1 { refused } else { 0 };
        assert!(made - free < usize::from(retry.attempts.get()), "a retry beyond the attempts");
        let listed = match failure {
            AttemptFailure::Connect
            | AttemptFailure::ConnectTimeout
            | AttemptFailure::Tls
            | AttemptFailure::Certificate
            | AttemptFailure::Refused => retry.on.connect,
            AttemptFailure::Reset => retry.on.reset,
            AttemptFailure::Timeout | AttemptFailure::Moved => retry.on.timeout,
            AttemptFailure::Status(status) => retry.on.status.contains(&status),
        };
        assert!(listed, "{failure:?} is not to be retried");
        if failure != AttemptFailure::Connect {
            assert!(replay.idempotent && replay.body_whole, "an unsafe retry");
        }
        assert!(self.now < running.exchange.deadline(), "a retry after the deadline");
    }
}

fn draw_config(dice: &mut Dice) -> Config {
    let pools: Vec<Pool> = (0..dice.u8(1..=2)).map(|number| draw_pool(dice, number)).collect();
    let route = |host: &str, pool| Route {
        host: HostPattern::Exact(host.to_owned()),
        ..Route::for_all(pool)
    };
    let last = pools.len() - 1;
    Config {
        listeners: vec![Listener::plaintext(local(1))],
        admin: Admin {
            address: local(2),
            ready_when: ReadyWhen::AnyPool,
            defined_at: SourcePosition::default(),
        },
        threads: Threads::Auto,
        trusted_proxies: Vec::new(),
        forwarded: weir::config::Forwarding::default(),
        routes: vec![route("a.test", 0), route("b.test", last)],
        pools,
        rate_limit: (dice.u8(0..3) == 0).then(|| RateLimit {
            requests_per_second: 1.0,
            burst: NonZeroU32::new(1).unwrap(),
            ipv6_prefix: 64,
            clients_max: NonZeroUsize::new(16).unwrap(),
            exempt: Vec::new(),
        }),
        limits: Limits {
            ambiguous_paths: weir::config::AmbiguousPaths::default(),
            half_closed: weir::config::HalfClosed::default(),
            underscore_headers: weir::config::UnderscoreHeaders::default(),
            connections: NonZeroUsize::new(100).unwrap(),
            connections_defined_at: SourcePosition::default(),
            connections_per_client: None,
            requests: None,
            requests_per_connection: None,
            head: HeadLimits { target_bytes: 8192, header_bytes: 65_536, headers: 100 },
            body: None,
            response_buffers: ResponseBuffers::Off,
            min_rate: None,
            header_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(75),
            http2: weir::config::Http2::default(),
        },
        access_log: AccessLog { format: LogFormat::Off, target: LogTarget::Stdout },
        shutdown: Shutdown {
            pre_stop: Duration::ZERO,
            drain: Duration::ZERO,
            tunnels: Duration::ZERO,
            draining_workers: NonZeroUsize::MIN,
        },
        source: weir::config::ConfigSource::default(),
    }
}

fn draw_pool(dice: &mut Dice, number: u8) -> Pool {
    use Algorithm::{IpHash, LeastConnections, Random, RoundRobin};
    let backend = |dice: &mut Dice, index: u16| Backend {
        address: BackendAddress::Socket(local(1000 * (u16::from(number) + 1) + index)),
        weight: NonZeroU32::new(dice.u32(1..=5)).unwrap(),
        max_requests: None,
        server_name: None,
        defined_at: SourcePosition::default(),
    };
    Pool {
        name: PoolName::new(&format!("pool-{number}")).unwrap(),
        algorithm: dice.choice([RoundRobin, LeastConnections, IpHash, Random]).unwrap(),
        backends: (0..dice.u16(1..=6)).map(|index| backend(dice, index)).collect(),
        health_check: Some(HealthCheck {
            interval: Duration::from_secs(dice.u64(30..=300)),
            unhealthy_after: NonZeroU32::new(dice.u32(1..=4)).unwrap(),
            healthy_after: NonZeroU32::new(dice.u32(1..=4)).unwrap(),
            ..HealthCheck::default()
        }),
        breaker: None,
        retry: Retry {
            attempts: NonZeroU8::new(dice.u8(1..=5)).unwrap(),
            backoff: Duration::from_millis(dice.u64(0..=200)),
            on: RetryOn {
                connect: dice.u8(0..4) > 0,
                reset: dice.u8(0..4) > 0,
                timeout: dice.u8(0..4) > 0,
                status: if dice.u8(0..4) > 0 { vec![502, 503] } else { Vec::new() },
            },
            try_timeout: None,
            methods: Vec::new(),
            budget: (dice.u8(0..4) > 0).then(weir::config::RetryBudget::default),
        },
        queue: RequestQueue {
            length: 0,
            timeout: Duration::from_millis(100),
            order: QueueOrder::Lifo,
        },
        slow_start: dice.choice([None, Some(Duration::from_secs(30))]).flatten(),
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            response: Duration::from_secs(2),
            request: (dice.u8(0..5) > 0).then(|| Duration::from_secs(dice.u64(1..=10))),
            idle: Duration::from_secs(55),
            tunnel: Duration::from_secs(3600),
        },
        transport: Transport::default(),
        rate_limit: None,
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
