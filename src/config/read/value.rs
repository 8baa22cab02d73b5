//! What can be read from a node.

use std::fmt;

use super::super::problem::{Diagnostics, Origin, Problem, Source, write_with_help};
use super::super::yaml::{Node, Value as NodeValue, text};
use super::key::{Bounds, KeyContext, ROOT, Schema, Section, Shape};

/// A type that can be read from a node.
pub(in super::super) trait FromNode: Sized + Clone {
    /// The section that it is, or that its entries are.
    const SECTION: Option<&'static Section> = None;
    const SHAPE: Shape = Shape::One;

    /// Describes the type, such as `a duration with its unit`.
    fn expected(bounds: Bounds) -> String;

    /// Reads `node`, or reports to `found` why it cannot be read.
    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self>;

    /// The value as YAML on one line. Equal values have equal texts.
    fn to_yaml(&self) -> String;
}

/// A type that is written as one text.
pub(in super::super) trait FromText: Sized + Clone {
    /// Describes the type, such as `a duration with its unit`.
    const EXPECTED: &'static str;

    /// Reads `text`, or says why it cannot be read.
    fn from_text(text: &str) -> Result<Self, ValueError>;

    /// The text of the value. Equal values have equal texts.
    fn to_text(&self) -> String;

    /// The error for a number; `None` for the usual one.
    fn from_number(_typed: &str) -> Option<ValueError> {
        None
    }

    /// Whether the value is in the range of its key.
    fn check_range(&self, _key: KeyContext) -> Result<(), ValueError> {
        Ok(())
    }
}

/// A type that a value of the configuration is made of.
pub(in super::super) trait IntoMeaning {
    type Meaning;

    fn meaning(self) -> Self::Meaning;
}

/// A type whose values a default can be written as `L`.
pub(in super::super) trait Literal<L> {
    fn literal(value: L) -> Self;
}

impl<T> Literal<T> for T {
    fn literal(value: T) -> Self {
        value
    }
}

/// Reads a node without reporting problems.
pub(in super::super) fn read_quietly<T: FromNode>(
    node: &Node,
    schema: &'static Schema,
) -> Option<T> {
    let key = KeyContext::new(&ROOT, schema);
    T::from_node(node, key, &mut Diagnostics::default())
}

/// Why a text is not a valid value, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct ValueError {
    pub(in super::super) what: String,
    pub(in super::super) help: Option<String>,
    /// Whether it is several values in one. The help for that depends on where they were written.
    several: bool,
}

impl ValueError {
    pub(in super::super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None, several: false }
    }

    /// One text has several values, where only one is allowed.
    pub(in super::super) fn several(what: impl Into<String>) -> Self {
        Self { several: true, ..Self::new(what) }
    }

    pub(in super::super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As a problem at `at`.
    pub(in super::super) fn at(self, at: Origin) -> Problem {
        let help = if self.several { Some(one_by_one(at)) } else { self.help };
        Problem { help, ..Problem::new(at, self.what) }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_help(formatter, &self.what, self.help.as_deref())
    }
}

/// How several values are written at this place.
fn one_by_one(at: Origin) -> String {
    match at {
        Origin::File(_) => {
            "write each as a list entry of its own, with its `-` aligned with the one above"
                .to_owned()
        }
        Origin::Override(Source::Flag(name)) => format!("repeat `{name}` for each"),
        Origin::Override(Source::Environment(_)) => "separate them with commas".to_owned(),
    }
}

impl<T: FromText> FromNode for T {
    fn expected(_bounds: Bounds) -> String {
        T::EXPECTED.to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if node.text() == Some("") {
            found.add(key.empty(node));
            return None;
        }
        let number = matches!(node.value, NodeValue::Whole(_) | NodeValue::Real(_));
        let read = |text| {
            let value = T::from_text(text)?;
            value.check_range(key).map(|()| value)
        };
        let error = match node.text().map(read) {
            Some(Ok(value)) => return Some(value),
            Some(Err(error)) => Some(error),
            None if number => T::from_number(&node.typed),
            None => None,
        };
        found.add(match error {
            Some(error) => error.at(node.at),
            None => key.wrong_type(node, T::EXPECTED),
        });
        None
    }

    fn to_yaml(&self) -> String {
        text(&self.to_text())
    }
}

impl IntoMeaning for bool {
    type Meaning = Self;

    fn meaning(self) -> Self {
        self
    }
}

impl FromNode for bool {
    fn expected(_bounds: Bounds) -> String {
        "`true` or `false`".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if let NodeValue::Bool(value) = node.value {
            return Some(value);
        }
        found.add(key.wrong_type(node, &Self::expected(Bounds::Any)));
        None
    }

    fn to_yaml(&self) -> String {
        self.to_string()
    }
}
