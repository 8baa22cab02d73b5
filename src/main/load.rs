//! Loads and checks a configuration file and the files that it names.

use std::path::{Path, PathBuf};

use weir::clock::Clock;
use weir::config::{self, Config, ConfigBuilder, Overrides, Problems, Report};
use weir::resolve::check_names;
use weir::runtime::self_redirects::report_self_redirects;
use weir::supervisor;
use weir::tls::check::{OnExpired, check_files};

/// Loads a file's text: its configuration and version.
pub(super) fn loader(file: Option<PathBuf>, overrides: Overrides) -> supervisor::Load {
    Box::new(move |text| {
        let report = check(file.as_deref(), text, &overrides);
        let config = report.config?;
        for warning in report.warnings {
            log::warn!("configuration: {}", warning.0);
        }
        Ok((config, config::version(text, &overrides)))
    })
}

/// Loads the text of `file` for a worker, after the supervisor has checked it.
pub(super) fn load(
    file: Option<&Path>,
    text: Option<&[u8]>,
    overrides: &Overrides,
) -> Result<Config, Problems> {
    ConfigBuilder::new(text, overrides, directory(file))?.finish().config
}

/// Checks the text of `file` and the files that it names.
fn check(file: Option<&Path>, text: Option<&[u8]>, overrides: &Overrides) -> Report {
    let builder = builder(file, text, overrides, OnExpired::Warn);
    builder.map_or_else(Report::from, ConfigBuilder::finish)
}

fn builder(
    file: Option<&Path>,
    text: Option<&[u8]>,
    overrides: &Overrides,
    expired: OnExpired,
) -> Result<ConfigBuilder, Problems> {
    let mut builder = ConfigBuilder::new(text, overrides, directory(file))?;
    report_self_redirects(&mut builder);
    let clock = Clock::process();
    check_files(&mut builder, clock.wall(clock.now()), expired);
    Ok(builder)
}

/// The same for `weir check`, which also resolves host names. That may take longer than a supervisor can
/// wait.
pub(super) fn check_all(file: Option<&Path>, text: Option<&[u8]>, overrides: &Overrides) -> Report {
    let mut builder = match builder(file, text, overrides, OnExpired::Reject) {
        Ok(builder) => builder,
        Err(problems) => return problems.into(),
    };
    check_names(&mut builder);
    builder.finish()
}

/// The directory that file names in `file` are relative to.
fn directory(file: Option<&Path>) -> &Path {
    file.and_then(Path::parent).unwrap_or_else(|| Path::new(""))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    supervisor::read_file(file)
        .map_err(|error| format!("{}: {}", file.display(), supervisor::cannot_read(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_relative_to_the_directory_of_the_configuration() {
        assert_eq!(directory(Some(Path::new("/etc/weir/weir.yaml"))), Path::new("/etc/weir"));
        assert_eq!(directory(Some(Path::new("weir.yaml"))), Path::new(""));
        assert_eq!(directory(None), Path::new(""));
    }

    #[test]
    fn a_loaded_configuration_has_a_version_of_its_text_and_overrides() {
        let text = b"pools: [{name: a, backends: [http://10.0.0.1:1]}]";
        let overrides = |algorithm| Overrides {
            algorithm: Some(config::Override::flag("--algorithm", algorithm)),
            ..Overrides::default()
        };
        let version = |overrides| loader(None, overrides)(Some(text)).map(|(_, version)| version);
        let plain = version(Overrides::default()).unwrap();
        let hashed = version(overrides("ip_hash")).unwrap();
        assert_eq!(version(overrides("ip_hash")).as_ref(), Ok(&hashed));
        assert!(plain != hashed && version(overrides("least")).is_err());
    }
}
