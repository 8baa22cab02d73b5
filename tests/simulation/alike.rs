//! Backends that all fail alike, for minutes: the breaker must take hardly any of them out.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use weir::exchange::refusal::Outcome;
use weir::exchange::{Replay, Rolls};
use weir::policy::breaker::BreakerPhase;
use weir::policy::retry::AttemptFailure;
use weir::runtime::ids::BackendId;
use weir::runtime::snapshot::Snapshot;
use weir::time::Timestamp;

use crate::dice::Dice;
use crate::incoming::Incoming;
use crate::outages::{Recorder, build};
use crate::seeds;

/// A request every two milliseconds.
const PER_SECOND: u64 = 500;
const SECONDS: u64 = 60;
/// Each backend refuses one connection, `n` times this many seconds after the start.
const REFUSED_EVERY: u64 = 5;

/// Backends that fail at random.
struct Failing {
    dice: Dice,
    snapshot: Arc<Snapshot>,
    now: Timestamp,
    /// Of the responses of each backend, this share is a 500, in tenths of a per cent.
    rates: Vec<u64>,
    /// The next attempt at this backend is refused.
    refused: Option<usize>,
    /// The time that backends were out, in requests.
    out: u64,
    /// Failed responses of each backend.
    failed: Vec<u64>,
    /// The longest open time.
    longest: Duration,
}

impl Failing {
    fn new(rates: &[u64], seed: u64) -> Self {
        let backends: Vec<_> = (1..=rates.len()).map(|n| format!("http://10.0.0.{n}:80")).collect();
        let text = format!(
            "pools: [{{name: web, health_check: off, backends: [{}], timeouts: {{request: off}}}}]",
            backends.join(", "),
        );
        Self {
            dice: Dice::of_seed(seed),
            snapshot: build(&text, seed),
            now: Timestamp::ZERO,
            rates: rates.to_vec(),
            refused: None,
            out: 0,
            failed: vec![0; rates.len()],
            longest: Duration::ZERO,
        }
    }

    /// The share of the backends' time in which they were out, and the longest open time.
    fn live(mut self, seconds: u64, restarts: bool) -> (f64, Duration) {
        let steps = seconds * PER_SECOND;
        for step in 0..steps {
            self.now = self.now + Duration::from_secs(1) / u32::try_from(PER_SECOND).unwrap();
            let (every, rest) =
                (step / (PER_SECOND * REFUSED_EVERY), step % (PER_SECOND * REFUSED_EVERY));
            if restarts && rest == 0 && every > 0 {
                self.refused =
                    usize::try_from(every - 1).ok().filter(|one| *one < self.rates.len());
            }
            self.request();
            self.count_out();
        }
        let all = steps * u64::try_from(self.rates.len()).unwrap();
        (share(self.out, all), self.longest)
    }

    fn count_out(&mut self) {
        for index in 0..self.rates.len() {
            let circuit = &self.snapshot.pools[0].backend(BackendId::new(index)).unwrap().circuit;
            if circuit.phase(self.now) != BreakerPhase::Closed {
                self.out += 1;
                self.longest = self.longest.max(circuit.open_until().since(self.now));
            }
        }
    }

    fn request(&mut self) {
        let request = Incoming::get(Ipv4Addr::new(10, 1, 0, 1));
        let recorder = Arc::new(Recorder::default());
        let mut exchange = request.admitted(&self.snapshot, recorder, self.now);
        let replay = Replay {
            idempotent: true,
            response_started: false,
            body_whole: true,
            half_closed: false,
        };
        loop {
            let rolls = Rolls { pick: self.dice.u64(..), backoff: self.dice.u64(..) };
            let backend = exchange.pick(self.now, rolls).unwrap().id.position();
            let again = if self.refused == Some(backend) {
                self.refused = None;
                exchange.attempt_failed(AttemptFailure::Connect, "", replay, self.now)
            } else {
                let fails = self.dice.u64(0..1000) < self.rates[backend];
                self.failed[backend] += u64::from(fails);
                exchange.response_head(if fails { 500 } else { 200 }, replay, self.now)
            };
            if !again {
                break;
            }
        }
        exchange.finished(Outcome::Completed, None, self.now);
    }
}

#[test]
fn backends_that_all_fail_at_the_same_rate_stay() {
    // Of this time, the refused connections alone take 1 s of each backend: 1.7 %.
    let seeds = seeds::chosen(1);
    let mut worst = Vec::new();
    for restarts in [false, true] {
        for rate in [5, 20, 50, 100, 300, 500] {
            for seed in seeds.clone() {
                let (out, longest) = Failing::new(&[rate; 5], seed).live(SECONDS, restarts);
                println!("restarts={restarts} rate={rate}/1000 out={out:.3} longest={longest:.1?}");
                let most = if restarts { 0.08 } else { 0.03 };
                if out > most || longest > Duration::from_secs(5) {
                    worst.push((restarts, rate, seed, out, longest));
                }
            }
        }
    }
    assert!(worst.is_empty(), "{worst:?}");
}

#[test]
fn a_backend_that_fails_far_more_than_the_others_is_out_soon() {
    for (rates, most) in [
        (vec![1000, 0, 0, 0, 0], 3),
        (vec![1000, 5, 5, 5, 5], 6),
        (vec![1000, 20, 20, 20, 20], 6),
        (vec![500, 0, 0, 0, 0], 6),
        (vec![500, 5, 5, 5, 5], 8),
        (vec![1000, 0], 3),
        (vec![1000, 10], 6),
        (vec![1000, 300, 300, 300, 300], 20),
    ] {
        for seed in seeds::chosen(20) {
            let mut failing = Failing::new(&vec![0; rates.len()], seed);
            // The peers are known before it begins to fail.
            for _ in 0..PER_SECOND {
                failing.rates[1..].copy_from_slice(&rates[1..]);
                failing.request();
            }
            failing.rates.clone_from(&rates);
            failing.failed.fill(0);
            for _ in 0..PER_SECOND {
                if failing.out > 0 {
                    break;
                }
                failing.now = failing.now + Duration::from_millis(2);
                failing.request();
                let circuit = &failing.snapshot.pools[0].members[0].backend.circuit;
                failing.out += u64::from(circuit.is_out());
            }
            let failed = failing.failed[0];
            assert!(failing.out > 0 && failed <= most, "{rates:?}: {failed} failures, seed {seed}");
        }
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a share for a human")]
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}
