//! Which pool, which entry of its configuration, and which backend of a pool.
//!
//! They are positions, so a lookup costs what an index costs, and types of their own, so that one
//! cannot be passed for the other. Pools and entries keep their positions for the life of a worker.
//! A backend has its position in one snapshot only.

use std::ops::Deref;

/// A pool of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(usize);

impl PoolId {
    /// The pool at this position in the configuration.
    #[must_use]
    pub const fn new(position: usize) -> Self {
        Self(position)
    }

    /// The position in the configuration.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0
    }
}

/// A backend, within a known pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(usize);

impl BackendId {
    /// The backend at this position among the members of its pool.
    #[must_use]
    pub const fn new(position: usize) -> Self {
        Self(position)
    }

    /// The position in its pool.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0
    }
}

/// An entry of `backends` in the configuration of a pool. A host name in it may give several
/// backends, which change while a worker runs; the entry stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(usize);

impl EntryId {
    /// The entry at this position in the configuration.
    #[must_use]
    pub const fn new(position: usize) -> Self {
        Self(position)
    }

    /// The position in the configuration.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0
    }
}

/// One value for each pool of a snapshot, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolMap<T>(Vec<T>);

impl<T> PoolMap<T> {
    /// The value of a pool; `None` for a pool of another snapshot that has more of them.
    #[must_use]
    pub fn get(&self, pool: PoolId) -> Option<&T> {
        self.0.get(pool.0)
    }

    /// Each pool with its value.
    pub fn entries(&self) -> impl Iterator<Item = (PoolId, &T)> {
        self.0.iter().enumerate().map(|(position, value)| (PoolId(position), value))
    }
}

impl<T> Deref for PoolMap<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> FromIterator<T> for PoolMap<T> {
    /// From one value for each pool, in the order of the snapshot.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<'a, T> IntoIterator for &'a PoolMap<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_a_value_for_its_own_pools_only() {
        let map: PoolMap<&str> = ["a", "b"].into_iter().collect();
        assert_eq!(map.get(PoolId::new(1)), Some(&"b"));
        assert_eq!(map.get(PoolId::new(2)), None);
        for (id, value) in map.entries() {
            assert_eq!(map.get(id), Some(value));
        }
        assert_eq!(map.entries().count(), map.len());
    }
}
