//! A count, or `off` for no limit.

use std::num::NonZeroU32;

use super::super::problem::Diagnostics;
use super::super::read::{Bounds, FromNode, IntoMeaning, KeyContext};
use super::super::yaml::{Node, Value};

/// A whole number of at least 1, or `off` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum CountOrOff {
    Off,
    Count(NonZeroU32),
}

impl FromNode for CountOrOff {
    fn expected(bounds: Bounds) -> String {
        format!("{}, or `off`", NonZeroU32::expected(bounds))
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if node.text() == Some("off") {
            return Some(Self::Off);
        }
        let is_number = node.text().is_some_and(|text| text.parse::<u64>().is_ok());
        if !is_number && !matches!(node.value, Value::Whole(_)) {
            found.add(key.wrong_type(node, "a whole number or `off`"));
            return None;
        }
        NonZeroU32::from_node(node, key, found).map(Self::Count)
    }

    fn to_yaml(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Count(count) => count.to_string(),
        }
    }
}

impl IntoMeaning for CountOrOff {
    type Meaning = Option<NonZeroU32>;

    fn meaning(self) -> Option<NonZeroU32> {
        match self {
            Self::Off => None,
            Self::Count(count) => Some(count),
        }
    }
}
