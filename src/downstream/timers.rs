//! Runs the service of a client connection together with the deadlines of the connection.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::connection_state::ConnectionState;
use crate::clock::Clock;
use crate::time::Timestamp;

/// As long as the longest timeout, and short enough for every timer.
const TIMER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs `serving` until it ends, or until the connection has to be closed by force.
pub(crate) async fn run_with_timers(
    serving: impl Future<Output = ()>,
    state: &ConnectionState,
    clock: Clock,
) -> Finish {
    let mut serving = pin!(serving);
    let mut timer =
        DeadlineTimer { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), at: None, clock };
    poll_fn(|context| {
        state.register(context.waker());
        loop {
            // A future that panicked must not be polled again.
            match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context))) {
                Ok(Poll::Ready(())) => return Poll::Ready(Finish::Completed),
                Ok(Poll::Pending) => {}
                Err(_logged) => return Poll::Ready(Finish::Panicked),
            }
            state.cork.pull();
            match timer.poll_due(state, context) {
                TimerPoll::Wait => return Poll::Pending,
                TimerPoll::Closing => {}
                TimerPoll::ForceClose => return Poll::Ready(Finish::ForceClosed),
            }
        }
    })
    .await
}

/// How the service of a connection ended.
pub(crate) enum Finish {
    /// The service ended by itself.
    Completed,
    /// The service did not end within the grace period of a reason to close.
    ForceClosed,
    /// The service panicked, which has been logged.
    Panicked,
}

/// The result of polling the timer.
enum TimerPoll {
    /// No deadline has passed.
    Wait,
    /// There is a reason to close. The service is polled again, and reads it from its stream.
    Closing,
    /// The grace period is over.
    ForceClose,
}

/// A timer for the next deadline of the connection.
///
/// It is only set to an earlier time, and set again if it fires too early. Setting a timer is what
/// costs, and most requests end without touching it.
struct DeadlineTimer {
    sleep: Pin<Box<Sleep>>,
    at: Option<Timestamp>,
    clock: Clock,
}

impl DeadlineTimer {
    fn poll_due(&mut self, state: &ConnectionState, context: &mut Context<'_>) -> TimerPoll {
        loop {
            if self.at.is_none_or(|at| state.next_deadline() < at) {
                self.set(state.next_deadline());
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return TimerPoll::Wait;
            }
            self.at = None;
            let now = self.clock.now();
            if state.next_deadline() <= now {
                return if state.on_timer(now) {
                    TimerPoll::Closing
                } else {
                    TimerPoll::ForceClose
                };
            }
        }
    }

    fn set(&mut self, due: Timestamp) {
        let at = due.min(self.clock.now() + TIMER_MAX);
        self.at = Some(at);
        self.sleep.as_mut().reset(self.clock.instant(at).into());
    }
}
