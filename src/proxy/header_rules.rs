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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::{ONE_POOL, forwarded, lines};

    /// The target and headers of a request for a backend. `route` is a part of the route.
    fn changed(top: &str, route: &str, received: &[(&'static str, &'static str)]) -> Vec<String> {
        let config = format!("{top}\n{ONE_POOL}\nroutes: [{{path: /api, pool: web, {route}}}]");
        let mut request = RequestHeader::build("GET", b"/api/a%2fb?x=/y?z", None).unwrap();
        for (name, value) in received {
            request.append_header(*name, *value).unwrap();
        }
        let client = request.clone();
        apply_to_request(&mut request, &client, &forwarded(&config, "/api/a%2fb")).unwrap();
        let mut all = vec![String::from_utf8(request.raw_path().to_vec()).unwrap()];
        all.extend(lines(&request.headers));
        all
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let route = "request_headers: {remove: [x-a, x-b, x-c], set: {x-b: new}, add: {x-c: more}}";
        let received = [("x-a", "1"), ("x-b", "1"), ("x-b", "2"), ("x-c", "1"), ("x-d", "1")];
        assert_eq!(changed("", route, &received)[1..], ["x-b: new", "x-c: more", "x-d: 1"]);
        let route = "request_headers: {set: {x-b: new}, add: {x-d: more}}";
        assert_eq!(
            changed("", route, &received)[1..],
            ["x-a: 1", "x-b: new", "x-c: 1", "x-d: 1", "x-d: more"]
        );
    }

    #[test]
    fn a_rewritten_path_keeps_the_query_as_it_was() {
        assert_eq!(changed("", "", &[]), ["/api/a%2fb?x=/y?z"]);
        let rewritten = changed("", "rewrite: {to: /v2, host: b.test}", &[("host", "a.test")]);
        assert_eq!(rewritten, ["/v2?x=/y?z", "host: b.test"]);
    }

    #[test]
    fn underscores_are_removed_as_configured() {
        let route = "request_headers: {set: {x-user: weir}, remove: [x-gone]}";
        let received =
            [("content_length", "1"), ("x_user", "forged"), ("x_gone", "1"), ("x_other", "1")];
        let left = |policy: &str| {
            let top = format!("limits: {{underscore_headers: {policy}}}");
            changed(&top, route, &received)[1..].to_vec()
        };
        assert_eq!(left("guard"), ["x-user: weir", "x_other: 1"]);
        assert_eq!(left("drop"), ["x-user: weir"]);
        assert_eq!(
            left("pass"),
            ["content_length: 1", "x-user: weir", "x_gone: 1", "x_other: 1", "x_user: forged"]
        );
    }

    #[test]
    fn an_interim_response_gets_no_header_of_the_route() {
        let route = "routes: [{pool: web, response_headers: {set: {x-a: new}, remove: [server]}}]";
        let exchange = forwarded(&format!("{ONE_POOL}\n{route}"), "/");
        let after = |status: u16| {
            let mut response = ResponseHeader::build(status, None).unwrap();
            response.insert_header("server", "own").unwrap();
            apply_to_response(&mut response, &exchange).unwrap();
            lines(&response.headers)
        };
        assert_eq!(after(103), ["server: own"]);
        assert_eq!(after(200), ["x-a: new"]);
        assert_eq!(after(404), ["x-a: new"]);
    }
}
