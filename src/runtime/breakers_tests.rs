//! What the circuit breakers of a pool decide by the results of all its backends.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Overrides, load};
use crate::policy::breaker::{AttemptFault, Cause, Moment, Transition};
use crate::runtime::breakers::BreakerChange;
use crate::runtime::endpoint::Lookup;
use crate::runtime::ids::BackendId;
use crate::runtime::lease::Lease;
use crate::runtime::pool::Pool;
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
