//! The schema: sections and their keys.

use std::time::Duration;

use super::super::problem::{Problem, quote};
use super::super::yaml::{Node, Value};

/// Everything that the generic reader has to know about the file.
#[derive(Debug)]
pub(in super::super) struct Schema {
    /// The top level. Every other section is below it.
    pub(in super::super) root: &'static Section,
    /// Names that other load balancers use: the name, the section, and the key that it is here.
    pub(in super::super) foreign_keys: &'static [(&'static str, &'static str, &'static str)],
    /// Names of features that Weir does not have: the name, the section (`*` is any), the feature, and what
    /// to do without it.
    pub(in super::super) missing_features:
        &'static [(&'static str, &'static str, (&'static str, &'static str))],
}

impl Schema {
    /// Every section once, in the order of their keys.
    pub(in super::super) fn sections(&self) -> Vec<&'static Section> {
        let mut sections = Vec::new();
        collect(self.root, &mut sections);
        sections
    }
}

fn collect(section: &'static Section, sections: &mut Vec<&'static Section>) {
    if sections.iter().any(|known| known.path == section.path) {
        return;
    }
    sections.push(section);
    for child in section.keys.iter().filter_map(|key| key.section) {
        collect(child, sections);
    }
}

/// One map of the file.
#[derive(Debug)]
pub(in super::super) struct Section {
    /// `pools[].timeouts`
    pub(in super::super) path: &'static str,
    pub(in super::super) doc: &'static [&'static str],
    /// The key that a value stands for if it is not a map.
    pub(in super::super) short: Option<&'static str>,
    /// What an entry of a list of these is called.
    pub(in super::super) noun: &'static str,
    /// The keys by which an entry is recognized in another version of the file.
    pub(in super::super) identity: &'static [&'static str],
    pub(in super::super) keys: &'static [Key],
    /// Keys that are planned, but not supported by this version.
    pub(in super::super) later: &'static [&'static str],
}

impl Section {
    pub(in super::super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key of a section.
#[derive(Debug)]
pub(in super::super) struct Key {
    pub(in super::super) name: &'static str,
    /// Describes the type, such as `a duration with its unit`.
    pub(in super::super) expected: fn(Bounds) -> String,
    pub(in super::super) bounds: Bounds,
    pub(in super::super) presence: Presence,
    /// A value as it may be written.
    pub(in super::super) example: &'static str,
    pub(in super::super) doc: &'static [&'static str],
    pub(in super::super) on_reload: OnReload,
    /// The section below this key.
    pub(in super::super) section: Option<&'static Section>,
    pub(in super::super) shape: Shape,
    /// The value of a node in the spelling that is the same for equal values.
    pub(in super::super) canonical: fn(&Node, KeyContext) -> Option<String>,
    /// The default in a given section, as YAML.
    pub(in super::super) default: fn(&Node, &'static Schema) -> Option<String>,
    /// Whether the key has a meaning in a given section.
    pub(in super::super) applies: fn(&Node, &'static Schema) -> bool,
}

/// Whether and how a key may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Presence {
    Required,
    /// It has a fixed default.
    Default,
    /// Its default is computed from other keys: the rule in words.
    Computed(&'static str),
    /// It is a section; the defaults of its keys apply.
    Section,
    /// Leaving it out has a meaning of its own: in words.
    Optional(&'static str),
}

/// What a reload does to state when a key changes. A reload applies every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum OnReload {
    /// All state is kept.
    Keeps,
    /// Listening sockets are opened and closed.
    MovesSockets,
    /// The health of the backends is unknown until their first health check.
    ForgetsHealth,
    /// The buckets of a rate limit start full.
    ForgetsBuckets,
}

impl OnReload {
    /// In words, if there is something to say.
    pub(in super::super) const fn words(self) -> Option<&'static str> {
        match self {
            Self::Keeps => None,
            Self::MovesSockets => Some("listening sockets are opened and closed"),
            Self::ForgetsHealth => Some("health unknown until the first health check"),
            Self::ForgetsBuckets => Some("all buckets start full"),
        }
    }
}

/// How the values of a key are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Shape {
    One,
    List,
    /// A map whose keys the operator chooses.
    Table,
}

/// The range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Bounds {
    Any,
    /// Both included; what to do instead of 0.
    Whole {
        first: u64,
        last: u64,
        zero: &'static str,
    },
    /// Both included; what to do instead of 0.
    Fraction {
        first: f64,
        last: f64,
        zero: &'static str,
    },
    /// In bytes, both included.
    Bytes {
        first: u64,
        last: u64,
    },
    /// A duration above 0; why.
    NotZero(&'static str),
    AtMost(Duration),
}

/// Whole numbers from `first` to `last`.
pub(in super::super) const fn whole(first: u64, last: u64) -> Bounds {
    Bounds::Whole { first, last, zero: "" }
}

/// Numbers from `first` to `last`.
pub(in super::super) const fn fraction(first: f64, last: f64) -> Bounds {
    Bounds::Fraction { first, last, zero: "" }
}

impl Bounds {
    /// Says what to do instead of writing 0.
    pub(in super::super) const fn zero(self, help: &'static str) -> Self {
        match self {
            Self::Whole { first, last, .. } => Self::Whole { first, last, zero: help },
            Self::Fraction { first, last, .. } => Self::Fraction { first, last, zero: help },
            Self::Any | Self::Bytes { .. } | Self::NotZero(_) | Self::AtMost(_) => self,
        }
    }
}

/// The key that a node belongs to, for messages.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct KeyContext {
    pub(in super::super) key: &'static Key,
    /// The key whose range holds: another one where a value is short for a section.
    pub(in super::super) ranged: &'static Key,
    /// Whether the node is an entry of the key's list.
    pub(in super::super) entry: bool,
    pub(in super::super) schema: &'static Schema,
}

/// Stands above the top level.
pub(in super::super) const ROOT: Key = Key {
    name: "file",
    expected: |_| String::new(),
    bounds: Bounds::Any,
    presence: Presence::Required,
    example: "",
    doc: &[],
    on_reload: OnReload::Keeps,
    section: None,
    shape: Shape::One,
    canonical: |_, _| None,
    default: |_, _| None,
    applies: |_, _| true,
};

impl KeyContext {
    pub(in super::super) const fn new(key: &'static Key, schema: &'static Schema) -> Self {
        Self { key, ranged: key, entry: false, schema }
    }

    /// Where a value is short for a section that has `key`.
    pub(in super::super) fn short(self, key: Option<&'static Key>) -> Self {
        Self { ranged: key.unwrap_or(self.ranged), ..self }
    }

    pub(in super::super) const fn bounds(self) -> Bounds {
        self.ranged.bounds
    }

    pub(in super::super) const fn name(self) -> &'static str {
        self.key.name
    }

    fn subject(self) -> String {
        if self.entry {
            format!("an entry of `{}`", self.key.name)
        } else {
            format!("`{}`", self.key.name)
        }
    }

    fn example(self) -> String {
        format!("for example `{}: {}`", self.key.name, self.key.example)
    }

    /// The node has no value.
    pub(super) fn empty(self, node: &Node) -> Problem {
        Problem::new(node.at, format!("{} is empty", self.subject())).help(self.example())
    }

    /// The node has the wrong type.
    pub(in super::super) fn wrong_type(self, node: &Node, expected: &str) -> Problem {
        if matches!(node.value, Value::Null) {
            return self.empty(node);
        }
        let what = format!("{} must be {expected}, but this is {}", self.subject(), describe(node));
        Problem::new(node.at, what).help(self.example())
    }

    /// What to do to get the default.
    pub(in super::super) fn remove_for_default(self) -> String {
        let empty = Node::map(super::super::problem::Origin::START, Vec::new());
        match (self.key.presence, (self.key.default)(&empty, self.schema)) {
            (Presence::Computed(words), _) => format!("remove it for the default, {words}"),
            (_, Some(default)) => format!("remove it for the default, {default}"),
            (_, None) => "remove it".to_owned(),
        }
    }
}

/// What a node is, for a message.
pub(super) fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "empty".to_owned(),
        Value::Bool(_) => format!("the boolean {}", quote(&node.typed)),
        Value::Whole(_) | Value::Real(_) => format!("the number {}", quote(&node.typed)),
        Value::Text => format!("the text {}", quote(&node.typed)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map of keys".to_owned(),
    }
}
