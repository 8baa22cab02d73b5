//! Minutes of outages: backends that fail in every way, and what their circuit breakers promise
//! meanwhile.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use weir::config::{Overrides, load};
use weir::exchange::event::{ExchangeEvent, Observer};
use weir::exchange::refusal::{Outcome, Refusal};
use weir::exchange::{Exchange, Replay, Rolls};
use weir::policy::breaker::{BreakerPhase, Cause, Transition};
use weir::policy::retry::AttemptFailure;
use weir::runtime::endpoint::Lookup;
use weir::runtime::handoff::Handoff;
use weir::runtime::ids::BackendId;
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

use crate::dice::Dice;
use crate::incoming::Incoming;
use crate::seeds;

const DAYS: u64 = 100;
const STEPS: usize = 600;
const PATIENCE: Duration = Duration::from_secs(10);

/// What a backend does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Refuses,
    Resets,
    Hangs,
    Cuts,
    Slow,
    /// This share of its responses is a 500, in per cent.
    Fails(u64),
}

/// What happened on all days.
#[derive(Debug, Default)]
struct Sums {
    opened: BTreeMap<&'static str, u64>,
    trials: u64,
    closed: u64,
    reloads: u64,
    posts: u64,
    retries: u64,
}

/// What the retry budget of the serving worker has earned and lost, counted a second time.
#[derive(Debug, Default)]
struct Ledger {
    /// Responses without a failure.
    earned: u64,
    /// Retries that did not help.
    used: u64,
}

#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<(usize, Transition)>>);

impl Observer for Recorder {
    fn observe(&self, event: &ExchangeEvent<'_>) {
        if let ExchangeEvent::Breaker { change, .. } = event {
            self.0.lock().unwrap().push((change.backend.position(), change.change));
        }
    }
}

#[derive(Clone, Copy)]
struct Kind {
    /// A GET without a body.
    plain: bool,
    /// A retry that has taken a token.
    paid: bool,
}

struct Running {
    exchange: Exchange,
    backend: usize,
    kind: Kind,
    /// The snapshot's number, if it is a trial.
    trial: Option<u64>,
    due: Timestamp,
}

struct Outage {
    dice: Dice,
    text: String,
    snapshot: Arc<Snapshot>,
    generation: u64,
    recorder: Arc<Recorder>,
    moods: Vec<Mood>,
    /// All fail alike.
    alike: bool,
    round_robin: bool,
    only_posts: bool,
    running: Vec<Running>,
    last_trial: BTreeMap<usize, Timestamp>,
    ledger: Ledger,
    now: Timestamp,
}

#[test]
fn no_outage_breaks_a_promise() {
    let seeds = seeds::chosen(DAYS);
    let mut sums = Sums::default();
    for seed in seeds.clone() {
        Outage::new(seed).live(&mut sums);
    }
    println!("outages={} {sums:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= DAYS {
        for cause in Cause::ALL {
            let opened = sums.opened.get(cause.as_str()).copied().unwrap_or(0);
            assert!(opened > 2, "{cause:?}: {sums:?}");
        }
        assert!(sums.trials > 250 && sums.closed > 50 && sums.reloads > 100, "{sums:?}");
        assert!(sums.posts > 10_000 && sums.retries > 1_000, "{sums:?}");
    }
}

impl Outage {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::of_seed(seed);
        let algorithm =
            dice.choice(["round_robin", "round_robin", "least_conn", "random", "ip_hash"]).unwrap();
        let count = dice.u64(1..=7);
        let backends: Vec<_> = (1..=count).map(|n| format!("http://10.0.0.{n}:80")).collect();
        let text = format!(
            "pools: [{{name: web, algorithm: {algorithm}, health_check: off, backends: [{}], \
             breaker: {{open_max: 10s}}, retry: {{attempts: {}}}, timeouts: {{request: off}}}}]",
            backends.join(", "),
            dice.u64(2..=4),
        );
        let snapshot = build(&text, seed);
        Self {
            text,
            snapshot,
            generation: 0,
            recorder: Arc::default(),
            moods: backends.iter().map(|_| Mood::Well).collect(),
            alike: dice.u8(0..4) == 0,
            round_robin: algorithm == "round_robin",
            only_posts: dice.u8(0..8) == 0,
            running: Vec::new(),
            last_trial: BTreeMap::new(),
            ledger: Ledger::default(),
            now: Timestamp::ZERO,
            dice,
        }
    }

    fn live(mut self, sums: &mut Sums) {
        for _ in 0..STEPS {
            let pause = Duration::from_millis(self.dice.u64(1..=30));
            self.pass(pause);
            match self.dice.u8(0..100) {
                0 => self.change_moods(),
                1 => self.reload(sums),
                2..6 => drop(self.take_any()),
                _ => self.request(sums),
            }
            self.finish_due(sums);
            self.check(sums);
        }
        self.recover(sums);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn change_moods(&mut self) {
        if self.alike {
            let mood = self.dice.choice([Mood::Well, Mood::Resets, Mood::Fails(100)]).unwrap();
            self.moods.iter_mut().for_each(|one| *one = mood);
            return;
        }
        let index = self.any(self.moods.len());
        self.moods[index] = match self.dice.u8(0..10) {
            0..3 => Mood::Well,
            3 => Mood::Refuses,
            4 => Mood::Resets,
            5 => Mood::Hangs,
            6 => Mood::Cuts,
            7 => Mood::Slow,
            8 => Mood::Fails(100),
            _ => Mood::Fails(50),
        };
    }

    fn any(&mut self, count: usize) -> usize {
        let last = u64::try_from(count - 1).unwrap();
        usize::try_from(self.dice.u64(0..=last)).unwrap()
    }

    fn take_any(&mut self) -> Option<Running> {
        if self.running.is_empty() {
            return None;
        }
        let index = self.any(self.running.len());
        Some(self.running.swap_remove(index))
    }

    /// A new worker: it starts with the state of the old one. Requests stay with the old one.
    fn reload(&mut self, sums: &mut Sums) {
        self.check(sums);
        let before: Vec<_> = (0..self.moods.len()).map(|index| self.phase(index)).collect();
        let new = build(&self.text, self.snapshot.seed.0);
        let handoff = Handoff::export(&self.snapshot, self.now);
        let text = serde_json::to_string(&handoff).unwrap();
        serde_json::from_str::<Handoff>(&text).unwrap().import(&new, self.now);
        self.snapshot = new;
        self.generation += 1;
        self.last_trial.clear();
        let after: Vec<_> = (0..self.moods.len()).map(|index| self.phase(index)).collect();
        assert_eq!(before, after, "a reload keeps the states");
        sums.reloads += 1;
    }

    fn phase(&self, index: usize) -> BreakerPhase {
        let backend = self.snapshot.pools[0].backend(BackendId::new(index)).unwrap();
        backend.circuit.phase(self.now)
    }

    fn request(&mut self, sums: &mut Sums) {
        let plain = !self.only_posts && self.dice.u8(0..10) < 7;
        sums.posts += u64::from(!plain);
        let method = if plain { Method::GET } else { Method::POST };
        let client = Ipv4Addr::new(10, 1, 0, self.dice.u8(0..40));
        let request = Incoming { method, ..Incoming::get(client) };
        let observer: Arc<Recorder> = Arc::clone(&self.recorder);
        let exchange = request.admitted(&self.snapshot, observer, self.now);
        self.attempt(exchange, Kind { plain, paid: false }, sums);
    }

    fn attempt(&mut self, mut exchange: Exchange, kind: Kind, sums: &mut Sums) {
        let phases: Vec<_> = (0..self.moods.len()).map(|index| self.phase(index)).collect();
        let tried: Vec<_> =
            exchange.attempts().iter().map(|attempt| attempt.backend.position()).collect();
        let is_of_now = Arc::ptr_eq(exchange.snapshot(), &self.snapshot);
        let rolls = Rolls { pick: self.dice.u64(..), backoff: self.dice.u64(..) };
        let Ok(target) = exchange.pick(self.now, rolls) else {
            panic!("a pool without health checks always has a backend");
        };
        let backend = target.id.position();
        let mut trial = None;
        if is_of_now {
            let is_closed = |index: usize| phases[index] == BreakerPhase::Closed;
            let left = (0..phases.len()).any(|index| is_closed(index) && !tried.contains(&index));
            if left && !is_closed(backend) && self.phase(backend) != BreakerPhase::Closed {
                assert!(kind.plain, "a POST goes to one that is {:?}", phases[backend]);
                assert_eq!(phases[backend], BreakerPhase::HalfOpen, "before its time");
                self.check_trials(backend);
                trial = Some(self.generation);
                self.last_trial.insert(backend, self.now);
                sums.trials += 1;
            }
        }
        let due = self.now + target.backoff + self.service_time(backend);
        self.running.push(Running { exchange, backend, kind, trial, due });
    }

    /// One trial at a time, unless the last one takes very long.
    fn check_trials(&self, backend: usize) {
        let is_one = |one: &&Running| one.trial == Some(self.generation) && one.backend == backend;
        let under_way = self.running.iter().filter(is_one).count();
        let last = self.last_trial.get(&backend).copied();
        let is_long = last.is_some_and(|last| self.now.since(last) >= PATIENCE);
        assert!(under_way == 0 || is_long, "{under_way} trials at once");
    }

    fn service_time(&mut self, backend: usize) -> Duration {
        match self.moods[backend] {
            Mood::Refuses | Mood::Fails(_) => Duration::from_millis(1),
            Mood::Slow | Mood::Hangs => Duration::from_secs(2),
            Mood::Well | Mood::Resets | Mood::Cuts => Duration::from_millis(20),
        }
    }

    fn finish_due(&mut self, sums: &mut Sums) {
        while let Some(index) = self.running.iter().position(|one| one.due <= self.now) {
            let one = self.running.swap_remove(index);
            self.finish(one, sums);
        }
    }

    fn finish(&mut self, mut one: Running, sums: &mut Sums) {
        let replay = Replay {
            idempotent: one.kind.plain,
            response_started: false,
            body_whole: true,
            half_closed: false,
        };
        let now = self.now;
        let exchange = &mut one.exchange;
        let failure = match self.moods[one.backend] {
            Mood::Refuses => Some(AttemptFailure::Connect),
            Mood::Resets => Some(AttemptFailure::Reset),
            Mood::Hangs => Some(AttemptFailure::Timeout),
            Mood::Well | Mood::Cuts | Mood::Slow | Mood::Fails(_) => None,
        };
        let is_of_now = Arc::ptr_eq(exchange.snapshot(), &self.snapshot);
        let mut failed = failure;
        let again = match (failure, self.moods[one.backend]) {
            (Some(failure), _) => exchange.attempt_failed(failure, "", replay, now),
            (None, Mood::Fails(share)) if self.dice.u64(0..100) < share => {
                failed = Some(AttemptFailure::Status(500));
                exchange.response_head(500, replay, now)
            }
            (None, mood) => {
                exchange.response_head(200, replay, now);
                self.ledger.earned += u64::from(is_of_now);
                if mood == Mood::Cuts {
                    return exchange.finished(Outcome::UpstreamAborted, None, now);
                }
                false
            }
        };
        let sent = failed.is_some_and(|failure| !failure.is_unsent());
        if is_of_now && sent && one.kind.paid {
            self.ledger.used += 1;
        }
        if again {
            sums.retries += u64::from(sent);
            let paid = sent || one.kind.paid;
            return self.attempt(one.exchange, Kind { paid, ..one.kind }, sums);
        }
        let refused = Outcome::Refused(Refusal::ConnectionReset);
        exchange.finished(if failure.is_some() { refused } else { Outcome::Completed }, None, now);
    }

    /// The budget allows the floor of 10, which is refilled in 10 s, and a fifth of the responses.
    fn check_budget(&self) {
        let seconds = self.now.since(Timestamp::ZERO).as_secs();
        let most = 10 + seconds + 1 + self.ledger.earned / 5 + 1;
        assert!(self.ledger.used <= most, "{:?} after {seconds} s", self.ledger);
    }

    /// What holds after every step.
    fn check(&mut self, sums: &mut Sums) {
        self.check_budget();
        let out = (0..self.moods.len()).filter(|&one| self.phase(one) != BreakerPhase::Closed);
        let out = out.count();
        let all = self.moods.len();
        assert!(out < all.max(2) && (all > 1 || out == 0), "{out} of {all} are out");
        let changes = std::mem::take(&mut *self.recorder.0.lock().unwrap());
        for (_, change) in changes {
            match change {
                Transition::Opened { why, .. } => {
                    *sums.opened.entry(why.cause.as_str()).or_default() += 1;
                    if !matches!(why.cause, Cause::Refused | Cause::Trial) {
                        assert!(out <= (all / 2).max(1), "{why:?}: {out} of {all} are out");
                        let is_alike = self.alike && self.round_robin;
                        assert!(
                            !is_alike,
                            "all fail alike, and one is out: {why:?} {} {:?}",
                            self.text,
                            self.snapshot.pools[0]
                                .members
                                .iter()
                                .map(|m| (
                                    m.backend.attempts(),
                                    m.backend.failures(),
                                    m.backend.circuit.rate(why.fault, why.window)
                                ))
                                .collect::<Vec<_>>()
                        );
                    }
                }
                Transition::HalfOpened => {}
                Transition::Closed => sums.closed += 1,
            }
        }
    }

    /// Nothing stays out for ever once all are well.
    fn recover(mut self, sums: &mut Sums) {
        self.moods.iter_mut().for_each(|mood| *mood = Mood::Well);
        self.alike = false;
        for _ in 0..600 {
            self.pass(Duration::from_millis(300));
            self.request(sums);
            self.finish_due(sums);
            self.check(sums);
        }
        for index in 0..self.moods.len() {
            let (phase, mood) = (self.phase(index), self.moods[index]);
            assert_eq!(phase, BreakerPhase::Closed, "{index} is {mood:?} and still out");
        }
    }
}

pub(crate) fn build(text: &str, seed: u64) -> Arc<Snapshot> {
    let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
    let lookup = |_: &str, _| Lookup::Failed("no names".to_owned());
    Arc::new(Snapshot::new(&config, "simulated", seed, lookup))
}
