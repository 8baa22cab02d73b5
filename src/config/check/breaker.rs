//! The circuit breaker of a pool.

use super::super::file::{Breaker, RawBreaker};
use super::super::problem::{Diagnostics, Problem};
use super::super::read::FromText as _;
use super::super::terms::FailureSet;
use super::super::value::CountedFailure;
use super::distinct;

pub(super) fn breaker(typed: RawBreaker, found: &mut Diagnostics) -> Breaker {
    let (open, longest) = (typed.open(), typed.open_max());
    let given = typed.open_max.as_ref().or(typed.open.as_ref());
    if let Some(at) = given.map(|it| it.at).filter(|_| open > longest) {
        let (open, longest) = (open.to_text(), longest.to_text());
        let what = format!("`open` ({open}) is longer than `open_max` ({longest})");
        found.add(Problem::new(at, what).help("raise `open_max` or lower `open`"));
    }
    let on = failures(&typed, found);
    typed.configuration(on)
}

fn failures(typed: &RawBreaker, found: &mut Diagnostics) -> FailureSet {
    let list = typed.on();
    if let Some(on) = typed.on.as_ref().filter(|_| list.typed == 0) {
        let problem = Problem::new(on.at, "`on` is empty, so no failure would count");
        found.add(problem.help("to switch the circuit breaker off, write `breaker: off`"));
    }
    let mut on = FailureSet::default();
    for failure in distinct(list, found) {
        match failure {
            CountedFailure::Connect => on.connect = true,
            CountedFailure::Reset => on.reset = true,
            CountedFailure::Timeout => on.timeout = true,
            CountedFailure::Cut => on.cut = true,
            CountedFailure::Status(first, last) => on.status.push((first, last)),
        }
    }
    on
}
