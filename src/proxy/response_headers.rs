//! The changes of response headers that HTTP requires of a proxy.

use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora_error::{Error, ErrorType, OrErr as _, Result};

use crate::exchange::ResponseHead;
use crate::http::hop_by_hop::{self, MessageDirection};

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

/// What matters for a retry. `Retry-After` counts with a status that the backend may repair by waiting
/// (RFC 9110 §10.2.3); a date is not read.
pub(super) fn for_retry(response: &ResponseHeader) -> ResponseHead {
    let status = response.status.as_u16();
    let is_temporary = matches!(status, 429 | 503);
    let value = response.headers.get(header::RETRY_AFTER).filter(|_| is_temporary);
    let seconds = value.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    ResponseHead { status, retry_after: seconds.map(Duration::from_secs) }
}

/// Turns a backend's response headers into those for the client. Returns whether the client's
/// connection can stay open.
pub(super) fn prepare_client_response(
    response: &mut ResponseHeader,
    request_id: Option<&HeaderValue>,
    client_speaks: Version,
) -> Result<bool> {
    for name in hop_by_hop::to_remove(&response.headers, MessageDirection::Response) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::lines;

    fn response(
        status: u16,
        version: Version,
        headers: &[(&'static str, &'static str)],
    ) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        response.set_version(version);
        for (name, value) in headers {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    #[test]
    fn chunked_is_the_only_coding_a_backend_may_use() {
        const NAME: &str = "transfer-encoding";
        for (version, codings, is_valid) in [
            (Version::HTTP_11, &["chunked"][..], true),
            (Version::HTTP_11, &["Chunked"], true),
            (Version::HTTP_11, &[], true),
            (Version::HTTP_10, &["chunked"], false),
            (Version::HTTP_11, &["gzip, chunked"], false),
            (Version::HTTP_11, &["gzip"], false),
            (Version::HTTP_11, &["chunked", "chunked"], false),
            (Version::HTTP_11, &[""], false),
        ] {
            let headers: Vec<_> = codings.iter().map(|coding| (NAME, *coding)).collect();
            let checked = validate_upstream_response(&mut response(200, version, &headers));
            assert_eq!(checked.is_ok(), is_valid, "{version:?} {codings:?}");
            if let Err(error) = checked {
                assert_eq!(*error.etype(), ErrorType::InvalidHTTPHeader);
                assert_eq!(*error.esource(), pingora_error::ErrorSource::Upstream, "blamed");
            }
        }
    }

    #[test]
    fn equal_lengths_become_one() {
        for lengths in [&["5"][..], &["5", "5"], &["5, 5"], &["5 ,5", "5"]] {
            let headers: Vec<_> =
                lengths.iter().map(|length| ("content-length", *length)).collect();
            let mut response = response(200, Version::HTTP_11, &headers);
            validate_upstream_response(&mut response).unwrap();
            assert_eq!(lines(&response.headers), ["content-length: 5"], "{lengths:?}");
        }
    }

    #[test]
    fn a_response_for_an_http10_client_needs_a_known_end() {
        const LENGTH: &[(&str, &str)] = &[("content-length", "5")];
        const CHUNKED: &[(&str, &str)] = &[("transfer-encoding", "chunked")];
        for (client, status, headers, keep) in [
            (Version::HTTP_11, 200, &[][..], true),
            (Version::HTTP_2, 200, &[], true),
            (Version::HTTP_10, 200, LENGTH, true),
            (Version::HTTP_10, 200, CHUNKED, false),
            (Version::HTTP_10, 200, &[], false),
            (Version::HTTP_10, 204, &[], true),
            (Version::HTTP_10, 304, &[], true),
            (Version::HTTP_10, 103, &[], true),
        ] {
            let mut response = response(status, Version::HTTP_11, headers);
            let kept = prepare_client_response(&mut response, None, client).unwrap();
            assert_eq!(kept, keep, "{client:?} {status} {headers:?}");
        }
    }

    #[test]
    fn a_response_without_a_body_has_neither_length_nor_coding() {
        let headers = [("content-length", "0"), ("transfer-encoding", "chunked"), ("etag", "1")];
        let left = |status| {
            let mut response = response(status, Version::HTTP_11, &headers);
            prepare_client_response(&mut response, None, Version::HTTP_11).unwrap();
            lines(&response.headers)
        };
        assert_eq!(left(204), ["etag: 1"]);
        assert_eq!(left(103), ["etag: 1"]);
        // A 304 has the length that a 200 would have (RFC 9110 §8.6).
        assert_eq!(left(304), ["content-length: 0", "etag: 1", "transfer-encoding: chunked"]);
    }

    #[test]
    fn a_response_gets_the_version_and_request_id_of_this_hop() {
        let headers = [("connection", "close, x-hop"), ("x-hop", "1"), ("x-request-id", "theirs")];
        let mut response = response(200, Version::HTTP_10, &headers);
        let id = HeaderValue::from_static("id-1");
        prepare_client_response(&mut response, Some(&id), Version::HTTP_11).unwrap();
        assert_eq!(response.version, Version::HTTP_11);
        assert_eq!(lines(&response.headers), ["x-request-id: id-1"]);
    }
}
