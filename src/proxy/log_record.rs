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
use crate::exchange::{Client, Exchange, Head};
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
pub(super) fn client_hop(session: &Session, client: Client) -> ClientHop<'_> {
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
