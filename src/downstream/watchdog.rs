//! The alarm of a line: it rings when a request or a silence has taken too long.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::connection_state::ConnectionState;
use crate::clock::Clock;
use crate::time::Timestamp;

/// Far enough for any timeout, near enough for every timer.
const TIMER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs `serving` until it ends, or until the line has to be cut.
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
            // Whatever panicked is never polled again.
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
    /// It was over.
    Completed,
    /// It did not hear the line's verdict in time.
    ForceClosed,
    /// By a panic, which is logged already.
    Panicked,
}

/// What has come of a look at the line.
enum TimerPoll {
    /// Nothing is due.
    Wait,
    /// The line has a verdict: the stream must be read to hear of it.
    Closing,
    /// The verdict was not heard in time.
    ForceClose,
}

/// Rings when the line may be due.
///
/// It is only ever set to an earlier time, and set anew when it rings too early: most requests
/// end without touching it, and setting it is what costs.
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
