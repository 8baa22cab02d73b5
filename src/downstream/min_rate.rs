//! The minimum rate at which a client sends its body and reads its response.

use std::task::Poll;

use super::connection_state::{ConnectionState, Direction};
use crate::clock::Clock;
use crate::policy::transfer_rate::{MinTransferRate, StallBudget};

/// The stall budgets of both directions of a connection or stream.
pub(crate) struct MinRateGuard {
    rate: MinTransferRate,
    clock: Clock,
    /// The request that the budgets are for.
    request: u64,
    reading: StallBudget,
    writing: StallBudget,
}

impl MinRateGuard {
    pub(crate) fn new(rate: MinTransferRate, clock: Clock) -> Self {
        let (reading, writing) = (StallBudget::new(rate), StallBudget::new(rate));
        Self { rate, clock, request: 0, reading, writing }
    }

    /// A read or a write was polled: `Ready` with the bytes transferred, or `Pending`.
    pub(crate) fn on_transfer(
        &mut self,
        state: &ConnectionState,
        direction: Direction,
        polled: Poll<usize>,
    ) {
        if self.request != state.requests_served() {
            // Each request starts with full budgets.
            (self.request, self.reading) = (state.requests_served(), StallBudget::new(self.rate));
            self.writing = self.reading;
        }
        let now = self.clock.now();
        if direction == Direction::Write && polled.is_pending() {
            // Until the client reads, Weir does not read from it either.
            self.reading.on_transfer(0, now);
            state.set_stall_deadline(Direction::Read, None);
        }
        let budget = match direction {
            Direction::Read => &mut self.reading,
            Direction::Write => &mut self.writing,
        };
        state.set_stall_deadline(
            direction,
            match polled {
                Poll::Pending => Some(budget.wait(now)),
                Poll::Ready(bytes) => {
                    budget.on_transfer(u64::try_from(bytes).unwrap_or(u64::MAX), now);
                    None
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::downstream::connection_info::ConnectionInfo;
    use crate::downstream::connection_state::DownstreamTimeouts;
    use crate::time::Timestamp;

    #[test]
    fn a_client_that_has_to_read_first_is_not_late_with_its_body() {
        let end = "127.0.0.1:1".parse().unwrap();
        let grace = Duration::from_secs(60);
        let timeouts = DownstreamTimeouts {
            request_header: grace,
            keepalive_idle: grace,
            tunnel_drain: grace,
            max_requests: None,
        };
        let clock = Clock::process();
        let connection = Arc::new(ConnectionInfo::new(end, end));
        let state = ConnectionState::new(connection, timeouts, clock.now());
        let rate = MinTransferRate { bytes_per_second: NonZeroU64::MIN, grace };
        let mut guard = MinRateGuard::new(rate, clock);
        state.request_started(clock.now());
        state.set_deadline(Timestamp::MAX);
        guard.on_transfer(&state, Direction::Read, Poll::Pending);
        assert!(state.next_deadline() < Timestamp::MAX, "its body is waited for");
        guard.on_transfer(&state, Direction::Write, Poll::Pending);
        assert!(state.next_deadline() < Timestamp::MAX, "it has to read");
        guard.on_transfer(&state, Direction::Write, Poll::Ready(1));
        assert_eq!(state.next_deadline(), Timestamp::MAX, "nothing is waited for");
    }
}
