//! What a route asks of a request.

use ::http::{HeaderName, Method, header};

use super::super::problem::quote;
use super::super::read::{FromText, ValueError};
use super::http::absolute;
use crate::http::path::normalize_for_routing;
use crate::http::pattern::Pattern;
use crate::http::target::escaped;

/// The whole path of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ExactPath(pub(in super::super) String);

impl FromText for ExactPath {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let path = absolute(text)?;
        if path.contains('?') {
            return Err(ValueError::new(format!("the path {} has a query", quote(text)))
                .help("a path ends before the `?`; for parameters there is `query`"));
        }
        as_routed(path).map(Self)
    }
}

/// `path`, if requests are compared with it as it is written.
pub(super) fn as_routed(path: &str) -> Result<String, ValueError> {
    // Where a client writes what no URI has, requests have it escaped.
    let escaped = escaped(path);
    let normal = normalize_for_routing(&escaped);
    if normal == path {
        return Ok(path.to_owned());
    }
    Err(ValueError::new(format!("the path {} is not in the form that requests have", quote(path)))
        .help(format!("write {}, or it would match none", quote(&normal))))
}

impl FromText for Pattern {
    const EXPECTED: &'static str = "a regular expression";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        Self::new(text).map_err(|error| {
            ValueError::new(format!("{} is not a regular expression", quote(text)))
                .help(error.to_string())
        })
    }
}

/// A pattern of whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct PathRegex(pub(in super::super) Pattern);

impl FromText for PathRegex {
    const EXPECTED: &'static str = "a regular expression";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let pattern = Pattern::from_text(text)?;
        let bare = text.trim_start_matches('^').trim_end_matches('$');
        if matches!(bare, ".*" | "/.*" | ".+") {
            return Err(ValueError::new(format!("the pattern {} is for every path", quote(text)))
                .help("for every path, leave `path_regex` out"));
        }
        if bare.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(ValueError::new(format!("the pattern {} is for no path", quote(text)))
                .help(format!(
                    "it is for the whole path, and that begins with `/`: write {}",
                    quote(&format!("/{bare}"))
                )));
        }
        Ok(Self(pattern))
    }
}

impl FromText for Method {
    const EXPECTED: &'static str = "a method";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let wrong = |what: &str| ValueError::new(format!("{} {what}", quote(text)));
        let upper = text.to_ascii_uppercase();
        if matches!(upper.as_str(), "CONNECT" | "TRACE") {
            return Err(wrong("is never served").help("it is always answered 405"));
        }
        let method = Self::from_bytes(text.as_bytes()).ok();
        match method.filter(|_| upper == text) {
            Some(method) => Ok(method),
            None if Self::from_bytes(upper.as_bytes()).is_ok() => {
                Err(wrong("is not a method").help(format!("write {}", quote(&upper))))
            }
            None => Err(wrong("is not a method").help("for example `GET`")),
        }
    }
}

/// Whether a field tells of the client, and may be anybody's word when a route is chosen.
fn is_claim(name: &str) -> bool {
    let prefixes = ["x-forwarded-", "x-client-cert", "client-cert"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || ["forwarded", "x-real-ip"].contains(&name)
}

/// The name of a field that a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct FieldName(pub(in super::super) HeaderName);

impl FromText for FieldName {
    const EXPECTED: &'static str = "the name of a field";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(header::HOST) => Err(ValueError::new("the field `Host` is looked at as a host")
                .help("write `host: api.example.com` beside `path`")),
            Ok(name) if is_claim(name.as_str()) => {
                Err(ValueError::new(format!("anybody can send the field {}", quote(text))).help(
                    "what Weir itself says of a client is written after the route is chosen; \
                     there are `scheme` and `host`, and `client_auth` of a listener",
                ))
            }
            Ok(name) => Ok(Self(name)),
            Err(_) => Err(ValueError::new(format!("{} is not the name of a field", quote(text)))
                .help("letters, digits and `-`: for example `X-Version`")),
        }
    }
}
