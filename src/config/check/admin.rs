//! The admin port.

use std::net::SocketAddr;

use super::super::file::RawAdmin;
use super::super::meaning::ReadyWhen;
use super::super::problem::{Diagnostics, Problem, Spanned};
use super::super::value::{ReadyWhen as TypedReadyWhen, Text};
use super::bindings::{Bindings, Bound};
use super::references::{Names, resolve_pool};

/// Address of the admin port, and `ready_when` as typed: the pools are not known yet.
pub(super) fn address(
    typed: RawAdmin,
    refused: &[&str],
    bound: &mut Bindings,
    found: &mut Diagnostics,
) -> (SocketAddr, Option<Spanned<TypedReadyWhen>>) {
    let unknown = refused.contains(&"admin") || typed.refused.contains(&"address");
    let at = typed.address.as_ref().map(|address| address.at);
    let address = typed.address().0;
    if !unknown {
        bound.add(Bound { address, at, admin: true }, found);
    }
    (address, typed.ready_when)
}

/// Pools that need a healthy backend for `/readyz`.
pub(super) fn ready_when(
    typed: Option<Spanned<TypedReadyWhen>>,
    names: &Names,
    found: &mut Diagnostics,
) -> ReadyWhen {
    let Some(typed) = typed else { return ReadyWhen::AnyPool };
    let pools = match typed.value {
        TypedReadyWhen::AnyPool => return ReadyWhen::AnyPool,
        TypedReadyWhen::AllPools => return ReadyWhen::AllPools,
        TypedReadyWhen::Pools(pools) => pools,
    };
    if pools.typed == 0 {
        let problem = Problem::new(typed.at, "`ready_when` is an empty list");
        found.add(problem.help("write `any_pool`, `all_pools`, or the names of pools"));
    }
    let name = |pool: &Spanned<Text>| {
        let index = resolve_pool(pool, names, found)?;
        names.list.get(index).map(|name| name.value.clone())
    };
    ReadyWhen::Pools(pools.entries.iter().filter_map(name).collect())
}
