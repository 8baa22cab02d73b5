//! From marked nodes to the file as typed.
//!
//! Reading goes on after a problem: what cannot be read is reported and left out, so that the rest
//! of the file is still looked at. A section is described once, by `section!`; that description is
//! the struct, the known keys, the complaints' examples and the manual.

use std::collections::HashMap;

use super::file;
use super::problem::{Found, Origin, Problem, Spanned, any_of, nearest, quote};
use super::yaml::{Node, Value};

/// Something that can be read from a node.
pub(super) trait FromNode: Sized {
    /// `a duration with its unit`
    fn expected() -> String;

    /// Reads `node`, or says in `found` why it cannot be read.
    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self>;
}

/// Something that is written as one text.
pub(super) trait FromText: Sized {
    /// `a duration with its unit`
    const EXPECTED: &'static str;

    /// Reads `text`, or says why it cannot be read.
    fn from_text(text: &str) -> Result<Self, Wrong>;

    /// What to say of a number; `None` for the usual words.
    fn from_number(typed: &str) -> Option<Wrong> {
        let _ = typed;
        None
    }
}

/// What is wrong with a text, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) help: Option<String>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As a problem at `at`.
    pub(super) fn at(self, at: Origin) -> Problem {
        Problem { help: self.help, ..Problem::new(at, self.what) }
    }
}

/// The key that a node stands under, for the words of a complaint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// How it may be written, without the name.
    pub(super) example: &'static str,
    /// Whether the node is an entry of the key's list.
    pub(super) entry: bool,
}

impl Field {
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
        Value::Bool(_) => format!("the switch {}", quote(&node.typed)),
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

    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self> {
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

/// A word out of a closed choice.
pub(super) trait Choice: Copy + 'static {
    /// `an algorithm`
    const NOUN: &'static str;
    /// Each word and what it means.
    const WORDS: &'static [(&'static str, Self)];
}

/// A [`Choice`] as typed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Word<T>(pub(super) T);

impl<T: Choice> FromNode for Word<T> {
    fn expected() -> String {
        any_of(words::<T>())
    }

    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self> {
        let Some(typed) = node.text() else {
            let mut problem = field.wrong_type(node, &any_of(words::<T>()));
            if matches!(node.value, Value::Bool(false)) && words::<T>().any(|word| word == "off") {
                problem = problem.help(format!("write `{}: off`", field.name));
            }
            found.add(problem);
            return None;
        };
        let word = T::WORDS.iter().find(|(word, _)| *word == typed);
        if word.is_none() {
            found.add(not_a_word(node.at, typed, T::NOUN, &words::<T>().collect::<Vec<_>>()));
        }
        word.map(|&(_, value)| Self(value))
    }
}

fn words<T: Choice>() -> impl Iterator<Item = &'static str> {
    T::WORDS.iter().map(|&(word, _)| word)
}

/// A text that is none of `known`.
pub(super) fn not_a_word(at: Origin, typed: &str, noun: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(at, format!("{} is not {noun}", quote(typed)));
    let all = any_of(known.iter().copied());
    match nearest(typed, known.iter().copied()) {
        Some(near) if known.len() > 1 => {
            problem.help(format!("did you mean `{near}`? it can be {all}"))
        }
        _ => problem.help(format!("it can be {all}")),
    }
}

impl FromNode for u64 {
    fn expected() -> String {
        "a whole number".to_owned()
    }

    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self> {
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

    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self> {
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

/// Complains about `node`; a number in quotes or with leading zeros is text, which surprises.
fn not_a_number(node: &Node, field: Field, expected: &str) -> Problem {
    let problem = field.wrong_type(node, expected);
    let Some(typed) = node.text() else { return problem };
    match typed.parse::<u64>() {
        Ok(number) if number.to_string() == typed => {
            problem.help(format!("without quotes it is a number: `{}: {number}`", field.name))
        }
        Ok(number) => problem.help(format!("without the leading zero: `{}: {number}`", field.name)),
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

    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let problem = field.wrong_type(node, "a list");
            let scalar = !matches!(node.value, Value::Map(_) | Value::Null);
            found.add(if scalar {
                problem
                    .help(format!("a list of one has brackets: `{}: [{}]`", field.name, node.typed))
            } else {
                problem
            });
            return None;
        };
        let entry = Field { entry: true, ..field };
        let read = |item: &Node| {
            let value = T::from_node(item, entry, found)?;
            Some(Spanned { at: item.at, value })
        };
        Some(Self { entries: items.iter().filter_map(read).collect(), typed: items.len() })
    }
}

/// Something that may be switched off.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Switch<T> {
    Off,
    On(T),
}

impl<T: FromNode> FromNode for Switch<T> {
    fn expected() -> String {
        format!("`off` or {}", T::expected())
    }

    fn from_node(node: &Node, field: Field, found: &mut Found) -> Option<Self> {
        match (&node.value, node.text()) {
            (_, Some("off")) => Some(Self::Off),
            (Value::Map(_), _) => T::from_node(node, field, found).map(Self::On),
            (Value::Bool(false), _) => {
                let problem = field.wrong_type(node, &Self::expected());
                found.add(problem.help(format!("write `{}: off`", field.name)));
                None
            }
            _ => {
                found.add(field.wrong_type(node, &Self::expected()));
                None
            }
        }
    }
}

/// Whether and how a key may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It must be there.
    Required,
    /// Leaving it out is the same as writing this.
    Default(&'static str),
    /// What leaving it out means, in words.
    Otherwise(&'static str),
}

/// One key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) expected: fn() -> String,
    pub(super) presence: Presence,
    pub(super) example: &'static str,
    pub(super) doc: &'static [&'static str],
}

/// One map of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// `pools[].timeouts`
    pub(super) path: &'static str,
    pub(super) doc: &'static [&'static str],
    pub(super) keys: &'static [Key],
    /// Keys that are planned, but that this version would ignore.
    pub(super) later: &'static [&'static str],
}

/// The entries of one map, once it is known that each is there once and belongs there.
pub(super) struct Entries<'a> {
    known: HashMap<&'static str, &'a Node>,
    /// Keys that are there, or were meant to be there, but cannot be read.
    refused: Vec<&'static str>,
}

impl<'a> Entries<'a> {
    pub(super) fn open(
        node: &'a Node,
        section: &Section,
        field: Field,
        found: &mut Found,
    ) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            found.add(field.wrong_type(node, "a map of keys"));
            return None;
        };
        let mut entries = Self { known: HashMap::new(), refused: Vec::new() };
        let mut first: HashMap<&str, Origin> = HashMap::new();
        for (key, value) in map {
            if matches!(key.value, Value::List(_) | Value::Map(_)) {
                let what = format!("a key must be text, but this is {}", describe(key));
                found.add(Problem::new(key.at, what));
            } else if let Some(&earlier) = first.get(key.typed.as_str()) {
                let what = format!("the key {} is here twice", quote(&key.typed));
                found.add(Problem::new(key.at, what).help(format!("the first is at {earlier}")));
            } else {
                first.insert(&key.typed, key.at);
                entries.sort(key, value, section, found);
            }
        }
        for key in section.keys {
            let there = entries.known.contains_key(key.name) || entries.refused.contains(&key.name);
            if key.presence == Presence::Required && !there && !first.contains_key("<<") {
                let what = format!("`{}` is missing", key.name);
                let help = format!("for example `{}: {}`", key.name, key.example);
                found.add(Problem::new(node.at, what).help(help));
            }
        }
        Some(entries)
    }

    fn sort(&mut self, key: &'a Node, value: &'a Node, section: &Section, found: &mut Found) {
        if let Some(known) = section.keys.iter().find(|known| known.name == key.typed) {
            self.known.insert(known.name, value);
            return;
        }
        let (problem, meant) = unknown(key, section, !found.is_full());
        self.refused.extend(meant);
        found.add(problem);
    }

    pub(super) fn take<T: FromNode>(
        &mut self,
        field: Field,
        found: &mut Found,
    ) -> Option<Spanned<T>> {
        let node = *self.known.get(field.name)?;
        let Some(value) = T::from_node(node, field, found) else {
            self.refused.push(field.name);
            return None;
        };
        Some(Spanned { at: node.at, value })
    }

    pub(super) fn refused(self) -> Vec<&'static str> {
        self.refused
    }
}

/// A key that `section` does not have, and the one that was probably meant. The words are only
/// looked for if they are `wanted`.
fn unknown(key: &Node, section: &Section, wanted: bool) -> (Problem, Option<&'static str>) {
    let problem = Problem::new(key.at, format!("unknown key {}", quote(&key.typed)));
    let typed = key.typed.as_str();
    let names = || section.keys.iter().map(|key| key.name);
    if !wanted {
        return (problem, None);
    }
    if section.later.contains(&typed) {
        return (problem.help("this version does not have it yet"), None);
    }
    if let Some(near) = nearest(typed, names()) {
        return (problem.help(format!("did you mean `{near}`?")), Some(near));
    }
    let has = |other: &&Section| other.keys.iter().any(|key| key.name == typed);
    let help = match file::SECTIONS.iter().find(has).map(|other| other.path) {
        _ if typed == "<<" => {
            "maps are not merged; an alias such as `*name` can stand for a whole value".to_owned()
        }
        Some("") => format!("`{typed}` is a key of the whole file, so it is not indented"),
        Some(path) => format!("`{typed}` is a key of `{path}`"),
        None => {
            let all: Vec<String> = names().map(|name| format!("`{name}`")).collect();
            format!("the keys here are {}", all.join(", "))
        }
    };
    (problem.help(help), None)
}

/// Describes a map of the file: see `file.rs` for how it is written.
macro_rules! section {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    (
        $(#[doc = $doc:literal])+
        $section:ident at $path:literal
            $(or $short:ident: $short_type:ty)?, later $later:expr;
        $(
            $(#[doc = $key_doc:literal])+
            $field:ident $(as $name:literal)?: $type:ty = $presence:expr, $example:literal;
        )+
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default, PartialEq)]
        pub(super) struct $section {
            $(
                $(#[doc = $key_doc])+
                pub(super) $field: Option<$crate::config::problem::Spanned<$type>>,
            )+
            /// Keys that were typed but could not be read. What they mean together with others
            /// is not known, so nothing is said of it.
            pub(super) refused: Vec<&'static str>,
        }

        impl $section {
            pub(super) const SECTION: $crate::config::read::Section =
                $crate::config::read::Section {
                    path: $path,
                    doc: &[$($doc),+],
                    keys: &[$(
                        $crate::config::read::Key {
                            name: section!(@name $field $($name)?),
                            expected: <$type as $crate::config::read::FromNode>::expected,
                            presence: $presence,
                            example: $example,
                            doc: &[$($key_doc),+],
                        }
                    ),+],
                    later: &$later,
                };
        }

        impl $crate::config::read::FromNode for $section {
            fn expected() -> String {
                $(if true {
                    return format!(
                        "{} or a map of keys",
                        <$short_type as $crate::config::read::FromNode>::expected()
                    );
                })?
                "a map of keys".to_owned()
            }

            fn from_node(
                node: &$crate::config::yaml::Node,
                field: $crate::config::read::Field,
                found: &mut $crate::config::problem::Found,
            ) -> Option<Self> {
                $(if !matches!(node.value, $crate::config::yaml::Value::Map(_)) {
                    let value = <$short_type as $crate::config::read::FromNode>::from_node(
                        node, field, found,
                    )?;
                    let $short = Some($crate::config::problem::Spanned { at: node.at, value });
                    return Some(Self { $short, ..Self::default() });
                })?
                let mut entries =
                    $crate::config::read::Entries::open(node, &Self::SECTION, field, found)?;
                $(let $field = entries.take(
                    $crate::config::read::Field {
                        name: section!(@name $field $($name)?),
                        example: $example,
                        entry: false,
                    },
                    found,
                );)+
                Some(Self { $($field,)+ refused: entries.refused() })
            }
        }
    };
}
pub(super) use section;
