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
