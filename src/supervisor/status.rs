//! What `weir status` prints.

use std::fmt::Write as _;

use super::Supervisor;
use super::child::Child;
use super::control::Answer;

impl Supervisor {
    /// How things stand. It is `done` only while a worker serves and makes progress.
    pub(super) fn status(&self) -> Answer {
        let mut text = String::new();
        let facts = &self.facts;
        // Writing into a String cannot fail.
        let _written = write!(
            text,
            "configuration {}\nreloads: done={} rejected={}\nupgrades: done={} rejected={}{}\n\
             restarts: {}\nhangs: {}",
            self.served.version,
            facts.reloads_done,
            facts.reloads_refused,
            facts.upgrades_done,
            facts.upgrades_refused,
            self.upgrade_refusal.as_deref().map(|why| format!(" ({why})")).unwrap_or_default(),
            facts.restarts,
            facts.hangs
        );
        let candidates = self.candidates().map(|one| (&one.child, one.step.word()));
        let draining = self.draining.iter().map(|draining| &draining.child);
        let serving = self.current.iter().map(|child| (child, "serving"));
        for (child, what) in
            serving.chain(candidates).chain(draining.map(|child| (child, "draining")))
        {
            self.describe(child, what, &mut text);
        }
        if let (None, Some(at)) = (&self.current, self.restart_at) {
            let wait = at.since(self.clock.now());
            let _written =
                write!(text, "\nno worker: the last one died, the next starts in {wait:?}");
        }
        match &self.current {
            Some(current) if !current.is_suspect() => Answer::done(text),
            _ => Answer::failed(text),
        }
    }

    fn describe(&self, child: &Child, what: &str, text: &mut String) {
        let age = child.age(self.clock.now()).as_secs();
        let _written = write!(
            text,
            "\nworker {}: {what} pid={} age={age}s connections={}",
            child.generation, child.pid, child.connections
        );
        if let Some(watchdog) = child.watchdog.filter(|_| child.is_suspect()) {
            let _written = write!(text, " not_responding={:?}", watchdog.silent());
        }
    }
}
