//! Each way in which another worker comes to serve.

use super::client::Client;
use super::weir::{Weir, kill};
use super::{TIMEOUT, eventually};

/// More connections than any test that waits for a checkpoint has otherwise.
const MANY: u8 = 20;

impl Weir {
    /// Reloads, and checks that another worker serves.
    #[track_caller]
    pub(crate) fn replace_by_reload(&self) {
        let before = self.worker_pid();
        self.reload();
        assert_ne!(self.worker_pid(), before);
    }

    /// Replaces the supervisor, then the worker by a reload.
    #[track_caller]
    pub(crate) fn replace_by_upgrade(&self) {
        self.signal("USR2");
        self.until_said("supervisor replaced: ");
        eventually(TIMEOUT, "it can be asked", || self.command(&["status"]).code == Some(0));
        self.replace_by_reload();
    }

    /// Kills the serving worker, and waits until another one serves.
    #[track_caller]
    pub(crate) fn replace_by_kill(&self) {
        let before = self.worker_pid();
        kill("KILL", &[before]).expect("the worker is there");
        eventually(TIMEOUT, "another worker serves", || {
            self.serving().is_some_and(|worker| worker.pid != before)
        });
    }

    /// Waits for a checkpoint that is later than this call: it has the connections that are made here.
    #[track_caller]
    pub(crate) fn until_checkpoint(&self) {
        let _more: Vec<Client> = (0..MANY).map(|_| Client::connect(self.address())).collect();
        eventually(TIMEOUT, "a checkpoint", || {
            self.serving().is_some_and(|worker| worker.connections >= u64::from(MANY))
        });
    }

    /// Kills the serving worker once a checkpoint has its state, and waits until another one serves.
    #[track_caller]
    pub(crate) fn replace_by_kill_after_a_checkpoint(&self) {
        self.until_checkpoint();
        self.replace_by_kill();
    }
}
