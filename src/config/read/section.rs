//! Maps with known keys.

use std::collections::HashMap;

use super::super::file;
use super::super::problem::{Diagnostics, Origin, Problem, Spanned, nearest, quote};
use super::super::yaml::{Node, Value};
use super::{FromNode, KeyContext, describe, foreign_keys, missing_features};

/// Whether and how a key may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Presence {
    /// It must be there.
    Required,
    /// Leaving it out is the same as writing this.
    Default(&'static str),
    /// What leaving it out means, in words.
    Otherwise(&'static str),
}

/// One key of a section.
#[derive(Debug)]
pub(in super::super) struct Key {
    pub(in super::super) name: &'static str,
    pub(in super::super) expected: fn() -> String,
    pub(in super::super) presence: Presence,
    pub(in super::super) example: &'static str,
    pub(in super::super) doc: &'static [&'static str],
}

/// One map of the file.
#[derive(Debug)]
pub(in super::super) struct Section {
    /// `pools[].timeouts`
    pub(in super::super) path: &'static str,
    pub(in super::super) doc: &'static [&'static str],
    /// The key that a value which is no map stands for.
    pub(in super::super) short: Option<&'static str>,
    pub(in super::super) keys: &'static [Key],
    /// Keys that are planned, but that this version would ignore.
    pub(in super::super) later: &'static [&'static str],
}

/// The entries of one map, once it is known that each is there once and belongs there.
pub(in super::super) struct Entries<'a> {
    known: HashMap<&'static str, &'a Node>,
    /// Keys that are there, or were meant to be there, but cannot be read.
    refused: Vec<&'static str>,
}

impl<'a> Entries<'a> {
    pub(in super::super) fn open(
        node: &'a Node,
        section: &Section,
        field: KeyContext,
        found: &mut Diagnostics,
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
                let what = format!("the key {} occurs twice", quote(&key.typed));
                found.add(Problem::new(key.at, what).help(format!("the first is at {earlier}")));
            } else {
                first.insert(&key.typed, key.at);
                entries.sort(key, value, section, found);
            }
        }
        // What is there by its own name is not what another word was meant for.
        entries.refused.retain(|name| !entries.known.contains_key(name));
        for key in section.keys {
            if entries.known.contains_key(key.name) || entries.refused.contains(&key.name) {
                continue;
            }
            if first.contains_key("<<") {
                // It was meant to come from another map.
                entries.refused.push(key.name);
            } else if key.presence == Presence::Required {
                let what = format!("`{}` is missing", key.name);
                let help = format!("for example `{}: {}`", key.name, key.example);
                found.add(Problem::new(node.at, what).help(help));
            }
        }
        Some(entries)
    }

    fn sort(&mut self, key: &'a Node, value: &'a Node, section: &Section, found: &mut Diagnostics) {
        if let Some(known) = section.keys.iter().find(|known| known.name == key.typed) {
            self.known.insert(known.name, value);
            return;
        }
        let (problem, meant) = unknown(key, section, !found.is_full());
        self.refused.extend(meant);
        found.add(problem);
    }

    pub(in super::super) fn take<T: FromNode>(
        &mut self,
        field: KeyContext,
        found: &mut Diagnostics,
    ) -> Option<Spanned<T>> {
        let node = *self.known.get(field.name)?;
        let Some(value) = T::from_node(node, field, found) else {
            self.refused.push(field.name);
            return None;
        };
        Some(Spanned { at: node.at, value })
    }

    pub(in super::super) fn refused(self) -> Vec<&'static str> {
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
        return (problem.help("this version does not support it yet"), None);
    }
    if let Some((what, way)) = missing_features::find(typed, section) {
        let what = format!("Weir has no {what} (`{typed}`)");
        return (Problem::new(key.at, what).help(way), None);
    }
    if let Some(near) = foreign_keys::here(typed, section).or_else(|| nearest(typed, names())) {
        return (problem.help(format!("did you mean `{near}`?")), Some(near));
    }
    let has = |other: &&Section| other.keys.iter().any(|key| key.name == typed);
    let help = match file::SECTIONS.iter().find(has).map(|other| other.path) {
        _ if typed == "<<" => {
            "merge keys are not supported; an alias such as `*name` can stand for a whole value"
                .to_owned()
        }
        Some("") => format!("`{typed}` is a top-level key: do not indent it"),
        Some(path) => format!("`{typed}` is a key of `{path}`"),
        None => match foreign_keys::elsewhere(typed) {
            Some(("", key)) => format!("in Weir this is the top-level key `{key}`"),
            Some((path, key)) => format!("in Weir this is `{key}` of `{path}`"),
            None => format!("the keys here are {}", all(section)),
        },
    };
    (problem.help(help), None)
}

fn all(section: &Section) -> String {
    section.keys.iter().map(|key| format!("`{}`", key.name)).collect::<Vec<_>>().join(", ")
}

/// Describes a map of the file: see `file.rs` for how it is written.
macro_rules! section {
    (@expected) => { "a map of keys".to_owned() };
    (@expected $short:ty) => {
        format!("{} or a map of keys", <$short as $crate::config::read::FromNode>::expected())
    };
    (@short) => { None };
    (@short $short:ident) => { Some(stringify!($short)) };
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
        pub(in $crate::config) struct $section {
            $(
                $(#[doc = $key_doc])+
                pub(in $crate::config) $field: Option<$crate::config::problem::Spanned<$type>>,
            )+
            /// Keys that were typed but could not be read. What they mean together with others
            /// is not known, so nothing is said of it.
            pub(in $crate::config) refused: Vec<&'static str>,
        }

        impl $section {
            pub(in $crate::config) const SECTION: $crate::config::read::Section =
                $crate::config::read::Section {
                    path: $path,
                    doc: &[$($doc),+],
                    short: section!(@short $($short)?),
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
                section!(@expected $($short_type)?)
            }

            fn from_node(
                node: &$crate::config::yaml::Node,
                field: $crate::config::read::KeyContext,
                found: &mut $crate::config::problem::Diagnostics,
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
                    $crate::config::read::KeyContext {
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
pub(in super::super) use section;
