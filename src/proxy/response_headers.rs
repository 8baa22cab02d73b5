//! The changes of response headers that HTTP requires of a proxy.

use http::header::{self, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora_error::{Error, ErrorType, OrErr as _, Result};

use crate::http::hop_by_hop::{self, Direction};

/// Rejects a response whose length is ambiguous, and normalizes one that says the same twice.
pub(super) fn validate_upstream_response(response: &mut ResponseHeader) -> Result<()> {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // The request offered no other coding, so none may come (RFC 9112 §6.1).
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || response.version == Version::HTTP_10 {
            let what = "a Transfer-Encoding other than chunked";
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, what).into_up());
        }
    }
    // Pingora has rejected lengths that differ. Equal ones count as one (RFC 9112 §6.3).
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next(), lengths.next());
    let Some(first) = first.filter(|first| second.is_some() || first.as_bytes().contains(&b','))
    else {
        return Ok(());
    };
    let digits = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    let length = HeaderValue::from_bytes(digits.trim_ascii());
    let length = length.or_err(ErrorType::InvalidHTTPHeader, "a length")?;
    response.insert_header(header::CONTENT_LENGTH, length)
}

/// Turns a backend's response headers into those for the client. Returns whether the client's
/// connection can stay open.
pub(super) fn prepare_client_response(
    response: &mut ResponseHeader,
    request_id: Option<&HeaderValue>,
    client_speaks: Version,
) -> Result<bool> {
    for name in hop_by_hop::to_remove(&response.headers, Direction::Response) {
        response.remove_header(&name);
    }
    if let Some(request_id) = request_id {
        response.insert_header("X-Request-Id", request_id.clone())?;
    }
    if response.version == Version::HTTP_10 {
        // Each hop has its own version (RFC 9110 §2.5).
        response.set_version(Version::HTTP_11);
    }
    if response.status == StatusCode::NO_CONTENT || response.status.is_informational() {
        // They have no body and no length (RFC 9110 §8.6, RFC 9112 §6.1).
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    // HTTP/1.0 has no chunks. Without a length, the body ends when the connection is closed (RFC
    // 9112 §6.3). `pingora/http10.rs` removes the coding.
    let has_length = response.headers.contains_key(header::CONTENT_LENGTH);
    let has_none = response.status.is_informational()
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(client_speaks != Version::HTTP_10 || has_length || has_none)
}
