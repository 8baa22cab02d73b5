//! The URL that a client requests when it follows a `Location`.

use super::host;
use super::path::normalize_for_routing;
use super::redirect::RequestTarget;
use super::scheme::Scheme;

/// A URL, as far as routes use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The scheme.
    pub scheme: Scheme,
    /// In lower case, without port.
    pub host: String,
    /// The port, if given.
    pub port: Option<u16>,
    /// Normalized by [`normalize_for_routing`].
    pub path: String,
    /// Without the `?`.
    pub query: Option<String>,
}

impl Url {
    /// The target that a redirect is applied to.
    #[must_use]
    pub fn place(&self) -> RequestTarget<'_> {
        RequestTarget {
            scheme: self.scheme,
            host: Some(&self.host),
            port: self.port,
            path: &self.path,
            query: self.query.as_deref(),
        }
    }

    /// The URL after following `location` (RFC 3986 §5.2.2), for the forms that redirects write: an
    /// absolute path, or an absolute URI. `None` for anything else.
    #[must_use]
    pub fn follow(&self, location: &str) -> Option<Self> {
        // A fragment is not sent to the server.
        let location = location.split('#').next().unwrap_or(location);
        if location.starts_with('/') && !location.starts_with("//") {
            let (path, query) = path_and_query(location);
            return Some(Self { path, query, ..self.clone() });
        }
        let (scheme, rest) = location.split_once("://")?;
        let (authority, rest) =
            rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
        let (path, query) = path_and_query(rest);
        Some(Self {
            scheme: Scheme::named(scheme)?,
            host: host::canonical(authority).ok()?.into_owned(),
            port: host::port(authority),
            path,
            query,
        })
    }
}

fn path_and_query(text: &str) -> (String, Option<String>) {
    let (path, query) =
        text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    (normalize_for_routing(path).into_owned(), query.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Url {
        Url {
            scheme: Scheme::Http,
            host: "a.test".to_owned(),
            port: Some(8080),
            path: "/x".to_owned(),
            query: Some("q=1".to_owned()),
        }
    }

    #[test]
    fn a_path_keeps_the_host_and_a_uri_does_not() {
        let path = from().follow("/y/./z?r=2#top").unwrap();
        assert_eq!(path, Url { path: "/y/z".to_owned(), query: Some("r=2".to_owned()), ..from() });
        let uri = Url {
            scheme: Scheme::Https,
            host: "b.test".to_owned(),
            port: None,
            path: "/".to_owned(),
            query: None,
        };
        assert_eq!(from().follow("https://B.test").unwrap(), uri);
        let with_port = from().follow("https://[::1]:8443?a").unwrap();
        assert_eq!((with_port.port, with_port.query.as_deref()), (Some(8443), Some("a")));
        assert_eq!(from().follow("//evil.test/"), None);
        assert_eq!(from().follow("ftp://a.test/"), None);
    }
}
