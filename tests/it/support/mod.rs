//! What every integration test needs: addresses of its own, a client that sees each byte,
//! backends that misbehave on purpose, and the real binary.
//!
//! Nothing here sleeps for a fixed time. A test waits for a condition with a deadline
//! ([`eventually`]); a deadline that passes fails the test and says what did not happen.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test, which is what a panic does"
)]
#![expect(dead_code, reason = "a tool box: not every tool is in use at all times")]

pub(crate) mod backend;
pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod configs;
pub(crate) mod dns;
pub(crate) mod h2;
pub(crate) mod http2;
pub(crate) mod load_generator;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod mixed_clients;
pub(crate) mod names;
pub(crate) mod networks;
pub(crate) mod origin;
pub(crate) mod ports;
pub(crate) mod replace;
pub(crate) mod tls;
pub(crate) mod tls_front;
pub(crate) mod weir;

mod tests;

use std::time::{Duration, Instant};

/// The longest wait for anything: generous, because the machine may be busy.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// How often [`eventually`] checks its condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The time.
#[expect(clippy::disallowed_methods, reason = "tests watch real processes, which run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` holds; fails the test if it does not within `deadline`.
#[track_caller]
pub(crate) fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Waits until `condition` gives a value; fails the test if it does not within `deadline`.
#[track_caller]
pub(crate) fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    condition: impl FnMut() -> Option<T>,
) -> T {
    within(deadline, condition).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// Waits until `condition` gives a value, at most until `deadline`.
pub(crate) fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if now() >= end {
            return None;
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that sleeps: between checks")]
        std::thread::sleep(POLL_INTERVAL);
    }
}
