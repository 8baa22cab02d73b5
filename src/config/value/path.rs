//! Paths of requests.

use super::super::problem::quote;
use super::super::read::ValueError;
use crate::http::path::normalize_for_routing;
use crate::http::target::escaped;

/// `text`, if a request line may contain it.
pub(super) fn absolute(text: &str) -> Result<&str, ValueError> {
    let wrong = |what: &str| ValueError::new(format!("the path {} {what}", quote(text)));
    if !text.starts_with('/') {
        let path = text
            .split_once("://")
            .map_or(text, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        return Err(
            wrong("does not start with `/`").help(format!("write {}", quote(&format!("/{path}"))))
        );
    }
    if text.contains('#') {
        return Err(wrong("has a `#`, which a request cannot contain")
            .help("write `%23` for the character itself"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("has a space, a control character or a non-ASCII character")
            .help("percent-encode such characters: a space is `%20`"));
    }
    Ok(text)
}

/// `path`, if it is normalized, as the paths of requests are when routes are matched.
pub(super) fn as_routed(path: &str) -> Result<String, ValueError> {
    // Where a client writes what no URI has, requests have it escaped.
    let escaped = escaped(path);
    let normal = normalize_for_routing(&escaped);
    if normal == path {
        return Ok(path.to_owned());
    }
    Err(ValueError::new(format!("the path {} is not normalized", quote(path)))
        .help(format!("write {}: requests are matched in normalized form", quote(&normal))))
}
