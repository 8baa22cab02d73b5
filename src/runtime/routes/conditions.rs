//! The routes of one host and path, told apart by their conditions.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use super::Asked;
use crate::config::Conditions;
use crate::http::query;

/// In the order in which they are asked. Nearly all have one route, and no condition.
#[derive(Debug, Default)]
pub(super) struct Candidates(SmallVec<[Candidate; 1]>);

#[derive(Debug)]
struct Candidate {
    /// `None` if every request meets them.
    conditions: Option<Box<Conditions>>,
    route: usize,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, conditions: &Conditions, route: usize) {
        let rank = |one: &Candidate| one.conditions.as_ref().map(|conditions| conditions.rank());
        let conditions = (!conditions.is_empty()).then(|| Box::new(conditions.clone()));
        let new = Candidate { conditions, route };
        // Behind those of the same rank: of two equal ones the first in the file is asked first.
        // No condition at all is asked last.
        let key = |one: &Candidate| (one.conditions.is_none(), rank(one));
        let place = self.0.partition_point(|other| key(other) <= key(&new));
        self.0.insert(place, new);
    }

    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<usize> {
        let met = |one: &&Candidate| one.conditions.as_ref().is_none_or(|all| are_met(all, asked));
        self.0.iter().find(met).map(|one| one.route)
    }
}

fn are_met(conditions: &Conditions, asked: &Asked<'_>) -> bool {
    let method = conditions.methods.is_empty() || takes(&conditions.methods, asked.method);
    method
        && conditions.headers.iter().all(|one| {
            let value = field(asked.headers, &one.name);
            one.test.passes(value.as_deref())
        })
        && conditions.query.iter().all(|one| {
            let value = asked.query.and_then(|query| query::first(query, &one.name));
            one.test.passes(value.as_deref())
        })
}

fn takes(methods: &[Method], method: &Method) -> bool {
    methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
}

/// The lines of a field as one (RFC 9110 §5.3). What is no text becomes `U+FFFD`.
fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut lines = headers.get_all(name).iter();
    let mut joined = String::from_utf8_lossy(lines.next()?.as_bytes());
    for line in lines {
        let joined = joined.to_mut();
        joined.push_str(", ");
        joined.push_str(&String::from_utf8_lossy(line.as_bytes()));
    }
    Some(joined)
}
