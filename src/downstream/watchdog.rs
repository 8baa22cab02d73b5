//! The alarm of a line: it rings when a request or a silence has taken too long.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::connection_state::Line;
use crate::clock::Clock;
use crate::time::Timestamp;

/// Far enough for any timeout, near enough for every timer.
const ALARM_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs `serving` until it ends, or until the line has to be cut.
pub(crate) async fn watched(serving: impl Future<Output = ()>, line: &Line, clock: Clock) -> Ended {
    let mut serving = pin!(serving);
    let mut alarm = Alarm { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), at: None, clock };
    poll_fn(|context| {
        line.register(context.waker());
        loop {
            // Whatever panicked is never polled again.
            match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(context))) {
                Ok(Poll::Ready(())) => return Poll::Ready(Ended::ByItself),
                Ok(Poll::Pending) => {}
                Err(_logged) => return Poll::Ready(Ended::Panicked),
            }
            line.cork.pull();
            match alarm.attend(line, context) {
                Attended::Wait => return Poll::Pending,
                Attended::Verdict => {}
                Attended::Cut => return Poll::Ready(Ended::Cut),
            }
        }
    })
    .await
}

/// How the service of a connection ended.
pub(crate) enum Ended {
    /// It was over.
    ByItself,
    /// It did not hear the line's verdict in time.
    Cut,
    /// By a panic, which is logged already.
    Panicked,
}

/// What has come of a look at the line.
enum Attended {
    /// Nothing is due.
    Wait,
    /// The line has a verdict: the stream must be read to hear of it.
    Verdict,
    /// The verdict was not heard in time.
    Cut,
}

/// Rings when the line may be due.
///
/// It is only ever set to an earlier time, and set anew when it rings too early: most requests
/// end without touching it, and setting it is what costs.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Option<Timestamp>,
    clock: Clock,
}

impl Alarm {
    fn attend(&mut self, line: &Line, context: &mut Context<'_>) -> Attended {
        loop {
            if self.at.is_none_or(|at| line.due() < at) {
                self.set(line.due());
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return Attended::Wait;
            }
            self.at = None;
            let now = self.clock.now();
            if line.due() <= now {
                return if line.check(now) { Attended::Verdict } else { Attended::Cut };
            }
        }
    }

    fn set(&mut self, due: Timestamp) {
        let at = due.min(self.clock.now() + ALARM_MAX);
        self.at = Some(at);
        self.sleep.as_mut().reset(self.clock.instant(at).into());
    }
}
