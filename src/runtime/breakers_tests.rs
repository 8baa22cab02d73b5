//! What the circuit breakers of a pool decide by the results of all its backends.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Overrides, load};
use crate::policy::breaker::{AttemptFault, Cause, Moment, Transition};
use crate::runtime::backend_set::BackendSet;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::endpoint::Lookup;
use crate::runtime::ids::BackendId;
use crate::runtime::lease::Lease;
use crate::runtime::pool::{Ask, Pool};
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

fn moment(millis: u64) -> Moment {
    Moment { now: at(millis), roll: u64::MAX / 2 }
}

/// A pool with this many backends and these further keys.
fn pool_of(backends: u8, keys: &str) -> Snapshot {
    let backends: Vec<_> = (1..=backends).map(|n| format!("http://10.0.0.{n}:80")).collect();
    let text = format!("pools: [{{name: web, backends: [{}], {keys}}}]", backends.join(", "));
    let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
    let lookup = |_: &str, _| Lookup::Failed("no names".to_owned());
    Snapshot::new(&config, "test", 1, lookup)
}

/// A request to this backend that has just begun.
fn begin(pool: &Pool, backend: usize) -> (BackendId, Lease) {
    let id = BackendId::new(backend);
    (id, Lease::new(Arc::clone(pool.backend(id).unwrap())))
}

/// Requests to this backend that end like this; the last change.
fn end(pool: &Pool, backend: usize, results: &[Result<(), AttemptFault>]) -> Option<BreakerChange> {
    let mut change = None;
    for result in results {
        let (id, mut lease) = begin(pool, backend);
        change = pool.record(id, &mut lease, *result, moment(0)).or(change);
    }
    change
}

const FAILED: Result<(), AttemptFault> = Err(AttemptFault::Failed);

#[test]
fn backends_that_health_checks_have_taken_out_leave_room_for_the_breaker() {
    let snapshot = pool_of(5, "health_check: {path: /}");
    let pool = &snapshot.pools[0];
    for (index, member) in pool.members.iter().enumerate() {
        member.backend.probed(Ok(()), at(0));
        end(pool, index, &[Ok(()); 30]);
    }
    assert!(end(pool, 0, &[FAILED; 3]).is_some() && end(pool, 1, &[FAILED; 3]).is_some());
    assert_eq!(end(pool, 2, &[FAILED; 3]), None, "two of five are half of the pool");
    for member in &pool.members[..2] {
        while member.backend.probed(Err("down".to_owned()), at(0)).is_none() {}
    }
    let change = end(pool, 2, &[FAILED; 20]).expect("only one healthy backend would be out");
    assert!(
        matches!(change.change, Transition::Opened { why, .. } if why.cause == Cause::Failures)
    );
}

#[test]
fn a_trial_that_fails_as_all_others_do_is_no_failure() {
    for (others, closes) in [(vec![FAILED, Ok(())], true), (vec![Ok(())], false)] {
        let snapshot = pool_of(3, "health_check: off");
        let pool = &snapshot.pools[0];
        let circuit = &pool.members[0].backend.circuit;
        assert!(end(pool, 0, &[Err(AttemptFault::Refused)]).is_some());
        for backend in [1, 2] {
            end(pool, backend, &others.repeat(30));
        }
        let breakers = pool.breakers.as_ref().unwrap();
        for _ in 0..3 {
            if circuit.try_trial(&breakers.params, at(2000)).is_none() {
                break;
            }
            let (id, lease) = begin(pool, 0);
            pool.record(id, &mut lease.of_trial(), FAILED, moment(2000));
        }
        assert_eq!(circuit.is_out(), !closes, "{others:?}");
    }
}

// ── silence ──

/// The usual time to response headers, in milliseconds; far too long is 100 ms.
const USUAL: u64 = 20;

/// A pool whose backends usually respond after [`USUAL`], at 1000 ms.
fn measured_pool() -> Snapshot {
    let snapshot = pool_of(5, "health_check: off");
    let pool = &snapshot.pools[0];
    for round in 0..20 {
        for backend in 0..5 {
            let (id, lease) = begin(pool, backend);
            let start = round * 50;
            let mut lease = lease.measured(at(start));
            pool.heard(id, &mut lease, moment(start + USUAL));
        }
    }
    snapshot
}

fn pick(pool: &Pool, now: u64, measured: bool) -> (usize, BackendId, Lease) {
    let ask = Ask {
        tried: &BackendSet::EMPTY,
        unreachable: &BackendSet::EMPTY,
        key: 0,
        roll: 0,
        may_try: measured,
        measured,
        now: at(now),
    };
    let pick = pool.pick(&ask).unwrap();
    (pick.id.position(), pick.id, pick.lease)
}

/// A request each `every` ms between 2000 and 4000 ms. Those for which `hangs` is true never get a
/// response, the others after [`USUAL`]. How often each backend got one.
fn run(pool: &Pool, every: u64, hangs: impl Fn(usize) -> bool) -> [u32; 5] {
    let mut counts = [0; 5];
    let mut running: Vec<(u64, BackendId, Lease)> = Vec::new();
    for now in 2000..4000 {
        for index in (0..running.len()).rev() {
            if running[index].0 == now {
                let (_, id, mut lease) = running.swap_remove(index);
                pool.heard(id, &mut lease, moment(now));
                pool.record(id, &mut lease, Ok(()), moment(now));
            }
        }
        if now % every == 0 {
            let (backend, id, lease) = pick(pool, now, true);
            counts[backend] += 1;
            let end = if hangs(backend) { u64::MAX } else { now + USUAL };
            running.push((end, id, lease));
        }
    }
    counts
}

fn is_out(pool: &Pool, backend: usize) -> bool {
    pool.members[backend].backend.circuit.is_out()
}

#[test]
fn a_backend_that_hangs_is_taken_out_also_if_hardly_any_request_waits_for_it() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let _first = begin(pool, 0).1.measured(at(1990));
    let counts = run(pool, 60, |backend| backend == 0);
    assert!(is_out(pool, 0), "{counts:?}");
    assert!(counts[0] <= 5, "{counts:?}");
}

#[test]
fn a_backend_that_is_busy_with_one_slow_request_goes_on_to_get_others() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let _report = begin(pool, 0).1.measured(at(1990));
    let counts = run(pool, 60, |_| false);
    assert!(!is_out(pool, 0), "{counts:?}");
    assert!(counts[0] >= 3, "it shows that it responds: {counts:?}");
}

#[test]
fn a_few_slow_requests_without_others_open_no_breaker() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let _reports: Vec<_> = (0..3).map(|_| begin(pool, 0).1.measured(at(1990))).collect();
    let counts = run(pool, 60, |_| false);
    assert!(!is_out(pool, 0), "{counts:?}");
    assert!(counts[0] > 0, "it gets a request to show that it responds: {counts:?}");
}

#[test]
fn a_backend_that_hangs_opens_before_it_fails() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let counts = run(pool, 2, |backend| backend == 0);
    assert!(is_out(pool, 0) && (3..=8).contains(&counts[0]), "{counts:?}");
}

#[test]
fn attempts_that_have_just_begun_do_not_wait_too_long() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let _old = begin(pool, 0).1.measured(at(2000));
    // Passed over, and noticed; then requests come that nothing is known of yet.
    (0..5).for_each(|_| drop(pick(pool, 2150, true)));
    let _new: Vec<_> = (0..3).map(|_| begin(pool, 0).1.measured(at(2299))).collect();
    (0..5).for_each(|_| drop(pick(pool, 2300, true)));
    assert!(!is_out(pool, 0));
    // A while later they have waited for too long as well.
    (0..10).for_each(|_| drop(pick(pool, 2500, true)));
    assert!(is_out(pool, 0));
}

#[test]
fn any_response_is_a_sign_of_life() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let breakers = pool.breakers.as_ref().unwrap();
    let backend = &pool.members[0].backend;
    let _waits = begin(pool, 0).1.measured(at(2000));
    assert!(breakers.is_silent(backend, at(2200)));
    let (id, mut post) = begin(pool, 0);
    pool.heard(id, &mut post, moment(2200));
    assert!(!breakers.is_silent(backend, at(2201)));
}

#[test]
fn if_most_backends_hang_none_opens_and_all_get_requests() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    let counts = run(pool, 2, |_| true);
    assert!((0..5).all(|backend| !is_out(pool, backend)), "{counts:?}");
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

#[test]
fn peers_with_slow_requests_of_their_own_need_more_that_wait() {
    let snapshot = measured_pool();
    let pool = &snapshot.pools[0];
    for backend in 1..5 {
        let (id, lease) = begin(pool, backend);
        let mut lease = lease.measured(at(1000));
        pool.heard(id, &mut lease, moment(1400));
    }
    // One of the last ten responses was slow: four that wait may be chance, six not.
    let waiting: Vec<_> = (0..4).map(|_| begin(pool, 0).1.measured(at(2000))).collect();
    let notice = |now| (0..5).for_each(|_| drop(pick(pool, now, true)));
    notice(2400);
    notice(2800);
    assert!(!is_out(pool, 0), "{} wait", waiting.len());
    let _more: Vec<_> = (0..2).map(|_| begin(pool, 0).1.measured(at(2900))).collect();
    notice(3200);
    notice(3600);
    assert!(is_out(pool, 0));
}
