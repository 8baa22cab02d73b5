//! Determines the client's address.
//!
//! Each proxy appends the address of its client at the right end of `X-Forwarded-For`. So only the
//! right end can be trusted, as far as the proxies there are ours. The list is read from the right,
//! through the trusted networks; the first address outside them is the client. Everything further
//! left was written by the client. If it were used, the client could choose which address a rate
//! limit or an address hash sees.

pub mod field;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::http::address;

/// The maximum number of hops that are read and passed on. Chains of proxies are shorter.
pub const HOPS_MAX: usize = 32;

/// The client's address: the first that is not trusted, starting with the connection's peer and
/// continuing from the right of `x_forwarded_for` (the lines in the order received, each a list).
///
/// The search stops at an element that is not an address; the one to its right is the client then.
/// An IPv4 address written as IPv6 is the IPv4 address, here and in every comparison.
#[must_use]
pub fn client_ip<'a>(
    peer: IpAddr,
    x_forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let elements = x_forwarded_for.rev().flat_map(|line| line.rsplit(',')).filter_map(element);
    walk(peer, elements.map(parsed), trusted)
}

/// The same for `Forwarded`: the lines in the order received.
#[must_use]
pub fn client_by_forwarded<'a>(
    peer: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let elements = lines.rev().flat_map(field::from_the_right);
    walk(peer, elements.map(|element| element.client), trusted)
}

/// Goes from the peer through all trusted hops; `further` has the hops from the right.
fn walk(peer: IpAddr, further: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let mut further = further.take(HOPS_MAX);
    while is_trusted(client, trusted) {
        let Some(next) = further.next().flatten() else { break };
        client = next;
    }
    client
}

/// The hops of `X-Forwarded-For`, unchanged, the first one first.
#[must_use]
pub fn hops<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Vec<String> {
    let elements = lines.rev().flat_map(|line| line.rsplit(',')).filter_map(element);
    in_order(elements.map(str::to_owned))
}

/// The hops of `X-Forwarded-For` as elements of `Forwarded`.
#[must_use]
pub fn hops_as_elements<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Vec<String> {
    let elements = lines.rev().flat_map(|line| line.rsplit(',')).filter_map(element);
    in_order(elements.map(|element| {
        parsed(element).map_or_else(unknown, |ip| format!("for={}", field::node(ip)))
    }))
}

/// The elements of `Forwarded`, unchanged. An invalid one becomes unknown; otherwise the element
/// that Weir appends could be read as a part of it.
#[must_use]
pub fn elements<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Vec<String> {
    let elements = lines.rev().flat_map(field::from_the_right);
    in_order(elements.map(
        |element| {
            if element.is_valid { element.text.to_owned() } else { unknown() }
        },
    ))
}

/// The elements of `Forwarded` as hops of `X-Forwarded-For`.
#[must_use]
pub fn elements_as_hops<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> Vec<String> {
    let elements = lines.rev().flat_map(field::from_the_right);
    in_order(
        elements.map(|element| element.client.map_or_else(|| "unknown".to_owned(), address::text)),
    )
}

fn unknown() -> String {
    "for=unknown".to_owned()
}

/// The last elements of an iterator from the right, the first one first.
fn in_order(from_the_right: impl Iterator<Item = String>) -> Vec<String> {
    // Leaves room for the own element.
    let mut hops: Vec<String> = from_the_right.take(HOPS_MAX - 1).collect();
    hops.reverse();
    hops
}

/// Whether `ip` is in one of the trusted networks.
#[must_use]
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|network| network.contains(&ip))
}

/// The one `X-Forwarded-For` header for the backend: a trusted peer's list with the peer appended;
/// for other peers the peer only.
#[must_use]
pub fn append_for<'a>(
    existing: impl DoubleEndedIterator<Item = &'a str>,
    peer: IpAddr,
    trusted: &[IpNet],
) -> String {
    let mut all = if is_trusted(peer, trusted) { hops(existing) } else { Vec::new() };
    all.push(address::text(peer.to_canonical()));
    all.join(", ")
}

/// An element without the space around it; empty ones do not count (RFC 9110 §5.6.1).
fn element(text: &str) -> Option<&str> {
    let text = text.trim_matches([' ', '\t']);
    (!text.is_empty()).then_some(text)
}

/// `1.2.3.4`, `1.2.3.4:567`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:443`.
fn parsed(element: &str) -> Option<IpAddr> {
    let ip = if let Some(bracketed) = element.strip_prefix('[') {
        let (inner, port) = bracketed.split_once(']')?;
        let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        IpAddr::V6(inner.parse().ok().filter(|_| is_whole)?)
    } else if let Ok(ip) = element.parse() {
        ip
    } else {
        let (ip, port) = element.split_once(':')?;
        IpAddr::V4(ip.parse::<Ipv4Addr>().ok().filter(|_| is_port(port))?)
    };
    Some(ip.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ten() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn client(peer: &str, lines: &[&str]) -> IpAddr {
        client_ip(ip(peer), lines.iter().copied(), &ten())
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_sends() {
        assert_eq!(client("198.51.100.7", &["192.0.2.1"]), ip("198.51.100.7"));
    }

    #[test]
    fn a_trusted_peer_without_a_list_is_the_client() {
        assert_eq!(client("10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["", " , "]), ip("10.0.0.1"));
    }

    #[test]
    fn the_first_address_from_the_right_that_is_not_trusted_is_the_client() {
        let list = "203.0.113.9, 192.0.2.1, 10.0.0.3";
        assert_eq!(client("10.0.0.1", &[list]), ip("192.0.2.1"));
    }

    #[test]
    fn later_lines_are_further_right() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "192.0.2.1,10.0.0.3"]), ip("192.0.2.1"));
    }

    #[test]
    fn if_all_are_trusted_the_leftmost_is_the_client() {
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 10.0.0.3"]), ip("10.9.9.9"));
    }

    #[test]
    fn an_element_that_is_not_an_address_ends_the_search() {
        assert_eq!(client("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.3"]), ip("10.0.0.3"));
        assert_eq!(client("10.0.0.1", &["192.0.2.1, _hidden"]), ip("10.0.0.1"));
    }

    #[test]
    fn an_address_may_have_a_port_or_brackets() {
        assert_eq!(client("10.0.0.1", &["192.0.2.1:567"]), ip("192.0.2.1"));
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"]), ip("2001:db8::1"));
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), ip("2001:db8::1"));
        assert_eq!(client("10.0.0.1", &["2001:db8::1"]), ip("2001:db8::1"));
    }

    #[test]
    fn an_address_with_other_text_is_invalid() {
        for odd in ["192.0.2.1:+5", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1 x", "192.0.2"] {
            assert_eq!(client("10.0.0.1", &[odd]), ip("10.0.0.1"), "{odd}");
        }
        for odd in ["[192.0.2.1]", "[2001:db8::1]x", "[2001:db8::1", "fe80::1%eth0", "\"::1\""] {
            assert_eq!(client("10.0.0.1", &[odd]), ip("10.0.0.1"), "{odd}");
        }
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_the_ipv4_address() {
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:192.0.2.1"]), ip("192.0.2.1"));
        assert_eq!(client("::ffff:198.51.100.7", &[]), ip("198.51.100.7"));
        assert!(is_trusted(ip("::ffff:10.1.2.3"), &ten()));
    }

    fn appended(peer: &str, lines: &[&str]) -> String {
        append_for(lines.iter().copied(), ip(peer), &ten())
    }

    #[test]
    fn a_trusted_peers_list_is_continued_in_one_line() {
        assert_eq!(appended("10.0.0.1", &["a,b ", "", " c"]), "a, b, c, 10.0.0.1");
        assert_eq!(appended("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn an_untrusted_peers_list_is_dropped() {
        assert_eq!(appended("198.51.100.7", &["192.0.2.1"]), "198.51.100.7");
        assert_eq!(appended("2001:db8::1", &["192.0.2.1"]), "2001:db8::1");
        assert_eq!(appended("::ffff:198.51.100.7", &[]), "198.51.100.7");
    }

    fn by_forwarded(peer: &str, lines: &[&str]) -> IpAddr {
        client_by_forwarded(ip(peer), lines.iter().copied(), &ten())
    }

    #[test]
    fn forwarded_is_read_like_x_forwarded_for() {
        let line = "for=203.0.113.9, for=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.3";
        assert_eq!(by_forwarded("10.0.0.1", &[line]), ip("2001:db8::7"));
        assert_eq!(by_forwarded("10.0.0.1", &["for=192.0.2.1", "for=10.0.0.3"]), ip("192.0.2.1"));
        assert_eq!(by_forwarded("198.51.100.7", &[line]), ip("198.51.100.7"));
        assert_eq!(by_forwarded("10.0.0.1", &[]), ip("10.0.0.1"));
    }

    #[test]
    fn a_hidden_client_ends_the_search_at_the_proxy_that_hides_it() {
        for hidden in ["for=unknown", "for=_x", "proto=https", "garbage", "for=\"192.0.2.1"] {
            let line = format!("for=192.0.2.9, {hidden}, for=10.0.0.3");
            assert_eq!(by_forwarded("10.0.0.1", &[&line]), ip("10.0.0.3"), "{hidden}");
        }
    }

    #[test]
    fn a_very_long_list_is_truncated_at_its_left() {
        let list = vec!["10.0.0.9"; 5000].join(",");
        assert_eq!(client("10.0.0.1", &[&list]), ip("10.0.0.9"));
        assert_eq!(appended("10.0.0.1", &[&list]).matches(',').count(), HOPS_MAX - 1);
        let stranger = format!("192.0.2.1,{}", vec!["10.0.0.9"; HOPS_MAX].join(","));
        assert_eq!(client("10.0.0.1", &[&stranger]), ip("10.0.0.9"), "beyond what is looked at");
        let line = vec!["for=10.0.0.9"; 5000].join(",");
        assert_eq!(elements([line.as_str()].into_iter()).len(), HOPS_MAX - 1);
    }

    #[test]
    fn each_header_can_be_converted_to_the_other() {
        let lines = || ["192.0.2.1:80, x", "2001:db8::1"].into_iter();
        let converted = hops_as_elements(lines());
        assert_eq!(converted, ["for=192.0.2.1", "for=unknown", "for=\"[2001:db8::1]\""]);
        let lines = || ["for=192.0.2.1;by=_x, for=_hidden", "for=\"", "for=\"[2001:db8::1]\""];
        let converted = elements_as_hops(lines().into_iter());
        assert_eq!(converted, ["192.0.2.1", "unknown", "unknown", "2001:db8::1"]);
        let converted = elements(lines().into_iter());
        let last = "for=\"[2001:db8::1]\"";
        assert_eq!(converted, ["for=192.0.2.1;by=_x", "for=_hidden", "for=unknown", last]);
    }

    /// Few values, so that trusted and untrusted addresses meet often.
    fn any_element() -> impl Strategy<Value = String> {
        prop_oneof!["10\\.0\\.0\\.[0-9]", "192\\.0\\.2\\.[0-9](:80)?", "unknown", "[ -~]{0,6}"]
    }

    proptest! {
        /// Its proxy is trusted, and appends its client's address to whatever the client has sent.
        #[test]
        fn no_client_can_choose_its_own_address(
            claims in prop::collection::vec("[ -~]{0,30}|(for=|[\"\\\\,; ]|10\\.0\\.0\\.1|8\\.8\\.8\\.8){0,8}", 0..4),
            client in any::<u32>(),
            same_line in any::<bool>(),
        ) {
            let client = IpAddr::V4(client.into());
            prop_assume!(!is_trusted(client, &ten()));
            let seen = |own: String| {
                let mut lines = claims.clone();
                match lines.last_mut().filter(|_| same_line) {
                    Some(last) => last.push_str(&format!(", {own}")),
                    None => lines.push(own),
                }
                lines
            };
            let lines = seen(client.to_string());
            let lines = lines.iter().map(String::as_str);
            prop_assert_eq!(client_ip(ip("10.0.0.1"), lines, &ten()), client);
            let lines = seen(format!("for={};proto=https", field::node(client)));
            let lines = lines.iter().map(String::as_str);
            prop_assert_eq!(client_by_forwarded(ip("10.0.0.1"), lines, &ten()), client);
            let lines = claims.iter().map(String::as_str);
            prop_assert_eq!(client_by_forwarded(client, lines, &ten()), client, "directly");
        }

        #[test]
        fn a_converted_forwarded_header_is_read_back(
            elements in prop::collection::vec("[ -~]{0,20}|for=10\\.0\\.0\\.[1-9]|for=192\\.0\\.2\\.1", 0..6),
        ) {
            let lines = || elements.iter().map(String::as_str);
            let mut converted = super::elements(lines());
            converted.push(field::written(ip("10.0.0.1"), Some("a.test:81"), "http"));
            let converted = converted.join(", ");
            let behind = client_by_forwarded(ip("10.0.0.2"), [converted.as_str()].into_iter(), &ten());
            prop_assert_eq!(behind, client_by_forwarded(ip("10.0.0.1"), lines(), &ten()), "{}", converted);
        }

        #[test]
        fn nothing_to_the_left_of_an_untrusted_address_matters(
            left in prop::collection::vec(any_element(), 0..6),
            hops in prop::collection::vec(0_u8..=255, 0..6),
            untrusted in 0_u8..=255,
        ) {
            let mut elements = left;
            elements.push(format!("192.0.2.{untrusted}"));
            elements.extend(hops.iter().map(|hop| format!("10.0.0.{hop}")));
            let list = elements.join(",");
            prop_assert_eq!(client("10.0.0.1", &[&list]), ip(&format!("192.0.2.{untrusted}")));
        }

        #[test]
        fn the_client_is_the_same_however_the_list_is_split_into_lines(
            elements in prop::collection::vec(any_element(), 0..8),
        ) {
            let lines: Vec<&str> = elements.iter().map(String::as_str).collect();
            let joined = lines.join(", ");
            prop_assert_eq!(client("10.0.0.1", &lines), client("10.0.0.1", &[&joined]));
        }

        #[test]
        fn a_proxy_behind_us_that_trusts_us_finds_the_same_client(
            elements in prop::collection::vec(any_element(), 0..8),
        ) {
            let lines: Vec<&str> = elements.iter().map(String::as_str).collect();
            let sent = appended("10.0.0.1", &lines);
            prop_assert_eq!(client("10.0.0.2", &[&sent]), client("10.0.0.1", &lines));
        }
    }
}
