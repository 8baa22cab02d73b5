//! What a method promises.

use ::http::Method;

/// Whether doing it twice is as good as doing it once (RFC 9110 §9.2.2), which is what allows
/// a proxy to send it again. A method that we do not know promises nothing.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        .contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_of_the_rfc_are_idempotent() {
        assert!(is_idempotent(&Method::GET));
        assert!(is_idempotent(&Method::HEAD));
        assert!(is_idempotent(&Method::OPTIONS));
        assert!(is_idempotent(&Method::TRACE));
        assert!(is_idempotent(&Method::PUT));
        assert!(is_idempotent(&Method::DELETE));
    }

    #[test]
    fn posting_twice_is_not_posting_once() {
        assert!(!is_idempotent(&Method::POST));
        assert!(!is_idempotent(&Method::PATCH));
        assert!(!is_idempotent(&Method::CONNECT));
    }

    #[test]
    fn an_unknown_method_promises_nothing() {
        assert!(!is_idempotent(&Method::from_bytes(b"PROPFIND").unwrap()));
        assert!(!is_idempotent(&Method::from_bytes(b"get").unwrap()));
    }
}
