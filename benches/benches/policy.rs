//! What a pick and a token cost. `cargo bench --manifest-path benches/Cargo.toml`

use std::hint::black_box;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use divan::Bencher;

use weir::policy::bucket::{Rate, TokenBucket};
use weir::policy::limiter::{Params, RateLimiter};
use weir::policy::select::{Candidates, IpHash, LeastConnections, Random, RoundRobin, Selector};
use weir::time::Timestamp;

fn main() {
    divan::main();
}

const BACKENDS: [usize; 3] = [3, 100, 1000];
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Backends that are all eligible, each a little different from the next.
struct Pool {
    weights: Vec<u32>,
    in_flight: Vec<AtomicU64>,
}

impl Pool {
    fn of(len: usize, weight: impl Fn(usize) -> u32) -> Self {
        Self {
            weights: (0..len).map(weight).collect(),
            in_flight: (0..len).map(|index| AtomicU64::new(index as u64 * 7 % 5)).collect(),
        }
    }
}

impl Candidates for Pool {
    fn len(&self) -> usize {
        self.weights.len()
    }
    fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }
    fn in_flight(&self, index: usize) -> u64 {
        self.in_flight[index].load(Relaxed)
    }
    fn identity(&self, index: usize) -> u64 {
        (index as u64).wrapping_mul(GOLDEN)
    }
    fn is_eligible(&self, _index: usize) -> bool {
        true
    }
    fn eligible_count(&self) -> usize {
        self.weights.len()
    }
    fn nth_eligible(&self, nth: usize) -> Option<usize> {
        (nth < self.weights.len()).then_some(nth)
    }
}

fn pick(bencher: Bencher, selector: impl Selector, pool: Pool) {
    let mut roll = 0_u64;
    bencher.bench_local(|| {
        roll = roll.wrapping_add(GOLDEN);
        selector.select(black_box(&pool), roll, roll)
    });
}

#[divan::bench(args = BACKENDS)]
fn round_robin_equal(bencher: Bencher, backends: usize) {
    pick(bencher, RoundRobin::new(), Pool::of(backends, |_| 1));
}

#[divan::bench(args = BACKENDS)]
fn round_robin_weighted(bencher: Bencher, backends: usize) {
    pick(bencher, RoundRobin::new(), Pool::of(backends, |index| 1 + index as u32 % 7));
}

#[divan::bench(args = BACKENDS)]
fn least_connections(bencher: Bencher, backends: usize) {
    pick(bencher, LeastConnections::new(), Pool::of(backends, |_| 1));
}

#[divan::bench(args = BACKENDS)]
fn ip_hash(bencher: Bencher, backends: usize) {
    pick(bencher, IpHash::new(), Pool::of(backends, |_| 1));
}

#[divan::bench(args = BACKENDS)]
fn random(bencher: Bencher, backends: usize) {
    pick(bencher, Random::new(), Pool::of(backends, |_| 1));
}

fn rate() -> Rate {
    Rate::new(100.0, NonZeroU32::new(200).unwrap()).unwrap()
}

#[divan::bench]
fn take(bencher: Bencher) {
    let (bucket, mut now_ns) = (TokenBucket::new(), 0);
    bencher.bench_local(|| {
        now_ns += 1_000_000;
        bucket.take(rate(), Timestamp::from_nanos(black_box(now_ns)))
    });
}

/// With this many clients in a table of 100,000: all are known, or nearly all are new.
#[divan::bench(args = [1_000, 10_000_000])]
fn admit(bencher: Bencher, clients: u32) {
    let clients_max = NonZeroUsize::new(100_000).unwrap();
    let params = Params { rate: rate(), ipv6_prefix: 64, clients_max, exempt: Vec::new() };
    let limiter = RateLimiter::new(params, 7);
    let (mut number, mut now_ns) = (0_u32, 0);
    bencher.bench_local(|| {
        number = (number + 1) % clients;
        now_ns += 1_000;
        limiter.admit(IpAddr::V4(number.into()), Timestamp::from_nanos(now_ns))
    });
}
