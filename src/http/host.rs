//! `Host` and `:authority`: one spelling per host, or a refusal.
//!
//! Routes, TLS names and logs compare hosts as text, so there must be exactly one text per
//! host. A value that could be read in two ways (`good.example,evil.example`, `user@host`,
//! percent-encoded letters) is the raw material of cache poisoning and of ways round a
//! route, and is refused rather than repaired.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

/// Why a `Host` or `:authority` value is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Longer than any name can be (RFC 1035 §2.3.4), port and all. Whatever looks names up may
    /// count on it.
    #[error("a host has at most {LENGTH_MAX} bytes")]
    Long,
    /// Nothing before the port, or nothing at all.
    #[error("the host is empty")]
    Empty,
    /// A byte that RFC 3986 has no place for in a host, or one of those that we refuse.
    #[error("byte 0x{0:02x} cannot be part of a host")]
    Byte(u8),
    /// User information, which belongs to a URI and never to `Host` (RFC 9110 §4.2.4).
    #[error("a host carries no user information")]
    UserInfo,
    /// Two dots in a row, or one in front.
    #[error("a host has no empty label")]
    EmptyLabel,
    /// No number from 0 to 65535.
    #[error("the port is not a number from 0 to 65535")]
    Port,
    /// `[` without its `]`, or no IPv6 address between them.
    #[error("brackets hold one IPv6 address")]
    Bracket,
}

/// The longest name, its final dot and a port.
const LENGTH_MAX: usize = 254 + ":65535".len();

/// The host of an authority (`host`, `host:port`, `[v6]:port`) in its one spelling: lower
/// case, without port, without one trailing dot, an IPv6 address in brackets as RFC 5952
/// writes it.
///
/// Narrower than RFC 3986 §3.2.2 in three things. A comma is refused: it joins two `Host`
/// lines into one. A percent sign is refused: no name that DNS can hold needs it, and a
/// second spelling of `a` is a way round a host route. So is an empty label, since DNS has
/// none but the root.
///
/// An empty port (`host:`) is accepted, as RFC 3986 §3.2.3 says.
///
/// # Errors
/// [`HostError`] says which rule the value breaks.
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
    // A dot before the first byte: a host that begins with one has an empty label.
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

/// The port of an authority that [`canonical`] takes; `None` if it has none, or none that a
/// connection could be made to.
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
    let mut unread = Unread(bracketed);
    let same = write!(unread, "[{address}]").is_ok() && unread.0.is_empty();
    Ok(if same { Cow::Borrowed(bracketed) } else { Cow::Owned(format!("[{address}]")) })
}

fn check_port(port: Option<&str>) -> Result<(), HostError> {
    let Some(port) = port.filter(|port| !port.is_empty()) else {
        return Ok(());
    };
    // `parse` alone would take `+80`.
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && port.parse::<u16>().is_ok() { Ok(()) } else { Err(HostError::Port) }
}

/// What a byte may be part of. A table, as each byte of every `Host` is looked up.
static KINDS: [u8; 256] = {
    let of_a_host = marked([0; 256], OF_A_HOST, HOST_BYTES);
    let of_both = marked(of_a_host, OF_AN_AUTHORITY, HOST_BYTES);
    marked(of_both, OF_AN_AUTHORITY, b":[]")
};
const OF_A_HOST: u8 = 1;
const OF_AN_AUTHORITY: u8 = 2;

/// Unreserved characters and sub-delimiters (RFC 3986 §2), less the comma.
const HOST_BYTES: &[u8] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~!$&'()*+;=";

const fn marked(mut kinds: [u8; 256], kind: u8, mut bytes: &[u8]) -> [u8; 256] {
    while let [byte, rest @ ..] = bytes {
        // No conversion but `as` is known at compile time; it only widens.
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

/// Whether a host with its port may have it.
pub(super) fn is_authority_byte(byte: u8) -> bool {
    is_kind(byte, OF_AN_AUTHORITY)
}

/// Whether a host with its port may have each of the bytes, of which there is at least one.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_authority_byte(*byte))
}

fn is_host_byte(byte: u8) -> bool {
    is_kind(byte, OF_A_HOST)
}

/// Compares what is written into it with a text, without a second text to hold it.
struct Unread<'a>(&'a str);

impl fmt::Write for Unread<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_longer_than_any_name_is_refused() {
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
    fn nothing_is_no_host() {
        assert_eq!(host(""), Err(HostError::Empty));
        assert_eq!(host(":80"), Err(HostError::Empty));
        assert_eq!(host("."), Err(HostError::Empty));
    }

    #[test]
    fn an_empty_label_is_refused() {
        assert_eq!(host("a..b"), Err(HostError::EmptyLabel));
        assert_eq!(host("example.com.."), Err(HostError::EmptyLabel));
        assert_eq!(host(".example.com"), Err(HostError::EmptyLabel));
    }

    #[test]
    fn bytes_that_no_host_has_are_refused() {
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
    fn user_information_is_refused() {
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
    fn the_port_is_what_follows_the_host() {
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
        fn a_canonical_host_is_its_own_canonical_form(text in "[A-Za-z0-9.:\\[\\]_-]{0,24}") {
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
