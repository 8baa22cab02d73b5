//! The deadline for the headers of a backend's response.

use std::time::Duration;

use crate::exchange::Exchange;
use crate::time::Timestamp;

/// Up to this much of a request may still be unsent when all of it has been read from the client.
const UNSENT_MAX: u64 = 64 * 1024;

impl Exchange {
    /// The deadline for the complete headers of the response, if the last part of the request was
    /// sent at `now`. It is a deadline and not a read timeout, so that a byte now and then cannot
    /// extend it.
    ///
    /// A long request gets twice the time: the part that was read from the client is still being
    /// sent, and the backend may take as long for each piece as for its response.
    #[must_use]
    pub fn head_by(&self, now: Timestamp) -> Timestamp {
        if self.has_response() {
            return self.deadline;
        }
        let pool = self.current_pool(&self.snapshot);
        let timeout = pool.map_or(Duration::ZERO, |pool| pool.timeouts.response);
        let times = if self.body_bytes > UNSENT_MAX { 2 } else { 1 };
        self.deadline.min(now + timeout * times)
    }

    /// Whether the headers of a response for the client have arrived.
    #[must_use]
    pub fn has_response(&self) -> bool {
        self.first_byte.is_some()
    }
}
