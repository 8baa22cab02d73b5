//! References to pools, and keys that exclude each other.

use std::collections::HashMap;

use super::super::problem::{Diagnostics, Origin, Problem, Spanned, nearest, quote};
use super::super::value::Text;
use crate::name::PoolName;

/// The names of the pools, for the routes.
#[derive(Default)]
pub(super) struct Names {
    /// Where `pools` stands.
    pub(super) at: Option<Origin>,
    /// How many pools there are, those without a valid name included.
    pub(super) count: usize,
    /// Whether each of them has a valid name. If not, any name may be the missing one.
    pub(super) complete: bool,
    pub(super) list: Vec<Spanned<PoolName>>,
    /// By name the index of the pool, and where the name stands.
    pub(super) index: HashMap<String, Spanned<usize>>,
}

impl Names {
    pub(super) fn register(
        &mut self,
        name: &Spanned<PoolName>,
        index: usize,
        found: &mut Diagnostics,
    ) {
        let typed = name.value.as_str();
        if let Some(first) = self.index.get(typed) {
            let problem = Problem::new(name.at, format!("a second pool is named `{typed}`"));
            found.add(problem.help(format!("the first is at {}", first.at)));
        } else {
            self.index.insert(typed.to_owned(), Spanned { at: name.at, value: index });
        }
        self.list.push(name.clone());
    }
}

/// Reports a problem if more than one of these keys is present.
pub(super) fn only_one(keys: &[(&str, Option<Origin>)], found: &mut Diagnostics) -> Option<()> {
    let mut there = keys.iter().filter_map(|&(name, at)| Some((name, at?)));
    let first = there.next();
    let (Some((one, _)), Some((other, at))) = (first, there.next()) else { return Some(()) };
    let what = format!("`{other}` and `{one}` cannot be combined");
    found.add(Problem::new(at, what).help("keep one of the two"));
    None
}

/// Index of the pool that a route names, or of the one that was probably meant.
pub(super) fn resolve_pool(
    pool: &Spanned<Text>,
    names: &Names,
    found: &mut Diagnostics,
) -> Option<usize> {
    let typed = pool.value.0.as_str();
    let index = |name: &str| names.index.get(name).map(|index| index.value);
    if let Some(index) = index(typed) {
        return Some(index);
    }
    if !names.complete || found.is_full() {
        return None;
    }
    let known = || names.list.iter().map(|name| name.value.as_str());
    let near = nearest(typed, known());
    let problem = Problem::new(pool.at, format!("there is no pool {}", quote(typed)));
    if let (None, [only]) = (near, names.list.as_slice()) {
        found.add(problem.help(format!("the only pool is `{}`", only.value)));
        return index(only.value.as_str());
    }
    found.add(match near {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("use a name that is defined in `pools`"),
    });
    near.and_then(index)
}
