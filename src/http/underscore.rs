//! Header names with an underscore.
//!
//! CGI, WSGI and FastCGI convert headers to variables: `Content-Length` and `Content_Length` both
//! become `CONTENT_LENGTH`. So with the second name, a client can override the first one for such a
//! backend, and also headers that Weir adds.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName};

use super::hop_by_hop;

/// The name with dashes, as such a gateway interprets it.
#[must_use]
pub fn dashed(name: &str) -> Cow<'_, str> {
    if has(name) { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

/// Whether the name begins with `prefix`, which has dashes. Both `-` and `_` in the name count as a
/// dash.
#[must_use]
pub fn starts_with(name: &str, prefix: &str) -> bool {
    let is = |(byte, wanted): (u8, u8)| byte == wanted || (byte == b'_' && wanted == b'-');
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(is)
}

/// Names are short: a search for a `char` costs several times as much only to start.
fn has(name: &str) -> bool {
    name.bytes().any(|byte| byte == b'_')
}

/// The names with an underscore. Nearly always there are none.
pub fn names(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| has(name.as_str()))
}

/// Whether the name, written with dashes, frames or routes a message, identifies a client, or is
/// added or removed by Weir.
#[must_use]
pub fn is_guarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    has(name) && hop_by_hop::is_ours(&dashed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underscore_counts_as_a_dash_in_a_prefix() {
        for name in ["x-client-cert", "x_client_cert", "x-client_cert_chain"] {
            assert!(starts_with(name, "x-client-cert"), "{name}");
        }
        for name in ["x-client", "xxclient-cert", "x-client-cart", ""] {
            assert!(!starts_with(name, "x-client-cert"), "{name}");
        }
        assert!(!starts_with("x-y", "x_y"), "the prefix has dashes");
    }

    #[test]
    fn headers_that_frame_route_or_are_set_by_weir_are_guarded() {
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
