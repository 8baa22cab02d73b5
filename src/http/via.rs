//! `Via`: the proxies that a message has passed (RFC 9110 §7.6.3).
//!
//! Weir writes a pseudonym instead of a host name, which would reveal internal names. It also reads
//! the header, to detect a request that has already passed through it.

use ::http::Version;

/// Weir's pseudonym.
pub const PSEUDONYM: &str = "weir";

/// The one `Via` header to send: the existing entries, then ours with the protocol version of the
/// received message.
#[must_use]
pub fn append<'a>(
    existing: impl Iterator<Item = &'a str>,
    received: Version,
    pseudonym: &str,
) -> String {
    let mut combined = String::new();
    for line in existing.map(|line| line.trim_matches([' ', '\t', ','])) {
        if !line.is_empty() {
            combined.push_str(line);
            combined.push_str(", ");
        }
    }
    combined.push_str(protocol(received));
    combined.push(' ');
    combined.push_str(pseudonym);
    combined
}

/// How often the message has already passed `pseudonym`.
///
/// Commas inside comments count as separators. If comments were parsed, a client could open one
/// that is never closed and hide all later entries in it.
#[must_use]
pub fn count_passes<'a>(existing: impl Iterator<Item = &'a str>, pseudonym: &str) -> usize {
    existing
        .flat_map(|line| line.split(','))
        .filter_map(|entry| entry.split([' ', '\t']).filter(|word| !word.is_empty()).nth(1))
        .filter(|received_by| received_by.eq_ignore_ascii_case(pseudonym))
        .count()
}

/// The protocol name `HTTP` is omitted, as the RFC allows.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(lines: &[&str], received: Version) -> String {
        append(lines.iter().copied(), received, PSEUDONYM)
    }

    fn seen(lines: &[&str]) -> usize {
        count_passes(lines.iter().copied(), PSEUDONYM)
    }

    #[test]
    fn the_first_proxy_writes_the_only_entry() {
        assert_eq!(appended(&[], Version::HTTP_11), "1.1 weir");
        assert_eq!(appended(&[], Version::HTTP_2), "2 weir");
        assert_eq!(appended(&[], Version::HTTP_10), "1.0 weir");
    }

    #[test]
    fn existing_entries_are_kept_in_one_header_in_order() {
        let lines = ["1.0 fred, 1.1 p.example (a, b)", " , ", "2 edge,"];
        let combined = "1.0 fred, 1.1 p.example (a, b), 2 edge, 1.1 weir";
        assert_eq!(appended(&lines, Version::HTTP_11), combined);
    }

    #[test]
    fn every_own_entry_is_counted() {
        assert_eq!(seen(&[]), 0);
        assert_eq!(seen(&["1.1 weir"]), 1);
        assert_eq!(seen(&["1.1 a,2 \t Weir (x)", "HTTP/1.1 weir"]), 2);
    }

    #[test]
    fn a_proxy_with_a_similar_name_is_not_counted() {
        assert_eq!(seen(&["1.1 weir.example", "1.1 weird", "1.1 weir:80", "weir"]), 0);
    }

    #[test]
    fn an_open_comment_hides_no_loop() {
        assert_eq!(seen(&["1.1 a (, 1.1 weir"]), 1);
    }

    #[test]
    fn appended_entries_are_counted() {
        let once = appended(&["1.1 a"], Version::HTTP_11);
        let twice = appended(&[&once], Version::HTTP_2);
        assert_eq!(seen(&[&twice]), 2);
    }
}
