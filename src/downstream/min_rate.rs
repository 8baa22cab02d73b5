//! Whether a client sends its body, and takes its answer, fast enough.

use std::task::Poll;

use super::connection_state::{ConnectionState, Direction};
use crate::clock::Clock;
use crate::policy::transfer_rate::{MinTransferRate, StallBudget};

/// The two directions of one connection.
pub(crate) struct MinRateGuard {
    rate: MinTransferRate,
    clock: Clock,
    /// The request that patience is had with.
    request: u64,
    reading: StallBudget,
    writing: StallBudget,
}

impl MinRateGuard {
    pub(crate) fn new(rate: MinTransferRate, clock: Clock) -> Self {
        let (reading, writing) = (StallBudget::new(rate), StallBudget::new(rate));
        Self { rate, clock, request: 0, reading, writing }
    }

    /// Something was asked of the client, or offered to it: so many bytes moved, if any did.
    pub(crate) fn on_transfer(
        &mut self,
        state: &ConnectionState,
        direction: Direction,
        polled: Poll<usize>,
    ) {
        if self.request != state.requests_served() {
            // Each request begins with all of it.
            (self.request, self.reading) = (state.requests_served(), StallBudget::new(self.rate));
            self.writing = self.reading;
        }
        let now = self.clock.now();
        if direction == Direction::Write && polled.is_pending() {
            // Until the client takes it, nobody reads what it may have sent.
            self.reading.on_transfer(0, now);
            state.set_stall_deadline(Direction::Read, None);
        }
        let patience = match direction {
            Direction::Read => &mut self.reading,
            Direction::Write => &mut self.writing,
        };
        state.set_stall_deadline(
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
