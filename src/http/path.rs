//! Path normalization for routing.
//!
//! A backend gets the path byte for byte as the client wrote it. If a route compared those bytes,
//! another spelling of the same path would bypass it (`/%61dmin`, `/x/../admin`, `//admin`). So
//! routes compare a normalized copy.
//!
//! Ambiguous characters in the copy:
//!
//! - `%2E` is a dot: dots are unreserved, so `/%2e%2e/` goes up just like `/../`.
//! - `%2F` is *not* a slash: it is data inside a segment, and stays `%2F`. `/a%2Fb` is one segment
//!   and does not match the prefix `/a`.
//! - `;` is an ordinary character. `/a;x=1` is one segment and does not match the prefix `/a`;
//!   `..;` is not a dot segment.
//! - Everything is decoded once: `%2541` stays `%2541`. A `%` that begins no escape is written
//!   `%25`; otherwise the characters after it could become one.

mod readings;

use std::borrow::Cow;

pub use readings::{any_reading, is_ambiguous};

/// The copy of `path` (without its query) that is compared with routes, and never sent: unreserved
/// characters decoded, other escapes in upper case, `//` merged, dot segments removed.
///
/// It begins with `/`, unless it is the `*` of `OPTIONS *`. Slashes are merged before dot segments
/// are removed, so `..` always removes a visible segment.
#[must_use]
pub fn normalize_for_routing(path: &str) -> Cow<'_, str> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let mut normal = String::with_capacity(path.len() + 1);
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let parent = normal.len();
        normal.push('/');
        push_decoded(&mut normal, segment);
        let drop_to = match normal.get(parent..) {
            Some("/") if !is_last => parent,
            Some("/.") => parent,
            Some("/..") => {
                normal.truncate(parent);
                normal.rfind('/').unwrap_or(0)
            }
            _ => continue,
        };
        normal.truncate(drop_to);
        if is_last {
            normal.push('/');
        }
    }
    Cow::Owned(normal)
}

/// Whether `path` is `prefix` or lies below it: `/v1` covers `/v1`, `/v1/` and `/v1/x`, but not
/// `/v10`. The prefix `/` covers everything.
#[must_use]
pub fn has_prefix(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// Whether the path is already normalized, as nearly every path is.
fn is_normal(path: &str) -> bool {
    let Some(below_root) = path.strip_prefix('/') else {
        return path == "*";
    };
    let mut segments = below_root.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !is_last) {
            return false;
        }
        if segment.contains('%') {
            return false;
        }
    }
    true
}

/// Appends `segment` with its unreserved escapes decoded and the others in upper case.
fn push_decoded(normal: &mut String, segment: &str) {
    let mut parts = segment.split('%');
    normal.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let Some((byte, rest)) = split_escape(part) else {
            normal.push_str("%25");
            normal.push_str(part);
            continue;
        };
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            normal.push(char::from(byte));
        } else {
            normal.push('%');
            normal.push(hex_digit(byte >> 4));
            normal.push(hex_digit(byte & 0xf));
        }
        normal.push_str(rest);
    }
}

/// The byte that the first two digits of `part` encode, and the text after them.
fn split_escape(part: &str) -> Option<(u8, &str)> {
    let &[high, low] = part.as_bytes().first_chunk::<2>()?;
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((value(high)? << 4 | value(low)?, part.get(2..)?))
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_path_is_not_copied() {
        assert!(matches!(normalize_for_routing("/v1/users/42"), Cow::Borrowed("/v1/users/42")));
        assert!(matches!(normalize_for_routing("/"), Cow::Borrowed("/")));
        assert!(matches!(normalize_for_routing("/a/.b/..c/"), Cow::Borrowed("/a/.b/..c/")));
        assert!(matches!(normalize_for_routing("*"), Cow::Borrowed("*")));
    }

    #[test]
    fn escaped_letters_are_the_letters() {
        assert_eq!(normalize_for_routing("/%61dm%69n"), "/admin");
        assert_eq!(normalize_for_routing("/%7Euser%2d1"), "/~user-1");
    }

    #[test]
    fn nothing_is_decoded_twice() {
        assert_eq!(normalize_for_routing("/%2561dmin"), "/%2561dmin");
        assert_eq!(normalize_for_routing("/%252e%252e/x"), "/%252e%252e/x");
    }

    #[test]
    fn a_percent_sign_without_an_escape_never_becomes_one() {
        assert_eq!(normalize_for_routing("/%4%31"), "/%2541");
        assert_eq!(normalize_for_routing("/100%"), "/100%25");
        assert_eq!(normalize_for_routing("/%zz"), "/%25zz");
        assert_eq!(normalize_for_routing("/%+1"), "/%25+1");
        assert_eq!(normalize_for_routing("/%é"), "/%25é");
    }

    #[test]
    fn other_escapes_stay_in_upper_case() {
        assert_eq!(normalize_for_routing("/a%2fb%3a"), "/a%2Fb%3A");
        assert_eq!(normalize_for_routing("/%c3%a9"), "/%C3%A9");
        assert_eq!(normalize_for_routing("/%00"), "/%00");
    }

    #[test]
    fn dot_segments_are_removed() {
        assert_eq!(normalize_for_routing("/a/./b"), "/a/b");
        assert_eq!(normalize_for_routing("/a/../b"), "/b");
        assert_eq!(normalize_for_routing("/a/b/../../../c"), "/c");
        assert_eq!(normalize_for_routing("/a/."), "/a/");
        assert_eq!(normalize_for_routing("/a/b/.."), "/a/");
        assert_eq!(normalize_for_routing("/.."), "/");
    }

    #[test]
    fn an_escaped_dot_segment_is_a_dot_segment() {
        assert_eq!(normalize_for_routing("/public/%2e%2E/admin"), "/admin");
        assert_eq!(normalize_for_routing("/public/.%2e/admin"), "/admin");
        assert_eq!(normalize_for_routing("/a/%2e/b"), "/a/b");
    }

    #[test]
    fn slashes_are_merged_before_dots_go_up() {
        assert_eq!(normalize_for_routing("//a///b//"), "/a/b/");
        assert_eq!(normalize_for_routing("/a//../b"), "/b");
        assert_eq!(normalize_for_routing("//"), "/");
    }

    #[test]
    fn an_escaped_slash_separates_nothing() {
        assert_eq!(normalize_for_routing("/a/..%2f../b"), "/a/..%2F../b");
        assert!(!has_prefix(&normalize_for_routing("/v1%2fx"), "/v1"));
    }

    #[test]
    fn a_semicolon_is_an_ordinary_character() {
        assert_eq!(normalize_for_routing("/a/..;/b"), "/a/..;/b");
        assert!(!has_prefix("/v1;x=1", "/v1"));
    }

    #[test]
    fn a_path_always_begins_at_the_root() {
        assert_eq!(normalize_for_routing(""), "/");
        assert_eq!(normalize_for_routing("a/../b"), "/b");
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        assert!(has_prefix("/v1", "/v1"));
        assert!(has_prefix("/v1/", "/v1"));
        assert!(has_prefix("/v1/x", "/v1"));
        assert!(!has_prefix("/v10", "/v1"));
        assert!(!has_prefix("/v", "/v1"));
        assert!(has_prefix("/v1/x", "/v1/"));
        assert!(!has_prefix("/v1", "/v1/"));
    }

    #[test]
    fn the_root_is_a_prefix_of_everything() {
        assert!(has_prefix("/", "/"));
        assert!(has_prefix("/a/b", "/"));
        assert!(has_prefix("*", "/"));
    }

    fn has_dot_segment(path: &str) -> bool {
        path.split('/').any(|segment| matches!(segment, "." | ".."))
    }

    const TRICKY: &str = "([/.%;]|%2[eEfF5]|%[0-9a-fA-F]{2}|[a-z0-9é]){0,24}";

    proptest! {
        #[test]
        fn no_text_makes_normalize_for_routing_panic(text in any::<String>()) {
            prop_assert!(!normalize_for_routing(&text).is_empty());
        }

        #[test]
        fn normalising_twice_changes_nothing(path in TRICKY) {
            let once = normalize_for_routing(&path).into_owned();
            prop_assert_eq!(normalize_for_routing(&once).into_owned(), once);
        }

        #[test]
        fn a_normal_path_has_neither_dot_segments_nor_doubled_slashes(path in TRICKY) {
            let normal = normalize_for_routing(&path);
            prop_assert!(normal.starts_with('/'), "{}", normal);
            prop_assert!(!has_dot_segment(&normal) && !normal.contains("//"), "{}", normal);
        }
    }
}
