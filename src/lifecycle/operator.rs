//! What operators have asked for: operations that wait for their turn, and overrides of backends.
//!
//! ```text
//!  request ─▶ the table changes ─▶ the list goes to all workers ─▶ all have confirmed ─▶ reply
//!                 ▲                      ▲
//!                 │ the time is over     │ a worker starts, or may send again after an upgrade
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use log::Level;

use super::command::Command;
use super::op_queue::OpQueue;
use super::overrides::{OverrideResult, OverrideTable};
use super::rounds::{Asked, Rounds};
use super::worker::Worker;
use super::workers::Workers;
use super::{Payload, WorkerId};
use crate::policy::operator::{BackendKey, OverrideList, OverrideRequest};
use crate::time::Timestamp;

const TOO_MANY: &str = "too many commands wait for the workers";

/// What operators have asked for.
#[derive(Debug)]
pub(super) struct OperatorRequests<R> {
    /// Reloads and upgrades that wait.
    pub(super) queue: OpQueue<R>,
    pub(super) overrides: OverrideTable,
    pub(super) rounds: Rounds<R>,
}

/// The rest of the service, as far as it is used here.
pub(super) struct Surroundings<'a, P: Payload> {
    pub(super) workers: &'a mut Workers<P>,
    /// The configuration that is served.
    pub(super) active: &'a P::Config,
    pub(super) commands: &'a mut Vec<Command<P>>,
    pub(super) now: Timestamp,
}

impl<P: Payload> Surroundings<'_, P> {
    fn log(&mut self, level: Level, message: String) {
        self.commands.push(Command::Log(level, message));
    }

    fn reject(&mut self, client: P::Caller, why: String) {
        self.commands.push(Command::ReplyFailed(vec![client], why));
    }

    /// Of the workers that may send requests to backends, those that know overrides and those that do
    /// not.
    fn asked(&self) -> Asked {
        let workers = &*self.workers;
        let candidates = workers.candidates().filter(|candidate| candidate.step.may_accept());
        let serving = workers.current.iter().chain(candidates.map(|candidate| &candidate.worker));
        let serving = serving.chain(workers.draining.iter().map(|draining| &draining.worker));
        let (known, unaware): (Vec<&Worker>, Vec<&Worker>) = serving
            .filter(|worker| is_reachable(worker))
            .partition(|worker| worker.overrides.is_known());
        let ids = |workers: Vec<&Worker>| workers.into_iter().map(Worker::id).collect();
        Asked { workers: ids(known), unaware: ids(unaware) }
    }

    fn is_draining(&self, id: WorkerId) -> bool {
        self.workers.draining.iter().any(|draining| draining.worker.id() == id)
    }
}

fn is_reachable(worker: &Worker) -> bool {
    worker.is_running() && worker.is_link_open()
}

impl<R> OperatorRequests<R> {
    pub(super) fn new() -> Self {
        Self { queue: OpQueue::new(), overrides: OverrideTable::default(), rounds: Rounds::new() }
    }

    /// Does what an operator asks for. The client gets its reply when every worker does so.
    pub(super) fn request_override<P: Payload<Caller = R>>(
        &mut self,
        request: OverrideRequest,
        client: R,
        service: &mut Surroundings<'_, P>,
    ) {
        if !P::has_backend(service.active, &request.key) {
            let why = format!("the configuration has no backend {}", request.key);
            return service.reject(client, why);
        }
        if self.rounds.is_full() {
            return service.reject(client, TOO_MANY.to_owned());
        }
        let result = self.overrides.apply(request, service.now);
        service.log(Level::Info, describe(&result));
        self.begin_round(client, Some(result), service);
    }

    /// Asks every worker for the state of its backends. The client gets its reply when all have sent
    /// it.
    pub(super) fn request_report<P: Payload<Caller = R>>(
        &mut self,
        client: R,
        service: &mut Surroundings<'_, P>,
    ) {
        if self.rounds.is_full() {
            return service.reject(client, TOO_MANY.to_owned());
        }
        self.begin_round(client, None, service);
    }

    fn begin_round<P: Payload<Caller = R>>(
        &mut self,
        client: R,
        change: Option<OverrideResult>,
        service: &mut Surroundings<'_, P>,
    ) {
        self.rounds.begin(client, change, service.asked(), service.now);
        self.send_lists(service);
    }

    /// Sends the overrides to every worker that knows them.
    pub(super) fn send_lists<P: Payload>(&self, service: &mut Surroundings<'_, P>) {
        let known = service.workers.all().filter(|it| is_reachable(it) && it.overrides.is_known());
        let known: Vec<WorkerId> = known.map(Worker::id).collect();
        let list = |is_draining| Arc::new(self.overrides.list(is_draining, service.now));
        let (list, list_of_draining) = (list(false), list(true));
        for worker in known {
            let is_draining = service.is_draining(worker);
            let list = if is_draining { &list_of_draining } else { &list };
            self.send_list(worker, Arc::clone(list), service);
        }
    }

    fn send_list<P: Payload>(
        &self,
        worker: WorkerId,
        list: Arc<OverrideList>,
        service: &mut Surroundings<'_, P>,
    ) {
        if let Some(worker) = service.workers.find_mut(worker) {
            worker.overrides.record_sent(list.version);
        }
        let serial = self.rounds.serial();
        service.commands.push(Command::SendOverrides { worker, serial, list });
    }

    /// A worker has applied a list. A worker that starts says in this way that it knows overrides.
    pub(super) fn on_applied<P: Payload>(
        &mut self,
        id: WorkerId,
        applied: AppliedList,
        service: &mut Surroundings<'_, P>,
    ) {
        self.rounds.confirm(id, applied.serial);
        let newest = self.overrides.version();
        let Some(worker) = service.workers.find_mut(id) else { return };
        worker.overrides.record_applied(applied.version);
        if worker.overrides.is_behind(newest) && is_reachable(worker) {
            let list = self.overrides.list(service.is_draining(id), service.now);
            self.send_list(id, Arc::new(list), service);
        }
    }

    /// Replies to the clients whose round is over.
    pub(super) fn settle<P: Payload<Caller = R>>(&mut self, service: &mut Surroundings<'_, P>) {
        if self.rounds.deadline().is_none() {
            return;
        }
        let there: BTreeSet<WorkerId> =
            service.workers.all().filter(|worker| is_reachable(worker)).map(Worker::id).collect();
        let results = self.rounds.settle(|id| there.contains(&id), service.now);
        service.commands.extend(results.into_iter().map(Command::reply_round));
    }

    /// Ends overrides whose time is over.
    pub(super) fn expire<P: Payload>(&mut self, service: &mut Surroundings<'_, P>) {
        if service.workers.draining.is_empty() {
            self.overrides.forget_dropped();
        }
        let ended = self.overrides.expire(service.now);
        if ended.is_empty() {
            return;
        }
        for one in ended.iter().filter(|one| !one.before.has_left) {
            let (before, after) = (one.before.describe(), one.after.describe());
            let BackendKey { pool, backend } = &one.key;
            let message = format!(
                "override ended: pool={pool} backend={backend} before=\"{before}\" \
                 after=\"{after}\""
            );
            service.log(Level::Info, message);
        }
        self.send_lists(service);
    }

    /// Drops the overrides of backends that the new configuration does not have.
    pub(super) fn drop_missing<P: Payload>(&mut self, service: &mut Surroundings<'_, P>) {
        let dropped = self.overrides.drop_missing(|key| P::has_backend(service.active, key));
        if dropped.is_empty() {
            return;
        }
        for (BackendKey { pool, backend }, set) in &dropped {
            let before = set.describe();
            let message = format!(
                "override dropped, its backend is no longer in the file: pool={pool} \
                 backend={backend} before=\"{before}\""
            );
            service.log(Level::Warn, message);
        }
        self.send_lists(service);
    }
}

/// What a worker says of the list that it applies.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppliedList {
    /// The number of the round; 0 at its start.
    pub(super) serial: u64,
    pub(super) version: u64,
}

/// The line for the log.
fn describe(result: &OverrideResult) -> String {
    let OverrideResult { request, before, after } = result;
    let BackendKey { pool, backend } = &request.key;
    let what = if before == after { "override unchanged" } else { "override set" };
    let lasts = request.lasts.map(|lasts| format!(" for={lasts:?}"));
    format!(
        "{what}: pool={pool} backend={backend} before=\"{}\" after=\"{}\"{} by=\"{}\" reason=\"{}\"",
        before.describe(),
        after.describe(),
        lasts.unwrap_or_default(),
        request.by,
        request.reason.replace('"', "'"),
    )
}
