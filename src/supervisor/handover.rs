//! From one worker to the next.
//!
//! Two may be on their way at a time: the candidate of a reload, and the replacement of a worker
//! that died meanwhile, for what is served. Whichever is ready first serves.

use super::candidate::{Candidate, Purpose, STATE_MAX, Step};
use super::child::Child;
use super::control::Answer;
use super::reload::{answer, report};
use super::room::{self, Excess, Memory};
use super::{DRAIN_GRACE, Draining, Supervisor};
use crate::config::{self, Config};
use crate::link::{State, ToSupervisor, ToWorker};
use crate::metrics::Counts;
use crate::time::Timestamp;

impl Supervisor {
    /// A worker said something.
    pub(super) fn heard(&mut self, generation: u64, said: ToSupervisor) {
        self.note_life(generation);
        match said {
            ToSupervisor::Warm => self.warm(generation),
            ToSupervisor::Ready => self.ready(generation),
            ToSupervisor::State(state) => self.handed_over(generation, *state),
            ToSupervisor::Checkpoint(state) => {
                if self.current.as_ref().is_some_and(|child| child.generation == generation) {
                    self.note_in_flight(generation, &state.counts);
                    self.note_checkpoint(*state);
                } else if let Some(candidate) = self.candidate_of(generation) {
                    candidate.names = state.handoff;
                }
            }
            ToSupervisor::Failed(why) => {
                if let Some(candidate) = self.candidate_of(generation) {
                    candidate.why.get_or_insert(why);
                } else if let Some(stopping) = &mut self.stopping {
                    stopping.why = Some(why);
                }
            }
            ToSupervisor::Connections(open) => self.note_connections(generation, open),
            ToSupervisor::Held => self.held(generation),
            ToSupervisor::Heartbeat { hung_threads } => self.heartbeat(generation, hung_threads),
            ToSupervisor::LogLost(lines) => self.options.log.report(lines),
            ToSupervisor::Draining(report, open) => {
                self.note_connections(generation, open);
                self.note_in_flight(generation, &report.counts);
                match &self.current {
                    // One that stops drains as well; it has its own counts.
                    Some(current) if current.generation == generation => {}
                    Some(current) => current.tell(&ToWorker::Inherit(report)),
                    None => self.orphans.push(*report),
                }
                self.tell_facts();
            }
        }
    }

    fn note_checkpoint(&mut self, state: State) {
        self.checkpoint.update(state);
        self.checkpoint_at = self.clock.now();
    }

    /// The last checkpoint, which says how old it is by now.
    pub(super) fn aged_checkpoint(&self) -> State {
        let mut state = self.checkpoint.clone();
        state.handoff.add_age(self.clock.now().since(self.checkpoint_at));
        state
    }

    fn note_connections(&mut self, generation: u64, open: u64) {
        if let Some(child) = self.serving_or_draining(generation) {
            child.connections = open;
        }
    }

    fn note_in_flight(&mut self, generation: u64, counts: &Counts) {
        if let Some(child) = self.serving_or_draining(generation) {
            child.in_flight = counts.in_flight().to_vec();
        }
    }

    fn serving_or_draining(&mut self, generation: u64) -> Option<&mut Child> {
        let draining = self.draining.iter_mut().map(|draining| &mut draining.child);
        let mut all = self.current.iter_mut().chain(draining);
        all.find(|child| child.generation == generation)
    }

    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.replacement.iter().chain(&self.candidate)
    }

    pub(super) fn candidates_mut(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.replacement.iter_mut().chain(&mut self.candidate)
    }

    pub(super) fn candidate_of(&mut self, generation: u64) -> Option<&mut Candidate> {
        self.candidates_mut().find(|candidate| candidate.child.generation == generation)
    }

    fn take_candidate(&mut self, generation: u64) -> Option<Candidate> {
        let is_it = |one: &mut Candidate| one.child.generation == generation;
        self.replacement.take_if(is_it).or_else(|| self.candidate.take_if(is_it))
    }

    /// Its configuration is loaded and its first probes are in.
    fn warm(&mut self, generation: u64) {
        if self.candidate_of(generation).is_none() {
            return;
        }
        let other_takes_over = self
            .candidates()
            .any(|other| other.child.generation != generation && other.is_taking_over());
        let step = match &self.current {
            Some(current) => {
                current.tell(&ToWorker::HandOver);
                Step::WaitingForState
            }
            // Nobody could hand over to both.
            None if other_takes_over => Step::Waiting,
            None => Step::TakingOver,
        };
        let (now, checkpoint) = (self.clock.now(), self.aged_checkpoint());
        let Some(candidate) = self.candidate_of(generation) else { return };
        candidate.asked = now;
        if step == Step::TakingOver {
            self.take_over(generation, &checkpoint);
            if self.candidate.as_ref().is_some_and(|one| one.child.generation == generation) {
                self.discard_replacement();
            }
        } else {
            candidate.step = step;
        }
    }

    /// Nobody waits for it any more.
    fn discard_replacement(&mut self) {
        self.restart_at = None;
        if let Some(replacement) = self.replacement.take() {
            replacement.child.kill();
            self.discarded.push(replacement.child);
        }
    }

    fn handed_over(&mut self, generation: u64, state: State) {
        if self.current.as_ref().is_none_or(|current| current.generation != generation) {
            return;
        }
        self.note_in_flight(generation, &state.counts);
        self.note_checkpoint(state);
        self.take_over_at_last();
    }

    /// Whoever waits for the old worker's state takes over by what is known of it.
    pub(super) fn take_over_at_last(&mut self) {
        let checkpoint = self.aged_checkpoint();
        let waits = self.candidates().find(|candidate| candidate.is_waiting_for_state());
        if let Some(generation) = waits.map(|candidate| candidate.child.generation) {
            self.take_over(generation, &checkpoint);
        }
    }

    /// Lets a candidate accept connections.
    fn take_over(&mut self, generation: u64, state: &State) {
        let listening = self.listen_for(generation);
        let Some(candidate) = self.candidate_of(generation) else { return };
        match listening {
            Ok(()) => candidate.take_over(state),
            Err(why) => candidate.fail(&why),
        }
    }

    /// An old worker that does not hand over in time is replaced by what it said last.
    pub(super) fn hurry_candidate(&mut self, now: Timestamp) {
        let late = |one: &Candidate| one.is_waiting_for_state() && one.asked + STATE_MAX <= now;
        if self.candidates().any(late) {
            log::warn!("worker does not hand over: its last checkpoint is taken");
            self.take_over_at_last();
        }
    }

    /// The candidate serves: it is the current worker now, and the old one drains.
    fn ready(&mut self, generation: u64) {
        let Some(candidate) = self.take_candidate(generation) else { return };
        let before = std::mem::replace(&mut self.served, candidate.served);
        let old = self.current.replace(candidate.child);
        log::info!("worker ready: generation={generation} config={}", self.served.version);
        self.ever_ready = true;
        let names = self.checkpoint.handoff.report_names(&candidate.names);
        self.checkpoint.handoff.replace_names(candidate.names);
        self.keep_image();
        if let Some(old) = old {
            self.drain(old, &before.config);
        }
        if let Purpose::Reload(answers) = candidate.purpose {
            self.discard_replacement();
            self.close_unused();
            self.facts.reloads_done += 1;
            self.facts.last_reload_ok = true;
            self.facts.last_reload_at = self.clock.wall(self.clock.now());
            let mut changes = config::diff(&before.config, &self.served.config);
            changes.extend(names);
            self.announce_reload(&changes);
            self.announce_addresses(&before.config);
            let overridden_by = &self.options.overridden_by;
            let report = report(&changes, &self.served.version, overridden_by);
            answer(answers, &Answer::done(report));
        }
        for report in std::mem::take(&mut self.orphans) {
            if let Some(current) = &self.current {
                current.tell(&ToWorker::Inherit(Box::new(report)));
            }
        }
        self.tell_facts();
        if self.stopping.is_none() {
            self.options.announce_ready();
        }
        self.warm_at_last();
        self.next();
    }

    /// Whoever was warm while another took over has its turn.
    fn warm_at_last(&mut self) {
        let waits = self.candidates().find(|candidate| candidate.step == Step::Waiting);
        if let Some(generation) = waits.map(|candidate| candidate.child.generation) {
            self.warm(generation);
        }
    }

    fn drain(&mut self, old: Child, config: &Config) {
        old.tell(&ToWorker::Drain);
        let until = self.clock.now() + config.shutdown.longest() + DRAIN_GRACE;
        self.draining.push_back(Draining { child: old, until });
        self.end_the_oldest();
    }

    /// Ends workers that drain if there are too many, or too little memory for the next one.
    fn end_the_oldest(&self) {
        let draining: Vec<u64> =
            self.draining.iter().map(|one| room::resident(one.child.pid)).collect();
        let current = self.current.as_ref().map_or(0, |current| room::resident(current.pid));
        let wanted = draining.iter().copied().fold(current, u64::max);
        let memory = Memory { available: room::available(), wanted };
        let most = self.served.config.shutdown.draining_workers.get();
        // One that was ended the last time may not be gone yet.
        for (oldest, why) in self.draining.iter().zip(room::excess(&draining, most, memory)) {
            let (generation, connections) = (oldest.child.generation, oldest.child.connections);
            match why {
                Excess::Workers => log::warn!(
                    "worker ended, too many drain: generation={generation} \
                     connections={connections} most={most} (help: raise shutdown.draining_workers)"
                ),
                Excess::Memory => log::warn!(
                    "worker ended, too little memory for another one: generation={generation} \
                     connections={connections} available_bytes={} wanted_bytes={wanted} (help: \
                     allow more memory, reload less often, or lower shutdown.drain)",
                    memory.available.unwrap_or(0)
                ),
            }
            oldest.child.kill();
        }
    }

    /// A candidate is gone: whatever served before goes on.
    pub(super) fn candidate_gone(&mut self, generation: u64, well: bool, why: &str) {
        let Some(candidate) = self.take_candidate(generation) else { return };
        if let Some(stopping) = &mut self.stopping {
            // It was told to stop, and it served by then.
            stopping.cut |= candidate.is_taking_over() && !well;
            if let Purpose::Reload(answers) = candidate.purpose {
                answer(answers, &Answer::failed("the supervisor is stopping".to_owned()));
            }
            return;
        }
        if !matches!(candidate.step, Step::Warming | Step::Waiting)
            && let Some(current) = &self.current
        {
            current.tell(&ToWorker::Resume);
        }
        match candidate.purpose {
            Purpose::Reload(answers) => self.refused(why, answers),
            Purpose::Restart => {
                log::error!("worker not ready: {why}");
                self.restart_image = self.restart_image.next();
            }
        }
        if self.current.is_none() && self.replacement.is_none() && self.restart_at.is_none() {
            self.restart_later();
        }
        self.warm_at_last();
        self.next();
    }

    /// What had to wait has its turn. A reload that waits as well goes over with an upgrade.
    pub(super) fn next(&mut self) {
        if std::mem::take(&mut self.upgrade_again) {
            self.upgrade();
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload(None);
        }
    }
}
