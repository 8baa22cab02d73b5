//! What operators set on backends: which backend they mean, and what they get as a reply.

use std::fmt::Write as _;

use humantime::format_duration;
use serde::{Deserialize, Serialize};

use super::backends::{BackendsQuery, RowSource, format_backends};
use super::control::Reply;
use super::target::find;
use super::{Client, Supervisor};
use crate::config::Config;
use crate::lifecycle::{OverrideResult, RoundResult, WorkerId};
use crate::policy::operator::{OverrideChange, OverrideRequest, REASON_BYTES_MAX};

/// A command that sets something on a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideCommand {
    /// The backend, as the operator has typed it: `POOL/BACKEND`, or the backend alone.
    pub target: String,
    /// What to do.
    pub change: OverrideChange,
    /// How long it holds; `None`: until it is changed.
    #[serde(default)]
    pub lasts: Option<std::time::Duration>,
    /// Why. May be empty.
    #[serde(default)]
    pub reason: String,
    /// Who asks; the receiver of the command determines it.
    #[serde(skip)]
    pub by: String,
}

/// What a command asks for.
///
/// # Errors
/// It names no backend, or more than one, or its reason is not valid.
pub(super) fn request(
    config: &Config,
    command: OverrideCommand,
) -> Result<OverrideRequest, String> {
    let OverrideCommand { target, change, lasts, reason, by } = command;
    if reason.len() > REASON_BYTES_MAX {
        let length = reason.len();
        return Err(format!(
            "the reason has {length} bytes (help: use at most {REASON_BYTES_MAX})"
        ));
    }
    if reason.contains(char::is_control) {
        return Err("the reason contains a control character (help: write it on one line)".into());
    }
    if lasts.is_some_and(|lasts| lasts.is_zero()) {
        return Err(
            "the setting would end at once (help: give `--for` a time above 0s, or leave it \
                    out)"
                .into(),
        );
    }
    if lasts.is_some()
        && matches!(change, OverrideChange::Weight(percent) if percent.is_configured())
    {
        return Err(
            "100% is the configured weight, which does not end (help: leave out `--for`)".into()
        );
    }
    Ok(OverrideRequest { key: find(config, &target)?, change, lasts, by, reason })
}

/// Replies to a client whose round is over.
pub(super) fn reply(supervisor: &Supervisor, result: RoundResult<Client>) {
    let RoundResult { change, late, unaware, client } = result;
    let answer = match (&client, change) {
        (Client::Backends(_, query), _) => backends(supervisor, query, &late),
        (_, Some(change)) => {
            let mut text = describe(&change);
            let key = &change.request.key;
            let mut backends = supervisor.processes.workers.values().flat_map(|it| &it.backends);
            let is_known = backends.any(|report| report.key == *key);
            let problems =
                [not_confirmed(&late), not_applied(&unaware), not_found(is_known, &late, &unaware)];
            problems.iter().flatten().for_each(|problem| text.push_str(problem));
            let done = late.is_empty() && unaware.is_empty();
            Reply { done, text }
        }
        (_, None) => Reply::failed("nothing was asked for".to_owned()),
    };
    client.reply(&answer);
}

fn backends(supervisor: &Supervisor, query: &BackendsQuery, late: &[WorkerId]) -> Reply {
    let now = supervisor.clock.now();
    let view = supervisor.service.view(now);
    let current = view.current().map(|current| current.id);
    let Some(child) = current.and_then(|current| supervisor.processes.workers.get(&current)) else {
        return Reply::failed("no worker serves at the moment".to_owned());
    };
    if current.is_some_and(|current| late.contains(&current)) {
        let text = "the worker does not respond (help: `weir status` says what it does)";
        return Reply::failed(text.to_owned());
    }
    let others = supervisor.processes.workers.iter().filter(|(id, _)| Some(**id) != current);
    let overrides = supervisor.service.overrides(now);
    let source = RowSource {
        reports: &child.backends,
        others: others.flat_map(|(_, child)| &child.backends).collect(),
        overrides: &overrides,
    };
    match format_backends(&source, query, &view.active.config.config) {
        Ok(text) => Reply::done(text),
        Err(why) => Reply::failed(why),
    }
}

fn describe(change: &OverrideResult) -> String {
    let OverrideResult { request, before, after } = change;
    let key = &request.key;
    let (was, is) = (before.describe(), after.describe());
    let mut text = match was == is {
        true => format!("{key}: {is}, unchanged"),
        false => format!("{key}: {was} -> {is}"),
    };
    if let Some(lasts) = request.lasts {
        let _written = write!(text, " for {}", format_duration(lasts));
    }
    let _written = write!(text, " by {}", request.by);
    text
}

fn not_confirmed(late: &[WorkerId]) -> Option<String> {
    let [first, ..] = late else { return None };
    Some(format!(
        "\nset, but worker {first} has not confirmed it: it may still send requests there (help: \
         `weir status` says what it does)"
    ))
}

fn not_applied(unaware: &[WorkerId]) -> Option<String> {
    let [first, ..] = unaware else { return None };
    Some(format!(
        "\nset, but worker {first} is of an older version and does not apply it (help: `weir reload` \
         starts one of this version)"
    ))
}

/// Says that no worker has the backend, if all have reported theirs. A pool that looks its backends up may
/// find it later.
fn not_found(is_known: bool, late: &[WorkerId], unaware: &[WorkerId]) -> Option<String> {
    let is_unknown = !is_known && late.is_empty() && unaware.is_empty();
    is_unknown.then(|| {
        "\nno worker has this backend now: the setting applies once it is found (help: `weir backends` \
         shows those that are known; `weir reset` removes the setting)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::super::target::tests::config;
    use super::*;

    #[test]
    fn a_reason_is_short_and_on_one_line() {
        let with = |reason: &str| {
            let command = OverrideCommand {
                target: "10.0.0.2".to_owned(),
                change: OverrideChange::Reset,
                lasts: None,
                reason: reason.to_owned(),
                by: "uid=0".to_owned(),
            };
            request(&config(), command)
        };
        assert_eq!(with("disk").unwrap().by, "uid=0");
        assert!(with("a\nb").unwrap_err().contains("control character"));
        assert!(with(&"x".repeat(201)).unwrap_err().contains("201 bytes"));
    }

    #[test]
    fn the_configured_weight_cannot_be_set_for_a_time() {
        let of = |percent: u16, lasts| {
            let change = OverrideChange::Weight(percent.try_into().unwrap());
            let target = "10.0.0.2".to_owned();
            let (reason, by) = (String::new(), String::new());
            request(&config(), OverrideCommand { target, change, lasts, reason, by })
        };
        let hour = Some(std::time::Duration::from_secs(3600));
        assert!(of(50, hour).is_ok() && of(100, None).is_ok());
        assert!(of(100, hour).unwrap_err().contains("leave out `--for`"));
        let zero = Some(std::time::Duration::ZERO);
        assert!(of(50, zero).unwrap_err().contains("above 0s"));
    }

    #[test]
    fn who_uses_an_older_worker_learns_it() {
        assert_eq!(not_confirmed(&[]), None);
        assert!(not_found(false, &[], &[]).is_some());
        assert_eq!(not_found(true, &[], &[]).or(not_found(false, &[WorkerId(3)], &[])), None);
        assert!(not_applied(&[WorkerId(3)]).unwrap().contains("worker 3 is of an older version"));
    }
}
