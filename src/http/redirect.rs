//! Builds the `Location` of a redirect.
//!
//! Two things must not happen. A path from a client must not become a host: `//evil.test` and
//! `/\evil.test` lead to another site, so paths have exactly one slash in front, and a backslash is
//! escaped. And text from a client must not end the header and begin another.

use std::fmt::Write as _;

use super::rewrite::NewPath;
use super::scheme::Scheme;

/// How the new location differs from the requested one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Another scheme.
    pub scheme: Option<Scheme>,
    /// Another host.
    pub host: Option<String>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<NewPath>,
    /// A query to put first.
    pub query: Option<String>,
    /// Whether the client's query is kept.
    pub keep_query: bool,
}

/// The target of a request, as far as redirects use it.
#[derive(Debug, Clone, Copy)]
pub struct RequestTarget<'a> {
    /// The scheme of the request.
    pub scheme: Scheme,
    /// The normalized host; `None` if the request has none.
    pub host: Option<&'a str>,
    /// The port in the request.
    pub port: Option<u16>,
    /// Normalized by [`super::path::normalize_for_routing`].
    pub path: &'a str,
    /// The query as received, without the `?`.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// Whether the redirect only changes the scheme, with its port. For a request with the new
    /// scheme it would lead to the requested URL itself.
    #[must_use]
    pub fn changes_scheme_alone(&self) -> bool {
        self.scheme.is_some() && self.host.is_none() && self.path.is_none() && self.query.is_none()
    }

    /// The value of `Location`: an absolute URI if scheme, host or port differ, otherwise a path.
    /// `None` if it needs a host and the request has none.
    #[must_use]
    pub fn location(&self, asked: &RequestTarget<'_>) -> Option<String> {
        let mut location = String::new();
        if self.scheme.is_some() || self.host.is_some() || self.port.is_some() {
            let scheme = self.scheme.unwrap_or(asked.scheme);
            let host = self.host.as_deref().or(asked.host)?;
            // The client's port is valid only for its scheme and host.
            let same = self.host.is_none() && scheme == asked.scheme;
            let port = self.port.or(asked.port.filter(|_| same));
            // Writing to a String cannot fail.
            let _written: Result<(), _> = write!(location, "{scheme}://{host}");
            if let Some(port) = port.filter(|port| *port != scheme.port()) {
                let _written: Result<(), _> = write!(location, ":{port}");
            }
        }
        match &self.path {
            Some(path) => escape(&mut location, &path.of(asked.path)),
            None => escape(&mut location, asked.path),
        }
        let client_query = asked.query.filter(|_| self.keep_query);
        let queries = self.query.as_deref().into_iter().chain(client_query);
        for (separator, query) in ['?', '&'].into_iter().zip(queries) {
            location.push(separator);
            escape(&mut location, query);
        }
        Some(location)
    }
}

/// Appends characters that are allowed in a URI, and percent-encodes others. Existing escapes stay
/// unchanged.
fn escape(text: &mut String, part: &str) {
    for byte in part.bytes() {
        let odd = !byte.is_ascii_graphic() || b"\\\"<>^`{|}".contains(&byte);
        if odd {
            let _written: Result<(), _> = write!(text, "%{byte:02X}");
        } else {
            text.push(char::from(byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::path::normalize_for_routing;
    use proptest::prelude::*;

    const ASKED: RequestTarget<'static> = RequestTarget {
        scheme: Scheme::Http,
        host: Some("a.test"),
        port: Some(8080),
        path: "/old/x",
        query: Some("q=1&r=%2F"),
    };

    fn redirect() -> Redirect {
        Redirect {
            status: 308,
            scheme: None,
            host: None,
            port: None,
            path: None,
            query: None,
            keep_query: true,
        }
    }

    fn location(redirect: &Redirect) -> String {
        redirect.location(&ASKED).unwrap()
    }

    #[test]
    fn a_new_path_alone_needs_no_host_and_keeps_the_query() {
        let path = Some(NewPath::Prefix { old: "/old".to_owned(), new: "/new".to_owned() });
        assert_eq!(location(&Redirect { path, ..redirect() }), "/new/x?q=1&r=%2F");
    }

    #[test]
    fn another_scheme_drops_the_clients_port() {
        let scheme = Some(Scheme::Https);
        assert_eq!(location(&Redirect { scheme, ..redirect() }), "https://a.test/old/x?q=1&r=%2F");
        let port = Some(8443);
        let with_port = location(&Redirect { scheme, port, ..redirect() });
        assert_eq!(with_port, "https://a.test:8443/old/x?q=1&r=%2F");
        let port = Some(443);
        let usual = location(&Redirect { scheme, port, ..redirect() });
        assert_eq!(usual, "https://a.test/old/x?q=1&r=%2F");
    }

    #[test]
    fn another_host_keeps_the_scheme_and_the_same_host_its_port() {
        let host = Some("b.test".to_owned());
        let query = Redirect { host, keep_query: false, ..redirect() };
        assert_eq!(location(&query), "http://b.test/old/x");
        let same = Redirect { scheme: Some(Scheme::Http), keep_query: false, ..redirect() };
        assert_eq!(location(&same), "http://a.test:8080/old/x");
    }

    #[test]
    fn a_query_of_its_own_comes_before_the_clients() {
        let query = Some("from=old".to_owned());
        assert_eq!(location(&Redirect { query, ..redirect() }), "/old/x?from=old&q=1&r=%2F");
    }

    #[test]
    fn without_a_host_there_is_no_absolute_location() {
        let asked = RequestTarget { host: None, ..ASKED };
        assert_eq!(Redirect { scheme: Some(Scheme::Https), ..redirect() }.location(&asked), None);
        assert!(redirect().location(&asked).is_some());
    }

    #[test]
    fn a_path_never_becomes_a_host() {
        let strip = NewPath::Prefix { old: "/old".to_owned(), new: "/".to_owned() };
        for path in ["/old//evil.test", "/old/\\evil.test", "/old/%2F/evil.test", "/old/x//"] {
            let asked = RequestTarget { path: &normalize_for_routing(path), query: None, ..ASKED };
            let location = Redirect { path: Some(strip.clone()), ..redirect() }.location(&asked);
            let location = location.unwrap();
            let second = location.as_bytes().get(1);
            assert!(!matches!(second, Some(b'/' | b'\\')), "{path}: {location}");
        }
    }

    proptest! {
        #[test]
        fn every_location_stays_on_this_host_and_is_one_header(path in any::<String>(), query in any::<String>()) {
            let path = normalize_for_routing(&path).into_owned();
            let asked = RequestTarget { path: &path, query: Some(&query), ..ASKED };
            let strip = NewPath::Prefix { old: "/old".to_owned(), new: "/".to_owned() };
            let location = Redirect { path: Some(strip), ..redirect() }.location(&asked).unwrap();
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
            let away = location.starts_with("//") || location.starts_with("/\\");
            prop_assert!(location.starts_with('/') && !away, "{}", location);
        }
    }
}
