//! A head that did not come as lines: HTTP/2 packs it (RFC 9113 §8.3).

use super::bytes::target_end;
use super::head::METHOD_BYTES_MAX;
use super::{Limits, Violation};
use crate::http::scheme::Scheme;

/// The parts of a head.
#[derive(Debug, Clone, Copy)]
pub struct Unpacked<'a> {
    /// A token, which whoever unpacked it has seen to.
    pub method: &'a str,
    /// If it is known.
    pub scheme: Option<&'a str>,
    /// The path with its query.
    pub target: &'a [u8],
}

impl Unpacked<'_> {
    /// Holds it against what the scanner holds the same request against in HTTP/1. Whoever unpacked
    /// it has looked for bytes that end a line, and for names.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn check<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]>,
        limits: Limits,
    ) -> Result<(), Violation> {
        if self.method.len() > METHOD_BYTES_MAX {
            return Err(Violation::Method);
        }
        if self.target.len() > limits.target_bytes {
            return Err(Violation::TargetBytes);
        }
        let is_served = |scheme| Scheme::named(scheme).is_some();
        if target_end(self.target).is_some() || !self.scheme.is_none_or(is_served) {
            return Err(Violation::Target);
        }
        for (before, value) in values.enumerate() {
            if before >= limits.headers {
                return Err(Violation::Fields);
            }
            // In a line it would be around the value, and no part of it (RFC 9113 §8.2.1).
            let is_edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
            if is_edge(value.first()) || is_edge(value.last()) {
                return Err(Violation::FieldValue);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { target_bytes: 10, header_bytes: 100, headers: 2 };
    const PLAIN: Unpacked<'static> = Unpacked { method: "GET", scheme: Some("http"), target: b"/" };

    fn check(head: Unpacked<'_>, values: &[&str]) -> Option<Violation> {
        head.check(values.iter().map(|value| value.as_bytes()), LIMITS).err()
    }

    #[test]
    fn what_http_1_has_a_place_for_passes() {
        assert_eq!(check(PLAIN, &["", "a b\tc"]), None);
        assert_eq!(check(Unpacked { scheme: None, ..PLAIN }, &[]), None);
        assert_eq!(check(Unpacked { scheme: Some("HTTPS"), target: b"*", ..PLAIN }, &[]), None);
    }

    #[test]
    fn the_rest_does_not() {
        let method = "A".repeat(METHOD_BYTES_MAX + 1);
        for (head, values, violation) in [
            (Unpacked { method: &method, ..PLAIN }, &[][..], Violation::Method),
            (Unpacked { target: b"/2345678901", ..PLAIN }, &[], Violation::TargetBytes),
            (Unpacked { target: b"/\xc3\xa4", ..PLAIN }, &[], Violation::Target),
            (Unpacked { scheme: Some(""), ..PLAIN }, &[], Violation::Target),
            (Unpacked { scheme: Some("ftp"), ..PLAIN }, &[], Violation::Target),
            (PLAIN, &["a", " b"], Violation::FieldValue),
            (PLAIN, &["a\t"], Violation::FieldValue),
            (PLAIN, &["a", "b", "c"], Violation::Fields),
        ] {
            assert_eq!(check(head, values), Some(violation), "{head:?} {values:?}");
        }
    }
}
