//! What the log says of the service as a whole: what is in use, and that the stop is done.

use std::process;

use super::config::ActiveConfig;
use super::{Options, SupervisorError};
use crate::config::Config;

/// How many changes of one reload are logged; the rest is counted.
const CHANGES_MAX: usize = 100;

/// The version of this binary.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Logs what is going to be served, once the addresses are bound.
pub(super) fn announce_start(options: &Options, active: &ActiveConfig) {
    let file = options.file.as_deref().map(|file| file.display().to_string());
    log::info!(
        "starting: version={VERSION} pid={} file={} config={} {}{}",
        process::id(),
        file.as_deref().unwrap_or("none"),
        active.version,
        addresses(&active.config),
        overridden(&options.overridden_by)
    );
}

/// Logs that a reload is done, and what it has changed.
pub(super) fn announce_reload(version: &str, changes: &[String], overridden_by: &str) {
    let (count, overridden) = (changes.len(), overridden(overridden_by));
    log::info!("reloaded: config={version} changes={count}{overridden}");
    lines(changes).for_each(|line| log::info!("{line}"));
}

/// Logs the addresses in use if a reload has changed them.
pub(super) fn announce_addresses(before: &Config, after: &Config) {
    let now = addresses(after);
    if now != addresses(before) {
        log::info!("listening: {now}");
    }
}

/// Logs that the stop is done. Why one is not, the process says at its end.
pub(super) fn announce_end(ended: &Result<(), SupervisorError>) {
    if ended.is_ok() {
        log::info!("stopped");
    }
}

fn addresses(config: &Config) -> String {
    let listeners = config.listeners.iter().map(|listener| listener.address.to_string());
    let listeners: Vec<String> = listeners.collect();
    format!("listeners={} admin={}", listeners.join(","), config.admin.address)
}

/// What replaces parts of the file, as the end of a log line.
fn overridden(by: &str) -> String {
    if by.is_empty() { String::new() } else { format!(" overridden_by={by}") }
}

/// A log line for each change, up to a limit, and one that counts the rest.
fn lines(changes: &[String]) -> impl Iterator<Item = String> {
    let rest = changes.len().saturating_sub(CHANGES_MAX);
    let rest = (rest > 0).then(|| {
        format!("changed: {rest} more changes are not logged (help: `weir reload` prints all)")
    });
    changes.iter().take(CHANGES_MAX).map(|change| format!("changed: {change}")).chain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_line_up_to_a_limit_and_the_rest_is_counted() {
        let changes: Vec<String> =
            (0..CHANGES_MAX + 3).map(|pool| format!("pool {pool} added")).collect();
        let logged: Vec<String> = lines(&changes).collect();
        assert_eq!(logged.len(), CHANGES_MAX + 1);
        assert_eq!(logged.first().unwrap(), "changed: pool 0 added");
        assert!(logged.last().unwrap().starts_with("changed: 3 more changes are not logged"));
        assert_eq!(lines(&changes[..CHANGES_MAX]).count(), CHANGES_MAX);
        assert_eq!(lines(&[]).count(), 0);
    }

    fn config(listeners: &str) -> Config {
        let text = format!(
            "listeners: [{listeners}]\nadmin: {{address: '127.0.0.1:9191'}}\n\
             pools: [{{name: web, backends: [http://10.0.0.1:80]}}]"
        );
        crate::config::load(Some(text.as_bytes()), &crate::config::Overrides::default()).unwrap()
    }

    #[test]
    fn every_address_is_logged_in_the_order_of_the_file() {
        let both = config("{address: '127.0.0.2:81'}, {address: '127.0.0.1:80'}");
        let logged = addresses(&both);
        assert_eq!(logged, "listeners=127.0.0.2:81,127.0.0.1:80 admin=127.0.0.1:9191");
    }

    #[test]
    fn flags_are_mentioned_only_if_they_replace_something() {
        assert_eq!(overridden(""), "");
        assert_eq!(overridden("--admin,WEIR_LISTEN"), " overridden_by=--admin,WEIR_LISTEN");
    }
}
