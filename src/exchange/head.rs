//! The head of a request: who asks, and for which host.

use std::borrow::Cow;
use std::net::IpAddr;

use ::http::header::{
    CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA,
};
use ::http::{Method, Version};

use crate::config::ForwardingField;
use crate::exchange::refusal::Refusal;
use crate::http::forwarded::field;
use crate::http::scheme::Scheme;
use crate::http::{forwarded, path, via};
use crate::runtime::routes::RouteQuery;
use crate::runtime::snapshot::Snapshot;

/// Where proxies in front of us put the client's address.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where proxies in front of us say how the client came.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The client by the trust rules: the key of limits and hashes, the address in the log.
    pub address: IpAddr,
}

/// The head of a request, as far as decisions need it.
#[derive(Debug)]
pub struct Head<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// How the peer came.
    pub scheme: Scheme,
    /// As sent.
    pub method: &'a Method,
    /// As sent.
    pub version: Version,
    /// The target's path, without the query.
    pub path: &'a str,
    /// The target's query, without the `?`.
    pub query: Option<&'a str>,
    /// Every field.
    pub headers: &'a HeaderMap,
}

/// How often a request may pass by: chains of balancers are shorter, loops are not.
const PASSES_MAX: usize = 8;

/// Stands for the host of an HTTP/1.0 request that names none; no route can name it (RFC 2606).
const NO_HOST: &str = "host.invalid";

impl<'a> Head<'a> {
    /// Who asks, by the trust rules.
    pub(super) fn client(&self, snapshot: &Snapshot) -> Client {
        let (peer, trusted) = (self.peer.to_canonical(), &snapshot.trusted_proxies);
        if !forwarded::is_trusted(peer, trusted) {
            // Whatever it says of clients is not believed, so it is not looked for.
            return Client { peer: self.peer, address: peer };
        }
        let address = match snapshot.forwarded.accept {
            ForwardingField::XForwardedFor => {
                forwarded::client_ip(self.peer, self.lines(X_FORWARDED_FOR), trusted)
            }
            ForwardingField::Forwarded => {
                forwarded::client_by_forwarded(self.peer, self.lines(FORWARDED), trusted)
            }
        };
        Client { peer: self.peer, address }
    }

    /// A line that is not text ends a walk, as an element that is no address does.
    fn lines(&self, name: HeaderName) -> impl DoubleEndedIterator<Item = &str> {
        self.headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("?"))
    }

    /// What routes are matched against.
    pub(super) fn asked<'b>(
        &'b self,
        host: &'b str,
        path: &'b str,
        snapshot: &Snapshot,
    ) -> RouteQuery<'b> {
        let Self { query, method, headers, .. } = *self;
        RouteQuery { scheme: self.scheme(snapshot), host, path, query, method, headers }
    }

    /// How the client came: of several proxies' words the last one's, and only if the peer is
    /// trusted.
    fn scheme(&self, snapshot: &Snapshot) -> Scheme {
        if !forwarded::is_trusted(self.peer, &snapshot.trusted_proxies) {
            return self.scheme;
        }
        let told = match snapshot.forwarded.accept {
            ForwardingField::XForwardedFor => {
                let last = self.lines(X_FORWARDED_PROTO).next_back();
                last.and_then(|line| Scheme::named(line.rsplit(',').next()?.trim()))
            }
            ForwardingField::Forwarded => {
                let last = self.lines(FORWARDED).next_back();
                let last = last.and_then(|line| field::from_the_right(line).next());
                last.and_then(|element| Scheme::named(&element.proto?))
            }
        };
        told.unwrap_or(self.scheme)
    }

    /// Whether there is a host that the client could be sent back to.
    pub(super) fn names_a_host(&self) -> bool {
        self.host().is_ok_and(|host| host != NO_HOST)
    }

    /// Whether the request keeps coming back. Some passes are a chain of balancers.
    pub(super) fn loops(&self) -> bool {
        let lines = self.headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
        via::count_passes(lines, via::PSEUDONYM) > PASSES_MAX
    }

    /// Whether its length, if it has one, is one (RFC 9112 §6.3) and not above `most`.
    pub(super) fn check_length(&self, most: Option<u64>) -> Result<(), Refusal> {
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else { return Ok(()) };
        if length.as_bytes().contains(&b',') || lengths.next().is_some() {
            return Err(Refusal::BadRequest);
        }
        let Some(most) = most else { return Ok(()) };
        match length.to_str().ok().and_then(|length| length.parse::<u64>().ok()) {
            Some(length) if length <= most => Ok(()),
            Some(_) => Err(Refusal::BodyTooLarge),
            None => Err(Refusal::BadRequest),
        }
    }

    /// Only leave to send the body can be expected, and not of HTTP/1.0 (RFC 9110 §10.1.1).
    pub(super) fn check_expectation(&self) -> Result<(), Refusal> {
        let mut lines = self.headers.get_all(EXPECT).iter();
        let is_known = |line: &HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"100-continue");
        if self.version == Version::HTTP_10 || lines.all(is_known) {
            return Ok(());
        }
        Err(Refusal::ExpectationFailed)
    }

    /// The host that the request names. Only HTTP/1.0 may go without one (RFC 9112 §3.2).
    pub(super) fn host(&self) -> Result<&'a str, Refusal> {
        let mut hosts = self.headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_not_text| Refusal::BadRequest),
            (None, _) if self.version == Version::HTTP_10 => Ok(NO_HOST),
            _ => Err(Refusal::BadRequest),
        }
    }

    /// The path that routes are matched against, and whether origins may read it in other ways. `*` asks about the server as a whole and is for
    /// OPTIONS alone (RFC 9112 §3.2.4); everything else is a path from the root.
    pub(super) fn routing_path(&self) -> Result<(Cow<'a, str>, bool), Refusal> {
        match self.path {
            "*" if self.method == Method::OPTIONS => Ok((Cow::Borrowed("/"), false)),
            path if path.starts_with('/') && path::is_ambiguous(path) => {
                Ok((path::normalize_for_routing(path), true))
            }
            // Such a path is in its normal form.
            path if path.starts_with('/') => Ok((Cow::Borrowed(path), false)),
            _ => Err(Refusal::BadRequest),
        }
    }
}
