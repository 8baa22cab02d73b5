//! Values of flags and of the environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weir::config::{Override, Overrides};

use super::variable;

/// What the help of a command with [`Overriding`] says of the environment.
pub(super) const ENVIRONMENT: &str = "\
Environment (flags win over it, it wins over the file): WEIR_CONFIG, WEIR_LISTEN, WEIR_BACKENDS \
(both comma lists), WEIR_ALGORITHM, WEIR_ADMIN";

// A doc comment here would take the place of the command's own description in its help.
#[derive(Debug, Args)]
pub(super) struct Overriding {
    /// Listen here, in place of the file's listeners; may be repeated [env: WEIR_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// A backend, in place of the file's; may be repeated [env: WEIR_BACKENDS]
    #[arg(long, value_name = "URL")]
    backend: Vec<String>,
    /// round_robin, least_conn, ip_hash or random, for every pool [env: WEIR_ALGORITHM]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// How long a whole request may take, for every pool, such as 10s
    #[arg(long, value_name = "DURATION")]
    request_timeout: Option<String>,
    /// How often backends are probed, for every pool, such as 10s
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// The admin port's address [env: WEIR_ADMIN]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl Overriding {
    /// Flags win over the environment.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            listen: many(&self.listen, "--listen", "WEIR_LISTEN"),
            backends: many(&self.backend, "--backend", "WEIR_BACKENDS"),
            algorithm: one(self.algorithm.as_ref(), "--algorithm", Some("WEIR_ALGORITHM")),
            request_timeout: one(self.request_timeout.as_ref(), "--request-timeout", None),
            health_interval: one(self.health_interval.as_ref(), "--health-interval", None),
            admin: one(self.admin.as_ref(), "--admin", Some("WEIR_ADMIN")),
        }
    }
}

/// The configuration file: the flag's, else the environment's.
pub(super) fn file(flag: Option<&PathBuf>) -> Option<PathBuf> {
    flag.cloned().or_else(|| variable("WEIR_CONFIG").map(PathBuf::from))
}

fn one(
    flag: Option<&String>,
    name: &'static str,
    environment: Option<&'static str>,
) -> Option<Override> {
    let flag = flag.map(|value| Override::flag(name, value));
    flag.or_else(|| environment.and_then(|name| Some(Override::environment(name, variable(name)?))))
}

fn many(flags: &[String], name: &'static str, environment: &'static str) -> Vec<Override> {
    if !flags.is_empty() {
        return flags.iter().map(|value| Override::flag(name, value)).collect();
    }
    let list = variable(environment).unwrap_or_default();
    let values = list.split(',').map(str::trim).filter(|value| !value.is_empty());
    values.map(|value| Override::environment(environment, value)).collect()
}

/// Variables that other balancers' images read, and those of Weir.
const FOREIGN_VARIABLES: [(&str, &str); 3] = [
    ("LB_CONFIG", "WEIR_CONFIG"),
    ("LB_ALGORITHM", "WEIR_ALGORITHM"),
    ("BACKENDS", "WEIR_BACKENDS"),
];

/// Warns of variables that are set and have no effect.
pub(super) fn warn_of_foreign_variables() {
    for (name, ours) in FOREIGN_VARIABLES {
        if variable(name).is_some() {
            log::warn!("environment variable not read: name={name} (help: Weir reads {ours})");
        }
    }
}

/// How long a worker may make no progress; `None` is `off`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HangTimeout(Option<Duration>);

/// Shorter ones would take a busy machine for a hang.
const HANG_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const HANG_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Reads a value of `--hang-timeout`.
pub(super) fn hang_timeout(text: &str) -> Result<HangTimeout, String> {
    if text == "off" {
        return Ok(HangTimeout(None));
    }
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < HANG_TIMEOUT_MIN {
        return Err("must be at least 1s, or off".to_owned());
    }
    Ok(HangTimeout(Some(duration)))
}

/// The flag, else the environment, else the default.
pub(super) fn hang_timeout_of(flag: Option<HangTimeout>) -> Result<Option<Duration>, String> {
    if let Some(HangTimeout(given)) = flag {
        return Ok(given);
    }
    let Some(text) = variable("WEIR_HANG_TIMEOUT") else { return Ok(Some(HANG_TIMEOUT_DEFAULT)) };
    let HangTimeout(given) =
        hang_timeout(&text).map_err(|why| format!("weir: WEIR_HANG_TIMEOUT: `{text}`: {why}"))?;
    Ok(given)
}
