//! The routes of one host and path, distinguished by their conditions.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use super::RouteQuery;
use crate::config::Conditions;
use crate::http::query;

/// In the order in which they are checked. Nearly all have one route without conditions.
#[derive(Debug, Default)]
pub(super) struct RouteCandidates(SmallVec<[RouteCandidate; 1]>);

#[derive(Debug)]
struct RouteCandidate {
    /// `None` if every request meets them.
    conditions: Option<Box<Conditions>>,
    route: usize,
}

impl RouteCandidates {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, conditions: &Conditions, route: usize) {
        let rank =
            |one: &RouteCandidate| one.conditions.as_ref().map(|conditions| conditions.rank());
        let conditions = (!conditions.is_empty()).then(|| Box::new(conditions.clone()));
        let new = RouteCandidate { conditions, route };
        // After those of the same rank: of two equal ones the first in the file is checked first. A
        // route without conditions is checked last.
        let key = |one: &RouteCandidate| (one.conditions.is_none(), rank(one));
        let index = self.0.partition_point(|other| key(other) <= key(&new));
        self.0.insert(index, new);
    }

    pub(super) fn find(&self, asked: &RouteQuery<'_>) -> Option<usize> {
        let met =
            |one: &&RouteCandidate| one.conditions.as_ref().is_none_or(|all| are_met(all, asked));
        self.0.iter().find(met).map(|one| one.route)
    }
}

fn are_met(conditions: &Conditions, asked: &RouteQuery<'_>) -> bool {
    let method = conditions.methods.is_empty() || allows(&conditions.methods, asked.method);
    method
        && conditions.headers.iter().all(|one| {
            let value = header_value(asked.headers, &one.name);
            one.test.passes(value.as_deref())
        })
        && conditions.query.iter().all(|one| {
            let value = asked.query.and_then(|query| query::first(query, &one.name));
            one.test.passes(value.as_deref())
        })
}

fn allows(methods: &[Method], method: &Method) -> bool {
    methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
}

/// All lines of a header as one value (RFC 9110 §5.3). Invalid UTF-8 becomes `U+FFFD`.
fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut lines = headers.get_all(name).iter();
    let mut joined = String::from_utf8_lossy(lines.next()?.as_bytes());
    for line in lines {
        let joined = joined.to_mut();
        joined.push_str(", ");
        joined.push_str(&String::from_utf8_lossy(line.as_bytes()));
    }
    Some(joined)
}
