//! The queue of a pool as typed.

use std::time::Duration;

use super::super::read::{Bounds, Keyword, KeywordValue, section, whole};
use crate::policy::wait_queue::QueueOrder;

section! {
    /// Requests that wait for a place at a backend with `max_requests`. A request whose client leaves, leaves
    /// the queue. No request is served after its own deadline (`timeouts.request`). What cannot be served in
    /// time gets 503 with `Retry-After`. OPERATIONS.md has a section "Overload".
    RawQueue at "pools[].queue"
        means [Copy, Eq] RequestQueue;

    /// Maximum number of requests that wait. `0`: none waits.
    length: usize [whole(0, 65_536)] = default(0_usize), "40";
    /// How long a request waits at most. Then it gets 503.
    timeout: Duration [Bounds::NotZero("with a timeout of 0 no request could wait")] = default(Duration::from_millis(100)), "50ms";
    /// Which request is served next. `lifo`: the newest; when the queue is full, the oldest gets 503. Under
    /// overload nearly every request that is served has waited only a moment. `fifo`: the oldest; when the
    /// queue is full, or the wait would exceed the time limit at the rate seen so far, a new request gets 503
    /// at once. `codel`: the oldest while the queue empties now and then; once it has not been empty for
    /// `timeout`, the newest, and none waits longer than 5ms.
    order: KeywordValue<QueueOrder> = default(QueueOrder::Lifo), "fifo";
}

impl Keyword for QueueOrder {
    const NOUN: &'static str = "an order of a queue";
    const WORDS: &'static [(&'static str, Self)] =
        &[("lifo", Self::Lifo), ("fifo", Self::Fifo), ("codel", Self::CoDel)];
}
