//! The current attempt at a backend, as far as the connection of its client has a part in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Wake;

use parking_lot::Mutex;

use super::ConnectionState;
use crate::runtime::moving::{AttemptWatch, MoveCheck, MoveToken};
use crate::time::Timestamp;
use crate::upstream::http2::RequestBody;

/// The current attempt at a backend.
#[derive(Debug)]
pub(super) struct AttemptState {
    /// The sender of the request body, if the backend speaks HTTP/2.
    pub(super) request_body: Mutex<Option<Arc<RequestBody>>>,
    /// When to check whether to move it to another backend; `u64::MAX` while its backend is not out.
    check_ns: AtomicU64,
    /// Whether [`Movable`] may have a value. So the end of an attempt without one takes no lock.
    is_watched: AtomicBool,
    movable: Mutex<Movable>,
    /// The client has closed its side of the connection, so nothing is retried.
    pub(super) is_half_closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Movable {
    /// The attempt, if it may be moved.
    watch: Option<AttemptWatch>,
    /// It has to be moved, with this token for its retry.
    moved: Option<MoveToken>,
}

impl Default for AttemptState {
    fn default() -> Self {
        Self {
            request_body: Mutex::default(),
            check_ns: AtomicU64::new(u64::MAX),
            is_watched: AtomicBool::new(false),
            movable: Mutex::default(),
            is_half_closed: AtomicBool::new(false),
        }
    }
}

impl AttemptState {
    /// When [`Self::check`] is due.
    pub(super) fn check_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.check_ns.load(Relaxed))
    }

    /// Watches an attempt that has begun.
    pub(super) fn watch(&self, watch: AttemptWatch, now: Timestamp) {
        let first = watch.first_check(now);
        let mut movable = self.movable.lock();
        self.is_watched.store(true, Relaxed);
        if let Some(at) = first {
            // A check that was demanded meanwhile remains.
            self.check_ns.fetch_min(at.as_nanos(), Relaxed);
        }
        movable.watch = Some(watch);
        movable.moved = None;
    }

    /// Checks whether to move it, if it may be. Returns whether it has to be.
    pub(super) fn check(&self, may_move: bool, now: Timestamp) -> bool {
        self.check_ns.store(u64::MAX, Relaxed);
        let may_move = may_move && !self.is_half_closed.load(Relaxed);
        let mut movable = self.movable.lock();
        let Some(watch) = movable.watch.as_ref().filter(|_| may_move) else { return false };
        match watch.check(now) {
            MoveCheck::Move(token) => {
                *movable = Movable { watch: None, moved: Some(token) };
                return true;
            }
            MoveCheck::Later(after) => {
                self.check_ns.fetch_min((now + after).as_nanos(), Relaxed);
            }
            MoveCheck::Wait => {}
        }
        false
    }

    /// The token of the attempt, if it has to be moved.
    pub(super) fn take_moved(&self) -> Option<MoveToken> {
        self.movable.lock().moved.take()
    }

    /// The attempt is over, or its response headers have arrived. Returns whether it had to be moved.
    #[inline]
    pub(super) fn stop(&self) -> bool {
        self.is_watched.load(Relaxed) && self.unwatch()
    }

    fn unwatch(&self) -> bool {
        self.is_watched.store(false, Relaxed);
        self.check_ns.store(u64::MAX, Relaxed);
        let mut movable = self.movable.lock();
        let (watch, moved) = (movable.watch.take(), movable.moved.take());
        drop(movable); // first: the watch may be the last reference to a snapshot
        drop(watch);
        moved.is_some()
    }
}

/// Woken when the backend of the current attempt is taken out: checks whether to move the attempt.
impl Wake for ConnectionState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.attempt.check_ns.store(0, Relaxed);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Overrides, load};
    use crate::downstream::connection_state::CloseReason;
    use crate::policy::breaker::{AttemptFault, Moment};
    use crate::runtime::endpoint::Lookup;
    use crate::runtime::ids::{BackendId, PoolId};
    use crate::runtime::lease::Lease;
    use crate::runtime::snapshot::Snapshot;

    const CONFIG: &str = "
pools:
  - name: web
    health_check: off
    backends: [http://10.1.0.1:80, http://10.1.0.2:80, http://10.1.0.3:80]
    retry: {budget: {share: 0%, floor: 1, window: 1h}}
";

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn lease(snapshot: &Snapshot, backend: usize) -> Lease {
        Lease::new(Arc::clone(&snapshot.pools[0].members[backend].backend))
    }

    /// Three backends that usually take 20 ms.
    fn snapshot() -> Arc<Snapshot> {
        let config = load(Some(CONFIG.as_bytes()), &Overrides::default()).unwrap();
        let lookup = |_: &str, _| Lookup::Failed("no names".to_owned());
        let snapshot = Arc::new(Snapshot::new(&config, "test", 1, lookup));
        for round in 0..60 {
            let now = at(20 * round);
            let mut lease = lease(&snapshot, usize::from(round % 2 == 0)).measured(now);
            let moment = Moment { now: now + Duration::from_millis(20), roll: 0 };
            snapshot.pools[0].heard(BackendId::new(0), &mut lease, moment);
        }
        snapshot
    }

    /// A connection whose request waits at the first backend since 3 s.
    fn waiting(snapshot: &Arc<Snapshot>) -> (Arc<ConnectionState>, Lease) {
        let state = Arc::new(ConnectionState::fixture(at(3000)));
        state.request_started(at(3000));
        state.set_deadline(at(30_000));
        let mut lease = lease(snapshot, 0).measured(at(3000));
        lease.wake_when_out(Arc::clone(&state).into());
        let watch = AttemptWatch {
            snapshot: Arc::clone(snapshot),
            pool: PoolId::new(0),
            tried: [BackendId::new(0)].into_iter().collect(),
            since: at(3000),
            is_trial: false,
            has_token: false,
        };
        state.watch_attempt(watch, at(3000));
        (state, lease)
    }

    fn take_out(snapshot: &Snapshot, now: Timestamp) {
        for _ in 0..5 {
            let moment = Moment { now, roll: 0 };
            let mut failed = lease(snapshot, 0);
            snapshot.pools[0].record(
                BackendId::new(0),
                &mut failed,
                Err(AttemptFault::Failed),
                moment,
            );
        }
        assert!(snapshot.pools[0].members[0].backend.circuit.keeps_out());
    }

    fn tokens(snapshot: &Snapshot) -> u64 {
        snapshot.pools[0].retry_budget.as_ref().unwrap().tokens(at(3000))
    }

    #[test]
    fn an_attempt_has_no_check_while_its_backend_gets_requests() {
        let (state, _lease) = waiting(&snapshot());
        assert_eq!(state.next_deadline(), at(30_000));
    }

    #[test]
    fn the_time_of_an_attempt_is_over_once_it_has_to_be_moved() {
        let snapshot = snapshot();
        let (state, _lease) = waiting(&snapshot);
        take_out(&snapshot, at(3050));
        assert!(state.next_deadline() <= at(3050), "a check at once");
        assert!(state.on_timer(at(3050)));
        assert_eq!((state.close_reason(), state.next_deadline()), (None, at(3100)));
        assert!(state.on_timer(at(3100)));
        assert_eq!(state.close_reason(), Some(CloseReason::RequestTimeout));
        assert_eq!(tokens(&snapshot), 0);
        assert!(state.take_moved().unwrap().take());
        state.attempt_started(at(40_000));
        assert_eq!((state.close_reason(), state.next_deadline()), (None, at(40_000)));
    }

    #[test]
    fn response_headers_at_the_same_moment_are_not_lost() {
        let snapshot = snapshot();
        let (state, _lease) = waiting(&snapshot);
        take_out(&snapshot, at(3050));
        assert!(state.on_timer(at(3100)));
        state.set_deadline(at(30_000));
        state.response_arrived();
        assert_eq!((state.close_reason(), state.next_deadline()), (None, at(30_000)));
        assert!(state.take_moved().is_none());
        assert_eq!(tokens(&snapshot), 1);
    }

    #[test]
    fn a_closed_connection_returns_the_token() {
        let snapshot = snapshot();
        let (state, lease) = waiting(&snapshot);
        take_out(&snapshot, at(3050));
        assert!(state.on_timer(at(3100)));
        drop((state, lease));
        assert_eq!(tokens(&snapshot), 1);
    }

    #[test]
    fn a_request_past_its_deadline_and_one_of_a_half_closed_client_are_not_moved() {
        let snapshot = snapshot();
        let (late, _lease) = waiting(&snapshot);
        let (half_closed, _other_lease) = waiting(&snapshot);
        assert!(late.on_timer(at(30_000)));
        half_closed.input_ended();
        take_out(&snapshot, at(30_000));
        assert!(late.on_timer(at(30_500)) && half_closed.on_timer(at(29_999)));
        assert_eq!(tokens(&snapshot), 1);
        assert_eq!(half_closed.close_reason(), None);
        assert_eq!(late.next_deadline(), at(31_000), "and no check remains");
    }
}
