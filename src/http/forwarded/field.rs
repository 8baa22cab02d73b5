//! The header `Forwarded` (RFC 7239).
//!
//! A line is parsed from its right end. Each proxy appends an element to the value it received,
//! which may be anything: with a quote that is never closed, a parser from the left would treat the
//! proxy's element as a part of the client's text. From the right, the elements of trusted proxies
//! are complete, whatever comes before them.

use std::net::{IpAddr, Ipv4Addr};

use super::is_port;

/// One parsed element.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element<'a> {
    /// The element as received, without the space around it.
    pub text: &'a str,
    /// The client of the proxy that wrote this; `None` if it is hidden, unknown or not an address.
    pub client: Option<IpAddr>,
    /// The scheme of that client's request.
    pub proto: Option<String>,
    /// The host of that client's request.
    pub host: Option<String>,
    /// Whether the element is valid.
    pub is_valid: bool,
}

/// The maximum number of pairs of an element: four are defined, and each is compared with those
/// before it.
const PAIRS_MAX: usize = 16;

/// The elements of a line, the last one first.
pub fn from_the_right(line: &str) -> impl Iterator<Item = Element<'_>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (before, last) = split_last(text);
        rest = before;
        Some(last.trim_matches([' ', '\t']))
    })
    .filter(|text| !text.is_empty())
    .map(element)
}

/// The text after the last comma outside quotes, seen from the right; and the text before it.
fn split_last(text: &str) -> (Option<&str>, &str) {
    let bytes = text.as_bytes();
    let mut quoted = false;
    for at in (0..bytes.len()).rev() {
        match bytes.get(at) {
            // Inside quotes, a quote after a backslash is part of the text.
            Some(b'"') if quoted && at > 0 && bytes.get(at - 1) == Some(&b'\\') => {}
            Some(b'"') => quoted = !quoted,
            Some(b',') if !quoted => return (text.get(..at), text.get(at + 1..).unwrap_or("")),
            _ => {}
        }
    }
    (None, text)
}

fn element(text: &str) -> Element<'_> {
    let mut element = Element { text, ..Element::default() };
    let mut seen: Vec<String> = Vec::new();
    let mut node = None;
    for pair in pairs(text) {
        let Some((name, value)) = pair.and_then(|(name, value)| Some((name, unquoted(value)?)))
        else {
            return Element { text, ..Element::default() };
        };
        let name = name.to_ascii_lowercase();
        if seen.len() == PAIRS_MAX || seen.contains(&name) {
            return Element { text, ..Element::default() };
        }
        match name.as_str() {
            "for" => node = Some(value),
            "proto" => element.proto = Some(value),
            "host" => element.host = Some(value),
            _ => {}
        }
        seen.push(name);
    }
    element.client = node.as_deref().and_then(address);
    element.is_valid = true;
    element
}

/// The pairs of an element, each `None` if it is invalid.
fn pairs(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b';' if !quoted => return true,
                _ => {}
            }
            false
        });
        let (pair, more) = match end.and_then(|at| text.split_at_checked(at)) {
            Some((pair, more)) => (pair, more.get(1..)),
            None => (text, None),
        };
        rest = more;
        let pair = pair.trim_matches([' ', '\t']).split_once('=');
        Some(pair.filter(|(name, _)| is_token(name)))
    })
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A token, or the content of a quoted string.
fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        // Colons and brackets must be quoted, but many proxies do not quote them.
        let lenient = |b: u8| b.is_ascii_graphic() && !b"\",;=\\".contains(&b);
        return (!value.is_empty() && value.bytes().all(lenient)).then(|| value.to_owned());
    };
    let inner = inner.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next()?),
            '"' => return None,
            _ => text.push(character),
        }
    }
    Some(text)
}

/// `192.0.2.43`, `192.0.2.43:47011`, `[2001:db8::1]`, `[2001:db8::1]:4711`; the port may be hidden
/// (`_x`). `unknown` and `_hidden` are not addresses.
fn address(node: &str) -> Option<IpAddr> {
    let is_node_port = |port: &str| is_port(port) || (port.starts_with('_') && is_token(port));
    let ip = if let Some(bracketed) = node.strip_prefix('[') {
        let (inner, port) = bracketed.split_once(']')?;
        let whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
        IpAddr::V6(inner.parse().ok().filter(|_| whole)?)
    } else if let Ok(ip) = node.parse() {
        ip
    } else {
        let (ip, port) = node.split_once(':')?;
        IpAddr::V4(ip.parse::<Ipv4Addr>().ok().filter(|_| is_node_port(port))?)
    };
    Some(ip.to_canonical())
}

/// An address in the form of a `for` parameter.
#[must_use]
pub fn node(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    }
}

/// The element that Weir appends.
#[must_use]
pub fn written(client: IpAddr, host: Option<&str>, proto: &str) -> String {
    let mut text = format!("for={}", node(client));
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        text.push_str(";host=");
        if is_token(host) {
            text.push_str(host);
        } else {
            text.push('"');
            for character in host.chars() {
                if matches!(character, '"' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push('"');
        }
    }
    text.push_str(";proto=");
    text.push_str(proto);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clients(line: &str) -> Vec<Option<String>> {
        from_the_right(line).map(|one| one.client.map(|ip| ip.to_string())).collect()
    }

    fn one(line: &str) -> Option<String> {
        let all = clients(line);
        assert_eq!(all.len(), 1, "{line}: {all:?}");
        all.into_iter().next().unwrap()
    }

    #[test]
    fn an_element_with_too_many_pairs_is_invalid() {
        let pairs = |count: usize| (0..count).map(|n| format!("p{n}=v;")).collect::<String>();
        assert_eq!(one(&format!("{}for=192.0.2.43", pairs(15))).as_deref(), Some("192.0.2.43"));
        assert_eq!(one(&format!("{}for=192.0.2.43", pairs(16))), None);
    }

    #[test]
    fn a_node_is_an_address_with_or_without_a_port() {
        for (line, expected) in [
            ("for=192.0.2.43", "192.0.2.43"),
            ("For=192.0.2.43;proto=http;by=203.0.113.43", "192.0.2.43"),
            ("for=\"192.0.2.43:47011\"", "192.0.2.43"),
            ("for=192.0.2.43:47011", "192.0.2.43"),
            ("for=\"192.0.2.43:_port\"", "192.0.2.43"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=\"[2001:db8:cafe::17]\"", "2001:db8:cafe::17"),
            ("for=\"\\192.0.2.43\"", "192.0.2.43"),
            ("for=\"[::ffff:192.0.2.1]\"", "192.0.2.1"),
            (" proto=https ; for=192.0.2.43 ", "192.0.2.43"),
        ] {
            assert_eq!(one(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn hidden_unknown_and_malformed_nodes_are_not_addresses() {
        for line in [
            "for=unknown",
            "for=_hidden",
            "for=\"_SEVKISEK\"",
            "proto=http",
            "for",
            "for=",
            "for=\"192.0.2.43",
            "for=192.0.2.43;for=192.0.2.44",
            "for=192.0.2.43;FOR=192.0.2.44",
            "for=192.0.2.43;=x",
            "for=192.0.2.43;x y",
            "for=\"192.0.2.43\"x",
            "for=\"[192.0.2.43]\"",
            "for=\"[2001:db8::1\"",
            "for=\"192.0.2.43:\"",
            "for=\"192.0.2.43:123456\"",
            "f or=192.0.2.43",
        ] {
            assert_eq!(one(line), None, "{line}");
        }
    }

    #[test]
    fn the_last_element_comes_first_and_commas_in_quotes_separate_nothing() {
        let line = "for=192.0.2.1, for=\"a,b\";x=\",\\\",\" ,, for=192.0.2.3";
        let all = clients(line);
        assert_eq!(all, [Some("192.0.2.3".to_owned()), None, Some("192.0.2.1".to_owned())]);
    }

    #[test]
    fn an_open_quote_hides_no_element_to_its_right() {
        for before in ["for=\"", "\"", "for=\"a\\", "x=\", for=\"[2001:db8::9]"] {
            let last =
                from_the_right(&format!("{before}, for=192.0.2.1")).next().map(|one| one.client);
            assert_eq!(last, Some(Some([192, 0, 2, 1].into())), "{before}");
        }
    }

    #[test]
    fn proto_and_host_are_parsed_and_formatted() {
        let text = written("2001:db8::1".parse().unwrap(), Some("a.test:8080"), "https");
        assert_eq!(text, "for=\"[2001:db8::1]\";host=\"a.test:8080\";proto=https");
        let element = from_the_right(&text).next().unwrap();
        assert_eq!(element.proto.as_deref(), Some("https"));
        assert_eq!(element.host.as_deref(), Some("a.test:8080"));
        assert_eq!(written([192, 0, 2, 1].into(), None, "http"), "for=192.0.2.1;proto=http");
    }

    proptest! {
        #[test]
        fn the_appended_element_is_read_back_whatever_comes_before_it(
            before in "[ -~]{0,40}",
            address in any::<IpAddr>(),
            host in "[ -~]{0,12}",
        ) {
            let ours = written(address, Some(&host), "https");
            let line = format!("{before}, {ours}");
            let element = from_the_right(&line).next().unwrap();
            prop_assert_eq!(element.client, Some(address.to_canonical()), "{}", line);
            prop_assert!(element.is_valid);
            prop_assert_eq!(element.host.unwrap_or_default(), host);
        }
    }
}
