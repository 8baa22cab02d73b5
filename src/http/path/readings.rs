//! The different ways in which servers interpret a path.
//!
//! A path with a dot segment, `//`, `;`, `\` or an escaped separator can name different resources
//! for different servers: `/x/..;/admin` is below `/x` for most, and `/admin` for a servlet
//! container. A route that denies `/admin` is useless if the backend sees `/admin` where the route
//! saw something else. So such a path is compared with routes under each reading. The caller
//! rejects the request if two readings lead to different routes.
//!
//! A reading applies or skips each of these steps, in this order:
//!
//! 1. `;` and the rest of its segment is removed (servlet containers), before or after step 2.
//! 2. Escapes are decoded once: `%2F`, `%5C`, `%3B` and all other visible characters. The path ends
//!    at an escaped control character (servers that use C strings), or control characters are
//!    dropped.
//! 3. `\` becomes `/` (Windows, and everything that follows the URL standard of browsers).
//! 4. `//` becomes `/`.
//! 5. Dot segments are removed.
//!
//! Another proxy, or a rewrite in Weir, may merge slashes and remove dot segments first, so the
//! steps are also applied to such a copy. Unreserved characters are decoded in every reading;
//! nothing is decoded twice. Case is kept, because a route for `/admin` does not cover `/ADMIN`.

use super::{normalize_for_routing, push_decoded, split_escape};

/// When `;` and the rest of its segment is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    BeforeDecoding,
    AfterDecoding,
}

/// What is decoded, and how escaped control characters are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decode {
    Nothing,
    /// Control characters stay escaped.
    Visible,
    /// The path ends at the first control character.
    EndAtControl,
    /// Control characters are dropped.
    DropControls,
}

/// Whether servers may interpret `path` (without its query) in different ways. For nearly every
/// request this check is the only cost.
#[must_use]
pub fn is_ambiguous(path: &str) -> bool {
    let mut after_slash = false;
    for byte in path.bytes() {
        match byte {
            b';' | b'\\' | b'%' => return true,
            b'/' | b'.' if after_slash => return true,
            _ => after_slash = byte == b'/',
        }
    }
    false
}

/// Whether any reading of `path` (without its query) passes `test`. The reading of
/// [`normalize_for_routing`] is among them. The search stops at the first that passes.
pub fn any_reading(path: &str, mut test: impl FnMut(&str) -> bool) -> bool {
    let mut base = String::with_capacity(path.len());
    push_decoded(&mut base, path);
    if of_text(&base, &mut test) {
        return true;
    }
    let normal = normalize_for_routing(&base);
    normal != base && of_text(&normal, &mut test)
}

/// Applies all steps to a text whose unreserved characters are decoded.
fn of_text(base: &str, test: &mut impl FnMut(&str) -> bool) -> bool {
    let decodings: &[Decode] = match (base.contains('%'), has_control(base)) {
        (false, _) => &[Decode::Nothing],
        (true, false) => &[Decode::Nothing, Decode::Visible],
        (true, true) => {
            &[Decode::Nothing, Decode::Visible, Decode::EndAtControl, Decode::DropControls]
        }
    };
    decodings.iter().any(|&decode| {
        let cuts: &[Cut] = match decode {
            Decode::Nothing => &[Cut::Never, Cut::BeforeDecoding],
            Decode::Visible | Decode::EndAtControl | Decode::DropControls => {
                &[Cut::Never, Cut::BeforeDecoding, Cut::AfterDecoding]
            }
        };
        // Without parameters to remove, the readings would be the same again.
        let has_parameters = |cut: Cut| match cut {
            Cut::Never => true,
            Cut::BeforeDecoding => base.contains(';'),
            Cut::AfterDecoding => base.contains(';') || base.contains("%3B"),
        };
        cuts.iter().filter(|cut| has_parameters(**cut)).any(|&cut| {
            let text = decoded(base, decode, cut);
            let slashes = text.contains('\\').then(|| text.replace('\\', "/"));
            of_separators(&text, test) || slashes.is_some_and(|text| of_separators(&text, test))
        })
    })
}

/// Steps 4 and 5: whether the test passes with or without `//` merged and dot segments removed.
fn of_separators(path: &str, test: &mut impl FnMut(&str) -> bool) -> bool {
    let merged = path.contains("//").then(|| merge(path));
    [Some(path), merged.as_deref()].into_iter().flatten().any(|path| {
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        test(path) || (has_dots && test(&without_dots(path)))
    })
}

fn has_control(base: &str) -> bool {
    let mut escapes = base.split('%').skip(1).filter_map(split_escape);
    escapes.any(|(byte, _)| byte.is_ascii_control())
}

/// Steps 1 and 2.
fn decoded(base: &str, decode: Decode, cut: Cut) -> String {
    let text = if cut == Cut::BeforeDecoding { without_parameters(base) } else { base.to_owned() };
    if decode == Decode::Nothing {
        return text;
    }
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((byte, rest)) = split_escape(part) else { continue };
        match (byte, decode) {
            (0..0x20 | 0x7f, Decode::EndAtControl) => break,
            (0..0x20 | 0x7f, Decode::DropControls) => {}
            // Characters that would end a path or begin another escape stay escaped; so do
            // characters that are not allowed in a URI, which are escaped in every path that gets
            // here.
            (b'%' | b'?' | b'#' | b'"' | b'<' | b'>' | b'`', _) | (0..=0x20 | 0x7f.., _) => {
                plain.push('%');
                plain.push_str(part.get(..2).unwrap_or_default());
            }
            (visible, _) => plain.push(char::from(visible)),
        }
        plain.push_str(rest);
    }
    if cut == Cut::AfterDecoding { without_parameters(&plain) } else { plain }
}

/// Each segment up to its first `;`.
fn without_parameters(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            kept.push('/');
        }
        kept.push_str(segment.split(';').next().unwrap_or_default());
    }
    kept
}

fn merge(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// Removes dot segments (RFC 3986 §5.2.4); an empty segment counts as a segment.
fn without_dots(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => kept.truncate(kept.rfind('/').unwrap_or(0)),
            _ => {
                kept.push('/');
                kept.push_str(segment);
                continue;
            }
        }
        if is_last {
            kept.push('/');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn readings(path: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        any_reading(path, |reading| {
            all.insert(reading.to_owned());
            false
        });
        all
    }

    fn read(path: &str, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|&one| one.to_owned()).collect();
        assert_eq!(readings(path), expected, "{path}");
    }

    #[test]
    fn a_plain_path_has_one_reading_and_is_not_ambiguous() {
        for plain in ["/", "/a/b.c/d", "/a.b./c..d/", "/a,b/c:d@e", "*"] {
            assert!(!is_ambiguous(plain), "{plain}");
            read(plain, &[plain]);
        }
    }

    #[test]
    fn each_mark_makes_a_path_ambiguous() {
        for marked in ["/a/../b", "/./a", "/a/..", "//a", "/a//", "/a;b", "/a\\b", "/%2e", "/%2F"] {
            assert!(is_ambiguous(marked), "{marked}");
        }
    }

    #[test]
    fn dots_and_slashes_are_kept_or_removed() {
        read("/x/../admin", &["/x/../admin", "/admin"]);
        read("/x/%2E%2e/admin", &["/x/../admin", "/admin"]);
        read("//admin", &["//admin", "/admin"]);
        read("/a//../b", &["/a//../b", "/a/b", "/a/../b", "/b"]);
        read("/a/..", &["/a/..", "/"]);
    }

    #[test]
    fn a_semicolon_is_data_or_begins_parameters() {
        read("/admin;x", &["/admin;x", "/admin"]);
        read("/x/..;/admin", &["/x/..;/admin", "/x/../admin", "/admin"]);
        read("/admin%3Bx", &["/admin%3Bx", "/admin;x", "/admin"]);
    }

    #[test]
    fn an_escaped_separator_is_data_or_separates() {
        read("/admin%2f", &["/admin%2F", "/admin/"]);
        read("/x%2F..%2Fadmin", &["/x%2F..%2Fadmin", "/x/../admin", "/admin"]);
        read("/%5cadmin", &["/%5Cadmin", "/\\admin", "//admin", "/admin"]);
        read("/a;b%2Fc", &["/a;b%2Fc", "/a;b/c", "/a", "/a/c"]);
    }

    #[test]
    fn a_backslash_is_data_or_separates() {
        read("/\\admin", &["/\\admin", "//admin", "/admin"]);
        read("/x\\..\\admin", &["/x\\..\\admin", "/x/../admin", "/admin"]);
    }

    #[test]
    fn an_escaped_control_character_is_data_ends_the_path_or_is_dropped() {
        read("/admin%00.png", &["/admin%00.png", "/admin", "/admin.png"]);
        read("/adm%0Ain", &["/adm%0Ain", "/adm", "/admin"]);
    }

    #[test]
    fn nothing_is_decoded_twice_and_the_end_of_a_path_stays_escaped() {
        read("/%252e%252e/a", &["/%252e%252e/a"]);
        read("/a%3Fb%23c%20d%C3%A9", &["/a%3Fb%23c%20d%C3%A9"]);
        read("/100%", &["/100%25"]);
    }

    #[test]
    fn the_search_stops_at_the_first_reading_that_passes() {
        let mut count = 0;
        assert!(any_reading("/a/../b//;x%2F", |_| {
            count += 1;
            count == 2
        }));
        assert_eq!(count, 2);
    }

    proptest! {
        #[test]
        fn the_normalized_path_is_one_of_the_readings(path in "/([/.%;\\\\]|%2[eEfF5]|%5c|%3b|%0[0a]|[a-z]){0,16}") {
            let routed = normalize_for_routing(&path).into_owned();
            prop_assert!(readings(&path).contains(&routed), "{routed}");
        }

        #[test]
        fn a_path_that_is_not_ambiguous_has_one_reading(path in "/([/.%;\\\\]|%2[eEfF5]|[a-z]){0,16}") {
            if !is_ambiguous(&path) {
                prop_assert_eq!(readings(&path).len(), 1);
                prop_assert_eq!(normalize_for_routing(&path), path.as_str());
            }
        }
    }
}
