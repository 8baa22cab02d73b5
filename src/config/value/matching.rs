//! Values of route conditions.

use ::http::{HeaderName, Method, header};

use super::super::problem::quote;
use super::super::read::{FromText, ValueError};
use super::path::{absolute, as_routed};
use crate::http::pattern::Pattern;

/// The whole path of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ExactPath(pub(in super::super) String);

impl FromText for ExactPath {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let path = absolute(text)?;
        if path.contains('?') {
            return Err(ValueError::new(format!("the path {} has a query", quote(text)))
                .help("a path ends before the `?`; use `query` for parameters"));
        }
        as_routed(path).map(Self)
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl FromText for Pattern {
    const EXPECTED: &'static str = "a regular expression";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        Self::new(text).map_err(|error| {
            ValueError::new(format!("{} is not a regular expression", quote(text)))
                .help(error.to_string())
        })
    }

    fn to_text(&self) -> String {
        self.source().to_owned()
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
            return Err(ValueError::new(format!(
                "the regular expression {} matches every path",
                quote(text)
            ))
            .help("for every path, remove `path_regex`"));
        }
        if bare.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(ValueError::new(format!(
                "the regular expression {} matches no path",
                quote(text)
            ))
            .help(format!(
                "it must match the whole path, which starts with `/`: write {}",
                quote(&format!("/{bare}"))
            )));
        }
        Ok(Self(pattern))
    }

    fn to_text(&self) -> String {
        self.0.source().to_owned()
    }
}

impl FromText for Method {
    const EXPECTED: &'static str = "a method";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let wrong = |what: &str| ValueError::new(format!("{} {what}", quote(text)));
        let upper = text.to_ascii_uppercase();
        if matches!(upper.as_str(), "CONNECT" | "TRACE") {
            return Err(wrong("cannot be routed").help("Weir always responds with 405 to it"));
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

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// Whether a header claims something about the client. When a route is chosen, such headers are not
/// verified yet.
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
            Ok(header::HOST) => Err(ValueError::new("`Host` cannot be matched as a header")
                .help("write the key `host` of the route, for example `host: api.example.com`")),
            Ok(name) if is_claim(name.as_str()) => {
                Err(ValueError::new(format!("the header {} can be forged by any client", quote(text))).help(
                    "Weir sets it only after the route is chosen; use `scheme` and `host` of the route, or \
                     `client_auth` of the listener",
                ))
            }
            Ok(name) => Ok(Self(name)),
            Err(_) => Err(ValueError::new(format!("{} is not a header name", quote(text)))
                .help("letters, digits and `-`: for example `X-Version`")),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}
