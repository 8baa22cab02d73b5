//! The parts of gRPC that HTTP/2 does not have: its status, and the client's deadline.

use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::{self, HeaderName};

/// The client's timeout, from the request's first byte.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The gRPC status: in the response headers if there is no body, otherwise in the trailers.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The maximum number of digits in a timeout.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Whether a message is gRPC. gRPC-Web is another protocol.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |it| it.as_bytes());
    let prefix = b"application/grpc";
    let (Some(start), rest) = (content_type.get(..prefix.len()), content_type.get(prefix.len()..))
    else {
        return false;
    };
    start.eq_ignore_ascii_case(prefix)
        && matches!(rest.and_then(<[u8]>::first), None | Some(b'+' | b';'))
}

/// The client's timeout, if there is a valid one.
#[must_use]
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let fits = (1..=TIMEOUT_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = Some(digits).filter(|_| fits)?.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 60 * 60)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The gRPC status in these headers or trailers.
#[must_use]
pub fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// The gRPC status that corresponds to a status of a response from Weir.
#[must_use]
pub const fn status_for(http: u16) -> u16 {
    match http {
        408 | 504 => 4,             // DEADLINE_EXCEEDED
        413 | 414 | 429 | 431 => 8, // RESOURCE_EXHAUSTED
        401 => 16,                  // UNAUTHENTICATED
        403 => 7,                   // PERMISSION_DENIED
        404 | 405 => 12,            // UNIMPLEMENTED
        421 | 502 | 503 => 14,      // UNAVAILABLE
        400 | 500 | 508 => 13,      // INTERNAL
        _ => 2,                     // UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;

    fn one(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn grpc_is_recognized_by_its_content_type() {
        for yes in ["application/grpc", "application/grpc+proto", "Application/gRPC;x=1"] {
            assert!(is_grpc(&one("content-type", yes)), "{yes}");
        }
        for no in ["application/grpc-web", "application/grpcx", "application/json", "a"] {
            assert!(!is_grpc(&one("content-type", no)), "{no}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        let of = |text| timeout(&one("grpc-timeout", text));
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("4S"), Some(Duration::from_secs(4)));
        assert_eq!(of("500m"), Some(Duration::from_millis(500)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
    }

    #[test]
    fn an_invalid_timeout_is_ignored() {
        for text in ["", "S", "1", "123456789S", "+1S", "1s", "1.5S", " 1S", "1S "] {
            assert_eq!(timeout(&one("grpc-timeout", text)), None, "{text:?}");
        }
    }

    #[test]
    fn a_status_is_read_from_headers_or_trailers() {
        assert_eq!(status(&one("grpc-status", "14")), Some(14));
        assert_eq!(status(&one("grpc-status", "x")), None);
        assert_eq!(status(&HeaderMap::new()), None);
    }
}
