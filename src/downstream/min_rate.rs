//! Whether a client sends its body, and takes its answer, fast enough.

use std::task::Poll;

use super::connection_state::{Direction, Line};
use crate::clock::Clock;
use crate::policy::transfer_rate::{MinTransferRate, StallBudget};

/// The two directions of one connection.
pub(crate) struct Pacing {
    pace: MinTransferRate,
    clock: Clock,
    /// The request that patience is had with.
    request: u64,
    reading: StallBudget,
    writing: StallBudget,
}

impl Pacing {
    pub(crate) fn new(pace: MinTransferRate, clock: Clock) -> Self {
        let (reading, writing) = (StallBudget::new(pace), StallBudget::new(pace));
        Self { pace, clock, request: 0, reading, writing }
    }

    /// Something was asked of the client, or offered to it: so many bytes moved, if any did.
    pub(crate) fn moved(&mut self, line: &Line, direction: Direction, polled: Poll<usize>) {
        if self.request != line.served() {
            // Each request begins with all of it.
            (self.request, self.reading) = (line.served(), StallBudget::new(self.pace));
            self.writing = self.reading;
        }
        let now = self.clock.now();
        if direction == Direction::Write && polled.is_pending() {
            // Until the client takes it, nobody reads what it may have sent.
            self.reading.on_transfer(0, now);
            line.slow_at(Direction::Read, None);
        }
        let patience = match direction {
            Direction::Read => &mut self.reading,
            Direction::Write => &mut self.writing,
        };
        line.slow_at(
            direction,
            match polled {
                Poll::Pending => Some(patience.wait(now)),
                Poll::Ready(bytes) => {
                    patience.on_transfer(u64::try_from(bytes).unwrap_or(u64::MAX), now);
                    None
                }
            },
        );
    }
}
