//! Reading the configuration, and reporting what a reload has changed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::{Options, SupervisorError, file, watch};
use crate::config::{self, Config, Position};
use crate::sockets::BindError;

/// A configuration that is served, or about to be.
#[derive(Debug)]
pub(super) struct ActiveConfig {
    pub(super) config: Config,
    /// The text of its file, if it has one.
    pub(super) text: Option<String>,
    pub(super) version: String,
}

impl ActiveConfig {
    /// Every address: the listeners, and at the end the admin port.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.config.listeners.iter().map(|listener| listener.address);
        listeners.chain([self.config.admin.address]).collect()
    }

    /// Where one of [`Self::addresses`] is defined in the file.
    fn position_of(&self, address: SocketAddr) -> Option<Position> {
        let Config { listeners, admin, .. } = &self.config;
        let listeners = listeners.iter().map(|one| (one.address, one.defined_at));
        let mut all = listeners.chain([(admin.address, admin.defined_at)]);
        all.find(|(one, _)| *one == address).and_then(|(_, defined_at)| defined_at.0)
    }
}

/// The configuration file, as it was read last.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    /// A hash of its contents, whether or not they could be used.
    last_read: Option<u64>,
}

impl ConfigFile {
    /// The file of a configuration that is served.
    pub(super) fn of(active: &ActiveConfig) -> Self {
        Self { last_read: active.text.as_deref().map(|text| watch::hash(text.as_bytes())) }
    }

    /// Whether contents with this hash were read last.
    pub(super) fn is_known(&self, hash: u64) -> bool {
        self.last_read == Some(hash)
    }

    pub(super) fn read_and_load(
        &mut self,
        options: &Options,
    ) -> Result<ActiveConfig, SupervisorError> {
        let text = match &options.file {
            Some(path) => {
                let bytes = file::read(path);
                self.last_read = bytes.as_ref().ok().map(|bytes| watch::hash(bytes));
                text(options, path, bytes)?
            }
            None => options.text.clone(),
        };
        load(options, text)
    }
}

/// The contents of the file as text.
fn text(
    options: &Options,
    path: &Path,
    bytes: io::Result<Vec<u8>>,
) -> Result<Option<String>, SupervisorError> {
    let rejected = |why: String| SupervisorError::Rejected(format!("{}: {why}", path.display()));
    let bytes = bytes.map_err(|error| rejected(file::cannot_read(&error)))?;
    // The checker says where bytes are that are no text.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match (options.load)(Some(error.as_bytes())) {
            Err(problems) => Err(SupervisorError::Rejected(format_problems(options, &problems))),
            Ok(_) => Err(rejected("is not text".to_owned())),
        },
    }
}

/// Checks a text and turns it into a configuration.
pub(super) fn load(
    options: &Options,
    text: Option<String>,
) -> Result<ActiveConfig, SupervisorError> {
    let (config, version) = (options.load)(text.as_deref().map(str::as_bytes))
        .map_err(|problems| SupervisorError::Rejected(format_problems(options, &problems)))?;
    Ok(ActiveConfig { config, text, version })
}

fn format_problems(options: &Options, problems: &config::Problems) -> String {
    let file = options.file.as_deref();
    problems.iter().map(|problem| problem.line(file)).collect::<Vec<_>>().join("\n")
}

/// Addresses that cannot be bound, each with its position in the file, if it is defined there.
pub(super) fn format_bind_errors(
    options: &Options,
    active: &ActiveConfig,
    errors: &[BindError],
) -> SupervisorError {
    let line = |error: &BindError| match (&options.file, active.position_of(error.address)) {
        (Some(file), Some(position)) => format!("{}:{position}: {error}", file.display()),
        (_, _) => format!("weir: {error}"),
    };
    SupervisorError::Bind(errors.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// What a reload has changed, for the client that asked. `overridden_by`: the flags and variables that replace
/// parts of the file, which may hide a change of it.
pub(super) fn report(changes: &[String], version: &str, overridden_by: &str) -> String {
    match (changes, overridden_by) {
        ([], "") => return format!("reloaded, nothing changed (configuration {version})"),
        ([], names) => {
            return format!(
                "reloaded, nothing changed (configuration {version}); flags or variables of the start replace \
                 parts of the file: overridden_by={names}"
            );
        }
        _ => {}
    }
    format!("reloaded (configuration {version}):\n  {}", changes.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_without_a_change_says_what_may_hide_one() {
        let changes = ["pool web added".to_owned(), "pool old removed".to_owned()];
        for (changes, overridden_by, text) in [
            (&[][..], "", "reloaded, nothing changed (configuration v2)"),
            (
                &[][..],
                "--admin",
                "reloaded, nothing changed (configuration v2); flags or variables of the start replace \
                 parts of the file: overridden_by=--admin",
            ),
            (
                &changes[..],
                "--admin",
                "reloaded (configuration v2):\n  pool web added\n  pool old removed",
            ),
        ] {
            assert_eq!(report(changes, "v2", overridden_by), text);
        }
    }

    #[test]
    fn contents_that_could_not_be_used_are_known_too() {
        assert!(!ConfigFile::default().is_known(watch::hash(b"")));
        let file = ConfigFile { last_read: Some(watch::hash(b"not yaml: [")) };
        assert!(file.is_known(watch::hash(b"not yaml: [")));
        assert!(!file.is_known(watch::hash(b"not yaml: []")));
    }
}
