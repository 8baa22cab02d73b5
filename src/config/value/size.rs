//! Sizes: a whole number of bytes, or of KiB, MiB or GiB.
//!
//! The units are those of 1024, and are written so: `KB` is a thousand for some and 1024 for
//! others.

use super::super::problem::{Diagnostics, Problem, quote};
use super::super::read::{Bounds, FromNode, IntoMeaning, KeyContext, Literal, ValueError};
use super::super::yaml::{Node, Value as NodeValue};

const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Size<T>(pub(in super::super) T);

/// A size in bytes, or `off` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum SizeOrOff {
    Off,
    Bytes(u64),
}

/// Sizes from `first` to `last` bytes.
pub(in super::super) const fn bytes(first: u64, last: u64) -> Bounds {
    Bounds::Bytes { first, last }
}

impl<T: TryFrom<u64> + TryInto<u64> + Copy> FromNode for Size<T> {
    fn expected(bounds: Bounds) -> String {
        match range(bounds) {
            Some((first, last)) => {
                format!(
                    "a size such as `64KiB`, from {} to {}",
                    spell_size(first),
                    spell_size(last)
                )
            }
            None => "a size such as `64KiB`".to_owned(),
        }
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let bytes = read(node, key, found, "a size such as `64KiB`")?;
        let (first, last) = range(key.bounds()).unwrap_or((0, u64::MAX));
        let size = Some(bytes).filter(|bytes| (first..=last).contains(bytes));
        let size = size.and_then(|bytes| T::try_from(bytes).ok());
        if size.is_none() {
            let what = format!("`{}` cannot be {}", key.name(), spell_size(bytes));
            let help = format!("a size from {} to {}", spell_size(first), spell_size(last));
            found.add(Problem::new(node.at, what).help(help));
        }
        size.map(Self)
    }

    fn to_yaml(&self) -> String {
        spell_size(self.0.try_into().unwrap_or(u64::MAX))
    }
}

fn range(bounds: Bounds) -> Option<(u64, u64)> {
    match bounds {
        Bounds::Bytes { first, last } => Some((first, last)),
        Bounds::Any
        | Bounds::Whole { .. }
        | Bounds::Fraction { .. }
        | Bounds::NotZero(_)
        | Bounds::AtMost(_) => None,
    }
}

macro_rules! size_literal {
    ($($type:ty),+) => {$(
        impl Literal<u64> for Size<$type> {
            /// Every default is in the range of its type; a test reads each of them.
            fn literal(bytes: u64) -> Self {
                Self(<$type>::try_from(bytes).unwrap_or(<$type>::MAX))
            }
        }
    )+};
}
size_literal!(u32, usize);

impl<T> IntoMeaning for Size<T> {
    type Meaning = T;

    fn meaning(self) -> T {
        self.0
    }
}

impl FromNode for SizeOrOff {
    fn expected(_bounds: Bounds) -> String {
        "a size such as `10MiB`, or `off`".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        if node.text() == Some("off") {
            return Some(Self::Off);
        }
        let bytes = read(node, key, found, &Self::expected(Bounds::Any))?;
        if bytes == 0 {
            let problem = Problem::new(node.at, format!("`{}` cannot be 0", key.name()));
            found.add(problem.help("write `off` for no limit"));
            return None;
        }
        Some(Self::Bytes(bytes))
    }

    fn to_yaml(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Bytes(bytes) => spell_size(*bytes),
        }
    }
}

impl IntoMeaning for SizeOrOff {
    type Meaning = Option<u64>;

    fn meaning(self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

fn read(node: &Node, key: KeyContext, found: &mut Diagnostics, expected: &str) -> Option<u64> {
    match (&node.value, node.text()) {
        (NodeValue::Whole(bytes), _) => Some(*bytes),
        (_, Some(text)) => match parse(text) {
            Some(bytes) => Some(bytes),
            None => {
                found.add(wrong(text).at(node.at));
                None
            }
        },
        _ => {
            found.add(key.wrong_type(node, expected));
            None
        }
    }
}

fn parse(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number = text.strip_suffix(unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Not a size, with the best guess at the one that was meant.
fn wrong(text: &str) -> ValueError {
    let problem = ValueError::new(format!("{} is not a size", quote(text)));
    match meant(text) {
        Some(meant) => problem.help(format!("write `{meant}`")),
        None => problem.help("a whole number and a unit: `512B`, `64KiB`, `10MiB` or `1GiB`"),
    }
}

/// `64k`, `64 KB` → `64KiB`
fn meant(text: &str) -> Option<String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.strip_suffix(unit).filter(|number| !number.is_empty())?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "byte" | "bytes" | "b" => "B",
        "k" | "kb" | "ki" | "kib" => "KiB",
        "m" | "mb" | "mi" | "mib" => "MiB",
        "g" | "gb" | "gi" | "gib" => "GiB",
        _ => return None,
    };
    let meant = format!("{number}{unit}");
    parse(&meant).map(|_| meant)
}

/// `bytes` as they are written in the file.
pub(in super::super) fn spell_size(bytes: u64) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| bytes >= factor && bytes.is_multiple_of(factor);
    match UNITS.iter().rev().find(fits) {
        Some(&("B", _)) | None => bytes.to_string(),
        Some(&(unit, factor)) => format!("{}{unit}", bytes / factor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_and_a_unit_of_1024() {
        assert_eq!(parse("512B"), Some(512));
        assert_eq!(parse("64KiB"), Some(65_536));
        assert_eq!(parse("10MiB"), Some(10_485_760));
        assert_eq!(parse("1GiB"), Some(1_073_741_824));
        assert_eq!(parse("99999999999GiB"), None);
        assert_eq!((parse("64k"), parse("KiB"), parse("-1B")), (None, None, None));
    }

    #[test]
    fn what_was_probably_meant_is_spelled_out() {
        assert_eq!(meant("64k").as_deref(), Some("64KiB"));
        assert_eq!(meant("10 MB").as_deref(), Some("10MiB"));
        assert_eq!(meant("lots"), None);
    }

    #[test]
    fn a_size_is_spelled_in_its_largest_whole_unit() {
        assert_eq!(spell_size(65_536), "64KiB");
        assert_eq!(spell_size(1000), "1000");
        assert_eq!(spell_size(0), "0");
    }
}
