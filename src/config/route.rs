//! What a route means.

use std::cmp::Reverse;
use std::fmt;

use ::http::{HeaderName, Method};

use super::{Action, HeaderChanges, RateLimit, RouteName, SourcePosition};
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;

/// Which requests it is for, and what becomes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What logs call it.
    pub name: Option<RouteName>,
    /// How the client came; `None` is either way.
    pub scheme: Option<Scheme>,
    /// Which `Host`.
    pub host: HostPattern,
    /// Which path.
    pub path: PathPattern,
    /// What else a request must have.
    pub conditions: Conditions,
    /// What becomes of a request.
    pub action: Action,
    /// Of what a backend gets.
    pub request_headers: HeaderChanges,
    /// Of what the client gets.
    pub response_headers: HeaderChanges,
    /// For the requests of this route alone, after the global limit.
    pub rate_limit: Option<RateLimit>,
    /// Where it says what it does.
    pub defined_at: SourcePosition,
}

impl Route {
    /// Every request to one pool.
    #[must_use]
    pub fn for_all(pool: usize) -> Self {
        Self::new(
            HostPattern::Any,
            PathPattern::Prefix("/".to_owned()),
            Conditions::default(),
            Action::to_pool(pool),
        )
    }

    /// A route without a name, a limit and changes of fields.
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

/// Which host names a route is for. Names are lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(String),
    /// `*.example.com`, kept as `example.com`: one or more labels in front of it.
    Suffix(String),
    /// Every host.
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => formatter.write_str(host),
            Self::Suffix(host) => write!(formatter, "*.{host}"),
            Self::Any => formatter.write_str("*"),
        }
    }
}

/// Which paths a route is for, as routing sees them (see [`crate::http::path`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path alone.
    Exact(String),
    /// Every path that the pattern takes as a whole.
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

/// What a request must have besides host and path: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these; none is any. `GET` is for `HEAD`, too.
    pub methods: Vec<Method>,
    /// Of its fields.
    pub headers: Vec<Condition<HeaderName>>,
    /// Of the parameters of its query.
    pub query: Vec<Condition<String>>,
}

impl Conditions {
    /// Whether every request meets them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }

    /// The more of them, the earlier a route is asked: one for certain methods before one for all,
    /// then by the number of fields, then by that of parameters. The lower is the earlier.
    #[must_use]
    pub fn rank(&self) -> (bool, usize, usize) {
        (self.methods.is_empty(), usize::MAX - self.headers.len(), usize::MAX - self.query.len())
    }
}

impl fmt::Display for Conditions {
    /// As in a file, each with a space in front.
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

/// What one field or parameter must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<Name> {
    /// Which.
    pub name: Name,
    /// What it must be.
    pub test: Test,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// This.
    Exact(String),
    /// It begins so.
    Prefix(String),
    /// The pattern takes all of it.
    Regex(Pattern),
    /// It is there, or it is not.
    Present(bool),
}

impl Test {
    /// Whether a value, or its absence, is what it must be.
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

    /// Whether whatever passes this passes `other`. A `false` may be wrong, a `true` is not.
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
    /// What tells it from every other route, short.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(formatter, "{scheme}://")?;
        }
        write!(formatter, "{}{}{}", self.host, self.path, self.conditions)
    }
}

/// The indices of `routes` in the order in which they are asked, for a reader: host by host, and
/// within a host from the most specific path to the least.
#[must_use]
pub fn precedence(routes: &[Route]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by_cached_key(|&index| routes.get(index).map(|route| rank(routes, route)));
    order
}

/// The lower, the earlier.
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
