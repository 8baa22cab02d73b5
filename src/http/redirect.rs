//! Where a client is sent instead.
//!
//! Two things must not happen. A path that a client chose must not become a host: `//evil.test` and
//! `/\evil.test` lead away from here, so paths have one slash in front, and a backslash is escaped.
//! And nothing that a client chose may end the field and begin another.

use std::fmt::Write as _;

use super::rewrite::NewPath;
use super::scheme::Scheme;

/// How the new place differs from the one that was asked for.
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
    /// A query to begin with.
    pub query: Option<String>,
    /// Whether the client's query is kept.
    pub keep_query: bool,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// How the client came.
    pub scheme: Scheme,
    /// The host in its one spelling; `None` if the client named none.
    pub host: Option<&'a str>,
    /// The port that the client named.
    pub port: Option<u16>,
    /// In the form of [`super::path::for_routing`].
    pub path: &'a str,
    /// As sent, without the `?`.
    pub query: Option<&'a str>,
}

impl Redirect {
    /// Whether only the scheme is another, and the port with it: asked for by that scheme, it would
    /// lead to where the client is.
    #[must_use]
    pub fn changes_scheme_alone(&self) -> bool {
        self.scheme.is_some() && self.host.is_none() && self.path.is_none() && self.query.is_none()
    }

    /// The value of `Location`: a whole URI if scheme, host or port differ, else a path. `None` if
    /// it would need a host that nobody named.
    #[must_use]
    pub fn location(&self, asked: &Place<'_>) -> Option<String> {
        let mut location = String::new();
        if self.scheme.is_some() || self.host.is_some() || self.port.is_some() {
            let scheme = self.scheme.unwrap_or(asked.scheme);
            let host = self.host.as_deref().or(asked.host)?;
            // The client's port is one of its scheme and host.
            let same = self.host.is_none() && scheme == asked.scheme;
            let port = self.port.or(asked.port.filter(|_| same));
            // Writing into a String cannot fail.
            let _written: Result<(), _> = write!(location, "{scheme}://{host}");
            if let Some(port) = port.filter(|port| *port != scheme.port()) {
                let _written: Result<(), _> = write!(location, ":{port}");
            }
        }
        match &self.path {
            Some(path) => escape(&mut location, &path.of(asked.path)),
            None => escape(&mut location, asked.path),
        }
        let kept = asked.query.filter(|_| self.keep_query);
        let queries = self.query.as_deref().into_iter().chain(kept);
        for (separator, query) in ['?', '&'].into_iter().zip(queries) {
            location.push(separator);
            escape(&mut location, query);
        }
        Some(location)
    }
}

/// Writes what a URI may have, and the rest in percent form. Escapes stay what they are.
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
    use crate::http::path::for_routing;
    use proptest::prelude::*;

    const ASKED: Place<'static> = Place {
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
    fn another_scheme_forgets_the_clients_port() {
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
    fn a_host_that_nobody_named_cannot_be_told() {
        let asked = Place { host: None, ..ASKED };
        assert_eq!(Redirect { scheme: Some(Scheme::Https), ..redirect() }.location(&asked), None);
        assert!(redirect().location(&asked).is_some());
    }

    #[test]
    fn a_path_never_becomes_a_host() {
        let strip = NewPath::Prefix { old: "/old".to_owned(), new: "/".to_owned() };
        for path in ["/old//evil.test", "/old/\\evil.test", "/old/%2F/evil.test", "/old/x//"] {
            let asked = Place { path: &for_routing(path), query: None, ..ASKED };
            let location = Redirect { path: Some(strip.clone()), ..redirect() }.location(&asked);
            let location = location.unwrap();
            let second = location.as_bytes().get(1);
            assert!(!matches!(second, Some(b'/' | b'\\')), "{path}: {location}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_place_is_here_and_one_field(path in any::<String>(), query in any::<String>()) {
            let path = for_routing(&path).into_owned();
            let asked = Place { path: &path, query: Some(&query), ..ASKED };
            let strip = NewPath::Prefix { old: "/old".to_owned(), new: "/".to_owned() };
            let location = Redirect { path: Some(strip), ..redirect() }.location(&asked).unwrap();
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
            let away = location.starts_with("//") || location.starts_with("/\\");
            prop_assert!(location.starts_with('/') && !away, "{}", location);
        }
    }
}
