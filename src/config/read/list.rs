//! Lists.

use super::super::problem::{Diagnostics, Spanned, quote};
use super::super::yaml::{Node, Value as NodeValue};
use super::key::{Bounds, KeyContext, Section, Shape};
use super::value::{FromNode, IntoMeaning};

/// The entries of a list that could be read.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct List<T> {
    pub(in super::super) entries: Vec<Spanned<T>>,
    /// Number of entries, invalid ones included: a list of invalid entries is not reported as empty.
    pub(in super::super) typed: usize,
}

impl<T> List<T> {
    pub(in super::super) const fn empty() -> Self {
        Self { entries: Vec::new(), typed: 0 }
    }
}

impl<T: FromNode> FromNode for List<T> {
    const SECTION: Option<&'static Section> = T::SECTION;
    const SHAPE: Shape = Shape::List;

    fn expected(bounds: Bounds) -> String {
        format!("a list; each entry {}", T::expected(bounds))
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let NodeValue::List(items) = &node.value else {
            let problem = key.wrong_type(node, "a list");
            let scalar = !matches!(node.value, NodeValue::Map(_) | NodeValue::Null);
            found.add(if scalar {
                let list = format!("{}: [{}]", key.name(), node.typed);
                problem.help(format!("write a list in brackets: {}", quote(&list)))
            } else {
                problem
            });
            return None;
        };
        let entry = KeyContext { entry: true, ..key };
        let read = |item: &Node| {
            let value = T::from_node(item, entry, found)?;
            Some(Spanned { at: item.at, value })
        };
        Some(Self { entries: items.iter().filter_map(read).collect(), typed: items.len() })
    }

    fn to_yaml(&self) -> String {
        let entries: Vec<String> = self.entries.iter().map(|entry| entry.value.to_yaml()).collect();
        format!("[{}]", entries.join(", "))
    }
}

impl<T> IntoMeaning for List<T> {
    type Meaning = Vec<T>;

    fn meaning(self) -> Vec<T> {
        self.entries.into_iter().map(|entry| entry.value).collect()
    }
}
