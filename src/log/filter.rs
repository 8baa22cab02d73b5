//! Validates `WEIR_LOG`.
//!
//! `env_logger` interprets a word that is not a level as the name of a module, and then silences
//! all other modules without an error. Here a word must be a level, and a module needs a level
//! after its name.

use std::str::FromStr as _;

use log::LevelFilter;
use regex::Regex;

/// The crates that log.
const CRATES: [&str; 3] = ["weir", "pingora", "rustls"];

const HELP: &str = "(help: a level (off, error, warn, info, debug or trace), or a module and its level \
                    such as `weir=debug`, several with commas between them)";

/// The error of a filter, for the operator; `None` if it is valid.
#[must_use]
pub fn problem(filter: &str) -> Option<String> {
    let (directives, pattern) = match filter.split_once('/') {
        Some((directives, pattern)) => (directives, Some(pattern)),
        None => (filter, None),
    };
    let directives = directives.split(',').map(str::trim).filter(|it| !it.is_empty());
    let what = directives.map(of_directive).find_map(Result::err);
    let what = what.or_else(|| pattern.and_then(of_pattern))?;
    Some(format!("{what} {HELP}"))
}

fn of_directive(directive: &str) -> Result<(), String> {
    let is_level = |text: &str| LevelFilter::from_str(text).is_ok();
    match directive.split_once('=') {
        None if is_level(directive) => Ok(()),
        None if is_known(directive) => Err(format!("the level of `{directive}` is missing")),
        None => Err(format!("`{directive}` is no level")),
        Some((module, level)) if !is_level(level.trim()) => {
            Err(format!("`{}` is no level, at `{module}`", level.trim()))
        }
        Some((module, _)) if !is_known(module) => Err(format!(
            "no module is called `{module}`, those that log begin with `weir`, `pingora` or `rustls`"
        )),
        Some(_) => Ok(()),
    }
}

fn is_known(module: &str) -> bool {
    CRATES.iter().any(|known| module.starts_with(known))
}

fn of_pattern(pattern: &str) -> Option<String> {
    if pattern.contains('/') {
        return Some("there is more than one `/`".to_owned());
    }
    let error = Regex::new(pattern).err()?;
    let last = error.to_string().lines().last().unwrap_or_default().to_owned();
    Some(format!("`{pattern}` is no regular expression, {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_levels_of_modules_are_filters() {
        for filter in [
            "",
            "info",
            "INFO",
            "off",
            "weir=debug",
            "info,pingora_core=warn,pingora_proxy=off",
            " warn , weir::probe = trace",
            "info/backend .* unhealthy",
        ] {
            assert_eq!(problem(filter), None, "{filter}");
        }
    }

    #[test]
    fn an_invalid_filter_is_reported() {
        for (filter, what) in [
            ("verbose", "`verbose` is no level"),
            ("info,quiet", "`quiet` is no level"),
            ("weir", "the level of `weir` is missing"),
            ("weir=verbose", "`verbose` is no level, at `weir`"),
            ("weir=", "`` is no level, at `weir`"),
            ("wier=debug", "no module is called `wier`"),
            ("info/a/b", "there is more than one `/`"),
            ("info/(", "`(` is no regular expression"),
        ] {
            let found = problem(filter).unwrap_or_default();
            assert!(found.starts_with(what), "{filter}: {found}");
            assert!(found.contains("such as `weir=debug`"), "{filter}: {found}");
        }
    }
}
