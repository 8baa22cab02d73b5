use std::sync::Arc;

use super::tests::{Recorder, at, get, observer, snapshot};
use super::*;
use crate::exchange::request::Transfer;

const TWO_REQUESTS: &str = "
limits: {requests: 2}
routes: [{path: /own, respond: {status: 204}}, {path: /moved, redirect: /}, {pool: web}]
pools: [{name: web, health_check: off, backends: [http://10.1.0.1:80], rate_limit: {requests_per_second: 1, burst: 1000}}]
";

fn ask(snapshot: &Arc<Snapshot>, path: &'static str) -> (Exchange, Result<Admitted, Refusal>) {
    let recorder = Arc::new(Recorder::default());
    let mut exchange = Exchange::new(Arc::clone(snapshot), observer(&recorder), at(0));
    let admitted = get("a.test", path).admit(&mut exchange, at(0));
    (exchange, admitted)
}

fn in_progress(snapshot: &Snapshot) -> u32 {
    snapshot.request_limit.as_ref().unwrap().in_progress()
}

#[test]
fn a_request_above_the_limit_is_rejected_until_one_is_dropped() {
    let snapshot = snapshot(TWO_REQUESTS);
    let (first, _) = ask(&snapshot, "/");
    let (_second, admitted) = ask(&snapshot, "/own");
    assert!(admitted.is_ok(), "{admitted:?}");
    for path in ["/", "/own", "/moved"] {
        let (third, rejected) = ask(&snapshot, path);
        assert_eq!(rejected, Err(Refusal::RequestLimit), "{path}");
        assert_eq!(third.refusal(), Some(Refusal::RequestLimit));
        assert!(third.client().is_some(), "the access log has the client");
        assert_eq!(third.pool_id(), None);
        assert_eq!(in_progress(&snapshot), 2, "it is not counted while it lives");
    }
    assert_eq!(in_progress(&snapshot), 2, "and takes no count with it");
    drop(first);
    assert_eq!(in_progress(&snapshot), 1);
    let (_next, admitted) = ask(&snapshot, "/moved");
    assert!(admitted.is_ok(), "{admitted:?}");
    assert_eq!(in_progress(&snapshot), 2);
}

#[test]
fn a_complete_request_is_not_counted_and_none_is_counted_twice() {
    let snapshot = snapshot(TWO_REQUESTS);
    let (mut exchange, _) = ask(&snapshot, "/");
    let again = get("a.test", "/").admit(&mut exchange, at(0));
    assert!(again.is_ok(), "{again:?}");
    assert_eq!(in_progress(&snapshot), 1);
    exchange.ended(Outcome::Completed, Transfer::default(), at(1));
    assert_eq!(in_progress(&snapshot), 0, "before the connection drops it");
    exchange.ended(Outcome::Completed, Transfer::default(), at(1));
    drop(exchange);
    assert_eq!(in_progress(&snapshot), 0);
}

#[test]
fn a_websocket_is_counted_until_it_is_closed() {
    let snapshot = snapshot(TWO_REQUESTS);
    let (mut exchange, _) = ask(&snapshot, "/");
    exchange.pick(at(0), Rolls::default()).unwrap();
    exchange.upgraded(at(1));
    assert_eq!(in_progress(&snapshot), 1);
    exchange.ended(Outcome::TunnelIdle, Transfer::default(), at(2));
    assert_eq!(in_progress(&snapshot), 0);
}

#[test]
fn snapshots_with_other_backends_share_the_count() {
    let old = snapshot(TWO_REQUESTS);
    let (_exchange, _) = ask(&old, "/");
    let new = Arc::new(old.with_members(|_, pool| Some(pool.members.to_vec())));
    assert_eq!(in_progress(&new), 1);
}

#[test]
fn an_invalid_request_is_rejected_for_what_is_wrong_with_it() {
    let snapshot = snapshot(TWO_REQUESTS);
    let held = [ask(&snapshot, "/"), ask(&snapshot, "/")];
    let (_exchange, rejected) = ask(&snapshot, "no-path");
    assert_eq!(rejected, Err(Refusal::BadRequest));
    drop(held);
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let snapshot = snapshot(&TWO_REQUESTS.replace("requests: 2", "requests: off"));
    assert!(snapshot.request_limit.is_none());
    let held: Vec<_> = (0..100).map(|_| ask(&snapshot, "/")).collect();
    assert!(held.iter().all(|(_, admitted)| admitted.is_ok()));
}
