//! stub
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
/// stub
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Handoff {}
impl Handoff {
    /// s
    pub fn take(_: &Snapshot, _: Timestamp) -> Self {
        Self {}
    }
    /// s
    pub fn apply(&self, _: &Snapshot, _: Timestamp) {}
    /// s
    pub fn apply_health(&self, _: &Snapshot, _: Timestamp) {}
    /// s
    pub fn seed(&self) -> Option<u64> {
        None
    }
}
