//! `Via`: who has passed a message on (RFC 9110 §7.6.3).
//!
//! We write a pseudonym and not a host name, which is nobody's business outside; and read it
//! back, to notice a request that has already been here.

use ::http::Version;

/// What we call ourselves.
pub const PSEUDONYM: &str = "weir";

/// The one `Via` line to send: the entries that came, and ours with the protocol in which the
/// message was received.
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

/// How often the message has passed `pseudonym` already.
///
/// Commas inside comments are taken for separators. Believing in comments would let a client
/// open one that is never closed, in which all entries added later would hide.
#[must_use]
pub fn loops<'a>(existing: impl Iterator<Item = &'a str>, pseudonym: &str) -> usize {
    existing
        .flat_map(|line| line.split(','))
        .filter_map(|entry| entry.split([' ', '\t']).filter(|word| !word.is_empty()).nth(1))
        .filter(|received_by| received_by.eq_ignore_ascii_case(pseudonym))
        .count()
}

/// The name `HTTP` is left out, as the RFC allows.
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
        loops(lines.iter().copied(), PSEUDONYM)
    }

    #[test]
    fn the_first_proxy_writes_the_only_entry() {
        assert_eq!(appended(&[], Version::HTTP_11), "1.1 weir");
        assert_eq!(appended(&[], Version::HTTP_2), "2 weir");
        assert_eq!(appended(&[], Version::HTTP_10), "1.0 weir");
    }

    #[test]
    fn entries_that_came_are_kept_in_one_line_in_order() {
        let lines = ["1.0 fred, 1.1 p.example (a, b)", " , ", "2 edge,"];
        let combined = "1.0 fred, 1.1 p.example (a, b), 2 edge, 1.1 weir";
        assert_eq!(appended(&lines, Version::HTTP_11), combined);
    }

    #[test]
    fn every_passage_of_our_own_is_counted() {
        assert_eq!(seen(&[]), 0);
        assert_eq!(seen(&["1.1 weir"]), 1);
        assert_eq!(seen(&["1.1 a,2 \t Weir (x)", "HTTP/1.1 weir"]), 2);
    }

    #[test]
    fn another_proxy_of_a_similar_name_is_not_us() {
        assert_eq!(seen(&["1.1 weir.example", "1.1 weird", "1.1 weir:80", "weir"]), 0);
    }

    #[test]
    fn an_open_comment_hides_no_loop() {
        assert_eq!(seen(&["1.1 a (, 1.1 weir"]), 1);
    }

    #[test]
    fn what_we_append_is_what_we_count() {
        let once = appended(&["1.1 a"], Version::HTTP_11);
        let twice = appended(&[&once], Version::HTTP_2);
        assert_eq!(seen(&[&twice]), 2);
    }
}
