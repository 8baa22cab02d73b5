//! The circuit breaker of a pool as typed.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::problem::{Origin, Spanned};
use super::super::read::{Bounds, List, section, whole};
use super::super::terms::FailureSet;
use super::super::value::{CountedFailure, Percent, TimesOrOff, secs};
use crate::policy::breaker::History;

section! {
    /// Circuit breaker. It judges every attempt, retried ones too, and compares each backend with the others of
    /// its pool. A backend that fails more than they do gets no requests for a while. Then single requests
    /// that can be retried elsewhere show whether it works again; a health check that passes does not bring
    /// it back. If all backends fail alike, always or at the same rate, it takes none of them out for long, and
    /// never the last one that can get requests. Weir's own rejections and clients that disconnect or stall do not
    /// count. OPERATIONS.md has a section "When backends fail".
    RawBreaker at "pools[].breaker"
        means [Eq] Breaker { on: FailureSet };

    combined {
        /// Failures that count. `connect`: no connection, or a failed TLS handshake. `reset`: the connection
        /// broke before the response. `timeout`: no response in time. `cut`: the response was aborted after its
        /// headers. A number or a range: the status of the response, 400 to 599. A request that an HTTP/2 backend
        /// refuses unprocessed does not count.
        on: List<CountedFailure> = default(CountedFailure::usual()), "[connect, reset, timeout, 500, 502-504]";
    }

    /// Consecutive failures that take a backend out. The more the pool's median backend fails, the more are
    /// needed: 4 if it failed in 2% of its last attempts, 6 in 10%, 12 in 30%. A refused connection is enough.
    failures: NonZeroU32 [whole(1, 50)] = default(3), "5";
    /// Share of failures among the last `attempts` that takes a backend out, if chance does not explain it at
    /// the rate of the pool's median backend. Half of `attempts` are enough to judge.
    share: Percent [whole(1, 100)] = default(Percent(30)), "50%";
    /// Number of attempts that `share` is taken of.
    attempts: NonZeroU32 [whole(2, ATTEMPTS_MAX)] = default(20), "50";
    /// How many times slower than those of the pool's median backend the response headers of a backend may be.
    /// One that is slower, and by at least 50ms, in half of its last `attempts` (half of `attempts` are enough)
    /// is taken out; so is one that does not respond at all for that long while `failures` requests wait, nor to
    /// one more request. Slow responses of the others raise both. Requests that wait for a silent backend when it
    /// is taken out, and slow trials, are moved to another backend: see `retry`. Requests with a body are not
    /// measured. `off`: latency does not matter.
    slower: TimesOrOff [whole(2, 100)] = default(TimesOrOff::Times(5)), "10x";
    /// How long a backend gets no requests at first, with a jitter of 20%. Twice as long for one that is slow or
    /// aborts its responses. Each time that it is taken out again soon after a return doubles it.
    open: Duration [Bounds::NotZero("an open time of 0 would take no backend out")] = default(secs(1)), "5s";
    /// The longest such time, before the jitter of up to 20%. Not shorter than `open`. A shorter one also applies
    /// to backends that are out at a reload.
    open_max: Duration [Bounds::NotZero("an open time of 0 would take no backend out")] = default(secs(5 * 60)), "1m";
    /// Number of trial requests at the same time, once that time is over.
    trials: NonZeroU32 [whole(1, 100)] = default(1), "2";
    /// Consecutive successful trials after which the backend gets its share of requests again.
    successes: NonZeroU32 [whole(1, 100)] = default(3), "5";
    /// Share of the pool's backends that the breaker may take out at the same time: at least one, never the
    /// last one that can get requests. Backends that refuse connections are not limited by it; those whose health
    /// checks fail do not use it up.
    out_max: Percent [whole(1, 100)] = default(Percent(50)), "30%";
    /// Only logs and counts what the breaker would do, and takes no backend out.
    shadow: bool = default(false), "true";
}

impl RawBreaker {
    /// The default of a pool.
    pub(in super::super) fn usual() -> Self {
        let failures = Self::default().failures();
        Self { failures: Some(Spanned { at: Origin::START, value: failures }), ..Self::default() }
    }
}

/// As many results of a backend are kept.
const ATTEMPTS_MAX: u64 = 63;
const _: () = assert!(History::LEN_MAX == 63, "the range of `attempts` is what a history has");
