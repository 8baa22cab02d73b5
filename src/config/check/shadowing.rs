//! Routes that no request could reach.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use ::http::Method;

use super::super::limits;
use super::super::problem::{Diagnostics, Origin, Problem};
use super::super::route::{Condition, Conditions, Route};

/// The routes of each host and path, which differ only in their conditions.
#[derive(Default)]
pub(super) struct ShadowedRoutes(HashMap<String, Vec<(Conditions, Origin)>>);

impl ShadowedRoutes {
    /// The routes have to come in the order of the file.
    pub(super) fn add(&mut self, route: &Route, at: Origin) {
        // A space is in no host, and cannot be in a prefix or an exact path.
        let place = format!("{:?} {} {}", route.scheme, route.host, route.path);
        self.0.entry(place).or_default().push((route.conditions.clone(), at));
    }

    pub(super) fn check(self, found: &mut Diagnostics) {
        self.0.into_values().for_each(|routes| check(routes, found));
    }
}

fn check(mut routes: Vec<(Conditions, Origin)>, found: &mut Diagnostics) {
    if let Some((_, at)) = routes.get(limits::ALTERNATIVES_MAX) {
        let max = limits::ALTERNATIVES_MAX;
        let problem = Problem::new(*at, format!("more than {max} routes for one path"));
        found.add(problem.help("they are tried one after the other: distinguish them by path"));
        return;
    }
    // In order of precedence.
    routes.sort_by_key(|(conditions, _)| conditions.rank());
    for (index, (later, at)) in routes.iter().enumerate() {
        let mut earlier = routes.iter().take(index);
        let Some((first, first_at)) = earlier.find(|(earlier, _)| covers(earlier, later)) else {
            continue;
        };
        let (what, help) = if first.is_empty() {
            ("this route has the same host and path as an earlier one", "the first is at")
        } else if same(first, later) {
            ("this route matches the same requests as an earlier one", "the first is at")
        } else {
            (
                "no request can reach this route: another route matches all its requests",
                "remove one of the two, or put this one first; the other is at",
            )
        };
        found.add(Problem::new(*at, what).help(format!("{help} {first_at}")));
    }
}

/// Whether every request that meets `narrow` also meets `wide`.
fn covers(wide: &Conditions, narrow: &Conditions) -> bool {
    let takes = |method: &Method| {
        wide.methods.contains(method)
            || (*method == Method::HEAD && wide.methods.contains(&Method::GET))
    };
    let methods =
        wide.methods.is_empty() || (!narrow.methods.is_empty() && narrow.methods.iter().all(takes));
    methods
        && all_implied(&wide.headers, &narrow.headers)
        && all_implied(&wide.query, &narrow.query)
}

fn all_implied<Name: PartialEq>(wide: &[Condition<Name>], narrow: &[Condition<Name>]) -> bool {
    let implied = |wanted: &Condition<Name>| {
        narrow.iter().any(|has| has.name == wanted.name && has.test.implies(&wanted.test))
    };
    wide.iter().all(implied)
}

fn same(one: &Conditions, other: &Conditions) -> bool {
    fn set<Name: Display>(list: &[Condition<Name>]) -> HashSet<String> {
        list.iter().map(|Condition { name, test }| format!("{name} {test}")).collect()
    }
    let methods = |of: &Conditions| of.methods.iter().cloned().collect::<HashSet<Method>>();
    methods(one) == methods(other)
        && set(&one.headers) == set(&other.headers)
        && set(&one.query) == set(&other.query)
}

#[cfg(test)]
mod tests {
    use super::super::problems;

    /// The problems of these routes to the pool `a`, each without its `pool`.
    fn of(routes: &[&str]) -> Vec<String> {
        let routes: Vec<_> = routes.iter().map(|route| format!("{{{route}, pool: a}}")).collect();
        let pool = "pools: [{name: a, backends: [http://10.0.0.1:1]}]";
        problems(&format!("{pool}\nroutes: [{}]", routes.join(", ")))
    }

    #[test]
    fn a_route_for_get_hides_a_later_one_for_head() {
        let (get, head) = ("path: /, methods: [GET]", "path: /, methods: [HEAD]");
        let found = of(&[get, head]);
        assert!(found.len() == 1 && found[0].contains("no request can reach"), "{found:?}");
        assert_eq!(of(&[head, get]), [""; 0], "GET itself is left");
    }

    #[test]
    fn the_order_of_conditions_makes_no_difference_between_routes() {
        let found = of(&[
            "path: /, headers: {X-A: x, X-B: {prefix: y}}",
            "path: /, headers: {X-B: {prefix: y}, X-A: x}",
        ]);
        assert!(found.len() == 1 && found[0].contains("matches the same requests"), "{found:?}");
    }

    #[test]
    fn a_prefix_hides_a_later_route_for_a_longer_value() {
        let (wide, narrow) = ("path: /, query: {v: {prefix: b}}", "path: /, query: {v: beta}");
        let found = of(&[wide, narrow]);
        assert!(found.len() == 1 && found[0].contains("no request can reach"), "{found:?}");
        assert_eq!(of(&[narrow, wide]), [""; 0]);
    }

    #[test]
    fn routes_with_more_conditions_are_reached_wherever_they_stand() {
        assert_eq!(
            of(&["path: /", "path: /, methods: [POST]", "path: /, headers: {X-A: x}"]),
            [""; 0]
        );
        assert_eq!(
            of(&["path: /, host: a.test", "path: /, host: b.test", "path_exact: /"]),
            [""; 0]
        );
    }
}
