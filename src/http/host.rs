//! `Host` and `:authority`: one spelling per host, or a rejection.
//!
//! Routes, TLS names and logs compare hosts as text, so there must be exactly one text per host. An
//! ambiguous value (`good.example,evil.example`, `user@host`, percent-encoded letters) can be used
//! for cache poisoning or to bypass a route. So it is rejected, not repaired.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

/// Why a `Host` or `:authority` value is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Longer than any name can be (RFC 1035 §2.3.4), including the port. Code that resolves names
    /// may rely on this limit.
    #[error("a host has at most {LENGTH_MAX} bytes")]
    Long,
    /// The host is missing.
    #[error("the host is empty")]
    Empty,
    /// A byte that RFC 3986 does not allow in a host, or that Weir rejects.
    #[error("byte 0x{0:02x} cannot be part of a host")]
    Byte(u8),
    /// User information, which is allowed in a URI but not in `Host` (RFC 9110 §4.2.4).
    #[error("a host carries no user information")]
    UserInfo,
    /// Two dots in a row, or one at the start.
    #[error("a host has no empty label")]
    EmptyLabel,
    /// Not a number from 0 to 65535.
    #[error("the port is not a number from 0 to 65535")]
    Port,
    /// `[` without its `]`, or no IPv6 address between them.
    #[error("brackets hold one IPv6 address")]
    Bracket,
}

/// The longest name with its final dot and a port.
const LENGTH_MAX: usize = 254 + ":65535".len();

/// The normalized host of an authority (`host`, `host:port`, `[v6]:port`): lower case, without
/// port, without one trailing dot, an IPv6 address in brackets formatted as in RFC 5952.
///
/// Stricter than RFC 3986 §3.2.2 in three ways. A comma is rejected, because it joins two `Host`
/// lines into one. A percent sign is rejected: no DNS name needs it, and a second spelling of `a`
/// bypasses a host route. An empty label is rejected, because in DNS only the root has one.
///
/// An empty port (`host:`) is accepted, as RFC 3986 §3.2.3 requires.
///
/// # Errors
/// [`HostError`] is the rule that the value breaks.
pub fn canonical(authority: &str) -> Result<Cow<'_, str>, HostError> {
    if authority.len() > LENGTH_MAX {
        return Err(HostError::Long);
    }
    if authority.starts_with('[') {
        return canonical_v6(authority);
    }
    match canonical_name(authority) {
        Err(_) if authority.contains('@') => Err(HostError::UserInfo),
        host => host,
    }
}

fn canonical_name(authority: &str) -> Result<Cow<'_, str>, HostError> {
    let colon = authority.bytes().position(|byte| byte == b':').unwrap_or(authority.len());
    let (host, port) = authority.split_at(colon);
    let host = host.strip_suffix('.').unwrap_or(host);
    // As if a dot came first: a host that begins with one has an empty label.
    let (mut previous, mut has_empty_label, mut has_capitals) = (b'.', false, false);
    for byte in host.bytes() {
        if !is_host_byte(byte) {
            return Err(HostError::Byte(byte));
        }
        has_empty_label |= byte == b'.' && previous == b'.';
        has_capitals |= byte.is_ascii_uppercase();
        previous = byte;
    }
    check_port(port.strip_prefix(':'))?;
    if host.is_empty() {
        return Err(HostError::Empty);
    }
    if has_empty_label || previous == b'.' {
        return Err(HostError::EmptyLabel);
    }
    Ok(if has_capitals { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

/// The port of an authority that [`canonical`] accepts; `None` if it has none, or 0.
#[must_use]
pub fn port(authority: &str) -> Option<u16> {
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (_, port) = authority.get(after_host..)?.split_once(':')?;
    port.parse().ok().filter(|port| *port > 0)
}

fn canonical_v6(authority: &str) -> Result<Cow<'_, str>, HostError> {
    let (bracketed, rest) = authority
        .find(']')
        .and_then(|close| authority.split_at_checked(close + 1))
        .ok_or(HostError::Bracket)?;
    let address: Ipv6Addr = bracketed
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .and_then(|inner| inner.parse().ok())
        .ok_or(HostError::Bracket)?;
    match rest.strip_prefix(':') {
        Some(port) => check_port(Some(port))?,
        None if rest.is_empty() => {}
        None => return Err(HostError::Bracket),
    }
    let mut unread = Unmatched(bracketed);
    let same = write!(unread, "[{address}]").is_ok() && unread.0.is_empty();
    Ok(if same { Cow::Borrowed(bracketed) } else { Cow::Owned(format!("[{address}]")) })
}

fn check_port(port: Option<&str>) -> Result<(), HostError> {
    let Some(port) = port.filter(|port| !port.is_empty()) else {
        return Ok(());
    };
    // `parse` alone would accept `+80`.
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && port.parse::<u16>().is_ok() { Ok(()) } else { Err(HostError::Port) }
}

/// What each byte may be part of. A table, because each byte of every `Host` is looked up.
static KINDS: [u8; 256] = {
    let of_a_host = marked([0; 256], OF_A_HOST, HOST_BYTES);
    let of_both = marked(of_a_host, OF_AN_AUTHORITY, HOST_BYTES);
    marked(of_both, OF_AN_AUTHORITY, b":[]")
};
const OF_A_HOST: u8 = 1;
const OF_AN_AUTHORITY: u8 = 2;

/// Unreserved characters and sub-delimiters (RFC 3986 §2), except the comma.
const HOST_BYTES: &[u8] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~!$&'()*+;=";

const fn marked(mut kinds: [u8; 256], kind: u8, mut bytes: &[u8]) -> [u8; 256] {
    while let [byte, rest @ ..] = bytes {
        // `as` is the only conversion available at compile time; it only widens.
        #[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "at compile time")]
        {
            kinds[*byte as usize] |= kind;
        }
        bytes = rest;
    }
    kinds
}

fn is_kind(byte: u8, kind: u8) -> bool {
    KINDS.get(usize::from(byte)).is_some_and(|kinds| kinds & kind != 0)
}

/// Whether the byte is allowed in a host with its port.
pub(super) fn is_authority_byte(byte: u8) -> bool {
    is_kind(byte, OF_AN_AUTHORITY)
}

/// Whether there is at least one byte, and each is allowed in a host with its port.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_authority_byte(*byte))
}

fn is_host_byte(byte: u8) -> bool {
    is_kind(byte, OF_A_HOST)
}

/// Compares text written into it with an existing text, without an allocation.
struct Unmatched<'a>(&'a str);

impl fmt::Write for Unmatched<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_longer_than_any_name_is_rejected() {
        let long = "a.".repeat(127);
        assert!(canonical(&long).is_ok());
        assert_eq!(canonical(&"a.".repeat(200)), Err(HostError::Long));
    }
    use proptest::prelude::*;

    fn host(authority: &str) -> Result<String, HostError> {
        canonical(authority).map(Cow::into_owned)
    }

    #[test]
    fn a_host_is_lower_case_without_port_and_trailing_dot() {
        assert_eq!(host("Example.COM.:8080").as_deref(), Ok("example.com"));
        assert_eq!(host("10.0.0.1:80").as_deref(), Ok("10.0.0.1"));
        assert_eq!(host("a_b-c~").as_deref(), Ok("a_b-c~"));
    }

    #[test]
    fn a_canonical_host_is_not_copied() {
        assert!(matches!(canonical("example.com"), Ok(Cow::Borrowed("example.com"))));
        assert!(matches!(canonical("example.com.:443"), Ok(Cow::Borrowed("example.com"))));
        assert!(matches!(canonical("[2001:db8::1]:443"), Ok(Cow::Borrowed("[2001:db8::1]"))));
        assert!(matches!(canonical("[::ffff:1.2.3.4]"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn an_ipv6_host_keeps_its_brackets_and_has_one_spelling() {
        assert_eq!(host("[2001:DB8:0:0::0001]:80").as_deref(), Ok("[2001:db8::1]"));
        assert_eq!(host("[::1]").as_deref(), Ok("[::1]"));
    }

    #[test]
    fn brackets_hold_an_ipv6_address_and_nothing_else() {
        assert_eq!(host("[::1"), Err(HostError::Bracket));
        assert_eq!(host("[1.2.3.4]"), Err(HostError::Bracket));
        assert_eq!(host("[fe80::1%25eth0]"), Err(HostError::Bracket));
        assert_eq!(host("[v1.x]"), Err(HostError::Bracket));
        assert_eq!(host("[::1]x"), Err(HostError::Bracket));
        assert_eq!(host("[]"), Err(HostError::Bracket));
        assert_eq!(host("::1]"), Err(HostError::Port));
        assert_eq!(host("a[::1]"), Err(HostError::Byte(b'[')));
    }

    #[test]
    fn an_empty_value_is_not_a_host() {
        assert_eq!(host(""), Err(HostError::Empty));
        assert_eq!(host(":80"), Err(HostError::Empty));
        assert_eq!(host("."), Err(HostError::Empty));
    }

    #[test]
    fn an_empty_label_is_rejected() {
        assert_eq!(host("a..b"), Err(HostError::EmptyLabel));
        assert_eq!(host("example.com.."), Err(HostError::EmptyLabel));
        assert_eq!(host(".example.com"), Err(HostError::EmptyLabel));
    }

    #[test]
    fn bytes_that_are_not_allowed_in_a_host_are_rejected() {
        assert_eq!(host("a b"), Err(HostError::Byte(b' ')));
        assert_eq!(host("a/b"), Err(HostError::Byte(b'/')));
        assert_eq!(host("a\\b"), Err(HostError::Byte(b'\\')));
        assert_eq!(host("a,b"), Err(HostError::Byte(b',')));
        assert_eq!(host("a\u{7f}"), Err(HostError::Byte(0x7f)));
        assert_eq!(host("a\0"), Err(HostError::Byte(0)));
        assert_eq!(host("a\t"), Err(HostError::Byte(b'\t')));
        assert_eq!(host("bücher.example"), Err(HostError::Byte(0xc3)));
        assert_eq!(host("ex%61mple.com"), Err(HostError::Byte(b'%')));
        assert_eq!(host("a?b"), Err(HostError::Byte(b'?')));
        assert_eq!(host("a#b"), Err(HostError::Byte(b'#')));
    }

    #[test]
    fn user_information_is_rejected() {
        assert_eq!(host("user@example.com"), Err(HostError::UserInfo));
        assert_eq!(host("user:secret@example.com:80"), Err(HostError::UserInfo));
    }

    #[test]
    fn a_port_is_a_number_from_0_to_65535() {
        assert_eq!(host("a:0").as_deref(), Ok("a"));
        assert_eq!(host("a:65535").as_deref(), Ok("a"));
        assert_eq!(host("a:65536"), Err(HostError::Port));
        assert_eq!(host("a:+80"), Err(HostError::Port));
        assert_eq!(host("a:8 0"), Err(HostError::Port));
        assert_eq!(host("a:80:80"), Err(HostError::Port));
        assert_eq!(host("a:000080"), Err(HostError::Port));
        assert_eq!(host("[::1]:x"), Err(HostError::Port));
    }

    #[test]
    fn the_port_follows_the_host() {
        assert_eq!(port("a.test:8080"), Some(8080));
        assert_eq!(port("[2001:db8::1]:443"), Some(443));
        for none in ["a.test", "a.test:", "[2001:db8::1]", "a.test:0"] {
            assert_eq!(port(none), None, "{none}");
        }
    }

    #[test]
    fn an_empty_port_is_no_port() {
        assert_eq!(host("a:").as_deref(), Ok("a"));
        assert_eq!(host("[::1]:").as_deref(), Ok("[::1]"));
    }

    proptest! {
        #[test]
        fn no_text_makes_canonical_panic(text in any::<String>()) {
            let _seen = canonical(&text).is_ok();
        }

        #[test]
        fn normalizing_twice_changes_nothing(text in "[A-Za-z0-9.:\\[\\]_-]{0,24}") {
            if let Ok(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Ok(Cow::Borrowed(&*once)));
            }
        }

        #[test]
        fn every_address_has_one_canonical_form(bits in any::<u128>()) {
            let address = Ipv6Addr::from_bits(bits);
            let [a, b, c, d, e, f, g, h] = address.segments();
            let long = format!("[{a:04X}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}:{g:x}:{h:x}]:1");
            prop_assert_eq!(host(&long), Ok(format!("[{address}]")));
        }
    }
}
