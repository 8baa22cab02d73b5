//! From a changed file to a new worker, or to a clear word why not.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::Sender;

use super::candidate::{Candidate, Purpose, Step};
use super::child::Child;
use super::control::{Answer, Request};
use super::program::Image;
use super::{Options, Served, Supervisor, SupervisorError, file, systemd, watch};
use crate::config::{self, Config};
use crate::link::Start;
use crate::metrics::Supervision;
use crate::runtime::handoff::Handoff;

/// The file's text.
pub(super) fn read(options: &Options) -> Result<Option<String>, SupervisorError> {
    let Some(file) = &options.file else { return Ok(options.text.clone()) };
    text(options, file, file::read(file))
}

/// The text that these bytes of the file are.
fn text(
    options: &Options,
    file: &Path,
    bytes: io::Result<Vec<u8>>,
) -> Result<Option<String>, SupervisorError> {
    let refused = |why: String| SupervisorError::Refused(format!("{}: {why}", file.display()));
    let bytes = bytes.map_err(|error| refused(cannot_read(&error)))?;
    // The checker complains about bytes that are no text, with their place.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match (options.load)(Some(error.as_bytes())) {
            Err(problems) => Err(SupervisorError::Refused(complaint(options, &problems))),
            Ok(_) => Err(refused("is not text".to_owned())),
        },
    }
}

fn cannot_read(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
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
    /// The watched file has changed. One that was read since then, by another reload, is not read
    /// again.
    pub(super) fn file_changed(&mut self, contents: Result<u64, String>) {
        match contents {
            Err(why) => log::error!(
                "configuration file cannot be read, what is served stays: error=\"{why}\" \
                 (help: put it back)"
            ),
            Ok(hash) if self.last_read == Some(hash) => {
                log::debug!("file changed, and was read already");
            }
            Ok(_) => {
                log::info!("file changed: reloading");
                self.reload(None);
            }
        }
    }

    /// Reads the file anew and starts a worker for it. `answer` is told what has come of it.
    pub(super) fn reload(&mut self, answer: Option<Sender<Answer>>) {
        if self.stopping.is_some() {
            return refuse(answer, "the supervisor is stopping");
        }
        if self.candidates().next().is_some() || self.upgrade.is_some() {
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
        if let Err(error) = self.bind_missing(&served.config) {
            return Err((error.to_string(), answers));
        }
        // Kept apart, because the purpose is lost with a launch that fails.
        let waiting = answers.clone();
        self.launch(served, Purpose::Reload(answers)).map_err(|why| (why, waiting))
    }

    fn read_and_load(&mut self) -> Result<Served, SupervisorError> {
        let text = match &self.options.file {
            Some(file) => {
                let bytes = file::read(file);
                self.last_read = bytes.as_ref().ok().map(|bytes| watch::hash(bytes));
                text(&self.options, file, bytes)?
            }
            None => read(&self.options)?,
        };
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
            state: Some(self.aged_checkpoint()),
            supervision: Supervision { generation, uptime: self.uptime(), ..self.facts.clone() },
            // A reload's worker stays silent even if the current one is dead: its replacement answers.
            is_alone: self.current.is_none() && matches!(purpose, Purpose::Restart),
        };
        let now = self.clock.now();
        let image = match purpose {
            Purpose::Restart => &self.restart_image,
            Purpose::Reload(_) => &Image::OnDisk,
        };
        let program = (&self.options.program, image);
        let child = Child::start(program, generation, (&start, &sockets), &self.events, now);
        let child = child.map_err(|error| format!("a worker cannot be started: {error}"))?;
        log::debug!("worker started: generation={generation} config={}", served.version);
        let until = now + self.options.ready_timeout;
        let is_reload = matches!(purpose, Purpose::Reload(_));
        let (step, why) = (Step::Warming, None);
        let names = Handoff::default();
        let candidate = Candidate { child, until, why, served, purpose, step, asked: now, names };
        if is_reload {
            self.candidate = Some(candidate);
        } else {
            self.restart_at = None;
            self.replacement = Some(candidate);
        }
        Ok(())
    }

    /// A reload came to nothing: what was served is served on, and whoever asked is told why.
    pub(super) fn refused(&mut self, why: &str, answers: Vec<Sender<Answer>>) {
        log::error!("reload rejected: {why}");
        self.facts.reloads_refused += 1;
        self.facts.last_reload_ok = false;
        self.close_unused();
        answer(answers, &Answer::failed(why.to_owned()));
        self.tell_facts();
        systemd::ready();
    }

    /// A command came over the control socket.
    pub(super) fn command(&mut self, request: Request, reply: Sender<Answer>) {
        match request {
            Request::Reload => self.reload(Some(reply)),
            Request::Status => answer(vec![reply], &self.status()),
            // `Finish` comes as an event of its own, with the connection.
            Request::Stop | Request::Finish => {
                answer(vec![reply], &Answer::done("stopping".to_owned()));
                self.stop();
            }
        }
    }
}

/// Every address of a configuration: its listeners, and at the end the admin port.
pub(super) fn addresses(config: &Config) -> Vec<SocketAddr> {
    let listeners = config.listeners.iter().map(|listener| listener.address);
    listeners.chain([config.admin.address]).collect()
}

/// What a reload has changed. `overridden_by`: the flags and variables that replace parts of the file, which may
/// hide a change of it.
pub(super) fn report(changes: &[String], version: &str, overridden_by: &str) -> String {
    match (changes, overridden_by) {
        ([], "") => return format!("reloaded, nothing changed (configuration {version})"),
        ([], names) => {
            return format!(
                "reloaded, nothing changed (configuration {version}); flags or variables of the start replace \
                 parts of the file: overridden_by={names}"
            );
        }
        _ => {}
    }
    format!("reloaded (configuration {version}):\n  {}", changes.join("\n  "))
}

fn refuse(answer_to: Option<Sender<Answer>>, why: &str) {
    answer(answer_to.into_iter().collect(), &Answer::failed(why.to_owned()));
}

/// Whoever asked may have left.
pub(super) fn answer(to: Vec<Sender<Answer>>, what: &Answer) {
    for one in to {
        let _left = one.send(what.clone());
    }
}
