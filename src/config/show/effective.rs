//! A file with every default filled in.
//!
//! It is made from the nodes of the file and the schema, so every key has its place in it.

use super::super::file::SCHEMA;
use super::super::read::{Key, KeyContext, Presence, Section, Shape};
use super::super::yaml::{self as reader, Node, Value, text};

/// A value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Effective {
    /// As YAML.
    Scalar(String),
    List(Vec<Effective>),
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Entry {
    /// A key, as YAML.
    Key(String, Effective),
    /// A key that is left out and has no default, and what that means.
    Omitted(&'static str, &'static str),
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Style {
    /// As typed.
    Typed,
    /// Equal values in the same spelling.
    Canonical,
}

/// The whole file whose root is `node`.
pub(in super::super) fn effective(node: &Node, style: Style) -> Effective {
    match &node.value {
        Value::Map(entries) => section(entries, SCHEMA.root, style),
        Value::Null
        | Value::Bool(_)
        | Value::Whole(_)
        | Value::Real(_)
        | Value::Text
        | Value::List(_) => Effective::Scalar(as_typed(node)),
    }
}

fn section(entries: &[(Node, Node)], section: &'static Section, style: Style) -> Effective {
    let find = |name: &str| entries.iter().find(|(key, _)| key.typed == name).map(|(_, node)| node);
    let whole = Node::of(entries);
    let mut lines = Vec::new();
    for key in section.keys {
        let name = key.name.to_owned();
        if let Some(node) = find(key.name) {
            lines.push(Entry::Key(name, value(node, key, key.shape, style)));
            continue;
        }
        if !(key.applies)(&whole, &SCHEMA) {
            continue;
        }
        match (key.presence, key.section) {
            (Presence::Default | Presence::Computed(_), _) => {
                let Some(default) = (key.default)(&whole, &SCHEMA) else { continue };
                let Ok(node) = reader::read(default.as_bytes()) else { continue };
                lines.push(Entry::Key(name, value(&node, key, key.shape, style)));
            }
            (Presence::Section, Some(child)) => {
                lines.push(Entry::Key(name, self::section(&[], child, style)));
            }
            // Unused keys of ten thousand routes or backends would only be noise.
            (Presence::Optional(_), _) if style == Style::Typed && is_numerous(section) => {}
            (Presence::Optional(words), _) => lines.push(Entry::Omitted(key.name, words)),
            (Presence::Required | Presence::Section, _) => {}
        }
    }
    Effective::Map(lines)
}

fn is_numerous(section: &Section) -> bool {
    section.path.starts_with("routes[]") || section.path == "pools[].backends[]"
}

/// The value of a key.
fn value(node: &Node, key: &'static Key, shape: Shape, style: Style) -> Effective {
    match (&node.value, shape, key.section) {
        (Value::List(items), Shape::List, Some(_)) => {
            Effective::List(items.iter().map(|item| value(item, key, Shape::One, style)).collect())
        }
        (Value::Map(entries), Shape::Table, Some(_)) => {
            let entry = |(name, item): &(Node, Node)| {
                Entry::Key(text(&name.typed), value(item, key, Shape::One, style))
            };
            Effective::Map(entries.iter().map(entry).collect())
        }
        (Value::Map(entries), Shape::One, Some(child)) => section(entries, child, style),
        (_, Shape::One, Some(Section { short: Some(short), .. })) => {
            let entries = [(Node::given(node.at, short), node.clone())];
            key.section.map_or_else(
                || Effective::Scalar(as_typed(node)),
                |child| section(&entries, child, style),
            )
        }
        _ => Effective::Scalar(match style {
            Style::Typed => as_typed(node),
            Style::Canonical => {
                let context = KeyContext::new(key, &SCHEMA);
                (key.canonical)(node, context).unwrap_or_else(|| as_typed(node))
            }
        }),
    }
}

/// A node as YAML on one line.
fn as_typed(node: &Node) -> String {
    match &node.value {
        Value::Text => text(&node.typed),
        Value::Null | Value::Bool(_) | Value::Whole(_) | Value::Real(_) => node.typed.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(as_typed).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let entry =
                |(key, value): &(Node, Node)| format!("{}: {}", text(&key.typed), as_typed(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}
