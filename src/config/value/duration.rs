//! Durations: a whole number and its unit.
//!
//! The unit is never optional. A bare number would be seconds for some and milliseconds for
//! others, and the difference is a factor of a thousand in a timeout.

use std::time::Duration;

use super::super::limits;
use super::super::problem::quote;
use super::super::read::{Bounds, FromText, IntoMeaning, KeyContext, ValueError};

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

impl FromText for Duration {
    const EXPECTED: &'static str = "a duration with its unit";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let unit = UNITS.iter().find(|(unit, _)| *unit == digits);
        let number = text.strip_suffix(digits).filter(|number| !number.is_empty());
        let (Some(&(_, millis)), Some(number)) = (unit, number) else { return Err(wrong(text)) };
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
        match millis.map(Self::from_millis) {
            Some(duration) if duration <= limits::DURATION_MAX => Ok(duration),
            _ => Err(ValueError::new(format!(
                "{} is longer than {}",
                quote(text),
                spell(limits::DURATION_MAX)
            ))
            .help(format!("{} is the longest duration", spell(limits::DURATION_MAX)))),
        }
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Some(wrong(typed))
    }

    fn to_text(&self) -> String {
        spell(*self)
    }

    fn check_range(&self, key: KeyContext) -> Result<(), ValueError> {
        check(*self, key)
    }
}

/// Reads a duration of the command line, which is written as in the file.
///
/// # Errors
/// It is not a duration; the error says how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    Duration::from_text(text).map_err(|error| error.to_string())
}

/// A duration, or `off` for none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum DurationOrOff {
    Off,
    Duration(Duration),
}

impl FromText for DurationOrOff {
    const EXPECTED: &'static str = "a duration with its unit, or `off`";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text == "off" { Ok(Self::Off) } else { Duration::from_text(text).map(Self::Duration) }
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Duration::from_number(typed)
    }

    fn to_text(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Duration(duration) => spell(*duration),
        }
    }

    fn check_range(&self, key: KeyContext) -> Result<(), ValueError> {
        match self {
            Self::Off => Ok(()),
            Self::Duration(duration) => check(*duration, key),
        }
    }
}

/// Whether `duration` is in the range of its key.
fn check(duration: Duration, key: KeyContext) -> Result<(), ValueError> {
    match key.bounds() {
        Bounds::NotZero(why) if duration.is_zero() => {
            Err(ValueError::new(why).help(key.remove_for_default()))
        }
        Bounds::AtMost(longest) if duration > longest => {
            let what = format!("`{}` cannot be {}", key.name(), spell(duration));
            Err(ValueError::new(what).help(format!("{} is the longest", spell(longest))))
        }
        Bounds::NotZero(_)
        | Bounds::AtMost(_)
        | Bounds::Any
        | Bounds::Whole { .. }
        | Bounds::Fraction { .. }
        | Bounds::Bytes { .. } => Ok(()),
    }
}

impl IntoMeaning for Duration {
    type Meaning = Self;

    fn meaning(self) -> Self {
        self
    }
}

impl IntoMeaning for DurationOrOff {
    type Meaning = Option<Duration>;

    fn meaning(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Duration(duration) => Some(duration),
        }
    }
}

/// Whole seconds.
pub(in super::super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Not a duration, with the best guess at the one that was meant.
fn wrong(text: &str) -> ValueError {
    let problem = ValueError::new(if text.parse::<f64>().is_ok() {
        format!("the duration {} has no unit", quote(text))
    } else {
        format!("{} is not a duration", quote(text))
    });
    match meant(text) {
        Some(meant) => problem.help(format!("write `{meant}`")),
        None => problem.help("a whole number and a unit: `500ms`, `2s`, `1m` or `1h`"),
    }
}

/// `10` → `10s`, `1.5s` → `1500ms`, `2 sec` → `2s`, `1m30s` → `90s`, `1d` → `24h`.
fn meant(text: &str) -> Option<String> {
    let mut millis = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = rest.strip_suffix(unit)?.parse().ok()?;
        let next = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, tail) = unit.split_at_checked(next)?;
        millis += number
            * match unit.trim().to_lowercase().as_str() {
                "ms" | "msec" | "millis" | "milliseconds" => 1.0,
                "" | "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
                "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
                "h" | "hr" | "hour" | "hours" => 3600e3,
                "d" | "day" | "days" => 86400e3,
                _ => return None,
            };
        rest = tail;
    }
    let guess = Duration::try_from_secs_f64(millis / 1e3).ok()?;
    (!guess.is_zero() && guess <= limits::DURATION_MAX && millis.fract() == 0.0)
        .then(|| spell(guess))
}

/// `duration` as it is written in the file.
pub(in super::super) fn spell(duration: Duration) -> String {
    let millis = duration.as_millis();
    // A single minute is more often thought of as 60s.
    let fits = |&&(name, unit): &&(&str, u64)| {
        let unit = u128::from(unit);
        millis != 0 && millis.is_multiple_of(unit) && (millis > unit || matches!(name, "ms" | "s"))
    };
    match UNITS.iter().rev().find(fits) {
        Some(&(name, unit)) => format!("{}{name}", millis / u128::from(unit)),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Duration, String> {
        Duration::from_text(text).map_err(|wrong| wrong.help.unwrap_or_default())
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(read("3m"), Ok(Duration::from_secs(180)));
        assert_eq!(read("24h"), Ok(Duration::from_secs(86400)));
        assert_eq!(read("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_was_probably_meant_is_spelled_out() {
        assert_eq!(read("10"), Err("write `10s`".to_owned()));
        assert_eq!(read("1.5s"), Err("write `1500ms`".to_owned()));
        assert_eq!(read("2 sec"), Err("write `2s`".to_owned()));
        assert_eq!(read("1m30s"), Err("write `90s`".to_owned()));
        assert_eq!(read("1d"), Err("write `24h`".to_owned()));
    }

    #[test]
    fn nonsense_is_told_the_units() {
        let units = Err("a whole number and a unit: `500ms`, `2s`, `1m` or `1h`".to_owned());
        assert_eq!(read("soon"), units);
        assert_eq!(read("-1s"), units);
        assert_eq!(read("s"), units);
    }

    #[test]
    fn a_number_beyond_all_bounds_is_too_long_and_nothing_worse() {
        assert_eq!(read("25h"), Err("24h is the longest duration".to_owned()));
        assert_eq!(read("99999999999999999999h"), Err("24h is the longest duration".to_owned()));
        assert_eq!(read("18446744073709551615h"), Err("24h is the longest duration".to_owned()));
    }

    #[test]
    fn a_duration_is_spelled_in_its_largest_whole_unit() {
        assert_eq!(spell(Duration::from_secs(90)), "90s");
        assert_eq!(spell(Duration::from_secs(60)), "60s");
        assert_eq!(spell(Duration::from_secs(120)), "2m");
        assert_eq!(spell(Duration::from_millis(1500)), "1500ms");
        assert_eq!(spell(Duration::ZERO), "0s");
    }
}
