//! Routes.

use super::terms::HostPattern;
use std::cmp::Reverse;
use std::fmt;

use ::http::{HeaderName, Method};

use super::action::{Action, HeaderChanges};
use super::file::RateLimit;
use super::problem::SourcePosition;
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;
use crate::name::RouteName;

/// Which requests a route matches, and what it does with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name in logs.
    pub name: Option<RouteName>,
    /// Scheme that the client used; `None` matches both.
    pub scheme: Option<Scheme>,
    /// Hosts that it matches.
    pub host: HostPattern,
    /// Paths that it matches.
    pub path: PathPattern,
    /// Further conditions.
    pub conditions: Conditions,
    /// What it does with a request.
    pub action: Action,
    /// Header changes for the request to the backend.
    pub request_headers: HeaderChanges,
    /// Header changes for the response.
    pub response_headers: HeaderChanges,
    /// For the requests of this route alone, after the global limit.
    pub rate_limit: Option<RateLimit>,
    /// Position of its redirect, else of the route.
    pub defined_at: SourcePosition,
}

impl Route {
    /// Forwards every request to one pool.
    #[must_use]
    pub fn for_all(pool: usize) -> Self {
        Self::new(
            HostPattern::Any,
            PathPattern::Prefix("/".to_owned()),
            Conditions::default(),
            Action::to_pool(pool),
        )
    }

    /// A route without name, rate limit and header changes.
    #[must_use]
    pub fn new(
        host: HostPattern,
        path: PathPattern,
        conditions: Conditions,
        action: Action,
    ) -> Self {
        Self {
            name: None,
            scheme: None,
            host,
            path,
            conditions,
            action,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            rate_limit: None,
            defined_at: SourcePosition::default(),
        }
    }
}

/// Paths that a route matches, in normalized form (see [`crate::http::path`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Every path that the pattern matches as a whole.
    Regex(Pattern),
    /// A prefix that ends on a segment boundary: `/v1` matches `/v1` and `/v1/x`, not `/v10`. `/`
    /// matches every path. Starts with `/`, has no trailing `/` unless it is `/`.
    Prefix(String),
}

impl fmt::Display for PathPattern {
    /// A prefix as it is, an exact path with `=` in front, a pattern with `~`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(formatter, "={path}"),
            Self::Regex(pattern) => write!(formatter, "~{}", pattern.source()),
            Self::Prefix(path) => formatter.write_str(path),
        }
    }
}

/// Conditions besides host and path. All of them must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these methods; an empty list matches all. `GET` includes `HEAD`.
    pub methods: Vec<Method>,
    /// Conditions on headers.
    pub headers: Vec<Condition<HeaderName>>,
    /// Conditions on query parameters.
    pub query: Vec<Condition<String>>,
}

impl Conditions {
    /// Whether every request meets them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }

    /// Precedence; lower comes first. A route with methods comes before one without, then the one with more
    /// header conditions, then the one with more query conditions.
    #[must_use]
    pub fn rank(&self) -> (bool, usize, usize) {
        (self.methods.is_empty(), usize::MAX - self.headers.len(), usize::MAX - self.query.len())
    }
}

impl fmt::Display for Conditions {
    /// As in a file, each after a space.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
            write!(formatter, " [{}]", methods.join(", "))?;
        }
        for Condition { name, test } in &self.headers {
            write!(formatter, " {name}: {test}")?;
        }
        for Condition { name, test } in &self.query {
            write!(formatter, " ?{name}: {test}")?;
        }
        Ok(())
    }
}

/// Condition on one header or query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<Name> {
    /// Name of the header or parameter.
    pub name: Name,
    /// What its value must be.
    pub test: Test,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Equal to this.
    Exact(String),
    /// Starts with this.
    Prefix(String),
    /// The pattern matches all of it.
    Regex(Pattern),
    /// It is present, or it is absent.
    Present(bool),
}

impl Test {
    /// Whether a value, or its absence, passes.
    #[must_use]
    pub fn passes(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Present(present), value) => *present == value.is_some(),
            (Self::Exact(expected), Some(value)) => value == expected,
            (Self::Prefix(start), Some(value)) => value.starts_with(start),
            (Self::Regex(pattern), Some(value)) => pattern.matches(value),
            (Self::Exact(_) | Self::Prefix(_) | Self::Regex(_), None) => false,
        }
    }

    /// Whether every value that passes this also passes `other`. `false` may be wrong, `true` never is.
    #[must_use]
    pub fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present(false), _) | (_, Self::Present(false)) => self == other,
            (_, Self::Present(true)) => true,
            (Self::Exact(value), _) => other.passes(Some(value)),
            (Self::Prefix(start), Self::Prefix(other)) => start.starts_with(other),
            (Self::Regex(_), Self::Regex(_)) => self == other,
            (Self::Prefix(_) | Self::Regex(_) | Self::Present(true), _) => false,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(formatter, "{value:?}"),
            Self::Prefix(start) => write!(formatter, "{{prefix: {start:?}}}"),
            Self::Regex(pattern) => write!(formatter, "{{regex: {:?}}}", pattern.source()),
            Self::Present(present) => write!(formatter, "{{present: {present}}}"),
        }
    }
}

impl fmt::Display for Route {
    /// Short text that identifies the route.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(formatter, "{scheme}://")?;
        }
        write!(formatter, "{}{}{}", self.host, self.path, self.conditions)
    }
}

/// The indices of `routes` in order of precedence: host by host, and within a host from the most specific
/// path to the least specific one.
#[must_use]
pub fn precedence(routes: &[Route]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by_cached_key(|&index| routes.get(index).map(|route| rank(routes, route)));
    order
}

/// Precedence; lower comes first.
fn rank(routes: &[Route], route: &Route) -> impl Ord + use<> {
    let host = match &route.host {
        HostPattern::Exact(host) => (0, Reverse(0), host.clone()),
        HostPattern::Suffix(host) => (1, Reverse(host.len()), host.clone()),
        HostPattern::Any => (2, Reverse(0), String::new()),
    };
    let path = match &route.path {
        PathPattern::Exact(path) => (0, 0, Reverse(0), path.clone()),
        // The place of the first route with the same pattern, among those it is tried with.
        PathPattern::Regex(_) => {
            let same = |other: &Route| {
                (other.scheme, &other.host, &other.path) == (route.scheme, &route.host, &route.path)
            };
            (1, routes.iter().position(same).unwrap_or(0), Reverse(0), String::new())
        }
        PathPattern::Prefix(path) => (2, 0, Reverse(path.len()), path.clone()),
    };
    (
        route.scheme.is_none(),
        route.scheme == Some(Scheme::Https),
        host,
        path,
        route.conditions.rank(),
    )
}
