//! Maps with known keys.

use std::collections::HashMap;

use super::super::problem::{Diagnostics, Origin, Problem, Spanned, nearest, quote};
use super::super::yaml::{Node, Value as NodeValue};
use super::key::{KeyContext, Presence, Schema, Section, describe};
use super::value::FromNode;

/// The entries of one map: known keys, each once.
pub(in super::super) struct Entries<'a> {
    section: &'static Section,
    schema: &'static Schema,
    known: HashMap<&'static str, &'a Node>,
    /// Keys that are present, or were meant to be, but are invalid.
    refused: Vec<&'static str>,
}

impl<'a> Entries<'a> {
    pub(in super::super) fn open(
        node: &'a Node,
        section: &'static Section,
        key: KeyContext,
        found: &mut Diagnostics,
    ) -> Option<Self> {
        let NodeValue::Map(map) = &node.value else {
            found.add(key.wrong_type(node, "a map of keys"));
            return None;
        };
        let (known, refused) = (HashMap::new(), Vec::new());
        let mut entries = Self { section, schema: key.schema, known, refused };
        let mut first: HashMap<&str, Origin> = HashMap::new();
        for (name, value) in map {
            if matches!(name.value, NodeValue::List(_) | NodeValue::Map(_)) {
                let what = format!("a key must be text, but this is {}", describe(name));
                found.add(Problem::new(name.at, what));
            } else if let Some(&earlier) = first.get(name.typed.as_str()) {
                let what = format!("the key {} occurs twice", quote(&name.typed));
                found.add(Problem::new(name.at, what).help(format!("the first is at {earlier}")));
            } else {
                first.insert(&name.typed, name.at);
                entries.sort(name, value, found);
            }
        }
        // If a key is present by its own name, no other name was meant for it.
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

    fn sort(&mut self, name: &'a Node, value: &'a Node, found: &mut Diagnostics) {
        if let Some(known) = self.section.key(&name.typed) {
            self.known.insert(known.name, value);
            return;
        }
        let (problem, meant) = unknown(name, self.section, self.schema, !found.is_full());
        self.refused.extend(meant);
        found.add(problem);
    }

    pub(in super::super) fn take<T: FromNode>(
        &mut self,
        name: &'static str,
        found: &mut Diagnostics,
    ) -> Option<Spanned<T>> {
        let node = *self.known.get(name)?;
        let context = KeyContext::new(self.section.key(name)?, self.schema);
        let Some(value) = T::from_node(node, context, found) else {
            self.refused.push(name);
            return None;
        };
        Some(Spanned { at: node.at, value })
    }

    pub(in super::super) fn refused(self) -> Vec<&'static str> {
        self.refused
    }
}

/// The problem of a key that `section` does not have, and the key that was probably meant. The help is only
/// made if it is `wanted`.
fn unknown(
    name: &Node,
    section: &Section,
    schema: &Schema,
    wanted: bool,
) -> (Problem, Option<&'static str>) {
    let problem = Problem::new(name.at, format!("unknown key {}", quote(&name.typed)));
    let typed = name.typed.as_str();
    let names = || section.keys.iter().map(|key| key.name);
    if !wanted {
        return (problem, None);
    }
    if section.later.contains(&typed) {
        return (problem.help("this version does not support it yet"), None);
    }
    let missing = schema
        .missing_features
        .iter()
        .find(|(word, path, _)| *word == plain(typed) && (*path == "*" || *path == section.path));
    if let Some((_, _, (what, alternative))) = missing {
        let what = format!("Weir has no {what} (`{typed}`)");
        return (Problem::new(name.at, what).help(*alternative), None);
    }
    let is = |word: &str| typed.len() <= word.len() && plain(typed) == word;
    let here = schema.foreign_keys.iter().find(|(word, path, _)| *path == section.path && is(word));
    if let Some(near) = here.map(|(_, _, key)| *key).or_else(|| nearest(typed, names())) {
        return (problem.help(format!("did you mean `{near}`?")), Some(near));
    }
    let sections = schema.sections();
    let owner = sections.iter().find(|other| other.key(typed).is_some()).map(|other| other.path);
    let help = match owner {
        _ if typed == "<<" => {
            "merge keys are not supported; an alias such as `*name` can stand for a whole value"
                .to_owned()
        }
        Some("") => format!("`{typed}` is a top-level key: do not indent it"),
        Some(path) => format!("`{typed}` is a key of `{path}`"),
        None => match schema.foreign_keys.iter().find(|(word, _, _)| is(word)) {
            Some((_, "", key)) => format!("in Weir this is the top-level key `{key}`"),
            Some((_, path, key)) => format!("in Weir this is `{key}` of `{path}`"),
            None => {
                let all: Vec<String> = names().map(|name| format!("`{name}`")).collect();
                format!("the keys here are {}", all.join(", "))
            }
        },
    };
    (problem.help(help), None)
}

fn plain(typed: &str) -> String {
    typed.to_lowercase().replace('-', "_")
}

/// A section on one line; if it has only the key that a plain value is short for, the plain value.
pub(in super::super) fn one_line(section: &Section, entries: Vec<String>) -> String {
    let plain = |short: &str| match entries.as_slice() {
        [only] => only.strip_prefix(short).and_then(|value| value.strip_prefix(": ")),
        _ => None,
    };
    section
        .short
        .and_then(plain)
        .map_or_else(|| format!("{{{}}}", entries.join(", ")), ToOwned::to_owned)
}
