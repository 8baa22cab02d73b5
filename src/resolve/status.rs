//! What `/status` shows of each source.

use super::Resolution;
use super::source::SourceTarget;
use crate::config::BackendAddress;
use crate::current::{CurrentSnapshot, SourceState};
use crate::runtime::ids::EntryId;
use crate::runtime::pool::Pool;
use crate::time::Timestamp;

/// The source of an entry, as users write it.
pub(super) fn entry_name(pool: &Pool, entry: EntryId) -> String {
    let backend = pool.config.backends.get(entry.position());
    match backend.map(|backend| &backend.address) {
        Some(BackendAddress::Discovered(discovery)) => discovery.from.to_string(),
        Some(address) => format!("host {address}"),
        None => String::new(),
    }
}

/// The source of a target.
pub(super) fn name(pool: &Pool, target: &SourceTarget) -> String {
    entry_name(pool, target.entry)
}

/// Why the last lookup failed, if it did.
pub(super) fn last_error(
    current: &CurrentSnapshot,
    pool: &Pool,
    target: &SourceTarget,
) -> Option<String> {
    current.source(pool.name.as_str(), &name(pool, target))?.last_error
}

/// Records the result of a lookup that ended at `now`.
pub(super) fn record(
    current: &CurrentSnapshot,
    pool: &Pool,
    target: &SourceTarget,
    result: &Resolution,
    now: Timestamp,
) {
    let (pool_name, name) = (pool.name.to_string(), name(pool, target));
    let before = current.source(&pool_name, &name).unwrap_or_default();
    let members = pool.members.iter();
    let backends = members.filter(|member| member.backend.origin.entry == target.entry).count();
    let state = match result {
        Ok(answer) => SourceState {
            backends,
            looked_up: Some(now),
            answered: Some(now),
            by: answer.by.clone(),
            ttl: answer.ttl,
            last_error: None,
        },
        Err(why) => SourceState {
            backends,
            looked_up: Some(now),
            last_error: Some(why.to_string()),
            ..before
        },
    };
    current.set_source(pool_name, name, state);
}
