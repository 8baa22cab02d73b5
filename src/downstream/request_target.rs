//! The target of a request, once the headers are parsed.

use http::{Method, header};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::session_ext::SessionExt as _;
use crate::http::host;
use crate::http::scan::Violation;
use crate::http::target::{Absolute, ReplacedByte, escaped, restored};

/// Turns the target that the client sent into the one for the backend. The next hook refuses the
/// request if the target is invalid.
pub(crate) fn settle(session: &mut Session) {
    let Some(state) = session.connection_state().cloned() else { return };
    let changes = state.take_target_changes();
    if changes.is_empty() {
        return;
    }
    if let Err(violation) = rewrite(session.req_header_mut(), &changes) {
        state.set_violation(violation);
        state.head_refusal.get_or_init(|| violation.into());
    }
}

fn rewrite(request: &mut RequestHeader, changes: &[ReplacedByte]) -> Result<(), Violation> {
    let target = restored(request.raw_path(), changes);
    let Some(absolute) = Absolute::of(&target) else { return set(request, &target) };
    set(request, &absolute.origin_form(request.method == Method::OPTIONS))?;
    if host::canonical(absolute.authority).is_err() {
        return Err(Violation::Authority);
    }
    let differs =
        |host: &header::HeaderValue| !host.to_str().is_ok_and(|it| absolute.has_same_authority(it));
    if request.headers.get(header::HOST).is_some_and(differs) {
        return Err(Violation::HostDiffers);
    }
    // The target decides the host, whatever `Host` says (RFC 9112 §3.2.2).
    let authority = request.insert_header(header::HOST, absolute.authority);
    authority.map_err(|_no_value| Violation::Authority)
}

fn set(request: &mut RequestHeader, target: &str) -> Result<(), Violation> {
    request.set_raw_path(escaped(target).as_bytes()).map_err(|_no_uri| Violation::Target)
}

/// The same for HTTP/2, where only characters that no URI has are left: `h2` accepts a quote in a
/// path.
pub(crate) fn escape(request: &mut RequestHeader) {
    let escaped = str::from_utf8(request.raw_path()).map(|target| escaped(target).into_owned());
    if let Ok(escaped) = escaped
        && escaped.as_bytes() != request.raw_path()
        && let Ok(path) = escaped.parse::<http::uri::PathAndQuery>()
    {
        let mut parts = request.uri.clone().into_parts();
        parts.path_and_query = Some(path);
        match http::Uri::from_parts(parts) {
            Ok(uri) => request.set_uri(uri),
            Err(error) => log::debug!("target not escaped: error=\"{error}\""),
        }
    }
}
