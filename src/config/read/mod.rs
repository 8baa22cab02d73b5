//! From marked nodes to the file as typed.
//!
//! Reading goes on after a problem: what cannot be read is reported and left out, so that the rest
//! of the file is still looked at. A section is described once, by `section!`; that description is
//! the struct, the known keys, the complaints' examples and the manual.

mod foreign_keys;
mod keyword;
mod missing_features;
mod section;
mod table;

pub(super) use keyword::{Keyword, KeywordValue, OffOr};
pub(super) use section::{Entries, Key, Presence, Section, section};
pub(super) use table::Table;

use super::problem::{Diagnostics, Origin, Problem, Source, Spanned, quote};
use super::yaml::{Node, Value};

/// Something that can be read from a node.
pub(super) trait FromNode: Sized {
    /// `a duration with its unit`
    fn expected() -> String;

    /// Reads `node`, or says in `found` why it cannot be read.
    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self>;
}

/// Something that is written as one text.
pub(super) trait FromText: Sized {
    /// `a duration with its unit`
    const EXPECTED: &'static str;

    /// Reads `text`, or says why it cannot be read.
    fn from_text(text: &str) -> Result<Self, ValueError>;

    /// What to say of a number; `None` for the usual words.
    fn from_number(_typed: &str) -> Option<ValueError> {
        None
    }
}

/// What is wrong with a text, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValueError {
    pub(super) what: String,
    pub(super) help: Option<String>,
    /// Whether it is several values in one. What to do about that depends on where they were written.
    several: bool,
}

impl ValueError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None, several: false }
    }

    /// Several values are in one text, where only one is allowed.
    pub(super) fn several(what: impl Into<String>) -> Self {
        Self { several: true, ..Self::new(what) }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As a problem at `at`.
    pub(super) fn at(self, at: Origin) -> Problem {
        let help = if self.several { Some(one_by_one(at)) } else { self.help };
        Problem { help, ..Problem::new(at, self.what) }
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

/// The key that a node stands under, for the words of a complaint.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyContext {
    pub(super) name: &'static str,
    /// How it may be written, without the name.
    pub(super) example: &'static str,
    /// Whether the node is an entry of the key's list.
    pub(super) entry: bool,
}

impl KeyContext {
    fn subject(self) -> String {
        if self.entry { format!("an entry of `{}`", self.name) } else { format!("`{}`", self.name) }
    }

    fn example(self) -> String {
        format!("for example `{}: {}`", self.name, self.example)
    }

    fn empty(self, node: &Node) -> Problem {
        Problem::new(node.at, format!("{} is empty", self.subject())).help(self.example())
    }

    /// A node of the wrong type.
    pub(super) fn wrong_type(self, node: &Node, expected: &str) -> Problem {
        if matches!(node.value, Value::Null) {
            return self.empty(node);
        }
        let what = format!("{} must be {expected}, but this is {}", self.subject(), describe(node));
        Problem::new(node.at, what).help(self.example())
    }
}

fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "empty".to_owned(),
        Value::Bool(_) => format!("the boolean {}", quote(&node.typed)),
        Value::Whole(_) | Value::Real(_) => format!("the number {}", quote(&node.typed)),
        Value::Text => format!("the text {}", quote(&node.typed)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map of keys".to_owned(),
    }
}

impl<T: FromText> FromNode for T {
    fn expected() -> String {
        T::EXPECTED.to_owned()
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if node.text() == Some("") {
            found.add(field.empty(node));
            return None;
        }
        let number = matches!(node.value, Value::Whole(_) | Value::Real(_));
        let wrong = match node.text().map(T::from_text) {
            Some(Ok(value)) => return Some(value),
            Some(Err(wrong)) => Some(wrong),
            None if number => T::from_number(&node.typed),
            None => None,
        };
        found.add(match wrong {
            Some(wrong) => wrong.at(node.at),
            None => field.wrong_type(node, T::EXPECTED),
        });
        None
    }
}

impl FromNode for u64 {
    fn expected() -> String {
        "a whole number".to_owned()
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if let Value::Whole(value) = node.value {
            return Some(value);
        }
        found.add(not_a_number(node, field, &Self::expected()));
        None
    }
}

impl FromNode for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match node.value {
            // Whole numbers beyond 32 bits are beyond every bound of a fraction, too.
            Value::Whole(value) => return Some(u32::try_from(value).map_or(Self::MAX, Self::from)),
            Value::Real(value) if !value.is_nan() => return Some(value),
            Value::Real(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Text
            | Value::List(_)
            | Value::Map(_) => {}
        }
        found.add(not_a_number(node, field, &Self::expected()));
        None
    }
}

impl FromNode for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        found.add(field.wrong_type(node, &Self::expected()));
        None
    }
}

/// Complains about `node`; a number in quotes or with leading zeros is text, which surprises.
fn not_a_number(node: &Node, field: KeyContext, expected: &str) -> Problem {
    let problem = field.wrong_type(node, expected);
    let Some(typed) = node.text() else { return problem };
    match typed.parse::<u64>() {
        Ok(number) if number.to_string() == typed => {
            problem.help(format!("remove the quotes: `{}: {number}`", field.name))
        }
        Ok(number) => problem.help(format!("remove the leading zero: `{}: {number}`", field.name)),
        // The parser's words add nothing to "must be a number".
        Err(_) => problem,
    }
}

/// The entries of a list that could be read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List<T> {
    pub(super) entries: Vec<Spanned<T>>,
    /// How many there are, those that were refused included: a list of nothing but mistakes should
    /// not be called empty as well.
    pub(super) typed: usize,
}

impl<T: FromNode> FromNode for List<T> {
    fn expected() -> String {
        format!("a list; each entry {}", T::expected())
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let problem = field.wrong_type(node, "a list");
            let scalar = !matches!(node.value, Value::Map(_) | Value::Null);
            found.add(if scalar {
                let list = format!("{}: [{}]", field.name, node.typed);
                problem.help(format!("write a list in brackets: {}", quote(&list)))
            } else {
                problem
            });
            return None;
        };
        let entry = KeyContext { entry: true, ..field };
        let read = |item: &Node| {
            let value = T::from_node(item, entry, found)?;
            Some(Spanned { at: item.at, value })
        };
        Some(Self { entries: items.iter().filter_map(read).collect(), typed: items.len() })
    }
}
