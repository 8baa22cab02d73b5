//! Properties of methods.

use ::http::Method;

/// Whether sending the request twice has the same effect as sending it once (RFC 9110 §9.2.2), so
/// that a proxy may retry it. An unknown method is not idempotent.
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
    fn post_is_not_idempotent() {
        assert!(!is_idempotent(&Method::POST));
        assert!(!is_idempotent(&Method::PATCH));
        assert!(!is_idempotent(&Method::CONNECT));
    }

    #[test]
    fn an_unknown_method_is_not_idempotent() {
        assert!(!is_idempotent(&Method::from_bytes(b"PROPFIND").unwrap()));
        assert!(!is_idempotent(&Method::from_bytes(b"get").unwrap()));
    }
}
