//! Maps whose keys the operator chooses.

use std::collections::HashMap;

use super::super::problem::{Diagnostics, Origin, Problem, Spanned, quote};
use super::super::yaml::{Node, Value};
use super::{FromNode, FromText, KeyContext, describe};

/// The entries that could be read, in the order of the file, no name twice.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Table<K, V> {
    pub(in super::super) entries: Vec<(Spanned<K>, Spanned<V>)>,
    /// How many there are, those that were refused included.
    pub(in super::super) typed: usize,
}

impl<K: FromText + PartialEq, V: FromNode> FromNode for Table<K, V> {
    fn expected() -> String {
        format!("a map; each key {}, each value {}", K::EXPECTED, V::expected())
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            found.add(field.wrong_type(node, "a map"));
            return None;
        };
        let mut entries: Vec<(Spanned<K>, Spanned<V>)> = Vec::new();
        let mut first: HashMap<String, Origin> = HashMap::new();
        for (key, value) in map {
            let Some(name) = name(key, found) else { continue };
            // Names that are written differently can be the same: `X-A` and `x-a`.
            let same = key.typed.to_lowercase();
            let earlier = first.get(&same).copied();
            let earlier = earlier.filter(|_| entries.iter().any(|(other, _)| other.value == name));
            if let Some(earlier) = earlier {
                let what = format!("{} occurs twice", quote(&key.typed));
                found.add(Problem::new(key.at, what).help(format!("the first is at {earlier}")));
                continue;
            }
            first.insert(same, key.at);
            let entry = KeyContext { entry: true, ..field };
            if let Some(read) = V::from_node(value, entry, found) {
                entries.push((
                    Spanned { at: key.at, value: name },
                    Spanned { at: value.at, value: read },
                ));
            }
        }
        Some(Self { entries, typed: map.len() })
    }
}

fn name<K: FromText>(key: &Node, found: &mut Diagnostics) -> Option<K> {
    if matches!(key.value, Value::List(_) | Value::Map(_) | Value::Null) {
        let what = format!("a key must be {}, but this is {}", K::EXPECTED, describe(key));
        found.add(Problem::new(key.at, what));
        return None;
    }
    // A number or a switch is as good a name as any.
    K::from_text(&key.typed).map_err(|wrong| found.add(wrong.at(key.at))).ok()
}
