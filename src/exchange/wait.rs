//! By when a backend must have sent the headers of its response.

use std::time::Duration;

use crate::exchange::Exchange;
use crate::time::Timestamp;

/// More than this of a request may still be on its way when all of it has been read of the client.
const UNDER_WAY: u64 = 64 * 1024;

impl Exchange {
    /// By when the headers of the response must be there, all of them, if the last of the request was
    /// sent at `now`. A deadline and not a silence: a byte now and then must not stretch it.
    ///
    /// A long request gets twice the time. What was read of the client is then still being sent, and
    /// the backend may take each piece of it as slowly as it may respond.
    #[must_use]
    pub fn head_by(&self, now: Timestamp) -> Timestamp {
        if self.has_response() {
            return self.deadline;
        }
        let pool = self.pool_in(&self.snapshot);
        let patience = pool.map_or(Duration::ZERO, |pool| pool.timeouts.response);
        let times = if self.body_bytes > UNDER_WAY { 2 } else { 1 };
        self.deadline.min(now + patience * times)
    }

    /// Whether the headers of a response have come that goes to the client.
    #[must_use]
    pub fn has_response(&self) -> bool {
        self.first_byte.is_some()
    }
}
