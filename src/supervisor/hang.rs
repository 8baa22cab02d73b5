//! Workers that hang: they are killed and replaced.

use super::Supervisor;
use super::child::Child;
use crate::policy::watchdog::Watchdog;
use crate::time::Timestamp;

impl Supervisor {
    /// A worker said something, so it is alive.
    pub(super) fn note_life(&mut self, generation: u64) {
        let now = self.clock.now();
        let draining = self.draining.iter_mut().map(|draining| &mut draining.child);
        let mut all = self.current.iter_mut().chain(draining);
        if let Some(child) = all.find(|child| child.generation == generation)
            && let Some(watchdog) = &mut child.watchdog
        {
            watchdog.progress(now);
        }
    }

    /// A heartbeat. The first one begins the watch: an older worker sends none, and one that has
    /// not begun to serve is bounded by `--ready-timeout`.
    pub(super) fn heartbeat(&mut self, generation: u64, hung_threads: u64) {
        let (now, timeout) = (self.clock.now(), self.options.hang_timeout);
        let draining = self.draining.iter_mut().map(|draining| &mut draining.child);
        let mut all = self.current.iter_mut().chain(draining);
        if let Some(child) = all.find(|child| child.generation == generation) {
            child.hung_threads = hung_threads;
            child.watchdog = timeout.map(|timeout| Watchdog::new(timeout, now));
        }
    }

    /// Kills the workers that hang, and replaces the one that should serve.
    pub(super) fn replace_hung_workers(&mut self, now: Timestamp) {
        let mut hangs = 0;
        for draining in &mut self.draining {
            hangs += u64::from(draining.child.kill_if_hung(now));
        }
        self.facts.hangs += hangs;
        if let Some(current) = &mut self.current
            && current.kill_if_hung(now)
        {
            hangs += 1;
            self.facts.hangs += 1;
            if let Some(stopping) = &mut self.stopping {
                stopping.cut = true;
            } else if let Some(hung) = self.current.take() {
                // Not waited for: a process that hangs in the kernel cannot be reaped.
                self.current_gone(&hung, "killed, it hung");
                self.discarded.push(hung);
            }
        }
        if hangs > 0 {
            self.tell_facts();
        }
    }
}

impl Child {
    /// Kills it if it hangs, once. Whether it did.
    fn kill_if_hung(&mut self, now: Timestamp) -> bool {
        let Some(watchdog) = &mut self.watchdog else { return false };
        let silent = watchdog.is_hung(now);
        if !silent && self.hung_threads == 0 {
            return false;
        }
        let (generation, pid) = (self.generation, self.pid);
        if silent {
            log::error!(
                "worker killed, it hangs: generation={generation} pid={pid} silent={:?} \
                 (help: --hang-timeout says how long it may be silent)",
                watchdog.silent()
            );
        } else {
            let threads = self.hung_threads;
            log::error!(
                "worker killed, data threads hang: generation={generation} pid={pid} \
                 threads={threads} (help: --hang-timeout says how long they may be)"
            );
        }
        self.watchdog = None;
        self.hung_threads = 0;
        self.kill();
        true
    }

    /// Whether it seems to hang, though not for long enough to be replaced.
    pub(super) fn is_suspect(&self) -> bool {
        self.watchdog.as_ref().is_some_and(Watchdog::is_suspect)
    }
}
