//! Regular expressions from the configuration, matched against whole texts.
//!
//! A pattern always matches the whole text, from its first byte to its last: many security holes in
//! rules with regular expressions come from a missing anchor. Matching takes linear time for every
//! pattern, so no client can find a text that takes very long. The memory of a pattern is bounded
//! when it is compiled.

mod set;

use std::borrow::Cow;

pub use set::{GaveUp, PatternSet};

use regex::{Regex, RegexBuilder};

/// The longest pattern, in bytes.
pub const LENGTH_MAX: usize = 1024;
/// The memory limit of one compiled pattern. `\w{1,100}` over all of Unicode exceeds it.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// The size limit of each thread's cache of states.
const CACHE_BYTES_MAX: usize = 512 * 1024;

/// A regular expression that matches whole texts.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
    /// A literal prefix of every text that matches, which is far cheaper to check.
    start: String,
}

/// Why a text is not a valid pattern, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl PatternError {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        if source.len() > LENGTH_MAX {
            return Err(PatternError(format!("a pattern has at most {LENGTH_MAX} bytes")));
        }
        // It is compiled alone first: `a)(b` must not become valid through the text added around
        // it.
        compiled(source)?;
        let regex = compiled(&whole(source))?;
        Ok(Self { source: source.to_owned(), regex, start: literal_start(source) })
    }

    /// Whether it matches the whole of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        text.starts_with(&self.start) && self.regex.is_match(text)
    }

    /// The text of each group, with the whole at index 0, if the pattern matches all of `text`.
    #[must_use]
    pub fn captures<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        let captures = self.regex.captures(text)?;
        Some(captures.iter().map(|group| group.map(|group| group.as_str())).collect())
    }

    /// The index of a group by its number or name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<usize> {
        if let Ok(number) = name.parse() {
            return (number < self.regex.captures_len()).then_some(number);
        }
        self.regex.capture_names().position(|other| other == Some(name))
    }

    /// The source with anchors.
    fn whole(&self) -> String {
        whole(&self.source)
    }

    /// The source as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

fn whole(source: &str) -> String {
    format!(r"\A(?:{source})\z")
}

fn compiled(source: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(source)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .build()
        .map_err(|error| PatternError(words(&error)))
}

/// The last line of a parser error has the reason; the lines before it draw the position.
fn words(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it would take too much memory".to_owned(),
        regex::Error::Syntax(_) | _ => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or(&text);
            last.trim_start_matches("error: ").to_owned()
        }
    }
}

/// The literal prefix of `source`: letters, digits and some punctuation up to the first special
/// character, less the one before a `?`, `*` or `{`. Empty if the pattern has alternatives or flags
/// anywhere.
fn literal_start(source: &str) -> String {
    if source.contains('|') || source.contains("(?") {
        return String::new();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '~' | '%');
    let end = source.find(|c| !plain(c)).unwrap_or(source.len());
    let (start, rest) = source.split_at(end);
    let repeated = rest.starts_with(['?', '*', '{', '+']);
    let mut start = Cow::Borrowed(start);
    if repeated {
        start.to_mut().pop();
    }
    start.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(source: &str) -> Pattern {
        Pattern::new(source).unwrap()
    }

    #[test]
    fn a_pattern_matches_the_whole_text() {
        assert!(pattern("/users/[0-9]+").matches("/users/42"));
        assert!(!pattern("/users/[0-9]+").matches("/users/42/x"));
        assert!(!pattern("/users/[0-9]+").matches("/x/users/42"));
        assert!(!pattern("a|b").matches("ax"), "the anchors hold for each alternative");
        assert!(!pattern("a").matches("a\n"), "a line's end is a character");
        assert!(!pattern("(?m)a").matches("a\nb"));
    }

    #[test]
    fn an_invalid_pattern_is_reported_in_one_line() {
        assert_eq!(Pattern::new("a(b").unwrap_err().to_string(), "unclosed group");
        assert_eq!(Pattern::new("a)(b").unwrap_err().to_string(), "unopened group");
        assert_eq!(
            Pattern::new("(?=a)").unwrap_err().to_string(),
            "look-around, including look-ahead and look-behind, is not supported"
        );
        assert_eq!(
            Pattern::new(r"\w{1000}").unwrap_err().to_string(),
            "it would take too much memory"
        );
        assert!(Pattern::new(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn patterns_with_the_same_source_are_equal() {
        assert_eq!(pattern("a+"), pattern("a+"));
        assert_ne!(pattern("a+"), pattern("aa*"));
    }

    proptest! {
        #[test]
        fn the_literal_prefix_of_a_pattern_changes_no_result(
            source in r"[a-c/]{0,4}[a-c/.?*+|(){}\[\]^$]{0,6}",
            text in "[a-c/]{0,6}",
        ) {
            if let Ok(pattern) = Pattern::new(&source) {
                let expected = Regex::new(&format!(r"\A(?:{source})\z")).unwrap().is_match(&text);
                prop_assert_eq!(pattern.matches(&text), expected, "{} on {}", source, text);
            }
        }
    }
}
