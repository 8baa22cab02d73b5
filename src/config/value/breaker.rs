//! Values of a circuit breaker: a percentage, a factor, a failure.

use super::super::problem::{Diagnostics, Origin, Problem, Spanned, nearest, quote};
use super::super::read::{Bounds, FromNode, FromText, IntoMeaning, KeyContext, List, ValueError};
use super::super::yaml::{Node, Value};

/// A percentage, written as `30%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Percent(pub(in super::super) u32);

/// How many times as much, written as `5x`; or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum TimesOrOff {
    Off,
    Times(u32),
}

/// The whole number before a unit.
fn before(unit: &str, text: &str) -> Option<u32> {
    let digits = text.strip_suffix(unit)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?.parse().ok()
}

/// Whether a number with its unit is in the range of its key.
fn check(number: u32, unit: &str, key: KeyContext) -> Result<(), ValueError> {
    match key.bounds() {
        Bounds::Whole { first, last, .. } if !(first..=last).contains(&u64::from(number)) => {
            let what = format!("`{}` cannot be {number}{unit}", key.name());
            Err(ValueError::new(what).help(format!("from {first}{unit} to {last}{unit}")))
        }
        Bounds::Any
        | Bounds::Whole { .. }
        | Bounds::Fraction { .. }
        | Bounds::Bytes { .. }
        | Bounds::NotZero(_)
        | Bounds::AtMost(_) => Ok(()),
    }
}

impl FromText for Percent {
    const EXPECTED: &'static str = "a percentage";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        before("%", text).map(Self).ok_or_else(|| {
            let problem = ValueError::new(format!("{} is not a percentage", quote(text)));
            problem.help("a whole number and `%`: `30%`")
        })
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        let problem = ValueError::new(format!("the percentage {} has no unit", quote(typed)));
        let share = typed.parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
        let per_cent =
            share.map_or_else(|| typed.to_owned(), |share| (share * 100.0).round().to_string());
        Some(problem.help(format!("write `{per_cent}%`")))
    }

    fn to_text(&self) -> String {
        format!("{}%", self.0)
    }

    fn check_range(&self, key: KeyContext) -> Result<(), ValueError> {
        check(self.0, "%", key)
    }
}

impl IntoMeaning for Percent {
    type Meaning = u32;

    fn meaning(self) -> u32 {
        self.0
    }
}

impl FromText for TimesOrOff {
    const EXPECTED: &'static str = "a factor such as `5x`, or `off`";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        before("x", text).map(Self::Times).ok_or_else(|| {
            let problem = ValueError::new(format!("{} is not a factor", quote(text)));
            problem.help("a whole number and `x`: `5x`")
        })
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        let problem = ValueError::new(format!("the factor {} has no unit", quote(typed)));
        Some(problem.help(format!("write `{typed}x`")))
    }

    fn to_text(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Times(times) => format!("{times}x"),
        }
    }

    fn check_range(&self, key: KeyContext) -> Result<(), ValueError> {
        match self {
            Self::Off => Ok(()),
            Self::Times(times) => check(*times, "x", key),
        }
    }
}

impl IntoMeaning for TimesOrOff {
    type Meaning = Option<u32>;

    fn meaning(self) -> Option<u32> {
        match self {
            Self::Off => None,
            Self::Times(times) => Some(times),
        }
    }
}

/// A failed attempt that counts for a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum CountedFailure {
    Connect,
    Reset,
    Timeout,
    Cut,
    Status(u16, u16),
}

const FAILURES: [(&str, CountedFailure); 4] = [
    ("connect", CountedFailure::Connect),
    ("reset", CountedFailure::Reset),
    ("timeout", CountedFailure::Timeout),
    ("cut", CountedFailure::Cut),
];

impl CountedFailure {
    /// What counts by default.
    pub(in super::super) fn usual() -> List<Self> {
        let usual = FAILURES.iter().map(|&(_, failure)| failure);
        let usual = usual.chain([Self::Status(500, 599)]);
        let spanned = |value| Spanned { at: Origin::START, value };
        let entries: Vec<Spanned<Self>> = usual.map(spanned).collect();
        List { typed: entries.len(), entries }
    }
}

impl FromNode for CountedFailure {
    fn expected(_bounds: Bounds) -> String {
        "`connect`, `reset`, `timeout`, `cut`, a status or a range of them".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let typed = match (&node.value, node.text()) {
            (&Value::Whole(_), _) => node.typed.as_str(),
            (_, Some(typed)) => typed,
            _ => {
                found.add(key.wrong_type(node, &Self::expected(Bounds::Any)));
                return None;
            }
        };
        if let Some(&(_, failure)) = FAILURES.iter().find(|(word, _)| *word == typed) {
            return Some(failure);
        }
        let (first, last) = typed.split_once('-').unwrap_or((typed, typed));
        let status = |text: &str| text.parse().ok().filter(|code| (400..=599).contains(code));
        if let (Some(first), Some(last)) = (status(first), status(last))
            && first <= last
        {
            return Some(Self::Status(first, last));
        }
        let what = format!("{} is not a failure that a circuit breaker can count", quote(typed));
        let problem = Problem::new(node.at, what);
        found.add(match nearest(typed, FAILURES.iter().map(|&(word, _)| word)) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem
                .help(format!("it can be {}, such as 503 or 500-599", Self::expected(Bounds::Any))),
        });
        None
    }

    fn to_yaml(&self) -> String {
        let word = FAILURES.iter().find(|(_, failure)| failure == self).map(|(word, _)| *word);
        match (word, self) {
            (Some(word), _) => word.to_owned(),
            (None, Self::Status(first, last)) if first == last => first.to_string(),
            (None, Self::Status(first, last)) => format!("{first}-{last}"),
            (None, Self::Connect | Self::Reset | Self::Timeout | Self::Cut) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_written_as_a_fraction_gets_the_percentage_as_help() {
        let help = |typed: &str| Percent::from_number(typed).unwrap().help.unwrap();
        assert_eq!(help("0.3"), "write `30%`");
        assert_eq!(help("0.29"), "write `29%`");
        assert_eq!(help("30"), "write `30%`");
        assert_eq!(help("1"), "write `1%`");
    }
}
