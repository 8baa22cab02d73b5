//! Request targets: converts what a client wrote into what a backend gets (RFC 9112 §3.2).
//!
//! Pingora and the `http` crate accept less than clients send and other servers accept: four
//! visible characters that are not allowed in a URI, and an absolute form whose authority differs
//! from `Host` in spelling. They reject such a request before any hook runs. So the scanner
//! replaces these few bytes in the input, and records a [`ReplacedByte`] for each. The first hook of the
//! request restores the target with [`restored`].

use std::borrow::Cow;
use std::fmt::Write as _;

use super::host;
use super::scheme::Scheme;

/// A byte of a target that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplacedByte {
    /// The number of its request on the connection, from 1.
    pub message: u64,
    /// Its index in the target.
    pub offset: usize,
    /// The original byte.
    pub byte: u8,
}

/// The replacement for a byte that is not allowed in a URI.
pub(super) const FOR_ODD: u8 = b'~';
/// The replacement for the first byte of an absolute form: with it, no parser looks for an
/// authority.
pub(super) const FOR_FIRST: u8 = b'/';

/// Characters that clients send although they are not allowed in a URI, and that a browser would
/// escape.
pub(super) const fn is_odd(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

/// The original target, given the `changes` of this target.
#[must_use]
pub fn restored(target: &[u8], changes: &[ReplacedByte]) -> String {
    let mut bytes = target.to_vec();
    for change in changes {
        if let Some(byte) = bytes.get_mut(change.offset) {
            *byte = change.byte;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The target with disallowed characters percent-encoded, as a browser would do (the URL standard,
/// "path percent-encode set" and "query percent-encode set"): a backtick in a query stays.
#[must_use]
pub fn escaped(target: &str) -> Cow<'_, str> {
    if !target.bytes().any(is_odd) {
        return Cow::Borrowed(target);
    }
    let mut text = String::with_capacity(target.len() + 16);
    let mut in_query = false;
    for character in target.chars() {
        in_query |= character == '?';
        match character {
            '`' if in_query => text.push('`'),
            '"' | '<' | '>' | '`' => {
                // Writing to a String cannot fail.
                let _written: Result<(), _> = write!(text, "%{:02X}", u32::from(character));
            }
            other => text.push(other),
        }
    }
    Cow::Owned(text)
}

/// A target in absolute form (RFC 9112 §3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absolute<'a> {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// The authority as written.
    pub authority: &'a str,
    /// The path with its query; empty, or only a query, if there is no path.
    pub rest: &'a str,
}

impl<'a> Absolute<'a> {
    /// Parses a target. `None` if it has another form.
    #[must_use]
    pub fn of(target: &'a str) -> Option<Self> {
        let (scheme, rest) = target.split_once("://")?;
        let scheme = Scheme::named(scheme)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end)?;
        Some(Self { scheme, authority, rest })
    }

    /// The origin form for the backend: the path with its query. `OPTIONS` without either is about
    /// the whole server (RFC 9112 §3.2.4).
    #[must_use]
    pub fn origin_form(&self, is_options: bool) -> Cow<'a, str> {
        match self.rest {
            "" if is_options => Cow::Borrowed("*"),
            "" => Cow::Borrowed("/"),
            rest if rest.starts_with('/') => Cow::Borrowed(rest),
            query => Cow::Owned(format!("/{query}")),
        }
    }

    /// Whether `Host` has the same host and port. Case, one trailing dot and the default port are
    /// ignored (RFC 9110 §4.2.3).
    #[must_use]
    pub fn has_same_authority(&self, host: &str) -> bool {
        let named = |authority: &str| {
            let host = host::canonical(authority).ok()?.into_owned();
            Some((host, host::port(authority).unwrap_or(self.scheme.port())))
        };
        named(self.authority).is_some_and(|own| named(host) == Some(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_escaped_as_a_browser_would() {
        assert!(matches!(escaped("/a/{b}|^?c'd"), Cow::Borrowed(_)));
        assert_eq!(escaped("/?q={\"a\":1}"), "/?q={%22a%22:1}");
        assert_eq!(escaped("/<a>`\"?<b>`\""), "/%3Ca%3E%60%22?%3Cb%3E`%22");
    }

    #[test]
    fn a_target_is_restored_as_it_was_written() {
        let change = |offset, byte| ReplacedByte { message: 1, offset, byte };
        let changes = [change(0, b'h'), change(14, b'<'), change(15, b'`')];
        assert_eq!(restored(b"/ttp://a.test/~~", &changes), "http://a.test/<`");
        assert_eq!(restored(b"/plain?x", &[]), "/plain?x");
    }

    #[test]
    fn an_absolute_form_has_a_scheme_an_authority_and_the_rest() {
        let of = |target| Absolute::of(target).map(|it| (it.scheme, it.authority, it.rest));
        assert_eq!(of("http://a.test:80/b?c"), Some((Scheme::Http, "a.test:80", "/b?c")));
        assert_eq!(of("HTTPS://a.test?c"), Some((Scheme::Https, "a.test", "?c")));
        assert_eq!(of("/a?u=http://b"), None);
        assert_eq!(of("ftp://a"), None);
    }

    #[test]
    fn an_origin_gets_the_path() {
        let of = |target, is_options| {
            Absolute::of(target).map(|it| it.origin_form(is_options).into_owned()).unwrap()
        };
        assert_eq!(of("http://a/b?c", false), "/b?c");
        assert_eq!(of("http://a?c", false), "/?c");
        assert_eq!(of("http://a", false), "/");
        assert_eq!(of("http://a", true), "*");
        assert_eq!(of("http://a/", true), "/");
        assert_eq!(of("http://a?c", true), "/?c");
    }

    #[test]
    fn hosts_are_equal_in_any_spelling() {
        let has_same_authority =
            |target, host| Absolute::of(target).unwrap().has_same_authority(host);
        assert!(has_same_authority("http://shop.example:80/", "shop.example"));
        assert!(has_same_authority("http://shop.example/", "SHOP.Example.:80"));
        assert!(has_same_authority("https://shop.example/", "shop.example:443"));
        assert!(has_same_authority("http://[2001:DB8::1]:/", "[2001:db8:0::1]"));
        assert!(!has_same_authority("http://shop.example/", "shop.example:443"));
        assert!(!has_same_authority("http://shop.example:8080/", "shop.example"));
        assert!(!has_same_authority("http://a.example/", "b.example"));
        assert!(!has_same_authority("http://u@a.example/", "u@a.example"));
    }
}
