//! Retries of a pool as typed.

use std::num::NonZeroU8;
use std::time::Duration;

use http::Method;

use super::super::limits;
use super::super::problem::{Origin, Spanned};
use super::super::read::{Bounds, List, OffOr, section, whole};
use super::super::terms::RetryOn;
use super::super::value::{DurationOrOff, Failure, Percent, secs};

section! {
    /// When a failed request is retried. A request of which anything was sent is retried only if its method
    /// is idempotent or one of `methods`, or if the backend says that it did not process it, so a `POST` never
    /// runs twice. If a retry is not allowed, or no backend is left to try, the client gets the last response. A
    /// backend that responds 429 or 503 with `Retry-After` (in seconds) is not asked again before that time.
    ///
    /// A request is retried before any timeout (it is moved) if the circuit breaker has taken its backend out, the
    /// backend has been silent, and the request has waited for the time of `breaker.slower`. Only requests
    /// without a body that can be sent twice, only with `timeout` in `on` (a trial is moved in any case), only while
    /// another backend responds, and only with a token of `budget`; otherwise the request waits on.
    RawRetry at "pools[].retry"
        means [Eq] Retry { on: RetryOn };

    combined {
        /// Failures that are retried. `connect`: the TCP connection or TLS handshake failed, or the backend
        /// refused the request unprocessed. `reset`: the connection broke before the response. `timeout`: there
        /// was no response in time, or the request was moved away from a silent backend. A number: the status of the response, 429 or 500 to 599.
        on: List<Failure> = default(Failure::usual()), "[connect, 503]";
    }

    /// Maximum number of attempts, the first one included. `1` disables retries.
    attempts: NonZeroU8 [whole(1, 16)] = default(3), "2";
    /// Maximum wait before a request goes to a backend that already failed it. It doubles with each such
    /// attempt, up to 10s; the actual wait is a random part of it. A backend that was not tried yet is tried
    /// without a wait.
    backoff: Duration [Bounds::AtMost(limits::BACKOFF_MAX)] = default(Duration::from_millis(50)), "100ms";
    /// Time limit for one attempt: from the pick of the backend to the response headers. Then another backend is
    /// tried. Only for requests without a body that can be sent twice, only with backends of HTTP/1.1, and not
    /// for the last attempt, which has `timeouts.response`. Needs `timeout` in `on`. A response in time is never
    /// cut off. `off`: each attempt has `timeouts.response`.
    try_timeout: DurationOrOff [Bounds::NotZero("a timeout of 0 would fail every first attempt")] = default(DurationOrOff::Off), "500ms";
    /// Further methods that are retried like idempotent ones (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT,
    /// DELETE). A request with such a method may run twice: only list a method that your application makes
    /// safe, such as a POST with an idempotency key.
    methods: List<Method> = default(List::empty()), "[POST]";
    /// Limits the retries of all clients together. `off`: no limit.
    budget: OffOr<RawRetryBudget> = default(OffOr::Value(RawRetryBudget::usual())), "{share: 50%}";
}

section! {
    /// Budget for retries that do not help. A retry takes a token; one that gets a response without a failure
    /// returns it. Each response without a failure earns `share` of a token. So retries stop when all
    /// backends fail, and do not multiply their load. A retry after a failed connection needs no token, because
    /// nothing was sent. Without a token the client gets the response of the last attempt, or its error.
    RawRetryBudget at "pools[].retry.budget"
        means [Copy, Eq] RetryBudget;

    /// What a response without a failure earns, as a share of a retry.
    share: Percent [whole(0, 100)] = default(Percent(20)), "50%";
    /// Number of tokens that a pool without traffic has.
    floor: u32 [whole(0, 1_000_000)] = default(10_u32), "3";
    /// How long it takes to refill `floor`. Tokens beyond `floor` last for half of this time on average.
    window: Duration [Bounds::NotZero("a window of 0 would refill the budget without a pause")] = default(secs(10)), "30s";
}

impl RawRetryBudget {
    /// The default of a pool.
    fn usual() -> Self {
        let share = Spanned { at: Origin::START, value: Self::default().share() };
        Self { share: Some(share), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::Bounds;

    #[test]
    fn the_range_of_attempts_ends_where_a_worker_stops_to_retry() {
        let bounds = RawRetry::SECTION.key("attempts").unwrap().bounds;
        let last = u64::from(limits::ATTEMPTS_MAX);
        assert!(matches!(bounds, Bounds::Whole { last: bound, .. } if bound == last), "{bounds:?}");
    }
}
