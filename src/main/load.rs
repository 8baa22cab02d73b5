//! From a file to what it means, with the files that it names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use weir::clock::Clock;
use weir::config::{self, Config, Overrides, Problems};
use weir::supervisor;
use weir::tls::check::Expired;

/// Turns a file's text into its meaning and its version.
pub(super) fn loader(file: Option<PathBuf>, overrides: Overrides) -> supervisor::Load {
    Box::new(move |text| {
        let config = load(file.as_deref(), text, &overrides)?;
        for warning in look_at_files(&config, Expired::Told)? {
            log::warn!("configuration: {warning}");
        }
        Ok((config, config::version(text, &overrides)))
    })
}

/// What the text of `file` means. The files that it names are looked for beside it.
pub(super) fn load(
    file: Option<&Path>,
    text: Option<&[u8]>,
    overrides: &Overrides,
) -> Result<Config, Problems> {
    let config = config::load(text, overrides)?;
    Ok(config.in_directory(file.and_then(Path::parent).unwrap_or_else(|| Path::new(""))))
}

/// Opens the files that a configuration names; the warnings about them.
pub(super) fn look_at_files(
    config: &Config,
    expired: Expired,
) -> Result<Vec<config::Problem>, Problems> {
    let clock = Clock::process();
    weir::tls::check::check(config, clock.wall(clock.now()), expired)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's list of errors is open")]
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{}: there is no such file (help: check the path)", file.display())
        }
        _ => format!("{}: cannot be read: {error}", file.display()),
    })
}

pub(super) fn complain(file: Option<&Path>, problems: &Problems) -> String {
    let line = |problem| match file {
        Some(file) => format!("{}:{problem}", file.display()),
        None => format!("weir: {problem}"),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}
