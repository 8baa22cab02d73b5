//! What the edge saw of an exchange, in the words of those who watch.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{self, HeaderValue};
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

/// The log's status for a client that left before its answer.
const CLIENT_CLOSED: u16 = 499;

/// The request's head, as far as decisions need it.
pub(super) fn request_facts(session: &Session) -> Head<'_> {
    let request = session.req_header();
    Head {
        peer: peer(session),
        scheme: scheme(session),
        method: &request.method,
        version: request.version,
        path: super::request_headers::path(request),
        query: request.uri.query(),
        headers: &request.headers,
    }
}

/// A connection whose other end is unknown counts as one client: it is limited and hashed like
/// any other, and never trusted by accident.
fn peer(session: &Session) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    session.connection_info().map_or(unknown, ConnectionInfo::client_ip)
}

/// How the request came.
pub(super) fn client_hop(session: &Session, client: Client) -> ClientHop<'_> {
    let written = session.connection_info().and_then(ConnectionInfo::forwarded_values);
    ClientHop { client, scheme: scheme(session), written }
}

/// `http` or `https`, as the client came.
pub(super) fn scheme(session: &Session) -> Scheme {
    session.connection_info().map_or(Scheme::Http, ConnectionInfo::scheme)
}

/// What the log needs of a request.
pub(super) fn request(session: &Session, id: Option<HeaderValue>) -> Request {
    let request = session.req_header();
    let path = super::request_headers::path(request);
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

/// What went over the wire by the end of an exchange.
pub(super) fn transfer(session: &Session, exchange: &mut Exchange, outcome: Outcome) -> Transfer {
    let response = session.as_downstream().response_written();
    let response = response.filter(|head| super::request::is_final(head.status));
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

/// A connection that was refused before a request could be read from it.
/// Of its line is told what can be told: the log takes any text, and no metric does.
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
