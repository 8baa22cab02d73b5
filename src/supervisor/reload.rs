//! From a changed file to a new worker, or to a clear word why not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::Sender;

use super::candidate::{Candidate, Purpose, STATE_MAX, Step};
use super::child::Child;
use super::control::{Answer, Request};
use super::{
    DRAIN_GRACE, DRAINING_MAX, Draining, Options, Served, Supervisor, SupervisorError, systemd,
};
use crate::config::{self, Config};
use crate::link::{Start, State, ToSupervisor, ToWorker};
use crate::metrics::Supervision;
use crate::sockets::{BindError, bind};
use crate::time::Timestamp;

/// The file's text.
pub(super) fn read(options: &Options) -> Result<Option<String>, SupervisorError> {
    let Some(file) = &options.file else { return Ok(options.text.clone()) };
    let refused = |why: String| SupervisorError::Refused(format!("{}: {why}", file.display()));
    let bytes = fs::read(file).map_err(|error| refused(cannot_read(&error)))?;
    // The checker complains about bytes that are no text, with their place.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match (options.load)(Some(error.as_bytes())) {
            Err(problems) => Err(SupervisorError::Refused(complaint(options, &problems))),
            Ok(_) => Err(refused("is not text".to_owned())),
        },
    }
}

fn cannot_read(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::NotFound {
        return "there is no such file (help: check the path)".to_owned();
    }
    format!("cannot be read: {error}")
}

/// The text's meaning.
pub(super) fn load(
    options: &Options,
    text: Option<&str>,
) -> Result<(Config, String), SupervisorError> {
    (options.load)(text.map(str::as_bytes))
        .map_err(|problems| SupervisorError::Refused(complaint(options, &problems)))
}

fn complaint(options: &Options, problems: &config::Problems) -> String {
    let line = |problem: &config::Problem| match &options.file {
        Some(file) => format!("{}:{problem}", file.display()),
        None => format!("weir: {problem}"),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Supervisor {
    /// Binds what the first configuration asks for.
    pub(super) fn bind_first(
        &mut self,
        mut given: BTreeMap<SocketAddr, TcpListener>,
    ) -> Result<(), BindError> {
        for address in addresses(&self.served.config) {
            let socket = match given.remove(&address) {
                Some(socket) => socket,
                None => bind(address)?,
            };
            self.sockets.insert(address, socket);
        }
        for address in given.keys() {
            log::warn!("systemd's socket not used: {address} (help: list it in `listeners`)");
        }
        Ok(())
    }

    /// Reads the file anew and starts a worker for it. `answer` is told what has come of it.
    pub(super) fn reload(&mut self, answer: Option<Sender<Answer>>) {
        if self.stopping.is_some() {
            return refuse(answer, "the supervisor is stopping");
        }
        if self.candidate.is_some() || self.upgrade_until.is_some() {
            // One at a time; of several that wait, one reads what all of them wrote.
            self.reload_again = true;
            self.waiting.extend(answer);
            return;
        }
        let answers = answer.into_iter().chain(self.waiting.drain(..)).collect();
        systemd::reloading();
        if let Err((why, answers)) = self.try_reload(answers) {
            self.refused(&why, answers);
        }
    }

    fn try_reload(
        &mut self,
        answers: Vec<Sender<Answer>>,
    ) -> Result<(), (String, Vec<Sender<Answer>>)> {
        let served = match self.read_and_load() {
            Ok(served) => served,
            Err(error) => return Err((error.to_string(), answers)),
        };
        for address in addresses(&served.config) {
            if let Entry::Vacant(place) = self.sockets.entry(address) {
                match bind(address) {
                    Ok(socket) => drop(place.insert(socket)),
                    Err(error) => return Err((error.to_string(), answers)),
                }
            }
        }
        // Kept apart, because the purpose is lost with a launch that fails.
        let waiting = answers.clone();
        self.launch(served, Purpose::Reload(answers)).map_err(|why| (why, waiting))
    }

    fn read_and_load(&self) -> Result<Served, SupervisorError> {
        let text = read(&self.options)?;
        let (config, version) = load(&self.options, text.as_deref())?;
        Ok(Served { config, text, version })
    }

    /// Starts a worker for `served`.
    pub(super) fn launch(&mut self, served: Served, purpose: Purpose) -> Result<(), String> {
        let wanted = addresses(&served.config);
        let sockets: Vec<&TcpListener> =
            wanted.iter().filter_map(|address| self.sockets.get(address)).collect();
        // Taken even if the start fails: what one that failed says must not be taken for another's.
        self.facts.generation += 1;
        let generation = self.facts.generation;
        let start = Start {
            text: served.text.clone(),
            version: served.version.clone(),
            sockets: wanted,
            state: Some(self.checkpoint.clone()),
            supervision: Supervision { generation, ..self.facts.clone() },
        };
        let now = self.clock.now();
        let child =
            Child::start(&self.options.program, generation, (&start, &sockets), &self.events, now);
        let child = child.map_err(|error| format!("a worker cannot be started: {error}"))?;
        log::debug!("worker started: generation={generation} config={}", served.version);
        self.restart_at = None;
        let until = now + self.options.ready_timeout;
        self.candidate = Some(Candidate {
            child,
            until,
            why: None,
            served,
            purpose,
            step: Step::Warming,
            asked: now,
        });
        Ok(())
    }

    /// A worker said something.
    pub(super) fn heard(&mut self, generation: u64, said: ToSupervisor) {
        match said {
            ToSupervisor::Warm => self.warm(generation),
            ToSupervisor::Ready => self.ready(generation),
            ToSupervisor::State(state) => self.handed_over(generation, *state),
            ToSupervisor::Checkpoint(state) => {
                if self.current.as_ref().is_some_and(|child| child.generation == generation) {
                    self.checkpoint = *state;
                }
            }
            ToSupervisor::Failed(why) => {
                if let Some(candidate) = self.candidate_of(generation) {
                    candidate.why = Some(why);
                } else if let Some(stopping) = &mut self.stopping {
                    stopping.why = Some(why);
                }
            }
            ToSupervisor::Connections(open) => self.note_connections(generation, open),
            ToSupervisor::Held => self.held(generation),
            ToSupervisor::Draining(counts, open) => {
                self.note_connections(generation, open);
                match &self.current {
                    Some(current) => current.tell(&ToWorker::Inherit(counts)),
                    None => self.orphans.push(*counts),
                }
                self.tell_facts();
            }
        }
    }

    fn note_connections(&mut self, generation: u64, open: u64) {
        let draining = self.draining.iter_mut().map(|draining| &mut draining.child);
        let mut all = self.current.iter_mut().chain(draining);
        if let Some(child) = all.find(|child| child.generation == generation) {
            child.connections = open;
        }
    }

    pub(super) fn candidate_of(&mut self, generation: u64) -> Option<&mut Candidate> {
        self.candidate.as_mut().filter(|candidate| candidate.child.generation == generation)
    }

    fn warm(&mut self, generation: u64) {
        let now = self.clock.now();
        let asked = match &self.current {
            Some(current) => {
                current.tell(&ToWorker::HandOver);
                true
            }
            None => false,
        };
        let checkpoint = self.checkpoint.clone();
        let Some(candidate) = self.candidate_of(generation) else { return };
        if asked {
            candidate.step = Step::WaitingForState;
            candidate.asked = now;
        } else {
            candidate.take_over(&checkpoint);
        }
    }

    fn handed_over(&mut self, generation: u64, state: State) {
        if self.current.as_ref().is_none_or(|current| current.generation != generation) {
            return;
        }
        self.checkpoint = state;
        if let Some(candidate) = &mut self.candidate
            && candidate.is_waiting_for_state()
        {
            candidate.take_over(&self.checkpoint);
        }
    }

    /// The candidate serves: it is the current worker now, and the old one drains.
    fn ready(&mut self, generation: u64) {
        if self.candidate_of(generation).is_none() {
            return;
        }
        let Some(candidate) = self.candidate.take() else { return };
        let before = std::mem::replace(&mut self.served, candidate.served);
        let old = self.current.replace(candidate.child);
        log::info!("worker ready: generation={generation} config={}", self.served.version);
        self.ever_ready = true;
        let wanted = addresses(&self.served.config);
        self.sockets.retain(|address, _| wanted.contains(address));
        if let Some(old) = old {
            self.drain(old, &before.config);
        }
        if let Purpose::Reload(answers) = candidate.purpose {
            self.facts.reloads_done += 1;
            self.facts.last_reload_ok = true;
            self.facts.last_reload_at = self.clock.wall(self.clock.now());
            let changes = config::diff(&before.config, &self.served.config);
            log::info!("reloaded: config={} changes={}", self.served.version, changes.len());
            answer(answers, &Answer::done(report(&changes, &self.served.version)));
        }
        for counts in std::mem::take(&mut self.orphans) {
            if let Some(current) = &self.current {
                current.tell(&ToWorker::Inherit(Box::new(counts)));
            }
        }
        self.tell_facts();
        self.options.announce_ready();
        self.next_reload();
    }

    fn drain(&mut self, old: Child, config: &Config) {
        old.tell(&ToWorker::Drain);
        let until = self.clock.now() + config.shutdown.longest() + DRAIN_GRACE;
        self.draining.push_back(Draining { child: old, until });
        let excess = self.draining.len().saturating_sub(DRAINING_MAX);
        // One that was ended the last time may not be gone yet.
        for oldest in self.draining.iter().take(excess) {
            log::warn!(
                "worker ended, too many drain: generation={} connections={}",
                oldest.child.generation,
                oldest.child.connections,
            );
            oldest.child.kill();
        }
    }

    /// The candidate did not get ready in time: it is ended, and counts as failed when it is gone.
    pub(super) fn candidate_failed(&mut self, why: &str) {
        if let Some(candidate) = &mut self.candidate {
            candidate.why = Some(why.to_owned());
            candidate.until = Timestamp::MAX;
            candidate.child.kill();
        }
    }

    /// The candidate is gone: whatever served before goes on.
    pub(super) fn candidate_gone(&mut self, why: &str) {
        let Some(candidate) = self.candidate.take() else { return };
        if candidate.step != Step::Warming
            && let Some(current) = &self.current
        {
            current.tell(&ToWorker::Resume);
        }
        if self.stopping.is_some() {
            return;
        }
        match candidate.purpose {
            Purpose::Reload(answers) => self.refused(why, answers),
            Purpose::Restart => log::error!("worker not ready: {why}"),
        }
        if self.current.is_none() {
            self.restart_later();
        }
        self.next_reload();
    }

    /// An old worker that does not hand over in time is replaced by what it said last.
    pub(super) fn hurry_candidate(&mut self, now: Timestamp) {
        let Some(candidate) = &mut self.candidate else { return };
        if candidate.is_waiting_for_state() && candidate.asked + STATE_MAX <= now {
            log::warn!("worker does not hand over: its last checkpoint is taken");
            candidate.take_over(&self.checkpoint);
        }
    }

    pub(super) fn next_reload(&mut self) {
        if std::mem::take(&mut self.reload_again) {
            self.reload(None);
        }
    }

    /// A reload came to nothing: what was served is served on, and whoever asked is told why.
    fn refused(&mut self, why: &str, answers: Vec<Sender<Answer>>) {
        log::error!("reload refused: {why}");
        self.facts.reloads_refused += 1;
        self.facts.last_reload_ok = false;
        self.facts.last_reload_at = self.clock.wall(self.clock.now());
        let wanted = addresses(&self.served.config);
        self.sockets.retain(|address, _| wanted.contains(address));
        answer(answers, &Answer::failed(why.to_owned()));
        self.tell_facts();
        systemd::ready();
    }

    /// A command came over the control socket.
    pub(super) fn command(&mut self, request: Request, reply: Sender<Answer>) {
        match request {
            Request::Reload => self.reload(Some(reply)),
            Request::Status => answer(vec![reply], &self.status()),
            Request::Stop => {
                answer(vec![reply], &Answer::done("stopping".to_owned()));
                if self.stopping.is_none() {
                    self.stop();
                }
            }
        }
    }
}

/// Every address of a configuration: its listeners, and at the end the admin port.
pub(super) fn addresses(config: &Config) -> Vec<SocketAddr> {
    let listeners = config.listeners.iter().map(|listener| listener.address);
    listeners.chain([config.admin.address]).collect()
}

fn report(changes: &[String], version: &str) -> String {
    if changes.is_empty() {
        return format!("reloaded, nothing changed (configuration {version})");
    }
    format!("reloaded (configuration {version}):\n  {}", changes.join("\n  "))
}

fn refuse(answer_to: Option<Sender<Answer>>, why: &str) {
    answer(answer_to.into_iter().collect(), &Answer::failed(why.to_owned()));
}

/// Whoever asked may have left.
fn answer(to: Vec<Sender<Answer>>, what: &Answer) {
    for one in to {
        let _left = one.send(what.clone());
    }
}
