//! What operators have set on backends, beside the configuration.
//!
//! An override belongs to a pool and to a backend as it is written in the file, so it also applies to
//! a backend that appears later. Processes have different clocks, so times are durations.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 200;
/// The weight that is configured, in per cent.
const CONFIGURED: u16 = 100;
const PERCENT_MAX: u16 = 1000;

/// A backend of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendKey {
    /// The name of the pool.
    pub pool: String,
    /// The backend, as written in the configuration.
    pub backend: String,
}

impl fmt::Display for BackendKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.pool, self.backend)
    }
}

/// How an operator keeps requests away from a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorMode {
    /// It gets no new clients.
    Draining,
    /// It gets no requests at all.
    Disabled,
}

impl OperatorMode {
    /// Its name in the log, on pages and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// A weight as a share of the configured one, in per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct WeightPercent(u16);

impl WeightPercent {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether it is the configured weight.
    #[must_use]
    pub const fn is_configured(self) -> bool {
        self.0 == CONFIGURED
    }
}

impl Default for WeightPercent {
    fn default() -> Self {
        Self(CONFIGURED)
    }
}

impl TryFrom<u16> for WeightPercent {
    type Error = String;

    fn try_from(percent: u16) -> Result<Self, String> {
        if (1..=PERCENT_MAX).contains(&percent) {
            return Ok(Self(percent));
        }
        let help = match percent {
            0 => "to send it no requests, use `weir drain`",
            _ => "write `50%` for half of its weight",
        };
        Err(format!("{percent}% is not between 1% and {PERCENT_MAX}% (help: {help})"))
    }
}

impl From<WeightPercent> for u16 {
    fn from(percent: WeightPercent) -> Self {
        percent.0
    }
}

impl FromStr for WeightPercent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').filter(|number| !number.starts_with('+'));
        let number = number.and_then(|number| number.parse::<u16>().ok());
        let wrong = || format!("`{text}` is not a whole number with `%` (help: write `50%`)");
        Self::try_from(number.ok_or_else(wrong)?)
    }
}

impl fmt::Display for WeightPercent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}%", self.0)
    }
}

/// A value that an operator has set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// How long ago it was set.
    #[serde(default)]
    pub age: Duration,
    /// How long it still holds; `None`: until it is changed.
    #[serde(default)]
    pub left: Option<Duration>,
    /// Who has set it.
    #[serde(default)]
    pub by: String,
    /// Why, as the operator has said. May be empty.
    #[serde(default)]
    pub reason: String,
}

/// All that operators have set on one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendOverride {
    /// Whether it gets requests; `None`: as its health allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Setting<OperatorMode>>,
    /// Its weight; `None`: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Setting<WeightPercent>>,
    /// The backend is no longer in the file. Only workers that drain still apply this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_left: bool,
}

impl BackendOverride {
    /// Whether nothing is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mode.is_none() && self.weight.is_none()
    }

    /// What is set, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        let mode = self.mode.as_ref().map(|mode| mode.value.as_str().to_owned());
        let weight = self.weight.as_ref().map(|weight| format!("weight {}", weight.value));
        let words: Vec<String> = mode.into_iter().chain(weight).collect();
        if words.is_empty() { "as configured".to_owned() } else { words.join(", ") }
    }
}

/// What operators have set on all backends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideList {
    /// Grows with each change.
    pub version: u64,
    /// The overrides of each pool by backend. Backends without one are left out.
    pub pools: BTreeMap<String, BTreeMap<String, BackendOverride>>,
}

impl OverrideList {
    /// The override of a backend.
    #[must_use]
    pub fn get(&self, pool: &str, backend: &str) -> Option<&BackendOverride> {
        self.pools.get(pool)?.get(backend)
    }

    /// Every override with its backend.
    pub fn iter(&self) -> impl Iterator<Item = (BackendKey, &BackendOverride)> {
        self.pools.iter().flat_map(|(pool, backends)| {
            backends.iter().map(|(backend, set)| {
                (BackendKey { pool: pool.clone(), backend: backend.clone() }, set)
            })
        })
    }

    /// Adds an override.
    pub fn insert(&mut self, key: BackendKey, set: BackendOverride) {
        self.pools.entry(key.pool).or_default().insert(key.backend, set);
    }

    /// Whether there is no override.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideChange {
    /// Keep requests away from it.
    Mode(OperatorMode),
    /// Let its health decide again.
    Enable,
    /// Give it this share of its weight.
    Weight(WeightPercent),
    /// Remove all overrides.
    Reset,
}

/// What an operator asks for, for which backend, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRequest {
    /// The backend.
    pub key: BackendKey,
    /// What.
    pub change: OverrideChange,
    /// How long it holds; `None`: until it is changed.
    #[serde(default)]
    pub lasts: Option<Duration>,
    /// Who asks.
    #[serde(default)]
    pub by: String,
    /// Why. May be empty.
    #[serde(default)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_whole_number_of_per_cent_from_1_to_1000() {
        let read = |text: &str| text.parse::<WeightPercent>().map(WeightPercent::get);
        assert_eq!((read("50%"), read("1%"), read("1000%")), (Ok(50), Ok(1), Ok(1000)));
        for wrong in ["50", "%", "-1%", "+5%", "0%", "1001%", "0.5%", "50 %", "99999%", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("0%").unwrap_err().contains("`weir drain`"));
    }

    #[test]
    fn an_override_is_described_by_what_it_sets() {
        let mut set = BackendOverride::default();
        assert_eq!(set.describe(), "as configured");
        set.mode = Some(setting(OperatorMode::Draining));
        assert_eq!(set.describe(), "draining");
        let half = WeightPercent::try_from(50).unwrap();
        set.weight = Some(setting(half));
        assert_eq!(set.describe(), "draining, weight 50%");
    }

    fn setting<T>(value: T) -> Setting<T> {
        Setting { value, age: Duration::ZERO, left: None, by: String::new(), reason: String::new() }
    }

    #[test]
    fn what_another_version_leaves_out_is_empty() {
        let text = r#"{"version":3,"pools":{"web":{"a:1":{"mode":{"value":"disabled"}}}}}"#;
        let list: OverrideList = serde_json::from_str(text).unwrap();
        let set = list.get("web", "a:1").unwrap();
        assert_eq!(set.mode.as_ref().unwrap().value, OperatorMode::Disabled);
        assert!(list.get("web", "b:1").is_none() && list.get("api", "a:1").is_none());
        assert_eq!(list.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["web/a:1"]);
    }
}
