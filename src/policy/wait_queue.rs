//! Requests that wait for a place at a backend: who is served next, and who is refused.
//!
//! In a queue that is served in order, under overload each request waits as long as it may, and is then
//! served just before its client gives up, or just after. So the default order is the newest first: most
//! requests that are served have waited only a moment, and the others are refused.
//!
//! `codel` changes between the two, as described in "Fail at Scale" (B. Maurer, ACM Queue 13(8), 2015):
//! in order, with a long time limit, while the queue empties now and then; newest first, with a time
//! limit of a few milliseconds, once it has not been empty for the long limit. The time limit is that
//! paper's controlled delay, after CoDel (RFC 8289).

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::{Timestamp, nanos};

/// The time limit of `codel` while the queue does not empty.
pub const CODEL_TARGET: Duration = Duration::from_millis(5);

/// A new interval between two served requests counts for this part of the average.
const SMOOTHING: u64 = 8;

/// Which request is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueOrder {
    /// The newest.
    Lifo,
    /// The oldest.
    Fifo,
    /// The oldest while the queue empties now and then, else the newest.
    CoDel,
}

/// The limits of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueParams {
    /// How many requests wait at most.
    pub length: usize,
    /// How long a request waits at most.
    pub timeout: Duration,
    /// Which one is served next.
    pub order: QueueOrder,
}

/// Why a request that wanted to wait is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueRefusal {
    /// The queue is full.
    Full,
    /// A newer request took its position in a full queue.
    Evicted,
    /// It would have to wait too long, at the rate at which requests were served.
    Expected,
    /// It has waited as long as it may.
    Timeout,
}

impl QueueRefusal {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Full, Self::Evicted, Self::Expected, Self::Timeout];

    /// The metric's label, and the detail in the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Evicted => "evicted",
            Self::Expected => "expected",
            Self::Timeout => "timeout",
        }
    }
}

/// Identifies a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueTicket(u64);

/// A request that was added to the queue.
#[derive(Debug)]
pub struct Pushed<T> {
    /// Identifies it.
    pub ticket: QueueTicket,
    /// Until when it waits at most.
    pub until: Timestamp,
    /// The request that had to leave the full queue.
    pub evicted: Option<T>,
}

/// What becomes of a place that a waiting request was offered.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer<G> {
    /// The request takes it.
    Taken(G),
    /// There is none that it can use; perhaps the next one can.
    Unfit,
}

/// Requests that wait.
#[derive(Debug)]
pub struct WaitQueue<T> {
    params: QueueParams,
    /// The oldest first, so in the order of tickets.
    waiting: VecDeque<QueueEntry<T>>,
    next: u64,
    /// When it was empty for the last time. If the last request left it without a place, that does not
    /// count, unless none came for as long as a request waits at most.
    last_empty: Timestamp,
    /// When the last request left it.
    vacated: Timestamp,
    pace: Pace,
}

#[derive(Debug)]
struct QueueEntry<T> {
    ticket: QueueTicket,
    until: Timestamp,
    item: T,
}

/// How fast requests are served while there is one to serve.
#[derive(Debug, Default)]
struct Pace {
    /// When one was served for the last time, or the queue was empty before.
    since: Timestamp,
    /// The average time from one to the next, in nanoseconds.
    interval_ns: Option<u64>,
}

impl Pace {
    fn served(&mut self, now: Timestamp) {
        let sample = nanos(now.since(self.since));
        self.since = now;
        self.interval_ns = Some(match self.interval_ns {
            None => sample,
            Some(before) => (before * (SMOOTHING - 1)).saturating_add(sample) / SMOOTHING,
        });
    }

    /// The time until `position` further requests have been served.
    fn wait(&self, position: usize, now: Timestamp) -> Duration {
        let position = u64::try_from(position).unwrap_or(u64::MAX);
        let total = self.interval_ns.unwrap_or(0).saturating_mul(position);
        Duration::from_nanos(total).saturating_sub(now.since(self.since))
    }
}

impl<T> WaitQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(params: QueueParams) -> Self {
        Self {
            params,
            waiting: VecDeque::new(),
            next: 0,
            last_empty: Timestamp::ZERO,
            vacated: Timestamp::ZERO,
            pace: Pace::default(),
        }
    }

    /// The number of requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the oldest is served next.
    #[must_use]
    pub fn serves_oldest(&self, now: Timestamp) -> bool {
        match self.params.order {
            QueueOrder::Lifo => false,
            QueueOrder::Fifo => true,
            QueueOrder::CoDel => !self.is_congested(now),
        }
    }

    /// Whether it has not been empty for as long as a request waits at most.
    fn is_congested(&self, now: Timestamp) -> bool {
        now.since(self.last_empty) > self.params.timeout
    }

    /// Adds a request that cannot be served at or after `deadline`. Call [`Self::expire`] before, so that no
    /// request is refused for others that cannot be served.
    ///
    /// # Errors
    /// Why it is refused, and the request.
    pub fn push(
        &mut self,
        item: T,
        deadline: Timestamp,
        now: Timestamp,
    ) -> Result<Pushed<T>, (QueueRefusal, T)> {
        if self.is_empty() {
            if now.since(self.vacated) > self.params.timeout {
                self.last_empty = now;
            }
            self.pace.since = now;
        }
        let is_congested = self.params.order == QueueOrder::CoDel && self.is_congested(now);
        let limit = if is_congested { CODEL_TARGET } else { self.params.timeout };
        let until = deadline.min(now + limit.min(self.params.timeout));
        let in_order = self.serves_oldest(now);
        // Where it stands when it is added. The newest of all is served next, whatever comes later.
        let (position, latest) = if in_order { (self.len() + 1, until) } else { (1, deadline) };
        if !self.is_empty() && now + self.pace.wait(position, now) > latest {
            return Err((QueueRefusal::Expected, item));
        }
        let mut evicted = None;
        if self.len() >= self.params.length {
            if in_order || self.is_empty() {
                return Err((QueueRefusal::Full, item));
            }
            evicted = self.waiting.pop_front().map(|entry| entry.item);
        }
        let ticket = QueueTicket(self.next);
        self.next += 1;
        self.waiting.push_back(QueueEntry { ticket, until, item });
        Ok(Pushed { ticket, until, evicted })
    }

    /// Offers a place to one request after the other, in the order in which they are served, until one
    /// takes it. Those whose time is over are passed over.
    pub fn serve<G>(
        &mut self,
        now: Timestamp,
        mut offer: impl FnMut(&T) -> Offer<G>,
    ) -> Option<(T, G)> {
        let count = self.len();
        let in_order = self.serves_oldest(now);
        for turn in 0..count {
            let position = if in_order { turn } else { count - 1 - turn };
            let Some(entry) = self.waiting.get(position).filter(|entry| now < entry.until) else {
                continue;
            };
            if let Offer::Taken(grant) = offer(&entry.item) {
                let served = self.remove(position, now)?;
                self.pace.served(now);
                if self.is_empty() {
                    self.last_empty = now;
                }
                return Some((served, grant));
            }
        }
        None
    }

    /// Removes a request that no longer waits; `None` if it has left the queue before.
    pub fn leave(&mut self, ticket: QueueTicket, now: Timestamp) -> Option<T> {
        let position = self.waiting.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?;
        self.remove(position, now)
    }

    /// Removes one request whose time is over.
    pub fn expire(&mut self, now: Timestamp) -> Option<T> {
        let position = self.waiting.iter().position(|entry| entry.until <= now)?;
        self.remove(position, now)
    }

    /// Whether a request that comes now could not be added without the removal of another one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= self.params.length
    }

    fn remove(&mut self, position: usize, now: Timestamp) -> Option<T> {
        let entry = self.waiting.remove(position)?;
        if self.is_empty() {
            self.vacated = now;
        }
        Some(entry.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(order: QueueOrder, length: usize) -> WaitQueue<u32> {
        WaitQueue::new(QueueParams { length, timeout: Duration::from_millis(100), order })
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    fn push(queue: &mut WaitQueue<u32>, item: u32, ms: u64) -> Result<Option<u32>, QueueRefusal> {
        let pushed = queue.push(item, Timestamp::MAX, at(ms));
        pushed.map(|pushed| pushed.evicted).map_err(|(refusal, _)| refusal)
    }

    fn serve(queue: &mut WaitQueue<u32>, ms: u64) -> Option<u32> {
        queue.serve(at(ms), |_| Offer::Taken(())).map(|(item, ())| item)
    }

    #[test]
    fn lifo_serves_the_newest_and_refuses_the_oldest() {
        let mut queue = queue(QueueOrder::Lifo, 2);
        assert_eq!(push(&mut queue, 1, 0), Ok(None));
        assert_eq!(push(&mut queue, 2, 1), Ok(None));
        assert_eq!(push(&mut queue, 3, 2), Ok(Some(1)), "the oldest had to leave");
        assert_eq!(serve(&mut queue, 3), Some(3));
        assert_eq!(serve(&mut queue, 3), Some(2));
        assert_eq!(serve(&mut queue, 3), None);
    }

    #[test]
    fn fifo_serves_the_oldest_and_refuses_the_newest() {
        let mut queue = queue(QueueOrder::Fifo, 2);
        assert_eq!(push(&mut queue, 1, 0), Ok(None));
        assert_eq!(push(&mut queue, 2, 1), Ok(None));
        assert_eq!(push(&mut queue, 3, 2), Err(QueueRefusal::Full));
        assert_eq!((serve(&mut queue, 3), serve(&mut queue, 3)), (Some(1), Some(2)));
    }

    #[test]
    fn fifo_refuses_at_once_what_would_wait_too_long() {
        let mut queue = queue(QueueOrder::Fifo, 100);
        for item in 0..5 {
            assert_eq!(push(&mut queue, item, 0), Ok(None), "nothing is known of the rate");
        }
        // One is served each 30 ms.
        assert_eq!(serve(&mut queue, 30), Some(0));
        assert_eq!(serve(&mut queue, 60), Some(1));
        assert_eq!(serve(&mut queue, 90), Some(2));
        assert_eq!(push(&mut queue, 5, 90), Ok(None), "the third one waits 90 ms");
        assert_eq!(push(&mut queue, 6, 90), Err(QueueRefusal::Expected), "the fourth one 120 ms");
    }

    #[test]
    fn after_a_slow_time_requests_wait_again() {
        let mut queue = queue(QueueOrder::Fifo, 100);
        push(&mut queue, 0, 0).unwrap();
        push(&mut queue, 1, 0).unwrap();
        assert_eq!(serve(&mut queue, 99), Some(0));
        assert_eq!(push(&mut queue, 2, 99), Err(QueueRefusal::Expected));
        queue.expire(at(100));
        for round in 0..30 {
            let now = 1000 + 10 * round;
            assert_eq!(push(&mut queue, 1, now), Ok(None), "an empty queue admits");
            assert_eq!(serve(&mut queue, now + 1), Some(1));
        }
        push(&mut queue, 0, 2000).unwrap();
        assert_eq!(push(&mut queue, 1, 2000), Ok(None), "it has become faster");
    }

    #[test]
    fn codel_is_fifo_while_it_empties_and_else_serves_the_newest_within_milliseconds() {
        let mut queue = queue(QueueOrder::CoDel, 10);
        push(&mut queue, 0, 0).unwrap();
        push(&mut queue, 1, 1).unwrap();
        assert_eq!(serve(&mut queue, 50), Some(0));
        push(&mut queue, 2, 90).unwrap();
        let pushed = queue.push(3, Timestamp::MAX, at(101)).unwrap();
        assert_eq!(pushed.until, at(106), "not empty for more than 100 ms");
        assert_eq!(serve(&mut queue, 102), Some(3));
        assert_eq!(queue.expire(at(102)), Some(1));
        assert_eq!(serve(&mut queue, 103), Some(2));
        let pushed = queue.push(4, Timestamp::MAX, at(200)).unwrap();
        assert_eq!(pushed.until, at(300), "it was empty");
    }

    #[test]
    fn codel_stays_congested_if_the_last_request_gave_up() {
        let mut queue = queue(QueueOrder::CoDel, 10);
        push(&mut queue, 0, 0).unwrap();
        assert_eq!(queue.expire(at(150)), Some(0));
        let pushed = queue.push(1, Timestamp::MAX, at(151)).unwrap();
        assert_eq!(pushed.until, at(156));
        assert_eq!(queue.expire(at(156)), Some(1));
        let pushed = queue.push(2, Timestamp::MAX, at(300)).unwrap();
        assert_eq!(pushed.until, at(400), "nothing came for more than 100 ms");
    }

    #[test]
    fn no_request_is_served_after_its_deadline_or_the_time_limit() {
        for order in [QueueOrder::Lifo, QueueOrder::Fifo, QueueOrder::CoDel] {
            let mut queue = queue(order, 10);
            queue.push(1, at(20), at(0)).unwrap();
            push(&mut queue, 2, 0).unwrap();
            assert_eq!(serve(&mut queue, 20), Some(2), "{order:?}");
            assert_eq!(serve(&mut queue, 20), None);
            assert_eq!(
                (queue.len(), queue.expire(at(19)), queue.expire(at(20))),
                (1, None, Some(1))
            );
            push(&mut queue, 3, 30).unwrap();
            assert_eq!((serve(&mut queue, 130), queue.expire(at(130))), (None, Some(3)));
        }
    }

    #[test]
    fn a_deadline_before_the_next_place_is_refused_at_once() {
        for order in [QueueOrder::Lifo, QueueOrder::Fifo] {
            let mut queue = queue(order, 100);
            for item in 0..4 {
                push(&mut queue, item, 0).unwrap();
            }
            serve(&mut queue, 30);
            serve(&mut queue, 60);
            let refused = queue.push(9, at(80), at(60)).map_err(|(refusal, _)| refusal);
            assert_eq!(refused.map(|_| ()), Err(QueueRefusal::Expected), "{order:?}");
        }
    }

    #[test]
    fn a_place_that_one_cannot_use_goes_to_the_next() {
        let mut queue = queue(QueueOrder::Fifo, 10);
        (1..=3).for_each(|item| assert_eq!(push(&mut queue, item, 0), Ok(None)));
        let served = queue.serve(at(1), |item| match item {
            2 => Offer::Taken("place"),
            _ => Offer::Unfit,
        });
        assert_eq!(served, Some((2, "place")));
        assert_eq!((serve(&mut queue, 1), serve(&mut queue, 1)), (Some(1), Some(3)));
    }

    #[test]
    fn a_request_leaves_once() {
        let mut queue = queue(QueueOrder::Fifo, 10);
        let first = queue.push(1, Timestamp::MAX, at(0)).unwrap().ticket;
        let second = queue.push(2, Timestamp::MAX, at(0)).unwrap().ticket;
        assert_eq!(queue.leave(first, at(1)), Some(1));
        assert_eq!(queue.leave(first, at(1)), None);
        assert_eq!(serve(&mut queue, 1), Some(2));
        assert_eq!(queue.leave(second, at(1)), None);
    }

    #[test]
    fn without_a_length_none_waits() {
        for order in [QueueOrder::Lifo, QueueOrder::Fifo, QueueOrder::CoDel] {
            assert_eq!(push(&mut queue(order, 0), 1, 0), Err(QueueRefusal::Full));
        }
    }
}
