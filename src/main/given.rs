//! Values of flags and of the environment.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weir::config::{Override, Overrides, nearest, parse_duration};

use super::variable;

/// What the help of a command with [`Overriding`] says of the environment.
macro_rules! environment {
    ($more:literal) => {
        concat!(
            "Environment (flags win over it, it wins over the file): WEIR_CONFIG, WEIR_LISTEN and \
             WEIR_BACKENDS (comma lists), WEIR_ALGORITHM, WEIR_ADMIN, ",
            $more,
            "WEIR_LOG (a filter such as `info` or `weir=debug`), WEIR_DEBUG=1"
        )
    };
}

/// The environment of `run`.
pub(super) const OF_RUN: &str = environment!("WEIR_CONTROL, WEIR_HANG_TIMEOUT, ");
/// The environment of `check`.
pub(super) const OF_CHECK: &str = environment!("");

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

/// Variables that the container images of other balancers read, and those of Weir.
const FOREIGN_VARIABLES: [(&str, &str); 3] = [
    ("LB_CONFIG", "WEIR_CONFIG"),
    ("LB_ALGORITHM", "WEIR_ALGORITHM"),
    ("BACKENDS", "WEIR_BACKENDS"),
];

/// The variables that an operator may set.
const VARIABLES: [&str; 9] = [
    "WEIR_CONFIG",
    "WEIR_LISTEN",
    "WEIR_BACKENDS",
    "WEIR_ALGORITHM",
    "WEIR_ADMIN",
    "WEIR_CONTROL",
    "WEIR_HANG_TIMEOUT",
    "WEIR_LOG",
    "WEIR_DEBUG",
];

/// Variables of an image of Weir for the next one, and of its tests.
const INTERNAL_VARIABLES: [&str; 8] = [
    "WEIR_RESUME",
    "WEIR_FORMER",
    "WEIR_WENT_BACK",
    "WEIR_FAULT",
    "WEIR_RELOADS",
    "WEIR_LEDGER_SECONDS",
    "WEIR_STALL_SECONDS",
    "WEIR_TEST_NETWORK",
];

/// How many unknown variables are named.
const UNKNOWN_MAX: usize = 20;

/// Warns of variables that are set and have no effect.
pub(super) fn warn_of_unread_variables() {
    for (name, ours) in FOREIGN_VARIABLES {
        if variable(name).is_some() {
            log::warn!("environment variable not read: name={name} (help: Weir reads {ours})");
        }
    }
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = set.filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_unknown(name));
    for name in names.take(UNKNOWN_MAX) {
        let help = match nearest(&name, VARIABLES) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("Weir reads {}", VARIABLES.join(", ")),
        };
        log::warn!("environment variable not read: name={name} (help: {help})");
    }
}

/// Whether a variable looks like one of Weir and is none.
fn is_unknown(name: &str) -> bool {
    let is_plain = || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.starts_with("WEIR_")
        && is_plain()
        && !VARIABLES.contains(&name)
        && !INTERNAL_VARIABLES.contains(&name)
        && !is_service_link(name)
}

/// Whether Kubernetes sets it, for a Service that is named `weir` or `weir-…`: `WEIR_SERVICE_HOST`,
/// `WEIR_SERVICE_PORT_HTTP`, `WEIR_PORT`, `WEIR_PORT_8080_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    let has_port_number = |(_, rest): (&str, &str)| rest.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(has_port_number)
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
    let duration = parse_duration(text)?;
    if duration < HANG_TIMEOUT_MIN {
        return Err(format!("`{text}` is shorter than 1s (help: write `1s` or longer, or `off`)"));
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
        hang_timeout(&text).map_err(|why| format!("weir: WEIR_HANG_TIMEOUT: {why}"))?;
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_look_like_weirs_and_are_none_are_unknown() {
        for name in ["WEIR_LISTENER", "WEIR_", "WEIR_PORT_X", "WEIR_HANG"] {
            assert!(is_unknown(name), "{name}");
        }
        for name in [
            "WEIR_LISTEN",
            "WEIR_RESUME",
            "weir_listen",
            "WEIRD",
            "PATH",
            "WEIR_A-B",
            "WEIR_SERVICE_HOST",
        ] {
            assert!(!is_unknown(name), "{name}");
        }
    }

    #[test]
    fn the_variables_of_a_kubernetes_service_are_known() {
        for name in [
            "WEIR_SERVICE_HOST",
            "WEIR_SERVICE_PORT_HTTP",
            "WEIR_ADMIN_SERVICE_PORT",
            "WEIR_PORT",
            "WEIR_PORT_8080_TCP_ADDR",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["WEIR_PORTS", "WEIR_PORT_NAME", "WEIR_HOST"] {
            assert!(!is_service_link(name), "{name}");
        }
    }

    #[test]
    fn a_hang_timeout_is_a_second_or_longer_or_off() {
        let read = |text| hang_timeout(text).map(|HangTimeout(timeout)| timeout);
        assert_eq!(read("off"), Ok(None));
        assert_eq!(read("1s"), Ok(Some(Duration::from_secs(1))));
        assert!(read("999ms").unwrap_err().contains("is shorter than 1s"));
        for text in ["", "5", "OFF", "-1s"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_replace_the_environment_and_not_each_other() {
        let given = ["a".to_owned(), "b".to_owned()];
        let both = many(&given, "--listen", "WEIR_TEST_UNSET");
        assert_eq!(both, [Override::flag("--listen", "a"), Override::flag("--listen", "b")]);
        assert!(many(&[], "--listen", "WEIR_TEST_UNSET").is_empty());
    }
}
