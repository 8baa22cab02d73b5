//! Maps whose keys the operator chooses.

use std::collections::HashMap;

use super::super::problem::{Diagnostics, Origin, Problem, Spanned, quote};
use super::super::yaml::{Node, Value as NodeValue};
use super::key::{Bounds, KeyContext, Section, Shape, describe};
use super::value::{FromNode, FromText};

/// The entries that could be read, in the order of the file; no name occurs twice.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Table<K, V> {
    pub(in super::super) entries: Vec<(Spanned<K>, Spanned<V>)>,
    /// Number of entries, invalid ones included.
    pub(in super::super) typed: usize,
}

impl<K, V> Table<K, V> {
    pub(in super::super) const fn empty() -> Self {
        Self { entries: Vec::new(), typed: 0 }
    }
}

impl<K: FromText + PartialEq, V: FromNode> FromNode for Table<K, V> {
    const SECTION: Option<&'static Section> = V::SECTION;
    const SHAPE: Shape = Shape::Table;

    fn expected(bounds: Bounds) -> String {
        format!("a map; each key {}, each value {}", K::EXPECTED, V::expected(bounds))
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let NodeValue::Map(map) = &node.value else {
            found.add(key.wrong_type(node, "a map"));
            return None;
        };
        let mut entries: Vec<(Spanned<K>, Spanned<V>)> = Vec::new();
        let mut first: HashMap<String, Origin> = HashMap::new();
        for (name_node, value_node) in map {
            let Some(name) = name(name_node, found) else { continue };
            // Names that are written differently can be the same: `X-A` and `x-a`.
            let same = name_node.typed.to_lowercase();
            let earlier = first.get(&same).copied();
            let earlier = earlier.filter(|_| entries.iter().any(|(other, _)| other.value == name));
            if let Some(earlier) = earlier {
                let what = format!("{} occurs twice", quote(&name_node.typed));
                let problem = Problem::new(name_node.at, what);
                found.add(problem.help(format!("the first is at {earlier}")));
                continue;
            }
            first.insert(same, name_node.at);
            let entry = KeyContext { entry: true, ..key };
            if let Some(read) = V::from_node(value_node, entry, found) {
                entries.push((
                    Spanned { at: name_node.at, value: name },
                    Spanned { at: value_node.at, value: read },
                ));
            }
        }
        Some(Self { entries, typed: map.len() })
    }

    fn to_yaml(&self) -> String {
        let entry = |(name, value): &(Spanned<K>, Spanned<V>)| {
            format!("{}: {}", name.value.to_yaml(), value.value.to_yaml())
        };
        format!("{{{}}}", self.entries.iter().map(entry).collect::<Vec<_>>().join(", "))
    }
}

fn name<K: FromText>(node: &Node, found: &mut Diagnostics) -> Option<K> {
    if matches!(node.value, NodeValue::List(_) | NodeValue::Map(_) | NodeValue::Null) {
        let what = format!("a key must be {}, but this is {}", K::EXPECTED, describe(node));
        found.add(Problem::new(node.at, what));
        return None;
    }
    // A number or a boolean is a valid name, too.
    K::from_text(&node.typed).map_err(|error| found.add(error.at(node.at))).ok()
}
