//! Problems of a configuration, and the messages about them.
//!
//! A problem says where it is, what is wrong, and what to do. All problems are reported at once, so that a
//! file can be corrected in one go.

use std::fmt;
use std::path::Path;

use super::limits;

/// The help where a file is empty or unusable.
pub(super) const SMALLEST: &str =
    "the smallest file is `pools: [{name: web, backends: [http://10.0.0.1:3000]}]`";

/// A position in the file, as an editor counts: both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Position {
    /// The first character of the file.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// Where something is defined in the file. Positions do not affect equality: any two are equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourcePosition(pub Option<Position>);

impl Eq for SourcePosition {}

impl PartialEq for SourcePosition {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Where a value that overrides the file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Flag(name) | Self::Environment(name)) = self;
        formatter.write_str(name)
    }
}

/// Where a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    File(Position),
    Override(Source),
}

impl Origin {
    /// The start of the file.
    pub(super) const START: Self = Self::File(Position::START);

    /// The position, if it is in the file.
    pub(super) const fn position(self) -> Option<Position> {
        match self {
            Self::File(position) => Some(position),
            Self::Override(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(position) => position.fmt(formatter),
            Self::Override(source) => source.fmt(formatter),
        }
    }
}

/// A value, and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned<T> {
    pub(super) at: Origin,
    pub(super) value: T,
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Position in the file; `None` if the problem is not in the file.
    pub at: Option<Position>,
    /// What is wrong: lower case, no full stop.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn new(at: Origin, what: impl Into<String>) -> Self {
        let what = what.into();
        match at {
            Origin::File(position) => Self { at: Some(position), what, help: None },
            Origin::Override(source) => {
                Self { at: None, what: format!("{source}: {what}"), help: None }
            }
        }
    }

    pub(super) fn in_file(at: Position, what: impl Into<String>) -> Self {
        Self::new(Origin::File(at), what)
    }

    pub(super) fn nowhere(what: impl Into<String>) -> Self {
        Self { at: None, what: what.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The message on a line of its own, after the name of `file` if the problem is in the file.
    #[must_use]
    pub fn line(&self, file: Option<&Path>) -> String {
        match file {
            Some(file) if self.at.is_some() => format!("{}:{self}", file.display()),
            Some(_) | None => format!("weir: {self}"),
        }
    }

    /// Sort key: problems that are not in the file come last.
    pub(super) fn place(&self) -> impl Ord + use<> {
        (self.at.is_none(), self.at)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(formatter, "{at}: ")?;
        }
        write_with_help(formatter, &self.what, self.help.as_deref())
    }
}

/// Writes what is wrong, and what to do about it.
pub(super) fn write_with_help(
    formatter: &mut fmt::Formatter<'_>,
    what: &str,
    help: Option<&str>,
) -> fmt::Result {
    formatter.write_str(what)?;
    match help {
        Some(help) => write!(formatter, " (help: {help})"),
        None => Ok(()),
    }
}

/// All problems of a configuration, in the order of the file; those that are not in the file come last.
/// Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `None` if the list is empty.
    #[must_use]
    pub fn of(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// Each problem in turn.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            problem.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems. Keeps [`limits::PROBLEMS_MAX`] and counts the rest, so that a file with a million
/// mistakes does not need the memory for a million messages.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    problems: Vec<Problem>,
    more: usize,
    /// What is allowed, but probably a mistake.
    pub(super) warnings: Vec<Problem>,
}

impl Diagnostics {
    pub(super) fn add(&mut self, problem: Problem) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.problems.push(problem);
        }
    }

    pub(super) fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        problems.into_iter().for_each(|problem| self.add(problem));
    }

    /// Adds to each problem with a value such as `${HOST}` that Weir does not expand variables.
    pub(super) fn explain_variables(&mut self) {
        for problem in self.problems.iter_mut().filter(|problem| problem.what.contains("${")) {
            problem.help = Some(
                "Weir does not expand variables in its file: generate the file, for example with envsubst".to_owned(),
            );
        }
    }

    /// Whether further problems are only counted; then their messages need not be made.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= limits::PROBLEMS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// `value`, if there are no problems.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Problems> {
        if self.problems.is_empty() {
            return Ok(value);
        }
        // Stable, so that of two problems at one place the first found stays the first.
        self.problems.sort_by_key(Problem::place);
        if self.more > 0 {
            self.problems.push(Problem::nowhere(format!("and {} more problems", self.more)));
        }
        Err(Problems(self.problems))
    }
}

/// Typed text for a message: in backticks, on one line, and shortened.
pub(super) fn quote(typed: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut quoted = String::from("`");
    for (index, character) in typed.chars().enumerate() {
        if index == SHOWN_MAX {
            quoted.push('…');
            break;
        }
        if character.is_control() {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    quoted
}

/// The one of `known` that was probably meant by `typed`.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No known word is longer, and the comparison takes the product of the lengths.
    const COMPARED_MAX: usize = 64;
    if typed.len() > COMPARED_MAX {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', ' ', '.'], "_");
    let typed = plain(typed);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&typed, &plain(candidate)), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.len().min(typed.len()) / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` or `c` ``
pub(super) fn any_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match (quoted.pop(), quoted.is_empty()) {
        (None, _) => String::new(),
        (Some(only), true) => only,
        (Some(last), false) => format!("{} or {last}", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Origin {
        Origin::File(Position { line, column })
    }

    #[test]
    fn a_problem_says_where_what_and_what_to_do() {
        let problem = Problem::new(at(4, 22), "too short").help("write more");
        assert_eq!(problem.to_string(), "4:22: too short (help: write more)");
    }

    #[test]
    fn a_problem_of_a_flag_names_the_flag_and_no_line() {
        let problem = Problem::new(Origin::Override(Source::Flag("--listen")), "no port");
        assert_eq!(problem.to_string(), "--listen: no port");
        assert_eq!(problem.at, None);
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_those_of_flags_last() {
        let mut found = Diagnostics::default();
        found.add(Problem::nowhere("d"));
        found.add(Problem::new(at(2, 1), "c"));
        found.add(Problem::new(at(1, 9), "b"));
        found.add(Problem::new(at(1, 2), "a"));
        let problems = found.or(()).unwrap_err();
        assert_eq!(problems.to_string(), "1:2: a\n1:9: b\n2:1: c\nd");
    }

    #[test]
    fn a_flood_of_problems_is_counted_instead_of_kept() {
        let mut found = Diagnostics::default();
        for _ in 0..limits::PROBLEMS_MAX + 5 {
            found.add(Problem::nowhere("x"));
        }
        let problems = found.or(()).unwrap_err();
        assert_eq!(problems.iter().count(), limits::PROBLEMS_MAX + 1);
        assert_eq!(problems.iter().last().unwrap().what, "and 5 more problems");
    }

    #[test]
    fn what_was_typed_cannot_break_the_line_or_the_terminal() {
        assert_eq!(quote("a\n\u{1b}[2J"), "`a\\n\\u{1b}[2J`");
        assert_eq!(quote(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest("backend", ["name", "backends"]), Some("backends"));
        assert_eq!(nearest("round-robin", ["round_robin", "random"]), Some("round_robin"));
        assert_eq!(nearest("colour", ["name", "backends"]), None);
    }
}
