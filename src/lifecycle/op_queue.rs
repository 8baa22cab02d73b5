//! One long operation at a time; of each kind, one more may wait.
//!
//! A reload that waits reads the file when its turn comes, so one does for all that asked meanwhile.
//! An upgrade goes first: a reload that waits with it is done by the new image.

/// A long operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation<R> {
    /// Reads the file and starts a worker for it; these clients wait for the result.
    Reload(Vec<R>),
    /// Replaces the supervisor.
    Upgrade {
        /// The number of the check of its binary.
        check: u64,
    },
}

/// What waits for its turn.
#[derive(Debug)]
pub(super) struct OpQueue<R> {
    reload: bool,
    callers: Vec<R>,
    upgrade: bool,
    /// How many upgrades have started. Each begins with a check of the binary.
    checks: u64,
}

/// What may start now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    pub(super) reload: bool,
    pub(super) upgrade: bool,
}

impl<R> OpQueue<R> {
    pub(super) const fn new() -> Self {
        Self { reload: false, callers: Vec::new(), upgrade: false, checks: 0 }
    }

    pub(super) fn request_reload(&mut self, caller: Option<R>) {
        self.reload = true;
        self.callers.extend(caller);
    }

    pub(super) const fn request_upgrade(&mut self) {
        self.upgrade = true;
    }

    /// Takes the operation to start now out of the queue.
    pub(super) fn next(&mut self, allowed: Allowed) -> Option<Operation<R>> {
        if self.upgrade && allowed.upgrade {
            self.upgrade = false;
            self.checks += 1;
            return Some(Operation::Upgrade { check: self.checks });
        }
        if self.reload && allowed.reload {
            self.reload = false;
            return Some(Operation::Reload(std::mem::take(&mut self.callers)));
        }
        None
    }

    /// Drops what waits. Returns the clients, whose reloads will not happen.
    pub(super) fn cancel(&mut self) -> Vec<R> {
        (self.reload, self.upgrade) = (false, false);
        std::mem::take(&mut self.callers)
    }

    pub(super) const fn reload_waits(&self) -> bool {
        self.reload
    }

    pub(super) const fn upgrade_waits(&self) -> bool {
        self.upgrade
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Allowed = Allowed { reload: true, upgrade: true };

    #[test]
    fn one_reload_does_for_all_clients_that_asked_while_it_waited() {
        let mut queue = OpQueue::new();
        queue.request_reload(Some("first"));
        queue.request_reload(None);
        queue.request_reload(Some("second"));
        assert_eq!(queue.next(Allowed { reload: false, upgrade: true }), None);
        assert_eq!(queue.next(BOTH), Some(Operation::Reload(vec!["first", "second"])));
        assert_eq!(queue.next(BOTH), None);
    }

    #[test]
    fn an_upgrade_goes_before_a_reload() {
        let mut queue = OpQueue::new();
        queue.request_reload(Some("client"));
        queue.request_upgrade();
        queue.request_upgrade();
        assert_eq!(queue.next(BOTH), Some(Operation::Upgrade { check: 1 }));
        assert_eq!(queue.next(BOTH), Some(Operation::Reload(vec!["client"])));
        queue.request_upgrade();
        assert_eq!(queue.next(BOTH), Some(Operation::Upgrade { check: 2 }));
    }

    #[test]
    fn a_reload_does_not_wait_for_an_upgrade_that_may_not_start() {
        let mut queue = OpQueue::<()>::new();
        queue.request_upgrade();
        queue.request_reload(None);
        let next = queue.next(Allowed { reload: true, upgrade: false });
        assert_eq!(next, Some(Operation::Reload(vec![])));
        assert!(queue.upgrade_waits() && !queue.reload_waits());
    }

    #[test]
    fn a_cancelled_queue_returns_its_clients_and_is_empty() {
        let mut queue = OpQueue::new();
        queue.request_reload(Some("client"));
        queue.request_upgrade();
        assert_eq!(queue.cancel(), ["client"]);
        assert_eq!(queue.next(BOTH), None);
    }
}
