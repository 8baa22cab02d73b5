//! What operators set on backends, and whether the workers of the fake world do so.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir::lifecycle::process::ProcessEvent;
use weir::lifecycle::view::Role;
use weir::lifecycle::{RoundResult, Step};
use weir::policy::operator::{
    BackendKey, BackendOverride, OperatorMode, OverrideChange, OverrideList, OverrideRequest,
    WeightPercent,
};

use super::{Caller, Config, Duration, Event, Timestamp, Values, WorkerEvent, WorkerId, World};

/// How long a worker that can confirm may take, and how long it may take after an upgrade.
const CONFIRM_MAX: Duration = Duration::from_secs(1);

/// What is set on one backend, without times and authors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Word {
    mode: Option<OperatorMode>,
    weight: Option<u16>,
}

impl Word {
    fn of(set: Option<&BackendOverride>) -> Self {
        let set = set.filter(|set| !set.has_left);
        Self {
            mode: set.and_then(|set| set.mode.as_ref()).map(|mode| mode.value),
            weight: set.and_then(|set| set.weight.as_ref()).map(|weight| weight.value.get()),
        }
    }
}

/// The last word of operators on one backend.
#[derive(Debug, Clone, Copy, Default)]
struct LastWord {
    word: Word,
    mode_ends: Option<Timestamp>,
    weight_ends: Option<Timestamp>,
    /// The client that was told that every worker does so, if it was.
    client: u64,
    is_confirmed: bool,
}

impl LastWord {
    /// What holds now, and whether a part of it has ended.
    fn at(&self, now: Timestamp) -> (Word, bool) {
        let is_over = |ends: Option<Timestamp>| ends.is_some_and(|at| at <= now);
        let (mode_over, weight_over) = (is_over(self.mode_ends), is_over(self.weight_ends));
        let word = Word {
            mode: self.word.mode.filter(|_| !mode_over),
            weight: self.word.weight.filter(|_| !weight_over),
        };
        (word, mode_over || weight_over)
    }
}

/// The words of operators, by backend.
#[derive(Debug, Default)]
pub(crate) struct Words(BTreeMap<String, LastWord>);

fn key(backend: &str) -> BackendKey {
    BackendKey { pool: "web".to_owned(), backend: backend.to_owned() }
}

/// Each of the first configurations lacks one backend.
pub(crate) fn has_backend(config: Config, key: &BackendKey) -> bool {
    key.backend != format!("b{}", config.0)
}

impl World {
    /// An operator sets something on a backend.
    pub(super) fn set_override(&mut self) {
        let backend = format!("b{}", self.dice.u64(0..4));
        let half = WeightPercent::try_from(50).unwrap();
        let changes = [
            OverrideChange::Mode(OperatorMode::Disabled),
            OverrideChange::Mode(OperatorMode::Draining),
            OverrideChange::Weight(half),
            OverrideChange::Enable,
            OverrideChange::Reset,
        ];
        let change = *self.dice.choice(&changes).unwrap();
        let lasts = (self.dice.u8(0..3) == 0).then(|| self.millis(1_000..50_000));
        let active = self.service.view(self.now).active.config;
        let client = self.client(false);
        self.operators.insert(client.0);
        if has_backend(active, &key(&backend)) {
            let ends = lasts.map(|lasts| self.now + lasts);
            self.note_word(&backend, change, ends, client.0);
        }
        let request = OverrideRequest {
            key: key(&backend),
            change,
            lasts,
            by: "an operator".to_owned(),
            reason: String::new(),
        };
        self.dispatch(Event::OverrideRequested { request, caller: client });
    }

    fn note_word(
        &mut self,
        backend: &str,
        change: OverrideChange,
        ends: Option<Timestamp>,
        client: u64,
    ) {
        let now = self.now;
        let last = self.words.0.entry(backend.to_owned()).or_default();
        let (word, _) = last.at(now);
        last.word = word;
        (last.client, last.is_confirmed) = (client, false);
        match change {
            OverrideChange::Mode(mode) => (last.word.mode, last.mode_ends) = (Some(mode), ends),
            OverrideChange::Enable => (last.word.mode, last.mode_ends) = (None, None),
            OverrideChange::Weight(weight) => {
                (last.word.weight, last.weight_ends) = (Some(weight.get()), ends);
            }
            OverrideChange::Reset => *last = LastWord { client, ..LastWord::default() },
        }
    }

    /// Whether this client has set something on a backend, as the last one.
    pub(super) fn is_operator(&self, client: u64) -> bool {
        self.operators.contains(&client)
    }

    /// A reload is done: what was set on backends that left is forgotten.
    pub(super) fn forget_missing(&mut self, config: Config) {
        self.words.0.retain(|backend, _| has_backend(config, &key(backend)));
    }

    /// The result of an operator's command arrives at its client. If it says that every worker applies the
    /// override, checks that each does.
    pub(super) fn reply_round(&mut self, result: RoundResult<Caller>) {
        let RoundResult { change, late, unaware, client } = result;
        for worker in late.iter().copied() {
            self.check_late(worker);
        }
        let is_confirmed = late.is_empty() && unaware.is_empty();
        if let Some(change) = change.filter(|_| is_confirmed) {
            let backend = change.request.key.backend;
            let now = self.now;
            let last = self.words.0.get_mut(&backend).filter(|last| last.client == client.0);
            if let Some(last) = last {
                let expected = last.at(now);
                last.is_confirmed = true;
                self.check_confirmed(&backend, expected);
            }
        }
        self.answer(vec![client], false);
    }

    /// A worker that could confirm has done so.
    fn check_late(&self, id: WorkerId) {
        let now = self.now;
        let Some(worker) = self.workers.get(&id) else { return };
        let is_fit = worker.is_alive
            && !worker.is_hung
            && !worker.is_deaf
            && !worker.is_killed
            && !worker.is_link_lost
            && !worker.is_quiesced
            && worker.busy_until + CONFIRM_MAX < now
            && worker.loud_since + CONFIRM_MAX < now;
        self.assert(!is_fit, || format!("worker {id} has not confirmed an override"));
    }

    fn check_confirmed(&self, backend: &str, (word, has_ended): (Word, bool)) {
        if has_ended {
            return;
        }
        let view = self.service.view(self.now);
        let serves = |role: Role| role != Role::Candidate(Step::Warming);
        for shown in view.workers.iter().filter(|shown| serves(shown.role)) {
            let Some(worker) = self.workers.get(&shown.id) else { continue };
            let is_there = worker.is_alive && !worker.is_killed && !worker.is_link_lost;
            if !is_there || !worker.is_accepting || !worker.knows_overrides || worker.is_hung {
                continue;
            }
            let applied = Word::of(worker.overrides.get("web", backend));
            self.assert(applied == word, || {
                format!(
                    "an override was confirmed, and worker {} does not apply it: {applied:?}, \
                     not {word:?}",
                    shown.id
                )
            });
        }
    }

    /// A worker accepts connections: it applies what operators were told that it does.
    pub(super) fn check_overrides_of(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id).filter(|worker| worker.knows_overrides) else {
            return;
        };
        for (backend, last) in &self.words.0 {
            let (word, has_ended) = last.at(self.now);
            if !last.is_confirmed || has_ended {
                continue;
            }
            let applied = Word::of(worker.overrides.get("web", backend));
            self.assert(applied == word, || {
                format!(
                    "worker {id} serves, and does not apply what an operator has set: {backend} is \
                     {applied:?}, not {word:?}"
                )
            });
        }
    }

    /// After a quiet minute the worker that serves applies exactly what operators have set.
    pub(super) fn check_all_overrides(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if !worker.knows_overrides || worker.is_busy(self.now) {
            return;
        }
        for backend in ["b0", "b1", "b2", "b3"] {
            let word = self.words.0.get(backend).map(|last| last.at(self.now).0);
            let applied = Word::of(worker.overrides.get("web", backend));
            self.assert(applied == word.unwrap_or_default(), || {
                format!("worker {id} applies {applied:?} to {backend}, and the operator {word:?}")
            });
        }
    }

    /// A list reaches a worker, behind what was sent before.
    pub(super) fn send_overrides(
        &mut self,
        id: WorkerId,
        serial: u64,
        list: Arc<OverrideList>,
    ) -> Option<Event<Values>> {
        let worker = self.workers.get(&id)?;
        if worker.is_deaf && worker.is_alive {
            return Some(Event::Worker(id, WorkerEvent::SendTimedOut));
        }
        let knows = worker.knows_overrides;
        self.assert(knows, || format!("worker {id} is sent overrides, and does not know them"));
        self.order(id, ProcessEvent::Overrides((serial, list)));
        None
    }
}
