//! Where a client goes that follows a `Location`.

use super::host;
use super::path::for_routing;
use super::redirect::Place;
use super::scheme::Scheme;

/// What a client asks for next, as far as routes look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// By which it comes.
    pub scheme: Scheme,
    /// Lower case, without port.
    pub host: String,
    /// If it is written.
    pub port: Option<u16>,
    /// In the form of [`for_routing`].
    pub path: String,
    /// Without the `?`.
    pub query: Option<String>,
}

impl Url {
    /// For a redirect.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place {
            scheme: self.scheme,
            host: Some(&self.host),
            port: self.port,
            path: &self.path,
            query: self.query.as_deref(),
        }
    }

    /// Where a client goes from here (RFC 3986 §5.2.2), for what redirects write: a path from the
    /// root, or a whole URI. `None` for anything else.
    #[must_use]
    pub fn follow(&self, location: &str) -> Option<Self> {
        // A fragment is for the client alone.
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
    (for_routing(path).into_owned(), query.map(str::to_owned))
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
    fn a_path_stays_with_its_host_and_a_uri_does_not() {
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
