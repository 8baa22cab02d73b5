//! Header names with an underscore.
//!
//! CGI, WSGI and FastCGI make variables of headers: `Content-Length` and `Content_Length` both become
//! `CONTENT_LENGTH`. So a client that sends the second one can say to such a backend what only the first
//! one may say, and what Weir says itself.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName};

use super::hop_by_hop;

/// The name with dashes, as a gateway that makes variables of headers reads it.
#[must_use]
pub fn dashed(name: &str) -> Cow<'_, str> {
    if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

/// The names with an underscore. Nearly always there are none.
pub fn names(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| name.as_str().contains('_'))
}

/// Whether the name with dashes frames or routes a message, says who a client is, or is set or removed
/// by Weir on the way.
#[must_use]
pub fn is_guarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.contains('_') && hop_by_hop::is_ours(&dashed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frames_routes_or_is_set_by_us_is_guarded() {
        let guarded = |name| is_guarded(&HeaderName::from_static(name));
        for name in [
            "content_length",
            "transfer_encoding",
            "transfer-encoding_",
            "x_forwarded_for",
            "x-forwarded_proto",
            "x_real_ip",
            "x_client_cert_verified",
            "client_cert",
            "x_request_id",
            "proxy_connection",
            "keep_alive",
            "http2_settings",
        ] {
            assert_eq!(guarded(name), name != "transfer-encoding_", "{name}");
        }
        for name in ["x_custom", "session_id", "content-length", "x-y"] {
            assert!(!guarded(name), "{name}");
        }
    }
}
