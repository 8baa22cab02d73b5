//! What operators have set on the backends of a snapshot.
//!
//! The supervisor keeps the list and sends it to every worker, whole. It is kept here too: for pages,
//! and for backends that appear later.

use std::sync::Arc;

use crate::policy::operator::OverrideList;
use crate::sync::Mutex;

/// The list of overrides that holds.
#[derive(Debug, Default)]
pub struct CurrentOverrides {
    list: Mutex<Arc<OverrideList>>,
}

impl CurrentOverrides {
    /// The list.
    #[must_use]
    pub fn get(&self) -> Arc<OverrideList> {
        Arc::clone(&self.list.lock())
    }

    /// Sets the list. [`Snapshot::apply_overrides`](super::snapshot::Snapshot::apply_overrides) applies it.
    pub fn set(&self, list: Arc<OverrideList>) {
        *self.list.lock() = list;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Overrides, load};
    use crate::policy::operator::{
        BackendKey, BackendOverride, OperatorMode, Setting, WeightPercent,
    };
    use crate::runtime::endpoint::Lookup;
    use crate::runtime::snapshot::Snapshot;
    use crate::time::Timestamp;

    const FIRST: &str = "10.0.0.1:80";

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    /// A pool of two backends, of which the first has this weight.
    fn snapshot(weight: u32, more: &str) -> Snapshot {
        let text = format!(
            "pools: [{{name: web, health_check: off, {more} backends: [\
             {{url: \"http://{FIRST}\", weight: {weight}}}, \"http://10.0.0.2:80\"]}}]\n\
             listeners: [\"127.0.0.1:8080\"]\n"
        );
        let config = load(Some(text.as_bytes()), &Overrides::default()).unwrap();
        Snapshot::new(&config, "v", 1, |_, _| Lookup::Failed("no names in tests".to_owned()))
    }

    fn setting<T>(value: T) -> Setting<T> {
        Setting { value, age: Duration::ZERO, left: None, by: String::new(), reason: String::new() }
    }

    /// An operator sets this on the first backend.
    fn set(snapshot: &Snapshot, mode: Option<OperatorMode>, percent: u16, now: Timestamp) {
        let percent = WeightPercent::try_from(percent).unwrap();
        let weight = (!percent.is_configured()).then(|| setting(percent));
        let mut list = OverrideList::default();
        let key = BackendKey { pool: "web".to_owned(), backend: FIRST.to_owned() };
        list.insert(key, BackendOverride { mode: mode.map(setting), weight, has_left: false });
        snapshot.overrides.set(Arc::new(list));
        snapshot.apply_overrides(now);
    }

    /// The effective weights that the next pick uses.
    fn weights(snapshot: &Snapshot, now: Timestamp) -> [u32; 2] {
        let pool = &snapshot.pools[0];
        pool.balancing.refresh(&pool.members, now);
        [0, 1].map(|index| pool.members[index].backend.weight.thousandths())
    }

    #[test]
    fn a_weight_is_a_part_of_the_configured_one_until_it_is_reset() {
        let snapshot = snapshot(3, "");
        assert_eq!(weights(&snapshot, at(0)), [3000, 1000]);
        for (percent, weight) in [(50, 1500), (1, 30), (33, 990), (1000, 30_000), (100, 3000)] {
            set(&snapshot, None, percent, at(0));
            assert!(snapshot.pools[0].balancing.weights.is_steady(), "no pick has to calculate it");
            assert_eq!(weights(&snapshot, at(0)), [weight, 1000], "{percent}");
        }
    }

    #[test]
    fn no_weight_is_too_large_for_the_effective_one() {
        let snapshot = snapshot(1, "");
        set(&snapshot, None, 1000, at(0));
        let weight = &snapshot.pools[0].members[0].backend.weight;
        let full = [1, 1000, 400_000, u32::MAX].map(|it| weight.full(it.try_into().unwrap()));
        assert_eq!(full, [10_000, 10_000_000, 4_000_000_000, u32::MAX]);
    }

    #[test]
    fn a_weight_that_a_source_changes_keeps_the_part() {
        let snapshot = snapshot(1, "");
        set(&snapshot, None, 50, at(0));
        snapshot.pools[0].members[0].backend.weight.set_configured(4.try_into().unwrap());
        assert_eq!(weights(&snapshot, at(0))[0], 2000);
    }

    #[test]
    fn a_slow_start_grows_to_the_part_that_an_operator_has_set() {
        let snapshot = snapshot(1, "slow_start: 8s,");
        set(&snapshot, None, 50, at(0));
        snapshot.pools[0].members[0].backend.weight.begin_slow_start(at(0));
        let seen = [0, 4000, 7000, 8000].map(|millis| weights(&snapshot, at(millis))[0]);
        assert_eq!(seen, [1, 31, 250, 500]);
        snapshot.pools[0].members[0].backend.weight.begin_slow_start(at(10_000));
        assert_eq!(weights(&snapshot, at(14_000)), [31, 1000]);
        set(&snapshot, None, 100, at(14_000));
        let seen = [14_000, 18_000].map(|millis| weights(&snapshot, at(millis)));
        assert_eq!(seen, [[62, 1000], [1000, 1000]]);
    }

    #[test]
    fn a_low_weight_is_not_a_slow_start() {
        let snapshot = snapshot(1, "slow_start: 8s, algorithm: least_conn,");
        set(&snapshot, None, 10, at(0));
        let pool = &snapshot.pools[0];
        pool.members[1].backend.weight.begin_slow_start(at(0));
        assert_eq!(weights(&snapshot, at(0))[0], 100);
        let first = crate::runtime::ids::BackendId::new(0);
        let left = |roll| pool.balancing.thin(&pool.members, pool.available(), roll);
        assert!((0..1000).all(|roll| left(roll).contains(first)), "it takes part in every pick");
    }

    #[test]
    fn a_backend_that_was_out_starts_slowly_when_an_operator_enables_it() {
        for mode in [OperatorMode::Draining, OperatorMode::Disabled] {
            let snapshot = snapshot(1, "slow_start: 8s,");
            snapshot.apply_overrides(at(0));
            assert_eq!(weights(&snapshot, at(0)), [1000, 1000], "it was not out");
            set(&snapshot, None, 50, at(0));
            set(&snapshot, Some(mode), 100, at(10));
            assert_eq!(weights(&snapshot, at(1000)), [1000, 1000], "it is still out");
            set(&snapshot, None, 100, at(2000));
            assert_eq!(weights(&snapshot, at(2000)), [3, 1000]);
            set(&snapshot, None, 100, at(6000));
            assert_eq!(weights(&snapshot, at(6000)), [62, 1000], "it goes on");
            assert_eq!(weights(&snapshot, at(10_000)), [1000, 1000]);
        }
    }
}
