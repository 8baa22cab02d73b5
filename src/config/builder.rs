//! A configuration that is being checked.

use super::listener::ClientAuth;
use std::fmt;
use std::path::Path;

use super::file::RawFile;
use super::meaning::{Backend, Config};
use super::overrides::Overrides;
use super::problem::Diagnostics;
use super::problem::{Problem, Problems, SMALLEST};
use super::source::ConfigSource;
use super::{check, foreign, yaml};

/// A configuration as far as it is known, with all problems found so far. Further checks, for example of
/// the certificate files, add to it, so that all problems are reported at once.
#[derive(Debug)]
pub struct ConfigBuilder {
    config: Config,
    found: Diagnostics,
}

/// Something that is allowed, but probably a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl Warning {
    /// The message like [`Problem::line`], with `warning: ` after the position.
    #[must_use]
    pub fn line(&self, file: Option<&Path>) -> String {
        self.problem().line(file)
    }

    fn problem(&self) -> Problem {
        let Problem { at, what, help } = self.0.clone();
        Problem { at, what: format!("warning: {what}"), help }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem().fmt(formatter)
    }
}

/// Result of checking a file.
#[derive(Debug)]
pub struct Report {
    /// In the order of the file; those without a position come last.
    pub warnings: Vec<Warning>,
    /// The configuration, or all its problems.
    pub config: Result<Config, Problems>,
}

impl From<Problems> for Report {
    fn from(problems: Problems) -> Self {
        Self { warnings: Vec::new(), config: Err(problems) }
    }
}

impl ConfigBuilder {
    /// Reads a file and the overrides; the file may be missing. File names are relative to
    /// `directory`.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn new(
        text: Option<&[u8]>,
        overrides: &Overrides,
        directory: &Path,
    ) -> Result<Self, Problems> {
        let mut found = Diagnostics::default();
        let mut file = match text {
            Some(bytes) => {
                let known = |problem| foreign::problem(bytes).unwrap_or(problem);
                let root = yaml::read(bytes).map_err(known)?;
                if let Some(problem) = foreign::problem_of_keys(&root) {
                    return Err(problem.into());
                }
                let file = RawFile::read(&root, &mut found).map_err(known)?;
                let typed = file.pools.is_some() || file.refused.contains(&"pools");
                if overrides.backends.is_empty() && !typed {
                    found.add(Problem::new(root.at, "`pools` is missing").help(SMALLEST));
                }
                file
            }
            None if overrides.backends.is_empty() => return Err(nothing().into()),
            None => RawFile::default(),
        };
        overrides.apply(&mut file, &mut found);
        let mut config = check::check(file, &mut found).in_directory(directory);
        config.source = ConfigSource::new(text, overrides);
        found.explain_variables();
        Ok(Self { config, found })
    }

    /// The configuration. If there are problems, only the file names in it are meaningful.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether there are no problems so far.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds a problem.
    pub fn refuse(&mut self, problem: Problem) {
        self.found.add(problem);
    }

    /// Adds a warning.
    pub fn warn(&mut self, problem: Problem) {
        self.found.warnings.push(problem);
    }

    /// The result.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut warnings = std::mem::take(&mut self.found.warnings);
        warnings.sort_by_key(Problem::place);
        let warnings = warnings.into_iter().map(Warning).collect();
        Report { warnings, config: self.found.or(self.config) }
    }
}

impl Config {
    /// Resolves relative file names against `directory`.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        for tls in self.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
            let certificates = &mut tls.certificates;
            let files = certificates.iter_mut().flat_map(|one| [&mut one.cert, &mut one.key]);
            let authority = match &mut tls.client_auth {
                ClientAuth::Off => None,
                ClientAuth::Request(authority) | ClientAuth::Require(authority) => Some(authority),
            };
            files.chain(authority).for_each(|file| file.path = directory.join(&file.path));
        }
        let lists = self.pools.iter_mut().flat_map(|pool| &mut pool.backends);
        for file in lists.filter_map(Backend::file_mut) {
            file.path = directory.join(&file.path);
        }
        let backends = self.pools.iter_mut().flat_map(|pool| pool.transport.tls.files_mut());
        backends.for_each(|file| file.path = directory.join(&file.path));
        self
    }
}

fn nothing() -> Problem {
    Problem::nowhere("there is nothing to balance")
        .help("pass a file with `-c FILE`, or a backend with `--backend http://10.0.0.1:3000`")
}

/// Loads a file with its overrides; the file may be missing.
///
/// # Errors
/// All problems, in the order of the file.
pub fn load(text: Option<&[u8]>, overrides: &Overrides) -> Result<Config, Problems> {
    ConfigBuilder::new(text, overrides, Path::new(""))?.finish().config
}
