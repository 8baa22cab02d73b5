//! What the access log and the metrics need of a session.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{self, HeaderValue};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::forwarding::ClientHop;
use crate::downstream::connection_info::ConnectionInfo;
use crate::downstream::early_refusal::EarlyRefusal;
use crate::downstream::session_ext::SessionExt as _;
use crate::exchange::event::Wire;
use crate::exchange::refusal::Outcome;
use crate::exchange::request::{Request, Transfer};
use crate::exchange::{ClientInfo, Exchange, Head};
use crate::http::metric_label::MethodLabel;
use crate::http::scheme::Scheme;

/// The status in the log if the client disconnects before its response.
const CLIENT_CLOSED: u16 = 499;

/// The request headers, as decisions need them.
pub(super) fn request_facts(session: &Session) -> Head<'_> {
    let request = session.req_header();
    Head {
        peer: peer(session),
        scheme: scheme(session),
        method: &request.method,
        version: request.version,
        path: path(request),
        query: request.uri.query(),
        headers: &request.headers,
    }
}

/// The path of the target. A target without a path, such as `*`, is returned as it is.
fn path(request: &RequestHeader) -> &str {
    let target = request.raw_path();
    if target.starts_with(b"/") {
        return request.uri.path();
    }
    str::from_utf8(target).unwrap_or_default()
}

/// A connection without an address counts as one client. It is limited and hashed like any other,
/// and never trusted by accident.
fn peer(session: &Session) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    session.connection_info().map_or(unknown, ConnectionInfo::client_ip)
}

/// The hop from the client to Weir.
pub(super) fn client_hop(session: &Session, client: ClientInfo) -> ClientHop<'_> {
    let written = session.connection_info().and_then(ConnectionInfo::forwarded_values);
    ClientHop { client, scheme: scheme(session), written }
}

/// The scheme that the client used.
pub(super) fn scheme(session: &Session) -> Scheme {
    session.connection_info().map_or(Scheme::Http, ConnectionInfo::scheme)
}

/// What the log needs of a request.
pub(super) fn request(session: &Session, id: Option<HeaderValue>) -> Request {
    let request = session.req_header();
    let path = path(request);
    Request {
        method: request.method.clone(),
        scheme: scheme(session),
        host: request.headers.get(header::HOST).cloned(),
        other_path: (path != request.uri.path()).then(|| path.into()),
        target: request.uri.path_and_query().cloned(),
        version: request.version,
        user_agent: request.headers.get(header::USER_AGENT).cloned(),
        id,
    }
}

/// What was transferred by the end of an exchange.
pub(super) fn transfer(session: &Session, exchange: &mut Exchange, outcome: Outcome) -> Transfer {
    let response = session.as_downstream().response_written();
    let response = response.filter(|head| super::pingora::early_response::is_final(head.status));
    let status = match (outcome, response.map_or(0, |head| head.status.as_u16())) {
        (Outcome::ClientAborted, 0) => CLIENT_CLOSED,
        (_, status) => status,
    };
    if let Some(head) = response {
        super::grpc::record_status(&head.headers, exchange);
    }
    Transfer {
        status,
        bytes_in: count(session.as_downstream().body_bytes_read()),
        bytes_out: count(session.as_downstream().body_bytes_sent()),
    }
}

/// A connection that was rejected before a request was read. The access log gets what was read of
/// the request line; metrics do not.
pub(super) fn record_unparsed<'a>(early: &'a EarlyRefusal, scheme: &'static str) -> Wire<'a> {
    let request_line = early.request_line.as_str();
    let (method, rest) = request_line.split_once(' ').unwrap_or((request_line, ""));
    let target = rest.split(' ').next().unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    Wire {
        method_label: MethodLabel::Other,
        method,
        scheme,
        host: "",
        path,
        query,
        protocol: "",
        user_agent: None,
        request_id: early.id.as_str(),
        status: early.refusal.status(),
        bytes_in: 0,
        bytes_out: count(early.bytes_out),
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::refusal::Refusal;
    use crate::proxy::tests::{ONE_POOL, forwarded, session, session_with_state};

    fn target(target: &str) -> String {
        let request = RequestHeader::build("OPTIONS", target.as_bytes(), None).unwrap();
        path(&request).to_owned()
    }

    #[test]
    fn the_path_of_a_target_in_another_form_is_the_target() {
        assert_eq!(target("/a/b?c=/d"), "/a/b");
        assert_eq!(target("*"), "*");
    }

    #[test]
    fn an_unreadable_request_line_is_split_as_far_as_it_goes() {
        for (line, expected) in [
            ("GET /a?b=c?d HTTP/1.1", ("GET", "/a", Some("b=c?d"))),
            ("GET /a", ("GET", "/a", None)),
            ("GET", ("GET", "", None)),
            ("", ("", "", None)),
            ("GET  /a HTTP/1.1", ("GET", "", None)),
            ("GET /a? x", ("GET", "/a", Some(""))),
            ("\u{16}\u{3}\u{1}", ("\u{16}\u{3}\u{1}", "", None)),
        ] {
            let early = EarlyRefusal::new(Refusal::BadRequest, line.to_owned());
            let wire = record_unparsed(&early, "http");
            assert_eq!((wire.method, wire.path, wire.query), expected, "{line:?}");
            assert_eq!(wire.status, 400);
        }
    }

    #[tokio::test]
    async fn a_connection_without_an_address_is_never_a_trusted_one() {
        let bytes = "GET /a?b HTTP/1.1\r\nhost: a.test\r\n\r\n";
        let unknown = session(bytes).await;
        assert_eq!(request_facts(&unknown).peer, IpAddr::from([0, 0, 0, 0]));
        assert_eq!(request_facts(&unknown).query, Some("b"));
        let (known, _) = session_with_state(bytes).await;
        assert_eq!(request_facts(&known).peer, crate::fixture::CLIENT);
    }

    #[tokio::test]
    async fn an_aborted_request_without_a_response_is_logged_as_499() {
        let mut session = session("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
        let mut exchange = forwarded(ONE_POOL, "/");
        let status = |session: &Session, exchange: &mut Exchange, outcome| {
            transfer(session, exchange, outcome).status
        };
        assert_eq!(status(&session, &mut exchange, Outcome::ClientAborted), 499);
        assert_eq!(status(&session, &mut exchange, Outcome::Abandoned), 0);
        let interim = pingora::http::ResponseHeader::build(103, None).unwrap();
        session.write_response_header(Box::new(interim), false).await.unwrap();
        assert_eq!(status(&session, &mut exchange, Outcome::ClientAborted), 499);
        let mut head = pingora::http::ResponseHeader::build(200, None).unwrap();
        head.insert_header("grpc-status", "14").unwrap();
        session.write_response_header(Box::new(head), false).await.unwrap();
        assert_eq!(status(&session, &mut exchange, Outcome::ClientAborted), 200);
        assert_eq!(exchange.grpc_status(), Some(14));
    }
}
