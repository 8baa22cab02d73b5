//! What `weir status` prints.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::control::Reply;
use crate::lifecycle::view::{Role, WorkerView};

/// Why a reload was rejected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RejectedReload {
    time: SystemTime,
    /// The first problem; the log and the client of the reload have all.
    problem: String,
    has_others: bool,
}

impl RejectedReload {
    /// `why` has a problem on each line.
    pub(super) fn new(time: SystemTime, why: &str) -> Self {
        let (problem, others) = why.split_once('\n').unwrap_or((why, ""));
        Self { time, problem: problem.to_owned(), has_others: !others.is_empty() }
    }

    fn describe(&self, text: &mut String) {
        let Self { time, problem, has_others } = self;
        let time = format_rfc3339_seconds(*time);
        let _written = write!(text, "\nlast reload rejected: time={time}\n  {problem}");
        if *has_others {
            text.push_str("\n  and others: `weir check` prints every problem");
        }
    }
}

/// A duration for people: in whole milliseconds, such as `1.234s`.
pub(super) fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Supervisor {
    /// The state of the service. It is `done` only while a worker serves and makes progress.
    pub(super) fn status(&self) -> Reply {
        let view = self.service.view(self.clock.now());
        let counters = view.counters;
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _written = write!(
            text,
            "configuration {}\nreloads: done={} rejected={}\nupgrades: done={} rejected={}{}\n\
             restarts: {}\nhangs: {}",
            view.active.config.version,
            counters.reloads_done,
            counters.reloads_rejected,
            counters.upgrades_done,
            counters.upgrades_rejected,
            view.last_rejection.map(|why| format!(" ({why})")).unwrap_or_default(),
            counters.restarts,
            counters.hangs
        );
        // A reload that was done meanwhile makes the rejection history.
        if let Some(rejection) = &self.figures.last_rejection
            && !counters.last_reload_ok
        {
            rejection.describe(&mut text);
        }
        view.workers.iter().for_each(|worker| self.describe(worker, &mut text));
        if let Some(wait) = view.restart_in {
            let wait = round(wait);
            let _written =
                write!(text, "\nno worker: the last one died, the next starts in {wait:?}");
        }
        if view.is_healthy() { Reply::done(text) } else { Reply::failed(text) }
    }

    fn describe(&self, worker: &WorkerView, text: &mut String) {
        let Some(child) = self.children.get(&worker.id) else { return };
        let role = match worker.role {
            Role::Serving => "serving",
            Role::Candidate(step) => step.name(),
            Role::Draining => "draining",
        };
        let age = worker.age.as_secs();
        let _written = write!(
            text,
            "\nworker {}: {role} pid={} age={age}s connections={}",
            worker.id,
            child.pid(),
            child.connections
        );
        if let Some(silent) = worker.silent {
            let _written = write!(text, " not_responding={:?}", round(silent));
        }
    }
}
