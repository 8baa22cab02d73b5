//! Keywords out of a closed set, and values that can be `off`.

use super::super::problem::{Diagnostics, Origin, Problem, any_of, nearest, quote};
use super::super::yaml::{Node, Value as NodeValue};
use super::key::{Bounds, KeyContext, Section};
use super::value::{FromNode, IntoMeaning, Literal};

/// A closed set of keywords.
pub(in super::super) trait Keyword: Copy + PartialEq + 'static {
    /// `an algorithm`
    const NOUN: &'static str;
    /// Each keyword and its value.
    const WORDS: &'static [(&'static str, Self)];
    /// What other load balancers call it, in lower case and with `_`, and the keyword that it is here.
    const ELSEWHERE: &'static [(&'static str, &'static str)] = &[];

    /// Words that are no keyword, and what to do instead.
    const ADVICE: &'static [(&'static str, &'static str)] = &[];

    /// The keyword of a value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// A [`Keyword`] as typed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct KeywordValue<T>(pub(in super::super) T);

impl<T: Keyword> FromNode for KeywordValue<T> {
    fn expected(_bounds: Bounds) -> String {
        any_of(words::<T>())
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        // A keyword that looks like a number needs no quotes.
        let number = words::<T>().find(|word| *word == node.typed);
        let Some(typed) = node.text().or(number) else {
            let mut problem = key.wrong_type(node, &any_of(words::<T>()));
            if matches!(node.value, NodeValue::Bool(false))
                && words::<T>().any(|word| word == "off")
            {
                problem = problem.help(format!("write `{}: off`", key.name()));
            }
            if let Some(advice) = advice::<T>(&node.typed) {
                problem = problem.help(advice);
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
            let problem = unknown(node.at, typed, (T::NOUN, here), &known);
            found.add(match advice::<T>(typed) {
                Some(advice) => problem.help(advice),
                None => problem,
            });
        }
        word.map(|&(_, value)| Self(value))
    }

    fn to_yaml(&self) -> String {
        // The version 1.2 of TLS is a text, not a number.
        super::super::yaml::text(self.0.word())
    }
}

impl<T> Literal<T> for KeywordValue<T> {
    fn literal(value: T) -> Self {
        Self(value)
    }
}

impl<T> IntoMeaning for KeywordValue<T> {
    type Meaning = T;

    fn meaning(self) -> T {
        self.0
    }
}

fn words<T: Keyword>() -> impl Iterator<Item = &'static str> {
    T::WORDS.iter().map(|&(word, _)| word)
}

fn advice<T: Keyword>(typed: &str) -> Option<&'static str> {
    T::ADVICE.iter().find(|(word, _)| *word == typed).map(|(_, advice)| *advice)
}

/// A text that is none of `known`.
fn unknown(at: Origin, typed: &str, (noun, here): (&str, Option<&str>), known: &[&str]) -> Problem {
    let problem = Problem::new(at, format!("{} is not {noun}", quote(typed)));
    let all = any_of(known.iter().copied());
    match here.or_else(|| nearest(typed, known.iter().copied())) {
        Some(near) if known.len() > 1 => {
            problem.help(format!("did you mean `{near}`? it can be {all}"))
        }
        _ => problem.help(format!("it can be {all}")),
    }
}

/// A value that can be `off`.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum OffOr<T> {
    Off,
    Value(T),
}

impl<T: FromNode> FromNode for OffOr<T> {
    const SECTION: Option<&'static Section> = T::SECTION;

    fn expected(bounds: Bounds) -> String {
        format!("`off` or {}", T::expected(bounds))
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match (&node.value, node.text()) {
            (_, Some("off")) => Some(Self::Off),
            (NodeValue::Map(_), _) => T::from_node(node, key, found).map(Self::Value),
            (NodeValue::Bool(false), _) => {
                let problem = key.wrong_type(node, &Self::expected(key.bounds()));
                found.add(problem.help(format!("write `{}: off`", key.name())));
                None
            }
            _ => {
                found.add(key.wrong_type(node, &Self::expected(key.bounds())));
                None
            }
        }
    }

    fn to_yaml(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Value(value) => value.to_yaml(),
        }
    }
}

impl<T: IntoMeaning> IntoMeaning for OffOr<T> {
    type Meaning = Option<T::Meaning>;

    fn meaning(self) -> Self::Meaning {
        match self {
            Self::Off => None,
            Self::Value(value) => Some(value.meaning()),
        }
    }
}
