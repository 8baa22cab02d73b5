//! A configuration while it is looked at.

use std::fmt;
use std::path::Path;

use super::problem::Diagnostics;
use super::{Config, Overrides, Problem, Problems, check, file, foreign, yaml};

/// What a file means as far as that is clear, and all that is wrong with it so far. Whoever looks
/// further, at the files that it names for example, adds to it, so that the operator is told
/// everything at once.
#[derive(Debug)]
pub struct ConfigBuilder {
    config: Config,
    found: Diagnostics,
}

/// Something that is allowed, and that was probably not meant so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl fmt::Display for Warning {
    /// Like a problem, with the word for it behind the place.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { at, what, help } = self.0.clone();
        Problem { at, what: format!("warning: {what}"), help }.fmt(formatter)
    }
}

/// What has come of a look at a file.
#[derive(Debug)]
pub struct Report {
    /// In the order of the file; what is not in the file comes last.
    pub warnings: Vec<Warning>,
    /// What it means, or why it means nothing.
    pub config: Result<Config, Problems>,
}

impl From<Problems> for Report {
    fn from(problems: Problems) -> Self {
        Self { warnings: Vec::new(), config: Err(problems) }
    }
}

impl ConfigBuilder {
    /// Reads a file and the values that win over it; the file may be left out. Names of files are
    /// relative to `directory`.
    ///
    /// # Errors
    /// Why it cannot be read at all.
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
                let file = file::File::read(&root, &mut found).map_err(known)?;
                let typed = file.pools.is_some() || file.refused.contains(&"pools");
                if overrides.backends.is_empty() && !typed {
                    found.add(Problem::new(root.at, "`pools` is missing").help(file::SMALLEST));
                }
                file
            }
            None if overrides.backends.is_empty() => return Err(nothing().into()),
            None => file::File::default(),
        };
        overrides.apply(&mut file, &mut found);
        let config = check::check(file, &mut found).in_directory(directory);
        found.explain_variables();
        Ok(Self { config, found })
    }

    /// What it means. Where something is wrong it is a guess, of which only the names of files are
    /// worth a look.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds something wrong.
    pub fn refuse(&mut self, problem: Problem) {
        self.found.add(problem);
    }

    /// Adds something that was probably not meant so.
    pub fn warn(&mut self, problem: Problem) {
        self.found.warnings.push(problem);
    }

    /// What has come of it.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut warnings = std::mem::take(&mut self.found.warnings);
        warnings.sort_by_key(Problem::place);
        let warnings = warnings.into_iter().map(Warning).collect();
        Report { warnings, config: self.found.or(self.config) }
    }
}

fn nothing() -> Problem {
    Problem::nowhere("there is nothing to balance")
        .help("name a file by `-c FILE`, or a backend by `--backend http://10.0.0.1:3000`")
}
