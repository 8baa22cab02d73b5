//! The requests that wait for a place at a backend of a pool.
//!
//! After a place was released, [`Waiters::dispatch`] is called. Under the lock of the queue it asks the
//! waiting requests in order whether they can use a free place. What one takes is put into its slot. A
//! request leaves under the same lock, and takes what was put into its slot meanwhile, so that it can pass
//! the place on.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;

use crate::policy::wait_queue::{
    Offer, QueueOrder, QueueParams, QueueRefusal, QueueTicket, WaitQueue,
};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::atomic::{AtomicU64, AtomicUsize, fence};
use crate::time::Timestamp;

/// Takes a place that this request can use, if there is one.
pub type TakePlace<G> = Box<dyn Fn(Timestamp) -> Option<G> + Send>;

/// A request that wants to wait.
pub struct Applicant<G> {
    /// Takes a place for it.
    pub take: TakePlace<G>,
    /// Requests of the same class can use the same places: if there is none for one of them, there is none
    /// for the others. `None`: it can be asked only by itself. Below 8.
    pub class: Option<u8>,
    /// It cannot be served at or after this time.
    pub deadline: Timestamp,
}

/// The requests that wait, and what they wait for: a `G`.
pub struct Waiters<G> {
    order: QueueOrder,
    queue: Mutex<WaitQueue<WaitingRequest<G>>>,
    /// How many wait, readable without the lock.
    waiting: AtomicUsize,
    /// The latest time seen, in nanoseconds. A request that is dropped knows only an earlier one.
    latest_ns: AtomicU64,
}

struct WaitingRequest<G> {
    take: TakePlace<G>,
    class: Option<u8>,
    slot: Arc<PlaceSlot<G>>,
}

/// Where a waiting request finds its place.
struct PlaceSlot<G>(Mutex<PlaceSlotState<G>>);

struct PlaceSlotState<G> {
    outcome: Option<Result<G, QueueRefusal>>,
    waker: Option<Waker>,
}

/// A request that waits. Before it is dropped, [`Waiters::leave`] must be called.
pub struct WaitHandle<G> {
    ticket: QueueTicket,
    slot: Arc<PlaceSlot<G>>,
    since: Timestamp,
    until: Timestamp,
}

type Wakers = SmallVec<[Waker; 2]>;

impl<G> WaitHandle<G> {
    /// Since when it waits.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Until when it waits at most.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Ready once its outcome is known.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.slot.0.lock();
        if state.outcome.is_some() {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<G> PlaceSlot<G> {
    fn put(&self, outcome: Result<G, QueueRefusal>) -> Option<Waker> {
        let mut state = self.0.lock();
        state.outcome = Some(outcome);
        state.waker.take()
    }
}

impl<G> Waiters<G> {
    /// None waits.
    #[must_use]
    pub fn new(params: QueueParams) -> Self {
        Self {
            order: params.order,
            queue: Mutex::new(WaitQueue::new(params)),
            waiting: AtomicUsize::new(0),
            latest_ns: AtomicU64::new(0),
        }
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Whether a request that comes now has to wait behind others even if there is a free place.
    #[must_use]
    pub fn must_wait(&self, now: Timestamp) -> bool {
        self.waiting() > 0
            && match self.order {
                QueueOrder::Lifo => false,
                QueueOrder::Fifo => true,
                QueueOrder::CoDel => self.queue.lock().serves_oldest(now),
            }
    }

    /// Adds a request. If there is a place that it can use by now, it has it at once.
    ///
    /// # Errors
    /// Why it cannot wait.
    pub fn enter(
        &self,
        applicant: Applicant<G>,
        now: Timestamp,
    ) -> Result<WaitHandle<G>, QueueRefusal> {
        let now = self.latest(now);
        let slot = Arc::new(PlaceSlot(Mutex::new(PlaceSlotState { outcome: None, waker: None })));
        let Applicant { take, class, deadline } = applicant;
        let waiter = WaitingRequest { take, class, slot: Arc::clone(&slot) };
        let mut wakers = Wakers::new();
        let pushed = {
            let mut queue = self.queue.lock();
            while queue.is_full()
                && let Some(expired) = queue.expire(now)
            {
                wakers.extend(expired.slot.put(Err(QueueRefusal::Timeout)));
            }
            let pushed = queue.push(waiter, deadline, now);
            self.waiting.store(queue.len(), Relaxed);
            if let Ok(pushed) = &pushed
                && let Some(evicted) = &pushed.evicted
            {
                wakers.extend(evicted.slot.put(Err(QueueRefusal::Evicted)));
            }
            pushed
        };
        wakers.into_iter().for_each(Waker::wake);
        let pushed = pushed.map_err(|(refusal, _)| refusal)?;
        // A place may have been released since this request looked for one.
        self.dispatch(now);
        Ok(WaitHandle { ticket: pushed.ticket, slot, since: now, until: pushed.until })
    }

    /// Hands out places for as long as a waiting request can use one. To be called after a place was
    /// released, or has become usable in another way.
    pub fn dispatch(&self, now: Timestamp) {
        // Either this thread sees the request that waits, or that request sees the place.
        fence(SeqCst);
        if self.waiting() == 0 {
            return;
        }
        let now = self.latest(now);
        let mut wakers = Wakers::new();
        {
            let mut queue = self.queue.lock();
            let mut without = 0_u8;
            let mut offer = |waiter: &WaitingRequest<G>| {
                let class = waiter.class.map_or(0, |class| 1_u8.wrapping_shl(class.into()));
                if without & class != 0 {
                    return Offer::Unfit;
                }
                match (waiter.take)(now) {
                    Some(grant) => Offer::Taken(grant),
                    None => {
                        without |= class;
                        Offer::Unfit
                    }
                }
            };
            while let Some((waiter, grant)) = queue.serve(now, &mut offer) {
                wakers.extend(waiter.slot.put(Ok(grant)));
            }
            self.waiting.store(queue.len(), Relaxed);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A request waits no longer. Returns its outcome if it is known; if it is a place, the caller uses it or
    /// releases it, and then calls [`Self::dispatch`].
    pub fn leave(
        &self,
        waiting: &WaitHandle<G>,
        now: Timestamp,
    ) -> Option<Result<G, QueueRefusal>> {
        let mut queue = self.queue.lock();
        drop(queue.leave(waiting.ticket, now));
        self.waiting.store(queue.len(), Relaxed);
        waiting.slot.0.lock().outcome.take()
    }

    /// The later one of `now` and all times seen before.
    fn latest(&self, now: Timestamp) -> Timestamp {
        let before = self.latest_ns.fetch_max(now.as_nanos(), Relaxed);
        Timestamp::from_nanos(before.max(now.as_nanos()))
    }
}

impl<G> fmt::Debug for Waiters<G> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Waiters").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl<G> fmt::Debug for WaitHandle<G> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WaitHandle").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
