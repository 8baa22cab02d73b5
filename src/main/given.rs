//! Values that win over the file.

use weir::config::{Override, Overrides};

use super::{Run, variable};

pub(super) fn overrides(flags: &Run) -> Overrides {
    Overrides {
        listen: many(&flags.listen, "--listen", "WEIR_LISTEN"),
        backends: many(&flags.backend, "--backend", "WEIR_BACKENDS"),
        algorithm: one(flags.algorithm.as_ref(), "--algorithm", Some("WEIR_ALGORITHM")),
        request_timeout: one(flags.request_timeout.as_ref(), "--request-timeout", None),
        health_interval: one(flags.health_interval.as_ref(), "--health-interval", None),
        admin: one(flags.admin.as_ref(), "--admin", Some("WEIR_ADMIN")),
    }
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
