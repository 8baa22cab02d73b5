//! What `weir status` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;

use super::child::Child;
use super::config::ActiveConfig;
use super::control::Reply;
use crate::lifecycle::view::{Role, View, WorkerView};
use crate::lifecycle::{RejectedReload, WorkerId};
use crate::time::whole_millis;

/// The state of the service at `now`. It is `done` only while a worker serves and makes progress.
pub(super) fn describe(
    view: &View<'_, Rc<ActiveConfig>>,
    workers: &BTreeMap<WorkerId, Child>,
    now: SystemTime,
) -> Reply {
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
        view.rejected_upgrade.map(|why| format!(" ({why})")).unwrap_or_default(),
        counters.restarts,
        counters.hangs
    );
    if let Some(rejected) = &view.rejected_reload {
        describe_rejected(rejected, now, &mut text);
    }
    for worker in &view.workers {
        if let Some(child) = workers.get(&worker.id) {
            describe_worker(worker, child, &mut text);
        }
    }
    if let Some(wait) = view.restart_in {
        let wait = whole_millis(wait);
        let _written = write!(text, "\nno worker: the last one died, the next starts in {wait:?}");
    }
    if view.is_healthy() { Reply::done(text) } else { Reply::failed(text) }
}

fn describe_worker(worker: &WorkerView, child: &Child, text: &mut String) {
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
        let _written = write!(text, " not_responding={:?}", whole_millis(silent));
    }
}

fn describe_rejected(rejected: &RejectedReload, now: SystemTime, text: &mut String) {
    let RejectedReload { age, problem, has_others } = rejected;
    let time = format_rfc3339_seconds(now.checked_sub(*age).unwrap_or(now));
    let _written = write!(text, "\nlast reload rejected: time={time}\n  {problem}");
    if *has_others {
        text.push_str("\n  and others: `weir check` prints every problem");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn described(has_others: bool) -> String {
        let age = Duration::from_millis(2_300);
        let rejected = RejectedReload { age, problem: "w.yaml:1:2: bad".into(), has_others };
        let mut text = String::new();
        describe_rejected(&rejected, SystemTime::UNIX_EPOCH + Duration::from_secs(4), &mut text);
        text
    }

    #[test]
    fn a_rejected_reload_is_shown_with_its_time_and_other_problems_are_mentioned() {
        let one = "\nlast reload rejected: time=1970-01-01T00:00:01Z\n  w.yaml:1:2: bad";
        assert_eq!(described(false), one);
        let several = format!("{one}\n  and others: `weir check` prints every problem");
        assert_eq!(described(true), several);
    }
}
