//! Conditions of a route besides host and path.

use super::super::file::{RawMatch, RawRoute};
use super::super::problem::{Diagnostics, Origin, Problem, Spanned};
use super::super::route::{Condition, Conditions, Test};
use super::references::only_one;

/// The conditions; `None` if they are invalid.
pub(super) fn conditions(route: &mut RawRoute, found: &mut Diagnostics) -> Option<Conditions> {
    let mut clear = true;
    let mut conditions = Conditions::default();
    if let Some(methods) = route.methods.take() {
        if methods.value.typed == 0 {
            let problem = Problem::new(methods.at, "`methods` is empty, so no request would match");
            found.add(problem.help("for every method, remove `methods`"));
        }
        clear &= methods.value.typed == methods.value.entries.len();
        for Spanned { at, value } in methods.value.entries {
            if conditions.methods.contains(&value) {
                found.add(Problem::new(at, format!("`{value}` is listed twice")));
            } else {
                conditions.methods.push(value);
            }
        }
    }
    if let Some(headers) = route.headers.take() {
        require_entry(headers.at, headers.value.typed, "headers", found);
        clear &= headers.value.typed == headers.value.entries.len();
        for (name, test) in headers.value.entries {
            let test = self::test(test, found);
            clear &= test.is_some();
            conditions.headers.extend(test.map(|test| Condition { name: name.value.0, test }));
        }
    }
    if let Some(query) = route.query.take() {
        require_entry(query.at, query.value.typed, "query", found);
        clear &= query.value.typed == query.value.entries.len();
        for (name, test) in query.value.entries {
            let test = self::test(test, found);
            clear &= test.is_some();
            conditions.query.extend(test.map(|test| Condition { name: name.value.0, test }));
        }
    }
    clear.then_some(conditions)
}

fn require_entry(at: Origin, typed: usize, name: &str, found: &mut Diagnostics) {
    if typed == 0 {
        let problem = Problem::new(at, format!("`{name}` is empty"));
        found.add(problem.help(format!("remove `{name}`")));
    }
}

fn test(typed: Spanned<RawMatch>, found: &mut Diagnostics) -> Option<Test> {
    let Spanned { at, value: typed } = typed;
    let keys = [
        ("exact", typed.exact.as_ref().map(|exact| exact.at)),
        ("prefix", typed.prefix.as_ref().map(|prefix| prefix.at)),
        ("regex", typed.regex.as_ref().map(|regex| regex.at)),
        ("present", typed.present.as_ref().map(|present| present.at)),
    ];
    only_one(&keys, found)?;
    let exact = typed.exact.map(|exact| Test::Exact(exact.value.0));
    let prefix = typed.prefix.map(|prefix| Test::Prefix(prefix.value.0));
    let regex = typed.regex.map(|regex| Test::Regex(regex.value));
    let present = typed.present.map(|present| Test::Present(present.value));
    let test = exact.or(prefix).or(regex).or(present);
    if test.is_none() && typed.refused.is_empty() {
        let problem = Problem::new(at, "this condition is empty");
        found.add(problem.help("add one of `exact`, `prefix`, `regex` and `present`"));
    }
    test
}
