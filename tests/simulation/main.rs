//! Days in the life of a balancer, replayed from a seed.
//!
//! The production types run here, with a simulated clock and dice: backends die, hang, flap and
//! recover, answer with errors, and requests are cancelled at any moment. After every step the
//! checker compares what the balancer did with what it promises. `SEED=17` replays one day,
//! `SEEDS=5000` runs more of them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod alike;
mod checker;
mod corpus;
mod dice;
mod incoming;
mod outages;
mod queues;
mod seeds;
mod slow_start;
#[expect(unreachable_pub, reason = "it is public where the fuzzer builds it")]
#[path = "../../fuzz/src/targets.rs"]
mod targets;
mod world;

use world::World;

const DAYS: u64 = 1000;

#[test]
fn no_day_breaks_a_promise() {
    let seeds = seeds::chosen(DAYS);
    let mut sums = checker::Sums::default();
    for seed in seeds.clone() {
        let day = World::new(seed).live_a_day();
        sums.add(&day);
    }
    println!("days={} {sums:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= DAYS {
        // A simulation in which nothing happens proves nothing.
        assert!(sums.exchanges > 50_000, "{sums:?}");
        assert!(sums.retries > 1_000, "{sums:?}");
        assert!(sums.cancelled > 1_000, "{sums:?}");
        assert!(sums.flips > 5_000, "{sums:?}");
        assert!(sums.unserved > 100, "{sums:?}");
        assert!(sums.limited > 100, "{sums:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_day() {
    let first = World::new(7).live_a_day();
    assert_eq!(first, World::new(7).live_a_day());
    assert_ne!(first, World::new(8).live_a_day());
}
