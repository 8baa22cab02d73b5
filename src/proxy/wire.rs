//! What the edge saw of an exchange, in the words of those who watch.

use std::net::{IpAddr, Ipv4Addr};

use http::{Version, header};
use pingora_error::Error;
use pingora_proxy::Session;

use super::connection::{self, Connection};
use super::head::X_REQUEST_ID;
use super::identity::Came;
use crate::exchange::event::Wire;
use crate::exchange::refusal::Ending;
use crate::exchange::{Client, Exchange, Head};
use crate::http::label::MethodLabel;
use crate::http::scheme::Scheme;

/// The log's status for a client that left before its answer.
const CLIENT_CLOSED: u16 = 499;

/// The request's head, as far as decisions need it.
pub(super) fn head(session: &Session) -> Head<'_> {
    let request = session.req_header();
    Head {
        peer: peer(session),
        scheme: scheme(session),
        method: &request.method,
        version: request.version,
        path: super::head::path(request),
        query: request.uri.query(),
        headers: &request.headers,
    }
}

/// A connection whose other end is unknown counts as one client: it is limited and hashed like
/// any other, and never trusted by accident.
fn peer(session: &Session) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    connection::of(session).map_or(unknown, Connection::client_ip)
}

/// How the request came.
pub(super) fn came(session: &Session, client: Client) -> Came<'_> {
    let written = connection::of(session).and_then(Connection::written);
    Came { client, scheme: scheme(session), written }
}

/// `http` or `https`, as the client came.
pub(super) fn scheme(session: &Session) -> Scheme {
    connection::of(session).map_or(Scheme::Http, Connection::scheme)
}

/// How the exchange ended.
pub(super) fn ending(session: &Session, error: Option<&Error>, exchange: &Exchange) -> Ending {
    if let Some(refusal) = exchange.refusal() {
        return Ending::Refused(refusal);
    }
    if exchange.tunnel_since().is_some() {
        return super::tunnel::ending(session, error);
    }
    let begun = status(session) != 0;
    match error {
        None => exchange.own_answer().unwrap_or(Ending::Answered),
        Some(error) if begun && super::failure::is_after_a_whole_answer(error) => Ending::Answered,
        Some(error) if super::failure::is_stalled_client(error) => Ending::ClientStalled,
        Some(_) if super::is_stalled(session) => Ending::ClientStalled,
        // Our own end of it, carried out on the client's side.
        Some(_) if begun && super::is_late(session) => Ending::Cut,
        Some(error) if super::failure::blames_client(error) => Ending::ClientClosed,
        Some(_) if begun => Ending::Cut,
        Some(_) => Ending::Dropped,
    }
}

fn status(session: &Session) -> u16 {
    session.as_downstream().response_written().map_or(0, |head| head.status.as_u16())
}

/// Hands what went over the wire to `tell`.
pub(super) fn with<T>(
    session: &Session,
    exchange: &mut Exchange,
    ending: Ending,
    tell: impl FnOnce(&Wire<'_>, &mut Exchange) -> T,
) -> T {
    let request = session.req_header();
    let text = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    // A byte that is no text must not take the rest of the field out of the log.
    let user_agent = request.headers.get(header::USER_AGENT);
    let user_agent = user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let status = match (ending, status(session)) {
        (Ending::ClientClosed, 0) => CLIENT_CLOSED,
        (_, status) => status,
    };
    let wire = Wire {
        method_label: MethodLabel::from(&request.method),
        method: request.method.as_str(),
        scheme: scheme(session).as_str(),
        host: text(header::HOST).unwrap_or_default(),
        path: super::head::path(request),
        query: request.uri.query(),
        protocol: protocol(request.version),
        user_agent: user_agent.as_deref(),
        request_id: text(X_REQUEST_ID).unwrap_or_default(),
        status,
        bytes_in: count(session.as_downstream().body_bytes_read()),
        bytes_out: count(session.as_downstream().body_bytes_sent()),
    };
    if let Some(head) = session.as_downstream().response_written() {
        super::grpc::note(&head.headers, exchange);
    }
    tell(&wire, exchange)
}

/// A connection that was refused before a request could be read from it.
/// Of its line is told what can be told: the log takes any text, and no metric does.
pub(super) fn unread<'a>(
    status: u16,
    request_id: &'a str,
    scheme: &'static str,
    request_line: &'a str,
) -> Wire<'a> {
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
        request_id,
        status,
        bytes_in: 0,
        bytes_out: 0,
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
