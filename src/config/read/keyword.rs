//! Words out of a closed choice, and what may be switched off.

use super::super::problem::{Diagnostics, Origin, Problem, any_of, nearest, quote};
use super::super::yaml::{Node, Value};
use super::{FromNode, KeyContext};

/// A word out of a closed choice.
pub(in super::super) trait Keyword: Copy + 'static {
    /// `an algorithm`
    const NOUN: &'static str;
    /// Each word and what it means.
    const WORDS: &'static [(&'static str, Self)];
    /// What other balancers call it, in lower case and with `_`, and the word that it is here.
    const ELSEWHERE: &'static [(&'static str, &'static str)] = &[];
}

/// A [`Keyword`] as typed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct KeywordValue<T>(pub(in super::super) T);

impl<T: Keyword> FromNode for KeywordValue<T> {
    fn expected() -> String {
        any_of(words::<T>())
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        // A word that looks like a number needs no quotes.
        let number = words::<T>().find(|word| *word == node.typed);
        let Some(typed) = node.text().or(number) else {
            let mut problem = field.wrong_type(node, &any_of(words::<T>()));
            if matches!(node.value, Value::Bool(false)) && words::<T>().any(|word| word == "off") {
                problem = problem.help(format!("write `{}: off`", field.name));
            }
            found.add(problem);
            return None;
        };
        let word = T::WORDS.iter().find(|(word, _)| *word == typed);
        if word.is_none() {
            let plain = typed.to_lowercase().replace(['-', ' '], "_");
            let here =
                T::ELSEWHERE.iter().find(|(other, _)| *other == plain).map(|(_, here)| *here);
            let known = words::<T>().collect::<Vec<_>>();
            found.add(not_a_word(node.at, typed, (T::NOUN, here), &known));
        }
        word.map(|&(_, value)| Self(value))
    }
}

fn words<T: Keyword>() -> impl Iterator<Item = &'static str> {
    T::WORDS.iter().map(|&(word, _)| word)
}

/// A text that is none of `known`.
fn not_a_word(
    at: Origin,
    typed: &str,
    (noun, here): (&str, Option<&str>),
    known: &[&str],
) -> Problem {
    let problem = Problem::new(at, format!("{} is not {noun}", quote(typed)));
    let all = any_of(known.iter().copied());
    match here.or_else(|| nearest(typed, known.iter().copied())) {
        Some(near) if known.len() > 1 => {
            problem.help(format!("did you mean `{near}`? it can be {all}"))
        }
        _ => problem.help(format!("it can be {all}")),
    }
}

/// Something that may be switched off.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum OffOr<T> {
    Off,
    Value(T),
}

impl<T: FromNode> FromNode for OffOr<T> {
    fn expected() -> String {
        format!("`off` or {}", T::expected())
    }

    fn from_node(node: &Node, field: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match (&node.value, node.text()) {
            (_, Some("off")) => Some(Self::Off),
            (Value::Map(_), _) => T::from_node(node, field, found).map(Self::Value),
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
