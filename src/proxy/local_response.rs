//! Responses that Weir sends instead of a backend (RFC 9110 §15).

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, Session};

use super::grpc;
use super::header_rules;
use super::progress;
use crate::clock::Clock;
use crate::downstream::reply;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::refusal::Refusal;
use crate::exchange::{DirectResponse, Exchange};
use crate::http::grpc::is_grpc;

/// Sends a refusal. The connection stays open if Pingora has read the whole request.
pub(super) async fn send_refusal(
    session: &mut Session,
    exchange: &Exchange,
    refusal: Refusal,
) -> Result<()> {
    let (mut head, body) = build(session, exchange.request_id(), refusal)?;
    header_rules::apply_to_response(&mut head, exchange)?;
    if ends_connection(&session.req_header().method, refusal) {
        session.set_keepalive(None);
    }
    let Some(body) = body else {
        return grpc::send_headers_only(session, head).await;
    };
    write(session, head, body).await
}

/// Whether no other request can follow this one. What follows on the connection after CONNECT is not
/// HTTP.
fn ends_connection(method: &Method, refusal: Refusal) -> bool {
    *method == Method::CONNECT || refusal.closes_connection()
}

/// Sends a whole response. Over HTTP/2, nothing may follow headers without a body, not even an
/// empty DATA frame (RFC 9113 §8.1). Pingora ensures that only for HTTP/1.
async fn write(session: &mut Session, head: ResponseHeader, body: Bytes) -> Result<()> {
    let is_head = session.req_header().method == Method::HEAD;
    if is_head || body.is_empty() || is_bodiless(head.status) {
        return grpc::send_headers_only(session, head).await;
    }
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(body), true).await
}

/// Whether a response with this status never has a body (RFC 9110 §6.4.1).
fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Sends the response that the route configures.
pub(super) async fn send_direct_response(
    session: &mut Session,
    exchange: &Exchange,
    own: &DirectResponse,
) -> Result<()> {
    let (mut head, body) = build_direct(own, exchange.request_id())?;
    header_rules::apply_to_response(&mut head, exchange)?;
    write(session, head, Bytes::copy_from_slice(body.as_bytes())).await
}

fn build_direct<'a>(
    own: &'a DirectResponse,
    request_id: Option<&HeaderValue>,
) -> Result<(ResponseHeader, &'a str)> {
    let (mut head, body) = match own {
        DirectResponse::Redirect { status, location } => {
            let mut head = ResponseHeader::build(*status, Some(6))?;
            head.insert_header(header::LOCATION, location.as_str())?;
            (head, "")
        }
        DirectResponse::Respond(respond) => {
            let mut head = ResponseHeader::build(respond.status, Some(6))?;
            if !respond.body.is_empty() {
                head.insert_header(header::CONTENT_TYPE, respond.content_type.clone())?;
            }
            (head, respond.body.as_str())
        }
    };
    if !is_bodiless(head.status) {
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
    if let Some(id) = request_id {
        head.insert_header("X-Request-Id", id.clone())?;
    }
    Ok((head, body))
}

fn build(
    session: &Session,
    request_id: Option<&HeaderValue>,
    refusal: Refusal,
) -> Result<(ResponseHeader, Option<Bytes>)> {
    let request = session.req_header();
    if is_grpc(&request.headers) {
        return grpc::refusal(request, request_id, refusal).map(|head| (head, None));
    }
    reply::build_refusal(request, request_id, refusal).map(|(head, body)| (head, Some(body)))
}

/// The error that makes Pingora stop and call `fail_to_proxy`, which sends the response.
pub(super) fn refusal_error(refusal: Refusal) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(refusal.status()), refusal.code())
}

/// Ends an exchange that has failed, with a response if none has started.
pub(super) async fn reply_to_failure(
    session: &mut Session,
    error: &Error,
    exchange: &mut Exchange,
) -> FailToProxy {
    let begun = progress::response_started(session) || exchange.tunnel_since().is_some();
    let now = Clock::process().now();
    let judged = progress::judge(error, session, exchange, now);
    let violation = session.connection_state().and_then(|state| state.violation());
    if let Some(violation) = violation {
        exchange.set_detail(violation.code());
    }
    let refusal = exchange.refusal().or_else(|| violation.map(Refusal::from));
    let refusal = refusal.or(judged.refusal);
    let mut error_code = 0;
    if let (false, Some(refusal)) = (begun, refusal) {
        exchange.refuse(refusal);
        if let Some(state) = session.connection_state().cloned() {
            state.local_reply_started(now);
            session.set_write_timeout(Some(state.local_reply_timeout()));
        }
        error_code = refusal.status();
        session.set_keepalive(None);
        if let Err(error) = send_refusal(session, exchange, refusal).await {
            log::debug!("response not sent: error=\"{error}\"");
        }
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Admitted;
    use crate::proxy::tests::{ONE_POOL, admit, lines};

    #[test]
    fn a_connection_ends_where_the_next_request_cannot_be_found() {
        for (method, refusal, ends) in [
            (Method::GET, Refusal::NoRoute, false),
            (Method::POST, Refusal::HeadersTooLarge, false),
            (Method::POST, Refusal::BodyTooLarge, true),
            (Method::GET, Refusal::BadRequest, true),
            // The bytes that follow are those of the tunnel that the client wants.
            (Method::CONNECT, Refusal::MethodNotAllowed, true),
            (Method::TRACE, Refusal::MethodNotAllowed, false),
        ] {
            assert_eq!(ends_connection(&method, refusal), ends, "{method} {refusal:?}");
        }
    }

    fn direct(action: &str) -> (u16, Vec<String>, String) {
        let (_, admitted) = admit(
            &format!("{ONE_POOL}\nroutes: [{{path: /old, {action}}}, {{pool: web}}]"),
            "/old",
            &[],
        );
        let Ok(Admitted::Direct(own)) = admitted else { panic!("{admitted:?}") };
        let id = HeaderValue::from_static("id-1");
        let (head, body) = build_direct(&own, Some(&id)).unwrap();
        (head.status.as_u16(), lines(&head.headers), body.to_owned())
    }

    #[test]
    fn a_redirect_has_a_location_and_an_empty_body() {
        let (status, headers, body) = direct("redirect: {to: /new, status: 308}");
        assert_eq!((status, body.as_str()), (308, ""));
        assert_eq!(headers, ["content-length: 0", "location: /new", "x-request-id: id-1"]);
    }

    #[test]
    fn a_fixed_response_has_a_type_only_with_a_body() {
        let (status, headers, body) = direct("respond: {status: 418, body: tea}");
        assert_eq!((status, body.as_str()), (418, "tea"));
        assert_eq!(
            headers,
            ["content-length: 3", "content-type: text/plain; charset=utf-8", "x-request-id: id-1"]
        );
        let (_, headers, _) = direct("respond: {status: 200}");
        assert_eq!(headers, ["content-length: 0", "x-request-id: id-1"]);
    }

    #[test]
    fn a_status_without_a_body_has_no_length() {
        let (_, headers, body) = direct("respond: {status: 204}");
        assert_eq!((headers, body.as_str()), (vec!["x-request-id: id-1".to_owned()], ""));
        let (_, headers, _) = direct("respond: {status: 304}");
        assert_eq!(headers, ["x-request-id: id-1"]);
    }
}
