//! Numbers with their ranges.

use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroUsize};

use super::super::problem::{Diagnostics, Problem};
use super::super::yaml::{Node, Value as NodeValue};
use super::key::{Bounds, KeyContext};
use super::value::{FromNode, IntoMeaning, Literal};

/// A whole number in the range of its key.
fn whole_number(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<u64> {
    let expected = expected_whole(key.bounds());
    let NodeValue::Whole(number) = node.value else {
        found.add(not_a_number(node, key, "a whole number"));
        return None;
    };
    let (first, last, zero) = match key.bounds() {
        Bounds::Whole { first, last, zero } => (first, last, zero),
        Bounds::Any
        | Bounds::Fraction { .. }
        | Bounds::Bytes { .. }
        | Bounds::NotZero(_)
        | Bounds::AtMost(_) => (0, u64::MAX, ""),
    };
    if (first..=last).contains(&number) {
        return Some(number);
    }
    found.add(out_of_range(node, key, number.to_string(), (number == 0, zero), &expected));
    None
}

fn out_of_range(
    node: &Node,
    key: KeyContext,
    number: String,
    (is_zero, zero): (bool, &str),
    expected: &str,
) -> Problem {
    let help = match zero {
        zero if is_zero && !zero.is_empty() => format!("{expected}; {zero}"),
        _ => expected.to_owned(),
    };
    Problem::new(node.at, format!("`{}` cannot be {number}", key.ranged.name)).help(help)
}

fn expected_whole(bounds: Bounds) -> String {
    match bounds {
        Bounds::Whole { first, last, .. } => format!("a whole number from {first} to {last}"),
        Bounds::Any
        | Bounds::Fraction { .. }
        | Bounds::Bytes { .. }
        | Bounds::NotZero(_)
        | Bounds::AtMost(_) => "a whole number".to_owned(),
    }
}

/// Reports `node`; a number in quotes or with leading zeros is text, which surprises.
fn not_a_number(node: &Node, key: KeyContext, expected: &str) -> Problem {
    let problem = key.wrong_type(node, expected);
    let Some(typed) = node.text() else { return problem };
    match typed.parse::<u64>() {
        Ok(number) if number.to_string() == typed => {
            problem.help(format!("remove the quotes: `{}: {number}`", key.name()))
        }
        Ok(number) => problem.help(format!("remove the leading zero: `{}: {number}`", key.name())),
        // The parser's error adds nothing to "must be a number".
        Err(_) => problem,
    }
}

macro_rules! whole {
    ($($type:ty: $plain:ty, $from:expr;)+) => {$(
        impl FromNode for $type {
            fn expected(bounds: Bounds) -> String {
                expected_whole(bounds)
            }

            fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
                let number = whole_number(node, key, found)?;
                let from: fn($plain) -> Option<Self> = $from;
                let value = <$plain>::try_from(number).ok().and_then(from);
                if value.is_none() {
                    let expected = expected_whole(key.bounds());
                    found.add(out_of_range(node, key, number.to_string(), (false, ""), &expected));
                }
                value
            }

            fn to_yaml(&self) -> String {
                self.to_string()
            }
        }

        impl IntoMeaning for $type {
            type Meaning = Self;

            fn meaning(self) -> Self {
                self
            }
        }
    )+};
}
whole! {
    u8: u8, Some;
    u16: u16, Some;
    u32: u32, Some;
    usize: usize, Some;
    NonZeroU8: u8, Self::new;
    NonZeroU16: u16, Self::new;
    NonZeroU32: u32, Self::new;
    NonZeroUsize: usize, Self::new;
}

macro_rules! literal {
    ($($type:ty),+) => {$(
        impl Literal<u64> for $type {
            /// Every default is in the range of its type; a test reads each of them.
            fn literal(value: u64) -> Self {
                value.try_into().ok().and_then(Self::new).unwrap_or(Self::MIN)
            }
        }
    )+};
}
literal!(NonZeroU8, NonZeroU16, NonZeroU32, NonZeroUsize);

impl FromNode for f64 {
    fn expected(bounds: Bounds) -> String {
        match bounds {
            Bounds::Fraction { first, last, .. } => format!("a number from {first} to {last}"),
            Bounds::Any
            | Bounds::Whole { .. }
            | Bounds::Bytes { .. }
            | Bounds::NotZero(_)
            | Bounds::AtMost(_) => "a number".to_owned(),
        }
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let number = match node.value {
            // Whole numbers beyond 32 bits are beyond every range of fractions, too.
            NodeValue::Whole(number) => u32::try_from(number).map_or(Self::MAX, Self::from),
            NodeValue::Real(number) if !number.is_nan() => number,
            NodeValue::Real(_)
            | NodeValue::Null
            | NodeValue::Bool(_)
            | NodeValue::Text
            | NodeValue::List(_)
            | NodeValue::Map(_) => {
                found.add(not_a_number(node, key, "a number"));
                return None;
            }
        };
        let Bounds::Fraction { first, last, zero } = key.bounds() else { return Some(number) };
        if (first..=last).contains(&number) {
            return Some(number);
        }
        let expected = Self::expected(key.bounds());
        found.add(if number.abs() < 1e9 {
            out_of_range(node, key, number.to_string(), (number == 0.0, zero), &expected)
        } else {
            Problem::new(node.at, format!("`{}` is out of range", key.ranged.name)).help(expected)
        });
        None
    }

    fn to_yaml(&self) -> String {
        self.to_string()
    }
}
