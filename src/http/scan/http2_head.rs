//! Checks HTTP/2 request headers, which do not arrive as lines (RFC 9113 §8.3).

use super::bytes::target_end;
use super::head::METHOD_BYTES_MAX;
use super::{Limits, Violation};
use crate::http::scheme::Scheme;

/// The parts of HTTP/2 request headers.
#[derive(Debug, Clone, Copy)]
pub struct Http2Head<'a> {
    /// The method, already verified to be a token.
    pub method: &'a str,
    /// The scheme, if known.
    pub scheme: Option<&'a str>,
    /// The path with its query.
    pub target: &'a [u8],
}

impl Http2Head<'_> {
    /// Checks the request as the scanner would check it in HTTP/1. The caller has already checked
    /// names, and bytes that end a line.
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
            // In HTTP/1 such space is not part of the value (RFC 9113 §8.2.1).
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
    const PLAIN: Http2Head<'static> =
        Http2Head { method: "GET", scheme: Some("http"), target: b"/" };

    fn check(request: Http2Head<'_>, values: &[&str]) -> Option<Violation> {
        request.check(values.iter().map(|value| value.as_bytes()), LIMITS).err()
    }

    #[test]
    fn headers_that_are_valid_in_http_1_pass() {
        assert_eq!(check(PLAIN, &["", "a b\tc"]), None);
        assert_eq!(check(Http2Head { scheme: None, ..PLAIN }, &[]), None);
        assert_eq!(check(Http2Head { scheme: Some("HTTPS"), target: b"*", ..PLAIN }, &[]), None);
    }

    #[test]
    fn other_headers_are_rejected() {
        let method = "A".repeat(METHOD_BYTES_MAX + 1);
        for (request, values, violation) in [
            (Http2Head { method: &method, ..PLAIN }, &[][..], Violation::Method),
            (Http2Head { target: b"/2345678901", ..PLAIN }, &[], Violation::TargetBytes),
            (Http2Head { target: b"/\xc3\xa4", ..PLAIN }, &[], Violation::Target),
            (Http2Head { scheme: Some(""), ..PLAIN }, &[], Violation::Target),
            (Http2Head { scheme: Some("ftp"), ..PLAIN }, &[], Violation::Target),
            (PLAIN, &["a", " b"], Violation::FieldValue),
            (PLAIN, &["a\t"], Violation::FieldValue),
            (PLAIN, &["a", "b", "c"], Violation::Fields),
        ] {
            assert_eq!(check(request, values), Some(violation), "{request:?} {values:?}");
        }
    }
}
