//! The changes of headers that a route configures.

use http::HeaderName;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_error::Result;

use crate::config::{Header, HeaderChanges, UnderscoreHeaders};
use crate::exchange::Exchange;
use crate::http::underscore;
use crate::runtime::action::Action;

/// Request and response headers have these methods, but no common trait.
macro_rules! change {
    ($head:expr, $changes:expr) => {{
        for name in &$changes.remove {
            $head.remove_header(name);
        }
        // Names as text, to keep the operator's case.
        for Header { name, value } in &$changes.set {
            $head.insert_header(name.clone(), value.clone())?;
        }
        for Header { name, value } in &$changes.add {
            $head.append_header(name.clone(), value.clone())?;
        }
    }};
}

/// Applies the route's path, host and headers to a request for a backend.
pub(super) fn apply_to_request(
    request: &mut RequestHeader,
    received: &RequestHeader,
    exchange: &Exchange,
) -> Result<()> {
    let Some(route) = exchange.route() else { return Ok(()) };
    if let Some(path) = exchange.new_path() {
        let target = request.raw_path();
        let query = target.iter().position(|byte| *byte == b'?');
        let query = query.and_then(|at| target.get(at..)).unwrap_or_default();
        let target = [path.as_bytes(), query].concat();
        request.set_raw_path(&target)?;
    }
    if let Action::Forward(_, rewrite) = &route.action
        && let Some(host) = &rewrite.host
    {
        request.insert_header("Host", host.as_str())?;
    }
    remove_underscores(request, received, exchange, &route.request_headers);
    change!(request, route.request_headers);
    Ok(())
}

/// Removes headers of the client with an underscore in their name, as configured.
fn remove_underscores(
    request: &mut RequestHeader,
    received: &RequestHeader,
    exchange: &Exchange,
    changes: &HeaderChanges,
) {
    let policy = exchange.snapshot().underscore_headers;
    let is_changed = |name: &HeaderName| {
        let dashed = underscore::dashed(name.as_str());
        let is = |other: &str| other.eq_ignore_ascii_case(&dashed);
        changes.set.iter().chain(&changes.add).any(|field| is(&field.name))
            || changes.remove.iter().any(|other| is(other.as_str()))
    };
    let goes = |name: &&HeaderName| match policy {
        UnderscoreHeaders::Guard => underscore::is_guarded(name) || is_changed(name),
        UnderscoreHeaders::Drop => true,
        // With `refuse`, the request was rejected already.
        UnderscoreHeaders::Refuse | UnderscoreHeaders::Pass => false,
    };
    // Weir sets no such header, so only the client's are checked.
    for name in underscore::names(&received.headers).filter(goes) {
        request.remove_header(name);
    }
}

/// Applies the route's headers to a response, Weir's own included.
pub(super) fn apply_to_response(response: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    // An interim response is not about the resource.
    let interim = response.status.is_informational();
    let Some(route) = exchange.route().filter(|_| !interim) else { return Ok(()) };
    change!(response, route.response_headers);
    Ok(())
}
