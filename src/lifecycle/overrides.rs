//! The overrides that operators have set, and when each of them ends.
//!
//! This is the only place that keeps them. Every worker gets the whole list: at its start, and after
//! each change.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::operator::{
    BackendKey, BackendOverride, OverrideChange, OverrideList, OverrideRequest, Setting,
};
use crate::time::Timestamp;

/// What a request of an operator has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideResult {
    /// What was asked for.
    pub request: OverrideRequest,
    /// What was set before.
    pub before: BackendOverride,
    /// What is set now.
    pub after: BackendOverride,
}

/// An override that has ended by its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) key: BackendKey,
    pub(super) before: BackendOverride,
    pub(super) after: BackendOverride,
}

/// The overrides of all backends.
#[derive(Debug, Default)]
pub(super) struct OverrideTable {
    version: u64,
    kept: BTreeMap<BackendKey, Kept>,
}

/// An override; its times are as of `noted_at`.
#[derive(Debug, Clone)]
struct Kept {
    set: BackendOverride,
    noted_at: Timestamp,
}

impl Kept {
    /// The override with its times as of `now`.
    fn at(&self, now: Timestamp) -> BackendOverride {
        let passed = now.since(self.noted_at);
        BackendOverride {
            mode: self.set.mode.as_ref().map(|mode| aged(mode, passed)),
            weight: self.set.weight.as_ref().map(|weight| aged(weight, passed)),
            has_left: self.set.has_left,
        }
    }

    /// When the first of its settings ends.
    fn ends_at(&self) -> Option<Timestamp> {
        let mode = self.set.mode.as_ref().and_then(|mode| mode.left);
        let weight = self.set.weight.as_ref().and_then(|weight| weight.left);
        mode.into_iter().chain(weight).min().map(|left| self.noted_at + left)
    }
}

fn aged<T: Clone>(setting: &Setting<T>, passed: Duration) -> Setting<T> {
    Setting {
        age: setting.age.saturating_add(passed),
        left: setting.left.map(|left| left.saturating_sub(passed)),
        ..setting.clone()
    }
}

fn has_ended<T>(setting: &Setting<T>) -> bool {
    setting.left.is_some_and(|left| left.is_zero())
}

impl OverrideTable {
    /// The overrides that another image of this supervisor has left.
    pub(super) fn restore(list: &OverrideList, now: Timestamp) -> Self {
        let kept = list.iter().map(|(key, set)| (key, Kept { set: set.clone(), noted_at: now }));
        Self { version: list.version, kept: kept.collect() }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// The overrides that a worker has to apply. A worker that drains also applies those of backends
    /// that have left the file, which it may still use.
    pub(super) fn list(&self, is_draining: bool, now: Timestamp) -> OverrideList {
        let mut list = OverrideList { version: self.version, ..OverrideList::default() };
        let applied = self.kept.iter().filter(|(_, kept)| is_draining || !kept.set.has_left);
        applied.for_each(|(key, kept)| list.insert(key.clone(), kept.at(now)));
        list
    }

    /// Does what an operator asks for. To ask for the same again keeps the time since when it is so.
    pub(super) fn apply(&mut self, request: OverrideRequest, now: Timestamp) -> OverrideResult {
        let kept = self.kept.get(&request.key).filter(|kept| !kept.set.has_left);
        let before = kept.map(|kept| kept.at(now)).unwrap_or_default();
        let mut after = before.clone();
        match request.change {
            OverrideChange::Mode(mode) => after.mode = Some(renewed(&before.mode, mode, &request)),
            OverrideChange::Enable => after.mode = None,
            OverrideChange::Weight(weight) if weight.is_configured() => after.weight = None,
            OverrideChange::Weight(weight) => {
                after.weight = Some(renewed(&before.weight, weight, &request));
            }
            OverrideChange::Reset => after = BackendOverride::default(),
        }
        if before != after {
            self.set(request.key.clone(), after.clone(), now);
        }
        OverrideResult { request, before, after }
    }

    fn set(&mut self, key: BackendKey, set: BackendOverride, now: Timestamp) {
        self.version += 1;
        if set.is_empty() {
            self.kept.remove(&key);
        } else {
            self.kept.insert(key, Kept { set, noted_at: now });
        }
    }

    /// When the next override ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.kept.values().filter_map(Kept::ends_at).min()
    }

    /// Ends those whose time is over.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Ended> {
        let is_over = |kept: &&Kept| kept.ends_at().is_some_and(|at| at <= now);
        let over = self.kept.iter().filter(|(_, kept)| is_over(kept));
        let over: Vec<(BackendKey, BackendOverride)> =
            over.map(|(key, kept)| (key.clone(), kept.at(now))).collect();
        let end = |(key, before): (BackendKey, BackendOverride)| {
            let after = BackendOverride {
                mode: before.mode.clone().filter(|mode| !has_ended(mode)),
                weight: before.weight.clone().filter(|weight| !has_ended(weight)),
                has_left: before.has_left,
            };
            self.set(key.clone(), after.clone(), now);
            Ended { key, before, after }
        };
        over.into_iter().map(end).collect()
    }

    /// Drops the overrides of backends that a new configuration does not have. Returns those backends.
    pub(super) fn drop_missing(
        &mut self,
        is_there: impl Fn(&BackendKey) -> bool,
    ) -> Vec<(BackendKey, BackendOverride)> {
        let mut dropped = Vec::new();
        for (key, kept) in &mut self.kept {
            if !kept.set.has_left && !is_there(key) {
                dropped.push((key.clone(), kept.set.clone()));
                kept.set.has_left = true;
            }
        }
        self.version += u64::from(!dropped.is_empty());
        dropped
    }

    /// No worker of a former configuration is left.
    pub(super) fn forget_dropped(&mut self) {
        self.kept.retain(|_, kept| !kept.set.has_left);
    }
}

/// A setting of the same value keeps its age.
fn renewed<T: PartialEq>(
    before: &Option<Setting<T>>,
    value: T,
    request: &OverrideRequest,
) -> Setting<T> {
    let same = before.as_ref().filter(|before| before.value == value);
    Setting {
        age: same.map_or(Duration::ZERO, |before| before.age),
        value,
        left: request.lasts,
        by: request.by.clone(),
        reason: request.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::operator::{OperatorMode, WeightPercent};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn key(backend: &str) -> BackendKey {
        BackendKey { pool: "web".to_owned(), backend: backend.to_owned() }
    }

    fn request(backend: &str, change: OverrideChange, lasts: Option<u64>) -> OverrideRequest {
        OverrideRequest {
            key: key(backend),
            change,
            lasts: lasts.map(Duration::from_secs),
            by: "uid=0".to_owned(),
            reason: "why".to_owned(),
        }
    }

    const DISABLE: OverrideChange = OverrideChange::Mode(OperatorMode::Disabled);
    const DRAIN: OverrideChange = OverrideChange::Mode(OperatorMode::Draining);

    fn half() -> OverrideChange {
        OverrideChange::Weight(WeightPercent::try_from(50).unwrap())
    }

    fn mode(table: &OverrideTable, backend: &str) -> Option<OperatorMode> {
        let list = table.list(false, at(0));
        Some(list.get("web", backend)?.mode.as_ref()?.value)
    }

    #[test]
    fn each_change_replaces_what_it_is_about_and_leaves_the_rest() {
        let mut table = OverrideTable::default();
        let mut describe = |change| {
            let result = table.apply(request("a", change, None), at(1));
            (result.before.describe(), result.after.describe())
        };
        let text = |before: &str, after: &str| (before.to_owned(), after.to_owned());
        assert_eq!(describe(DRAIN), text("as configured", "draining"));
        assert_eq!(describe(half()), text("draining", "draining, weight 50%"));
        assert_eq!(describe(DISABLE), text("draining, weight 50%", "disabled, weight 50%"));
        assert_eq!(describe(OverrideChange::Enable), text("disabled, weight 50%", "weight 50%"));
        let whole = OverrideChange::Weight(WeightPercent::default());
        assert_eq!(describe(whole), text("weight 50%", "as configured"));
        describe(DISABLE);
        assert_eq!(describe(OverrideChange::Reset), text("disabled", "as configured"));
        assert!(table.list(true, at(1)).is_empty());
    }

    #[test]
    fn the_same_again_keeps_its_age_and_replaces_its_end() {
        let mut table = OverrideTable::default();
        table.apply(request("a", DISABLE, Some(60)), at(10));
        let again = table.apply(request("a", DISABLE, None), at(30)).after.mode.unwrap();
        assert_eq!((again.age, again.left), (Duration::from_secs(20), None));
        assert_eq!(table.next_end(), None);
    }

    #[test]
    fn only_a_change_makes_a_new_version() {
        let mut table = OverrideTable::default();
        table.apply(request("a", OverrideChange::Enable, None), at(1));
        table.apply(request("a", OverrideChange::Reset, None), at(1));
        assert_eq!(table.version(), 0);
        table.apply(request("a", DISABLE, None), at(1));
        table.apply(request("a", DISABLE, None), at(2));
        assert_eq!(table.version(), 1);
    }

    #[test]
    fn an_override_ends_at_its_time_and_the_others_stay() {
        let mut table = OverrideTable::default();
        table.apply(request("a", DISABLE, Some(60)), at(0));
        table.apply(request("a", half(), Some(90)), at(0));
        table.apply(request("b", DRAIN, None), at(0));
        assert_eq!(table.next_end(), Some(at(60)));
        assert!(table.expire(at(59)).is_empty());
        let ended = table.expire(at(60));
        assert_eq!((ended.len(), ended[0].after.describe().as_str()), (1, "weight 50%"));
        assert_eq!((mode(&table, "a"), mode(&table, "b")), (None, Some(OperatorMode::Draining)));
        assert_eq!(table.next_end(), Some(at(90)));
        assert_eq!(table.expire(at(95)).len(), 1);
        assert_eq!(table.next_end(), None);
    }

    #[test]
    fn the_next_image_of_the_supervisor_goes_on_with_the_time_that_is_left() {
        let mut table = OverrideTable::default();
        table.apply(request("a", DISABLE, Some(60)), at(100));
        let restored = OverrideTable::restore(&table.list(true, at(110)), at(2));
        assert_eq!(restored.next_end(), Some(at(52)));
        let list = restored.list(false, at(4));
        let mode = list.get("web", "a").unwrap().mode.clone().unwrap();
        assert_eq!(mode.age, Duration::from_secs(12));
        assert_eq!(restored.version(), table.version());
    }

    #[test]
    fn the_override_of_a_backend_that_left_holds_for_draining_workers_only() {
        let mut table = OverrideTable::default();
        table.apply(request("a", DISABLE, None), at(0));
        table.apply(request("b", DISABLE, None), at(0));
        let dropped = table.drop_missing(|key| key.backend == "b");
        assert_eq!(dropped.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["web/a"]);
        assert!(table.drop_missing(|key| key.backend == "b").is_empty(), "it is logged once");
        assert_eq!((mode(&table, "a"), table.list(true, at(0)).pools["web"].len()), (None, 2));
        let result = table.apply(request("a", OverrideChange::Enable, None), at(1));
        assert!(result.before.is_empty(), "the backend is back in the file, without its override");
        table.forget_dropped();
        assert_eq!(table.list(true, at(0)).pools["web"].len(), 1);
    }
}
