//! Every order of events that the memory model allows, for the few places that share memory
//! without a lock.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test loom`

#![cfg(loom)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

use weir::policy::breaker::{
    AttemptFault, BreakerParams, Cause, FailureRate, Moment, Peers, Suspicion,
};
use weir::policy::bucket::{Rate, TokenBucket};
use weir::policy::limiter::{Bucket, Debit, Params, RateLimiter};
use weir::policy::retry_budget::{BudgetParams, RetryBudget};
use weir::policy::wait_queue::{QueueOrder, QueueParams};
use weir::runtime::backend::Backend;
use weir::runtime::circuit::Circuit;
use weir::runtime::endpoint::Endpoint;
use weir::runtime::lease::Lease;
use weir::runtime::waiters::{Applicant, Waiters};
use weir::time::Timestamp;

const A: u32 = 1;
const B: u32 = 2;
const C: u32 = 3;

/// A token per second.
fn rate(burst: u32) -> Rate {
    Rate::new(1.0, NonZeroU32::new(burst).unwrap()).unwrap()
}

fn limiter(burst: u32, clients_max: usize) -> Arc<RateLimiter> {
    let clients_max = NonZeroUsize::new(clients_max).unwrap();
    let params = Params { rate: rate(burst), ipv6_prefix: 64, clients_max, exempt: Vec::new() };
    Arc::new(RateLimiter::new(params, 7))
}

fn admitted(limiter: &RateLimiter, client: u32, now_ms: u64) -> bool {
    let now = Timestamp::from_nanos(now_ms * 1_000_000);
    limiter.admit(IpAddr::V4(client.into()), now).is_ok()
}

/// Asks in another thread, later than all that was asked before.
fn ask(limiter: &Arc<RateLimiter>, client: u32, now_ms: u64) -> thread::JoinHandle<bool> {
    let limiter = Arc::clone(limiter);
    thread::spawn(move || admitted(&limiter, client, now_ms))
}

/// How many tokens a client has left.
fn tokens_left(limiter: &RateLimiter, client: u32, now_ms: u64) -> usize {
    (0..10).filter(|_| admitted(limiter, client, now_ms)).count()
}

#[test]
fn two_threads_do_not_take_the_same_token() {
    loom::model(|| {
        let bucket = Arc::new(TokenBucket::new());
        let other = Arc::clone(&bucket);
        let other = thread::spawn(move || other.take(rate(1), Timestamp::ZERO).is_ok());
        let here = bucket.take(rate(1), Timestamp::ZERO).is_ok();
        assert!(here != other.join().unwrap(), "one token, and not one admitted");
    });
}

#[test]
fn a_newcomer_that_comes_twice_at_once_is_one_client() {
    loom::model(|| {
        let limiter = limiter(1, 2);
        let other = ask(&limiter, A, 0);
        let here = admitted(&limiter, A, 0);
        assert!(here != other.join().unwrap(), "one token, and not one admitted");
        assert_eq!(limiter.clients(), 1);
    });
}

#[test]
fn two_newcomers_at_once_are_both_admitted_and_both_fit() {
    loom::model(|| {
        let limiter = limiter(1, 2);
        let other = ask(&limiter, A, 0);
        assert!(admitted(&limiter, B, 0));
        assert!(other.join().unwrap());
        assert_eq!(limiter.clients(), 2);
        assert_eq!((tokens_left(&limiter, A, 0), tokens_left(&limiter, B, 0)), (0, 0));
    });
}

#[test]
fn two_newcomers_at_once_are_both_admitted_where_one_fits() {
    loom::model(|| {
        let limiter = limiter(1, 1);
        let other = ask(&limiter, A, 0);
        assert!(admitted(&limiter, B, 1));
        assert!(other.join().unwrap());
        assert_eq!(limiter.clients(), 1);
    });
}

#[test]
fn a_newcomer_does_not_pay_for_the_client_whose_slot_it_gets() {
    loom::model(|| {
        let limiter = limiter(3, 1);
        assert!(admitted(&limiter, A, 0));
        // A asks again while B takes its slot: before, or after and as a newcomer.
        let a = ask(&limiter, A, 10);
        assert!(admitted(&limiter, B, 20));
        assert!(a.join().unwrap());
        let left = tokens_left(&limiter, B, 20);
        // 2 if B has the slot, 3 if A came last and B is new again.
        assert!(left == 2 || left == 3, "B has {left} tokens left");
        assert_eq!(limiter.clients(), 1);
    });
}

#[test]
fn a_newcomer_is_not_refused_for_the_debts_of_the_client_whose_slot_it_gets() {
    loom::model(|| {
        let limiter = limiter(2, 1);
        assert_eq!(tokens_left(&limiter, A, 0), 2);
        // B has two tokens, whichever of its requests takes the slot and whichever finds it.
        let b = ask(&limiter, B, 10);
        assert!(admitted(&limiter, B, 10));
        assert!(b.join().unwrap());
    });
}

#[test]
fn a_bucket_that_is_spent_from_is_not_the_one_forgotten() {
    loom::model(|| {
        // A has the fullest bucket, C is one token down. A spends while B looks for a slot. In
        // either order, it is C that has the fullest bucket in the end and is forgotten.
        let limiter = limiter(2, 2);
        assert!(admitted(&limiter, A, 0));
        assert!(admitted(&limiter, C, 500));
        let a = ask(&limiter, A, 1000);
        assert!(admitted(&limiter, B, 1001));
        assert!(a.join().unwrap());
        assert_eq!(tokens_left(&limiter, B, 1001), 1);
        assert_eq!(tokens_left(&limiter, A, 1001), 1, "A's last request was forgotten");
    });
}

/// What a predecessor says of A, who has spent one of two tokens.
fn exported_by_a() -> Bucket {
    let predecessor = limiter(2, 2);
    assert!(admitted(&predecessor, A, 0));
    predecessor.export(Timestamp::ZERO)[0]
}

#[test]
fn a_client_that_asks_while_its_bucket_is_taken_over_is_one_client() {
    loom::model(|| {
        let limiter = limiter(2, 2);
        let exported = exported_by_a();
        let asked = ask(&limiter, A, 0);
        limiter.import(exported, Timestamp::ZERO);
        assert!(asked.join().unwrap(), "A had a token either way");
        assert_eq!(limiter.clients(), 1);
        assert!(tokens_left(&limiter, A, 0) < 2, "A has spent at least one of two");
    });
}

#[test]
fn a_client_that_asks_while_it_is_charged_with_a_debit_pays_for_both() {
    loom::model(|| {
        let limiter = limiter(4, 2);
        assert!(admitted(&limiter, A, 0));
        let Bucket { tag, full_in_ns } = exported_by_a();
        let asked = ask(&limiter, A, 0);
        limiter.charge_debit(Debit { tag, spent_ns: full_in_ns, full_in_ns }, Timestamp::ZERO);
        assert!(asked.join().unwrap(), "A had a token either way");
        assert_eq!(tokens_left(&limiter, A, 0), 1, "A has spent three of four");
    });
}

#[test]
fn a_newcomer_does_not_pay_the_debit_of_the_client_whose_slot_it_gets() {
    loom::model(|| {
        let limiter = limiter(4, 1);
        assert!(admitted(&limiter, A, 0));
        let Bucket { tag, full_in_ns } = exported_by_a();
        let asked = ask(&limiter, B, 10);
        limiter.charge_debit(Debit { tag, spent_ns: full_in_ns, full_in_ns }, Timestamp::ZERO);
        assert!(asked.join().unwrap());
        let left = tokens_left(&limiter, B, 10);
        assert!(left == 3 || left == 4, "B has {left} tokens left");
    });
}

#[test]
fn a_client_that_asks_while_buckets_are_told_is_told_whole_or_not_at_all() {
    loom::model(|| {
        let limiter = limiter(2, 1);
        assert!(admitted(&limiter, A, 0));
        let (a, asked) = (exported_by_a(), ask(&limiter, B, 0));
        let exported = limiter.export(Timestamp::ZERO);
        assert!(asked.join().unwrap());
        let b = limiter.export(Timestamp::ZERO);
        assert!(exported == [a] || exported == b, "{exported:?} is neither {a:?} nor {b:?}");
    });
}

fn budget(floor: u32) -> Arc<RetryBudget> {
    let window = std::time::Duration::from_secs(64);
    Arc::new(RetryBudget::new(BudgetParams { share_thousandths: 1000, floor, window }))
}

#[test]
fn two_retries_do_not_take_the_same_token() {
    loom::model(|| {
        let budget = budget(1);
        let other = Arc::clone(&budget);
        let other = thread::spawn(move || other.take(Timestamp::ZERO));
        let here = budget.take(Timestamp::ZERO);
        assert!(here != other.join().unwrap(), "one token, and not one retry");
    });
}

#[test]
fn a_token_that_is_earned_during_a_step_is_kept() {
    // A step of 1 s. The floor's token is refilled over 64 s, so time alone gives none here.
    let now = Timestamp::from_nanos(1_000_000_000);
    loom::model(move || {
        let budget = budget(1);
        assert!(budget.take(Timestamp::ZERO));
        let other = Arc::clone(&budget);
        let other = thread::spawn(move || other.earn(now));
        budget.earn(now);
        other.join().unwrap();
        // Two tokens were earned. The step is done once, before or between: 1/64 of a token is
        // refilled, or 1/32 of what exceeds the floor decays.
        let level = budget.export(now);
        assert!((1968..=2016).contains(&level), "{level}");
    });
}

fn breaker_params() -> BreakerParams {
    let second = std::time::Duration::from_secs(1);
    BreakerParams {
        failures: NonZeroU32::new(3).unwrap(),
        share: 30,
        attempts: 20,
        open: second,
        open_max: second,
        trials: NonZeroU32::MIN,
        successes: NonZeroU32::MIN,
        out_max: 50,
        shadow: false,
    }
}

/// A refused connection takes the backend out.
fn refuse(circuit: &Circuit, now: Timestamp) {
    let (cause, fault) = (Cause::Refused, AttemptFault::Refused);
    let why = Suspicion { cause, fault, failed: 1, of: 1, window: 1 };
    let peers = Peers { eligible_others: 1, out: 0, total: 2, usual: FailureRate::ZERO };
    let _change = circuit.open(&breaker_params(), why, peers, Moment { now, roll: 0 });
}

#[test]
fn what_a_pick_reads_of_a_breaker_is_its_state() {
    loom::model(|| {
        let circuit = Arc::new(Circuit::default());
        refuse(&circuit, Timestamp::ZERO);
        let now = Timestamp::from_nanos(3_000_000_000);
        assert!(circuit.try_trial(&breaker_params(), now).is_some());
        // The trial closes it, while an older request is refused.
        let other = Arc::clone(&circuit);
        let other = thread::spawn(move || refuse(&other, now));
        let _change = circuit.record_trial(&breaker_params(), Ok(()), Moment { now, roll: 0 });
        other.join().unwrap();
        assert_eq!(circuit.keeps_out(), circuit.is_out());
    });
}

/// Records a failure of a backend that two of them open. Returns whether this was the reason.
fn is_failure_enough(circuit: &Circuit) -> bool {
    let params = BreakerParams { failures: NonZeroU32::new(2).unwrap(), ..breaker_params() };
    circuit.failed(&params, AttemptFault::Failed, Timestamp::ZERO).is_some()
}

#[test]
fn two_failures_at_once_are_both_counted() {
    loom::model(|| {
        let circuit = Arc::new(Circuit::default());
        let other = Arc::clone(&circuit);
        let theirs = thread::spawn(move || is_failure_enough(&other));
        let ours = is_failure_enough(&circuit);
        assert!(theirs.join().unwrap() || ours, "two consecutive failures are a reason to open");
    });
}

#[test]
fn a_backend_with_waiting_attempts_is_silent_only_since_the_first_of_them() {
    // An hour after the last response, two attempts begin at once.
    let now = Timestamp::from_nanos(3_600_000_000_000);
    let limit = Duration::from_millis(100);
    loom::model(move || {
        let circuit = Arc::new(Circuit::default());
        let other = Arc::clone(&circuit);
        let theirs = thread::spawn(move || {
            other.begin(now);
            other.end();
        });
        circuit.begin(now);
        assert!(!circuit.is_silent(limit, now), "nothing has waited for an hour");
        theirs.join().unwrap();
        circuit.end();
        assert_eq!(circuit.waiting(), 0);
    });
}

// ── the queue for places at backends ──

/// One place.
type Place = Arc<AtomicU64>;

fn applicant(place: &Place) -> Applicant<()> {
    let place = Arc::clone(place);
    let take = move |_| place.compare_exchange(0, 1, Relaxed, Relaxed).ok().map(drop);
    Applicant { take: Box::new(take), class: Some(0), deadline: Timestamp::MAX }
}

fn waiters(order: QueueOrder) -> Arc<Waiters<()>> {
    let timeout = Duration::from_secs(1);
    Arc::new(Waiters::new(QueueParams { length: 2, timeout, order }))
}

fn release(waiters: &Waiters<()>, place: &Place) {
    assert_eq!(place.swap(0, Relaxed), 1, "it was taken");
    waiters.dispatch(Timestamp::ZERO);
}

#[test]
fn a_place_that_is_released_while_a_request_begins_to_wait_is_not_lost() {
    loom::model(|| {
        let (waiters, place) = (waiters(QueueOrder::Fifo), Arc::new(AtomicU64::new(1)));
        let other = {
            let (waiters, place) = (Arc::clone(&waiters), Arc::clone(&place));
            thread::spawn(move || release(&waiters, &place))
        };
        let waiting = waiters.enter(applicant(&place), Timestamp::ZERO).unwrap();
        other.join().unwrap();
        assert_eq!(waiters.leave(&waiting, Timestamp::ZERO), Some(Ok(())));
        assert_eq!(place.load(Relaxed), 1);
        assert_eq!(waiters.waiting(), 0);
    });
}

#[test]
fn a_request_that_leaves_while_it_is_given_a_place_passes_it_on() {
    loom::model(|| {
        let (waiters, place) = (waiters(QueueOrder::Lifo), Arc::new(AtomicU64::new(1)));
        let first = waiters.enter(applicant(&place), Timestamp::ZERO).unwrap();
        let second = waiters.enter(applicant(&place), Timestamp::ZERO).unwrap();
        let other = {
            let (waiters, place) = (Arc::clone(&waiters), Arc::clone(&place));
            thread::spawn(move || release(&waiters, &place))
        };
        // The one that would be served first.
        if waiters.leave(&second, Timestamp::ZERO).is_some() {
            release(&waiters, &place);
        }
        other.join().unwrap();
        assert_eq!(waiters.leave(&first, Timestamp::ZERO), Some(Ok(())));
        assert_eq!(place.load(Relaxed), 1);
    });
}

#[test]
fn two_threads_do_not_take_the_last_place() {
    loom::model(|| {
        let endpoint = Endpoint::fixed("127.0.0.1:1".parse().unwrap());
        let backend = std::sync::Arc::new(Backend::new("127.0.0.1:1", endpoint, None));
        let there = std::sync::Arc::clone(&backend);
        let other = thread::spawn(move || Lease::with_place(there, NonZeroU32::MIN));
        let here = Lease::with_place(std::sync::Arc::clone(&backend), NonZeroU32::MIN);
        let there = other.join().unwrap();
        assert!(here.is_some() != there.is_some(), "one place");
        drop((here, there));
        assert_eq!(backend.in_flight(), 0);
    });
}
