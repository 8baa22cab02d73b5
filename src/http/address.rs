//! Formats addresses.
//!
//! For each request the client's address is written into two headers and a log line. Formatting an
//! IPv4 address with `fmt` takes as long as the rest of such a header, so it is formatted by hand.

use std::fmt::Write as _;
use std::net::IpAddr;

/// The longest text of an address: an IPv6 address that ends in an IPv4 address.
const LENGTH_MAX: usize = 45;

/// Appends `address`, formatted as its `Display` would.
pub fn push(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // Writing to a String cannot fail.
        let _written: Result<(), _> = write!(text, "{address}");
        return;
    };
    let mut digits = itoa::Buffer::new();
    let [first, rest @ ..] = address.octets();
    text.push_str(digits.format(first));
    for octet in rest {
        text.push('.');
        text.push_str(digits.format(octet));
    }
}

/// Formats `address` as its `Display` would.
#[must_use]
pub fn text(address: IpAddr) -> String {
    let mut text = String::with_capacity(LENGTH_MAX);
    push(&mut text, address);
    text
}

/// Maps all addresses of one client to one: an IPv6 client has about 2^64 addresses, its /64.
/// Connection limits and `ip_hash` identify clients by this, and rate limits do by default.
#[must_use]
pub fn client_key(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & NETWORK).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_appended_to_the_text() {
        let mut line = String::from("for=");
        push(&mut line, [203, 0, 113, 10].into());
        assert_eq!(line, "for=203.0.113.10");
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let of = |text: &str| client_key(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
    }

    proptest! {
        #[test]
        fn an_address_reads_as_everywhere_else(address in any::<IpAddr>()) {
            prop_assert_eq!(text(address), address.to_string());
        }
    }
}
