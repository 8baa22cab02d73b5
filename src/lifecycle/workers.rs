//! Every worker of the service, by what it does.

use std::collections::VecDeque;

use super::candidate::Candidate;
use super::drain::Draining;
use super::event::Exit;
use super::worker::Worker;
use super::{Payload, WorkerId};

/// Every worker. Two candidates may exist at a time: the one of a reload, and the replacement of a
/// worker that died meanwhile. The one that is ready first serves; if that is the replacement, the
/// reload's worker soon takes over from it.
#[derive(Debug)]
pub(super) struct Workers<P: Payload> {
    /// The one that serves.
    pub(super) current: Option<Worker>,
    /// The worker of a reload.
    pub(super) reload: Option<Candidate<P>>,
    /// The worker that is to serve the active configuration, because there is no current one.
    pub(super) replacement: Option<Candidate<P>>,
    /// Those that drain, oldest first.
    pub(super) draining: VecDeque<Draining>,
    /// Killed and not needed; nothing waits for their exit.
    pub(super) discarded: Vec<Worker>,
}

/// A worker that was taken out, by what it did.
#[derive(Debug)]
pub(super) enum Removed<P: Payload> {
    Current(Worker),
    Candidate(Candidate<P>),
    Draining(Worker),
    Discarded,
}

impl<P: Payload> Workers<P> {
    pub(super) const fn new() -> Self {
        Self {
            current: None,
            reload: None,
            replacement: None,
            draining: VecDeque::new(),
            discarded: Vec::new(),
        }
    }

    /// All but the discarded ones, which nothing waits for.
    pub(super) fn all(&self) -> impl Iterator<Item = &Worker> {
        let candidates = self.candidates().map(|candidate| &candidate.worker);
        let draining = self.draining.iter().map(|draining| &draining.worker);
        self.current.iter().chain(candidates).chain(draining)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = WorkerId> {
        self.all().map(Worker::id)
    }

    pub(super) fn is_current(&self, id: WorkerId) -> bool {
        self.current.as_ref().is_some_and(|current| current.id() == id)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let candidates = self.replacement.iter_mut().chain(&mut self.reload);
        let candidates = candidates.map(|candidate| &mut candidate.worker);
        let draining = self.draining.iter_mut().map(|draining| &mut draining.worker);
        self.current.iter_mut().chain(candidates).chain(draining)
    }

    /// Any of them, discarded ones included.
    pub(super) fn find_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        let candidates = self.replacement.iter_mut().chain(&mut self.reload);
        let candidates = candidates.map(|candidate| &mut candidate.worker);
        let draining = self.draining.iter_mut().map(|draining| &mut draining.worker);
        let needed = self.current.iter_mut().chain(candidates).chain(draining);
        needed.chain(&mut self.discarded).find(|worker| worker.id() == id)
    }

    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate<P>> {
        self.replacement.iter().chain(&self.reload)
    }

    pub(super) fn candidates_mut(&mut self) -> impl Iterator<Item = &mut Candidate<P>> {
        self.replacement.iter_mut().chain(&mut self.reload)
    }

    pub(super) fn has_candidate(&self) -> bool {
        self.candidates().next().is_some()
    }

    pub(super) fn candidate_mut(&mut self, id: WorkerId) -> Option<&mut Candidate<P>> {
        self.candidates_mut().find(|candidate| candidate.id() == id)
    }

    pub(super) fn take_candidate(&mut self, id: WorkerId) -> Option<Candidate<P>> {
        let is_it = |candidate: &mut Candidate<P>| candidate.id() == id;
        self.replacement.take_if(is_it).or_else(|| self.reload.take_if(is_it))
    }

    /// The worker that serves and the draining ones, which may be watched for hangs.
    pub(super) fn watched_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let draining = self.draining.iter_mut().map(|draining| &mut draining.worker);
        self.current.iter_mut().chain(draining)
    }

    /// How a worker has exited, if it has.
    pub(super) fn exit_of(&mut self, id: WorkerId) -> Option<Exit> {
        self.find_mut(id)?.exited().cloned()
    }

    /// Takes a worker out.
    pub(super) fn take(&mut self, id: WorkerId) -> Option<Removed<P>> {
        if let Some(current) = self.current.take_if(|current| current.id() == id) {
            return Some(Removed::Current(current));
        }
        if let Some(candidate) = self.take_candidate(id) {
            return Some(Removed::Candidate(candidate));
        }
        if let Some(at) = self.draining.iter().position(|draining| draining.worker.id() == id) {
            return self.draining.remove(at).map(|draining| Removed::Draining(draining.worker));
        }
        let before = self.discarded.len();
        self.discarded.retain(|worker| worker.id() != id);
        (self.discarded.len() < before).then_some(Removed::Discarded)
    }
}
