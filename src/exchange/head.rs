//! The request headers: the client's address, and the requested host.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ::http::header::{
    CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
    VIA,
};
use ::http::{Method, Version};

use crate::config::ForwardingHeader;
use crate::exchange::refusal::Refusal;
use crate::http::forwarded::field;
use crate::http::scheme::Scheme;
use crate::http::{forwarded, grpc, path, via};
use crate::runtime::routes::RouteQuery;
use crate::runtime::snapshot::Snapshot;

/// The header in which proxies in front of Weir pass on the client's address.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which proxies in front of Weir pass on the client's scheme.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientInfo {
    /// The address of the connection's peer.
    pub peer: IpAddr,
    /// The client's address according to `trusted_proxies`: the key of limits and hashes, the
    /// address in the log.
    pub address: IpAddr,
}

/// The request line and headers, as far as decisions use them.
#[derive(Debug)]
pub struct Head<'a> {
    /// The address of the connection's peer.
    pub peer: IpAddr,
    /// The scheme of the peer's connection.
    pub scheme: Scheme,
    /// As received.
    pub method: &'a Method,
    /// As received.
    pub version: Version,
    /// The target's path, without the query.
    pub path: &'a str,
    /// The target's query, without the `?`.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// How often a request may pass Weir: chains of proxies are shorter, loops are not.
const VIA_LOOP_MAX: usize = 8;

/// Replaces the host of an HTTP/1.0 request without one; no route can have it (RFC 2606).
const NO_HOST: &str = "host.invalid";

/// Checks that this `Content-Length` is a number, and not above `most`.
pub(super) fn check_length(length: &HeaderValue, most: u64) -> Result<(), Refusal> {
    match length.to_str().ok().and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length <= most => Ok(()),
        Some(_) => Err(Refusal::BodyTooLarge),
        None => Err(Refusal::BadRequest),
    }
}

impl<'a> Head<'a> {
    /// The timeout of a gRPC client for the whole request, if it has one.
    pub(super) fn grpc_timeout(&self) -> Option<Duration> {
        grpc::is_grpc(self.headers).then(|| grpc::timeout(self.headers)).flatten()
    }

    /// The client's address according to `trusted_proxies`.
    pub(super) fn client(&self, snapshot: &Snapshot) -> ClientInfo {
        let (peer, trusted) = (self.peer.to_canonical(), &snapshot.trusted_proxies);
        if !forwarded::is_trusted(peer, trusted) {
            // Its headers are not trusted, so they are not read.
            return ClientInfo { peer: self.peer, address: peer };
        }
        let address = match snapshot.forwarded.accept {
            ForwardingHeader::XForwardedFor => {
                forwarded::client_ip(self.peer, self.header_lines(X_FORWARDED_FOR), trusted)
            }
            ForwardingHeader::Forwarded => {
                forwarded::client_by_forwarded(self.peer, self.header_lines(FORWARDED), trusted)
            }
        };
        ClientInfo { peer: self.peer, address }
    }

    /// A line that is not text ends a search, as an element that is not an address does.
    fn header_lines(&self, name: HeaderName) -> impl DoubleEndedIterator<Item = &str> {
        self.headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("?"))
    }

    /// The attributes for route matching.
    pub(super) fn route_query<'b>(
        &'b self,
        host: &'b str,
        path: &'b str,
        snapshot: &Snapshot,
    ) -> RouteQuery<'b> {
        let Self { query, method, headers, .. } = *self;
        RouteQuery { scheme: self.scheme(snapshot), host, path, query, method, headers }
    }

    /// The client's scheme. The last proxy's value counts, and only if the peer is trusted.
    fn scheme(&self, snapshot: &Snapshot) -> Scheme {
        if !forwarded::is_trusted(self.peer, &snapshot.trusted_proxies) {
            return self.scheme;
        }
        let forwarded_scheme = match snapshot.forwarded.accept {
            ForwardingHeader::XForwardedFor => {
                let last = self.header_lines(X_FORWARDED_PROTO).next_back();
                last.and_then(|line| Scheme::named(line.rsplit(',').next()?.trim()))
            }
            ForwardingHeader::Forwarded => {
                let last = self.header_lines(FORWARDED).next_back();
                let last = last.and_then(|line| field::from_the_right(line).next());
                last.and_then(|element| Scheme::named(&element.proto?))
            }
        };
        forwarded_scheme.unwrap_or(self.scheme)
    }

    /// Whether there is a host for a redirect to return to.
    pub(super) fn has_host(&self) -> bool {
        self.host().is_ok_and(|host| host != NO_HOST)
    }

    /// Whether the request is in a forwarding loop. A few passes may be a chain of proxies.
    pub(super) fn is_forwarding_loop(&self) -> bool {
        let lines = self.headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
        via::count_passes(lines, via::PSEUDONYM) > VIA_LOOP_MAX
    }

    /// Whether it can be sent twice and ends with its headers. (HTTP/2 requests may have a body
    /// without saying so, but hardly with these methods.)
    pub(super) fn is_plain(&self, length: Option<&HeaderValue>) -> bool {
        matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE)
            && length.is_none_or(|length| length == "0")
            && !self.headers.contains_key(TRANSFER_ENCODING)
    }

    /// `Content-Length`, if there is one.
    ///
    /// # Errors
    /// There are several (RFC 9112 §6.3).
    pub(super) fn length(&self) -> Result<Option<&'a HeaderValue>, Refusal> {
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        match (lengths.next(), lengths.next()) {
            (None, _) => Ok(None),
            (Some(length), None) if !length.as_bytes().contains(&b',') => Ok(Some(length)),
            _ => Err(Refusal::BadRequest),
        }
    }

    /// The only supported expectation is `100-continue`, and HTTP/1.0 has none (RFC 9110 §10.1.1).
    pub(super) fn check_expectation(&self) -> Result<(), Refusal> {
        let mut lines = self.headers.get_all(EXPECT).iter();
        let is_known = |line: &HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"100-continue");
        if self.version == Version::HTTP_10 || lines.all(is_known) {
            return Ok(());
        }
        Err(Refusal::ExpectationFailed)
    }

    /// The requested host. Only HTTP/1.0 may omit it (RFC 9112 §3.2).
    pub(super) fn host(&self) -> Result<&'a str, Refusal> {
        let mut hosts = self.headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_not_text| Refusal::BadRequest),
            (None, _) if self.version == Version::HTTP_10 => Ok(NO_HOST),
            _ => Err(Refusal::BadRequest),
        }
    }

    /// The path for route matching, and whether servers may interpret it in other ways. `*` refers
    /// to the whole server and is only allowed with OPTIONS (RFC 9112 §3.2.4); everything else is
    /// an absolute path.
    pub(super) fn routing_path(&self) -> Result<(Cow<'a, str>, bool), Refusal> {
        match self.path {
            "*" if self.method == Method::OPTIONS => Ok((Cow::Borrowed("/"), false)),
            path if path.starts_with('/') && path::is_ambiguous(path) => {
                Ok((path::normalize_for_routing(path), true))
            }
            // Such a path is already normalized.
            path if path.starts_with('/') => Ok((Cow::Borrowed(path), false)),
            _ => Err(Refusal::BadRequest),
        }
    }
}
