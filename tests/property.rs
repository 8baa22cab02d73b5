//! What must hold for any input.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proptest::prelude::*;

use weir::http::proxy_protocol::{self, Addresses};
use weir::policy::backoff;
use weir::policy::breaker::{
    AttemptFault, Breaker, BreakerParams, BreakerPhase, History, Moment, Peers,
};
use weir::policy::bucket::{Rate, TokenBucket};
use weir::policy::hysteresis::Hysteresis;
use weir::policy::limiter::{Params, RateLimiter};
use weir::policy::penalty::Penalty;
use weir::policy::retry_budget::{BudgetParams, RetryBudget};
use weir::policy::select::{
    Candidates, FULL_SCAN_MAX, IpHash, LeastConnections, Random, RoundRobin, Selector,
};
use weir::time::Timestamp;

/// What a selector may ask of one backend.
#[derive(Debug, Clone, Copy)]
struct Backend {
    weight: u32,
    in_flight: u64,
    identity: u64,
    eligible: bool,
}

#[derive(Debug, Clone)]
struct Pool(Vec<Backend>);

impl Candidates for Pool {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, index: usize) -> u32 {
        self.0[index].weight
    }
    fn in_flight(&self, index: usize) -> u64 {
        self.0[index].in_flight
    }
    fn identity(&self, index: usize) -> u64 {
        self.0[index].identity
    }
    fn is_eligible(&self, index: usize) -> bool {
        self.0[index].eligible
    }
}

/// Idle, eligible backends.
fn pool(weights: &[u32]) -> Pool {
    let idle = |(index, &weight)| Backend {
        weight,
        in_flight: 0,
        identity: splitmix(u64::try_from(index).unwrap()),
        eligible: true,
    };
    Pool(weights.iter().enumerate().map(idle).collect())
}

/// Some backends, of which any number may be eligible, down to none.
fn any_pool(len_max: usize) -> impl Strategy<Value = Pool> {
    let backend = (0_u32..=1000, prop_oneof![0_u64..5, any::<u64>()], any::<u64>(), any::<bool>())
        .prop_map(|(weight, in_flight, identity, eligible)| Backend {
            weight,
            in_flight,
            identity,
            eligible,
        });
    proptest::collection::vec(backend, 0..=len_max).prop_map(Pool)
}

/// Dice for tests: as if at random, and the same every time.
fn splitmix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn rate(requests_per_second: f64, burst: u32) -> Rate {
    Rate::new(requests_per_second, NonZeroU32::new(burst).unwrap()).unwrap()
}

fn limiter(rate: Rate, clients_max: usize) -> RateLimiter {
    let clients_max = NonZeroUsize::new(clients_max).unwrap();
    RateLimiter::new(Params { rate, ipv6_prefix: 64, clients_max, exempt: Vec::new() }, 7)
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

/// A bucket as one would write it down first: tokens, counted in nanoseconds of their earning.
struct Oracle {
    tokens_ns: u64,
    last_ns: u64,
}

impl Oracle {
    fn take(&mut self, rate: Rate, now_ns: u64) -> Result<(), Duration> {
        self.tokens_ns = (self.tokens_ns + now_ns - self.last_ns).min(rate.full_ns());
        self.last_ns = now_ns;
        let left = self.tokens_ns.checked_sub(rate.token_ns());
        let wait = Duration::from_nanos(rate.token_ns() - self.tokens_ns.min(rate.token_ns()));
        self.tokens_ns = left.unwrap_or(self.tokens_ns);
        left.map(|_| ()).ok_or(wait)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_selector_picks_an_eligible_backend_if_there_is_one(
        pool in prop_oneof![any_pool(5), any_pool(FULL_SCAN_MAX * 2), any_pool(1024)],
        key in any::<u64>(),
        roll in any::<u64>(),
    ) {
        let usable = |index: usize| pool.0[index].eligible && pool.0[index].weight > 0;
        let selectors: [&dyn Selector; 4] =
            [&RoundRobin::new(), &LeastConnections::new(), &IpHash::new(), &Random::new()];
        for selector in selectors {
            for turn in 0..5 {
                match selector.select(&pool, splitmix(key ^ turn), splitmix(roll ^ turn)) {
                    Some(index) => prop_assert!(usable(index), "{selector:?} picked {index}"),
                    None => prop_assert!(!(0..pool.len()).any(usable), "{selector:?} gave up"),
                }
            }
        }
    }

    #[test]
    fn round_robin_gives_each_backend_exactly_its_weight_in_every_cycle(
        weights in proptest::collection::vec(1_u32..=200, 1..12),
        unit in 1_u32..=5,
        skipped in 0_usize..2000,
    ) {
        let scaled: Vec<u32> = weights.iter().map(|weight| weight * unit).collect();
        let (pool, round_robin) = (pool(&scaled), RoundRobin::new());
        for _ in 0..skipped {
            round_robin.select(&pool, 0, 0);
        }
        // `unit` cycles at least, whatever common divisor the weights have besides.
        let cycle = usize::try_from(weights.iter().sum::<u32>()).unwrap();
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..cycle {
            counts[round_robin.select(&pool, 0, 0).unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn round_robin_is_smooth_in_every_window(weights in proptest::collection::vec(1_u32..=66, 2..=6)) {
        let (pool, round_robin) = (pool(&weights), RoundRobin::new());
        let total = i64::from(weights.iter().sum::<u32>());
        // In units of 1/total: how far each backend is ahead of its share. The largest difference
        // between two moments is the worst window.
        let mut ahead = vec![(0_i64, 0_i64, 0_i64); weights.len()];
        for _ in 0..2 * total {
            let picked = round_robin.select(&pool, 0, 0).unwrap();
            for (index, (now, least, most)) in ahead.iter_mut().enumerate() {
                *now += i64::from(index == picked) * total - i64::from(weights[index]);
                (*least, *most) = ((*least).min(*now), (*most).max(*now));
            }
        }
        for (_, least, most) in ahead {
            prop_assert!(most - least < 4 * total, "{} of {total} off", most - least);
        }
    }

    #[test]
    fn least_connections_picks_a_true_minimum_of_a_small_pool(
        pool in any_pool(FULL_SCAN_MAX),
        roll in any::<u64>(),
    ) {
        if let Some(picked) = LeastConnections::new().select(&pool, 0, roll) {
            let load = |backend: &Backend, other: &Backend| {
                u128::from(backend.in_flight) * u128::from(other.weight)
            };
            for other in pool.0.iter().filter(|other| other.eligible && other.weight > 0) {
                prop_assert!(load(&pool.0[picked], other) <= load(other, &pool.0[picked]));
            }
        }
    }

    #[test]
    fn idle_backends_share_by_weight(
        first in 1_u32..=9,
        second in 1_u32..=9,
        seed in any::<u64>(),
    ) {
        let pool = pool(&[first, second]);
        let selectors: [&dyn Selector; 2] = [&LeastConnections::new(), &Random::new()];
        for selector in selectors {
            let picks = (0..2000_u64).map(|turn| selector.select(&pool, 0, splitmix(seed ^ turn)));
            let firsts = picks.filter(|picked| *picked == Some(0)).count();
            let expected = 2000 * usize::try_from(first).unwrap()
                / usize::try_from(first + second).unwrap();
            // A standard deviation is 22 at most.
            prop_assert!(firsts.abs_diff(expected) < 140, "{selector:?}: {firsts}, not {expected}");
        }
    }

    #[test]
    fn ip_hash_moves_only_the_clients_of_the_backend_that_leaves(
        weights in proptest::collection::vec(1_u32..=1000, 2..20),
        leaves in any::<proptest::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let whole = pool(&weights);
        let leaves = leaves.index(weights.len());
        let mut rest = whole.clone();
        rest.0[leaves].eligible = false;
        for number in 0..200 {
            let key = splitmix(seed ^ number);
            let before = IpHash::new().select(&whole, key, 0);
            let after = IpHash::new().select(&rest, key, 0);
            prop_assert!(before == after || before == Some(leaves));
            prop_assert_ne!(after, Some(leaves));
        }
    }

    #[test]
    fn a_limiter_decides_as_one_plain_bucket_per_client_would(
        requests_per_second in prop_oneof![0.01_f64..10.0, 10.0_f64..1e6],
        burst in 1_u32..20,
        arrivals in proptest::collection::vec((0_u32..5, 0.0_f64..2.0), 1..200),
    ) {
        let rate = rate(requests_per_second, burst);
        let limiter = limiter(rate, 1000);
        let new = || Oracle { tokens_ns: rate.full_ns(), last_ns: 0 };
        let mut oracles = [new(), new(), new(), new(), new()];
        let mut now_ns = 0;
        for (number, gap) in arrivals {
            now_ns += nanos(rate.token_ns(), gap);
            let oracle = &mut oracles[usize::try_from(number).unwrap()];
            let expected = oracle.take(rate, now_ns);
            prop_assert_eq!(limiter.admit(client(number), Timestamp::from_nanos(now_ns)), expected);
        }
    }

    #[test]
    fn any_window_admits_at_most_the_burst_and_what_is_earned_in_it(
        requests_per_second in prop_oneof![0.01_f64..10.0, 10.0_f64..1e6],
        burst in 1_u32..20,
        gaps in proptest::collection::vec(0.0_f64..2.0, 1..150),
    ) {
        let (rate, bucket) = (rate(requests_per_second, burst), TokenBucket::new());
        let (mut now_ns, mut admitted) = (0, Vec::new());
        for gap in gaps {
            now_ns += nanos(rate.token_ns(), gap);
            if bucket.take(rate, Timestamp::from_nanos(now_ns)).is_ok() {
                admitted.push(now_ns);
            }
        }
        for (first, &start) in admitted.iter().enumerate() {
            for (last, &end) in admitted.iter().enumerate().skip(first) {
                let count = u64::try_from(last - first + 1).unwrap();
                let earned = (end - start) / rate.token_ns();
                prop_assert!(count <= u64::from(burst) + earned, "{count} in {} ns", end - start);
            }
        }
    }

    #[test]
    fn who_waits_exactly_as_told_gets_in(
        requests_per_second in prop_oneof![1e-300_f64..1.0, 0.01_f64..1e6, 1e6_f64..1e300],
        burst in prop_oneof![1_u32..20, any::<u32>().prop_map(|burst| burst.max(1))],
        times in proptest::collection::vec(prop_oneof![0_u64..5_000_000_000, any::<u64>()], 1..40),
    ) {
        // In any order, and up to the end of time.
        let (rate, bucket) = (rate(requests_per_second, burst), TokenBucket::new());
        for now_ns in times {
            let now = Timestamp::from_nanos(now_ns);
            if let Err(wait) = bucket.take(rate, now) {
                let early = wait - Duration::from_nanos(1);
                prop_assert_eq!(bucket.take(rate, now + early), Err(Duration::from_nanos(1)));
                prop_assert_eq!(bucket.take(rate, now + wait), Ok(()));
            }
        }
    }

    #[test]
    fn forgetting_a_full_bucket_changes_nothing(
        burst in 1_u32..5,
        visits in proptest::collection::vec(
            (0_u32..4, proptest::collection::vec(0.0_f64..1.5, 1..8)),
            1..20,
        ),
    ) {
        let rate = rate(10.0, burst);
        let (cramped, roomy) = (limiter(rate, 1), limiter(rate, 1000));
        let mut now_ns = 0;
        for (number, gaps) in visits {
            // By now every bucket is full again, and the one slot may go to any client.
            now_ns += rate.full_ns();
            for gap in gaps {
                now_ns += nanos(rate.token_ns(), gap);
                let now = Timestamp::from_nanos(now_ns);
                prop_assert_eq!(cramped.admit(client(number), now), roomy.admit(client(number), now));
            }
        }
    }

    #[test]
    fn hysteresis_flips_only_after_equal_results_in_a_row(
        rise in 1_u32..5,
        fall in 1_u32..5,
        results in proptest::collection::vec(any::<bool>(), 1..60),
    ) {
        let mut hysteresis =
            Hysteresis::new(NonZeroU32::new(rise).unwrap(), NonZeroU32::new(fall).unwrap());
        for (index, &pass) in results.iter().enumerate() {
            let known = hysteresis.is_known();
            let decided = hysteresis.observe(pass);
            let needed = usize::try_from(if pass { rise } else { fall }).unwrap();
            let in_a_row = results[..=index].iter().rev().take_while(|&&last| last == pass).count();
            prop_assert!(decided.is_none() || decided == Some(pass));
            prop_assert!(decided.is_none() || !known || in_a_row >= needed);
            prop_assert!(in_a_row < needed || hysteresis.is_healthy() == pass, "it did not flip");
        }
    }

    /// Whatever comes in whatever order, useless retries are at most: the floor once, the floor for each
    /// window that has passed, and the share of the responses.
    #[test]
    fn useless_retries_are_within_the_budget(
        share_thousandths in 0_u32..=1000,
        floor in 0_u32..20,
        window_ms in 1_u64..20_000,
        events in proptest::collection::vec((0_u8..4, 0_u64..2_000_000_000), 1..300),
    ) {
        let window = Duration::from_millis(window_ms);
        let budget = RetryBudget::new(BudgetParams { share_thousandths, floor, window });
        let (mut now, mut useless, mut responses) = (Timestamp::ZERO, 0_u64, 0_u64);
        for (event, gap) in events {
            match event {
                0 => now = now + Duration::from_nanos(gap),
                1 => {
                    budget.earn(now);
                    responses += 1;
                }
                2 => {
                    if budget.take(now) {
                        budget.give_back();
                    }
                }
                _ => useless += u64::from(budget.take(now)),
            }
            let floor = u128::from(floor) * 1000;
            let refilled = floor * now.since(Timestamp::ZERO).as_nanos() / window.as_nanos();
            let earned = u128::from(responses) * u128::from(share_thousandths);
            let allowed = floor + refilled + 1 + earned;
            prop_assert!(u128::from(useless) * 1000 <= allowed, "{useless} of {allowed} thousandths");
        }
    }

    #[test]
    fn a_back_off_is_never_beyond_its_bound(
        base in any::<u64>(),
        max in any::<u64>(),
        nth in prop_oneof![0_u32..70, any::<u32>()],
        roll in any::<u64>(),
    ) {
        let (base, max) = (Duration::from_nanos(base), Duration::from_nanos(max));
        let bound = 2_u32.checked_pow(nth).map_or(Duration::MAX, |factor| base.saturating_mul(factor));
        let wait = backoff::wait(base, max, nth, roll);
        prop_assert!(wait <= max);
        prop_assert!(wait <= bound || nth >= 32);
    }
}

/// A share of a duration.
fn nanos(of_ns: u64, share: f64) -> u64 {
    u64::try_from(Duration::from_nanos(of_ns).mul_f64(share).as_nanos()).unwrap()
}

#[test]
fn nine_picks_of_three_equal_backends_are_three_each_in_turn() {
    let (pool, round_robin) = (pool(&[1, 1, 1]), RoundRobin::new());
    let picks: Vec<_> = (0..9).filter_map(|_| round_robin.select(&pool, 0, 0)).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn five_one_one_is_spread() {
    let (pool, round_robin) = (pool(&[5, 1, 1]), RoundRobin::new());
    let picks: Vec<_> = (0..7).filter_map(|_| round_robin.select(&pool, 0, 0)).collect();
    assert_eq!(picks, [0, 1, 0, 0, 2, 0, 0]);
}

#[test]
fn of_ten_thousand_clients_on_ten_backends_exactly_those_of_the_lost_one_move() {
    let whole = pool(&[1; 10]);
    let mut rest = whole.clone();
    rest.0[3].eligible = false;
    let (mut moved, mut lost) = (0_u32, 0_u32);
    for number in 0..10_000 {
        let key = splitmix(number);
        let before = IpHash::new().select(&whole, key, 0);
        let after = IpHash::new().select(&rest, key, 0);
        lost += u32::from(before == Some(3));
        moved += u32::from(before != after);
    }
    assert_eq!(moved, lost);
    // A tenth; a standard deviation is 30.
    assert!((850..1150).contains(&lost), "{lost} clients on one of ten backends");
}

#[test]
fn ip_hash_honours_weights() {
    let weights = [1, 2, 3, 10, 84];
    let pool = pool(&weights);
    let mut counts = [0.0_f64; 5];
    for number in 0..50_000 {
        counts[IpHash::new().select(&pool, splitmix(number), 0).unwrap()] += 1.0;
    }
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(weight) / 100.0;
        let deviation = (50_000.0 * share * (1.0 - share)).sqrt();
        assert!((count - 50_000.0 * share).abs() < 5.0 * deviation, "{counts:?}");
    }
}

#[test]
fn the_lost_clients_of_ip_hash_spread_over_all_the_others() {
    let whole = pool(&[1; 6]);
    let mut rest = whole.clone();
    rest.0[0].eligible = false;
    let mut gained = [0_u32; 6];
    for key in (0..12_000).map(splitmix) {
        if IpHash::new().select(&whole, key, 0) == Some(0) {
            gained[IpHash::new().select(&rest, key, 0).unwrap()] += 1;
        }
    }
    // A fifth of 2000 each; a standard deviation is 18.
    assert!(gained[1..].iter().all(|count| (310..490).contains(count)), "{gained:?}");
}

#[test]
fn least_connections_sends_a_slow_backend_the_least() {
    // A request each 5 ms; two backends answer in 20 ms, one in 200 ms.
    let takes_ms = [20, 200, 20];
    let mut pool = pool(&[1, 1, 1]);
    let mut counts = [0_u32; 3];
    let mut answers: Vec<(u64, usize)> = Vec::new();
    for request in 0..4000_u64 {
        let now_ms = request * 5;
        answers.retain(|&(done_ms, index)| {
            let done = done_ms <= now_ms;
            pool.0[index].in_flight -= u64::from(done);
            !done
        });
        let index = LeastConnections::new().select(&pool, 0, splitmix(request)).unwrap();
        pool.0[index].in_flight += 1;
        counts[index] += 1;
        answers.push((now_ms + takes_ms[index], index));
    }
    assert!(counts[1] * 5 < counts[0] && counts[1] * 5 < counts[2], "{counts:?}");
    assert!(counts[0].abs_diff(counts[2]) < 200, "{counts:?}");
}

#[test]
fn arrivals_slower_than_the_rate_are_all_admitted() {
    // Each 150 ms for a minute, at a token per 100 ms: a limiter that rounds the half token away
    // would be the same here, and one that restarts its interval would refuse every other one.
    let (rate, bucket) = (rate(10.0, 1), TokenBucket::new());
    let admitted = |n: &u64| bucket.take(rate, Timestamp::from_nanos(n * 150_000_000)).is_ok();
    assert_eq!((0..400).filter(admitted).count(), 400);
}

#[test]
fn arrivals_faster_than_the_rate_are_admitted_at_the_rate_after_the_burst() {
    // Each 60 ms for a minute: 5 at once, and one per 100 ms of the 59.94 s.
    let (rate, bucket) = (rate(10.0, 5), TokenBucket::new());
    let admitted = |n: &u64| bucket.take(rate, Timestamp::from_nanos(n * 60_000_000)).is_ok();
    assert_eq!((0..1000).filter(admitted).count(), 604);
}

#[test]
fn a_million_addresses_stay_within_the_table_and_no_new_one_is_refused() {
    let limiter = limiter(rate(0.001, 1), 5_000);
    for number in 0..1_000_000 {
        let now = Timestamp::from_nanos(u64::from(number));
        assert_eq!(limiter.admit(client(number), now), Ok(()));
        assert!(limiter.clients() <= 5_000);
    }
    assert_eq!(limiter.clients(), 5_000);
}

fn socket_address() -> impl Strategy<Value = std::net::SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(std::net::SocketAddr::from)
}

proptest! {
    #[test]
    fn a_proxy_header_says_what_was_written_and_takes_nothing_of_what_follows(
        source in socket_address(),
        destination in socket_address(),
        more in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = proxy_protocol::version_2_header(Some(Addresses { source, destination }));
        let length = bytes.len();
        for part in 0..length {
            prop_assert_eq!(proxy_protocol::parse(&bytes[..part]), Ok(None));
        }
        bytes.extend(more);
        let header = proxy_protocol::parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(header.length, length);
        let read = header.addresses.unwrap();
        prop_assert_eq!(read.source.ip().to_canonical(), source.ip().to_canonical());
        prop_assert_eq!(read.destination.ip().to_canonical(), destination.ip().to_canonical());
        prop_assert_eq!((read.source.port(), read.destination.port()), (source.port(), destination.port()));
    }

    #[test]
    fn no_bytes_confuse_the_parser_of_proxy_headers(
        version_2 in any::<bool>(),
        command in 0x1e_u8..0x24,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let start: &[u8] = if version_2 { b"\r\n\r\n\0\r\nQUIT\n" } else { b"PROXY " };
        let bytes = [start, if version_2 { std::slice::from_ref(&command) } else { b"" }, &bytes].concat();
        // Whatever it says of the whole, it said of each part, or it wanted more.
        let whole = proxy_protocol::parse(&bytes);
        for length in 0..bytes.len() {
            let part = proxy_protocol::parse(&bytes[..length]);
            prop_assert!(part == Ok(None) || part == whole, "{:?}, then {:?}", part, whole);
        }
        if let Ok(Some(header)) = whole {
            prop_assert!(header.length <= bytes.len().min(proxy_protocol::LENGTH_MAX));
        }
    }
}

/// What may happen to a breaker: time passes, an attempt fails or succeeds, a trial begins or ends.
fn breaker_steps() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
    proptest::collection::vec((0_u8..7, 0_u64..4_000, any::<u64>()), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_history_is_the_last_sixty_three_results(
        results in proptest::collection::vec(any::<bool>(), 0..150),
        last in 0_u32..80,
    ) {
        let history = results.iter().fold(History::EMPTY, |history, failed| history.with(*failed));
        let kept: Vec<bool> = results.iter().rev().take(63).copied().collect();
        prop_assert_eq!(usize::try_from(history.len()).unwrap(), kept.len());
        let counted = kept.iter().take(usize::try_from(last).unwrap()).filter(|failed| **failed);
        prop_assert_eq!(usize::try_from(history.failures(last)).unwrap(), counted.count());
        let row = kept.iter().take_while(|failed| **failed).count();
        prop_assert_eq!(usize::try_from(history.in_a_row()).unwrap(), row);
        prop_assert_eq!(History::from_bits(history.bits()), history);
    }

    #[test]
    fn a_breaker_leaves_open_only_by_time_and_never_has_more_trials_than_it_may(
        steps in breaker_steps(),
        trials in 1_u32..4,
    ) {
        let params = BreakerParams {
            failures: NonZeroU32::new(3).unwrap(),
            share: 30,
            attempts: 20,
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(20),
            trials: NonZeroU32::new(trials).unwrap(),
            successes: NonZeroU32::new(2).unwrap(),
            out_max: 50,
            shadow: false,
        };
        let peers = Peers { eligible_others: 2, out: 0, total: 3, usual: weir::policy::breaker::FailureRate::ZERO };
        let (mut breaker, mut now) = (Breaker::default(), Timestamp::ZERO);
        let (mut history, mut under_way) = (History::EMPTY, Vec::new());
        for (step, millis, roll) in steps {
            now = now + Duration::from_millis(millis);
            let at = Moment { now, roll };
            let before = breaker.phase(now);
            let fault = if roll % 5 == 0 { AttemptFault::Refused } else { AttemptFault::Failed };
            match step {
                0 | 1 => {
                    history = history.with(true);
                    if let Some(why) = breaker.suspect(&params, fault, history, now) {
                        let _opened = breaker.open(&params, why, peers, at);
                    }
                }
                2 => history = history.with(false),
                3 => if breaker.try_trial(&params, now).is_some() {
                    under_way.push(now);
                },
                4 | 5 => if under_way.pop().is_some() {
                    let result = if step == 4 { Ok(()) } else { Err(fault) };
                    let _change = breaker.record_trial(&params, result, at);
                    breaker.end_trial();
                },
                _ => {
                    let _change = breaker.expire(&params, now);
                }
            }
            let phase = breaker.phase(now);
            if before == BreakerPhase::Open {
                prop_assert_eq!(phase, BreakerPhase::Open, "only time ends it");
            }
            // A trial that takes longer than ten seconds keeps no other one back.
            let recent = under_way.iter().filter(|began| now.since(**began).as_secs() < 10).count();
            prop_assert!(recent <= usize::try_from(trials).unwrap());
            if let Some(until) = breaker.opens_until() {
                prop_assert!(until <= now + Duration::from_secs(24), "20 s and a fifth");
            }
            let mut other = Breaker::default();
            other.import(&params, &breaker.export(now), Duration::ZERO, now);
            prop_assert_eq!(other.phase(now), phase);
            prop_assert_eq!(other.export(now), breaker.export(now));
        }
    }

    #[test]
    fn a_penalty_only_shrinks_between_failures(
        failures in proptest::collection::vec(0_u64..3_000, 1..50),
        waits in proptest::collection::vec(0_u64..700, 1..50),
    ) {
        let (penalty, mut now) = (Penalty::new(), Timestamp::ZERO);
        for wait in &failures {
            now = now + Duration::from_millis(*wait);
            penalty.add(now);
        }
        let mut before = penalty.load(now);
        prop_assert!(before >= 1 && before <= u64::try_from(failures.len()).unwrap());
        for wait in waits {
            now = now + Duration::from_millis(wait);
            let load = penalty.load(now);
            prop_assert!(load <= before);
            before = load;
        }
        prop_assert_eq!(penalty.load(now + Duration::from_secs(30)), 0);
    }
}
