//! `weir backends`, and the commands that set something on a backend.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use weir::clock::Clock;
use weir::config::parse_duration;
use weir::policy::operator::{OperatorMode, OverrideChange, WeightPercent};
use weir::supervisor::control::Request;
use weir::supervisor::{BackendsQuery, OverrideCommand};

use super::{Control, ask, print, send_command};

/// How often `--wait` asks.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Requests are still in flight after `--wait`.
const STILL_IN_FLIGHT: u8 = 3;

const TARGET: &str = "The backend is written as `weir backends` shows it: POOL/BACKEND. The pool, and the \
                      port, may be left out where only one backend fits.";
const OF_DRAIN: &str = "The backend is written as `weir backends` shows it: POOL/BACKEND. The pool, and the \
                        port, may be left out where only one backend fits.\n\nExit codes: 0 done · 1 not \
                        done · 2 invalid command line · 3 requests are still in flight after --wait";

/// The commands that set something on a backend.
#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Send a backend no new requests; what is in flight completes
    Drain(DrainFlags),
    /// Take a backend out until it is enabled; what is in flight completes, health checks go on
    Disable(Disable),
    /// Send a drained or disabled backend requests again, once its health checks pass
    Enable(BackendTarget),
    /// Give a backend this part of its configured weight
    Weight(WeightFlags),
    /// Remove everything that operators have set on a backend
    Reset(BackendTarget),
}

impl OperatorCommand {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let result = match self {
            Self::Drain(flags) => return drain(flags),
            Self::Disable(Disable { target, terms }) => {
                set(&target, OverrideChange::Mode(OperatorMode::Disabled), terms)
            }
            Self::Enable(target) => set(&target, OverrideChange::Enable, Terms::none()),
            Self::Weight(WeightFlags { target, percent, terms }) => {
                set(&target, OverrideChange::Weight(percent), terms)
            }
            Self::Reset(target) => set(&target, OverrideChange::Reset, Terms::none()),
        };
        result.map(|()| ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct BackendsFlags {
    /// Only those of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only those that get no requests
    #[arg(long)]
    down: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

// A doc comment here would take the place of the command's own description in its help.
#[derive(Debug, Args)]
#[command(after_help = TARGET)]
pub(super) struct BackendTarget {
    /// The backend
    #[arg(value_name = "POOL/BACKEND")]
    target: String,
    #[command(flatten)]
    control: Control,
}

#[derive(Debug, Args)]
struct Terms {
    /// End it after this time, such as 1h
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    lasts: Option<Duration>,
    /// Why; shown by `weir backends` and in the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Args)]
#[command(after_help = OF_DRAIN)]
pub(super) struct DrainFlags {
    #[command(flatten)]
    target: BackendTarget,
    #[command(flatten)]
    terms: Terms,
    /// Return when nothing is in flight to it; exit with 3 if that takes longer than this
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Disable {
    #[command(flatten)]
    target: BackendTarget,
    #[command(flatten)]
    terms: Terms,
}

#[derive(Debug, Args)]
#[command(after_help = TARGET)]
pub(super) struct WeightFlags {
    #[command(flatten)]
    target: BackendTarget,
    /// 1% to 1000% of its configured weight; 100% ends the setting
    #[arg(value_name = "PERCENT", value_parser = str::parse::<WeightPercent>)]
    percent: WeightPercent,
    #[command(flatten)]
    terms: Terms,
}

impl Terms {
    const fn none() -> Self {
        Self { lasts: None, reason: String::new() }
    }
}

/// Prints the backends.
pub(super) fn backends(flags: BackendsFlags) -> Result<(), String> {
    let BackendsFlags { pool, down, json, control } = flags;
    let query = BackendsQuery { pool, down, json, target: None };
    send_command(&control, &Request::Backends(query))
}

fn drain(flags: DrainFlags) -> Result<ExitCode, String> {
    let DrainFlags { target, terms, wait } = flags;
    set(&target, OverrideChange::Mode(OperatorMode::Draining), terms)?;
    let Some(wait) = wait else { return Ok(ExitCode::SUCCESS) };
    let clock = Clock::process();
    let deadline = clock.now() + wait;
    loop {
        let in_flight = in_flight(&target)?;
        if in_flight == 0 {
            return print("nothing is in flight").map(|()| ExitCode::SUCCESS);
        }
        if deadline <= clock.now() {
            print(&format!("still in flight: {in_flight}"))?;
            return Ok(ExitCode::from(STILL_IN_FLIGHT));
        }
        thread::park_timeout(POLL_INTERVAL.min(deadline.since(clock.now())));
    }
}

fn set(target: &BackendTarget, change: OverrideChange, terms: Terms) -> Result<(), String> {
    let Terms { lasts, reason } = terms;
    let (by, typed) = (String::new(), target.target.clone());
    let command = OverrideCommand { target: typed, change, lasts, reason, by };
    send_command(&target.control, &Request::Override(command))
}

/// Requests in flight to a backend, from all workers.
fn in_flight(target: &BackendTarget) -> Result<u64, String> {
    let query = BackendsQuery {
        target: Some(target.target.clone()),
        json: true,
        ..BackendsQuery::default()
    };
    let reply = ask(&target.control, &Request::Backends(query))?;
    if !reply.done {
        return Err(reply.text);
    }
    let rows: Vec<Value> = serde_json::from_str(&reply.text)
        .map_err(|error| format!("weir: the reply cannot be read: {error}"))?;
    let in_flight = rows.first().and_then(|row| row.get("in_flight")?.as_u64());
    in_flight.ok_or_else(|| "weir: the backend is no longer there".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn a_weight_is_read_with_its_time_and_its_reason() {
        let read = |percent: &str| {
            let line = ["weir", "weight", "web/a:1", percent, "--for", "1h", "--reason", "disk"];
            let command = Cli::try_parse_from(line).ok()?.command;
            let Command::Operator(OperatorCommand::Weight(flags)) = command else { return None };
            let WeightFlags { target, percent, terms } = flags;
            Some((target.target, percent.get(), terms.lasts, terms.reason))
        };
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(read("50%"), Some(("web/a:1".to_owned(), 50, hour, "disk".to_owned())));
        assert!(read("50").is_none() && read("0%").is_none());
    }
}
